"""transformers loads what we write, whole, and computes the same from it."""

import random
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers

from configs import bert, distilbert, electra, gpt, t5
from objectives import contract
from pretrain import assembly, train_step
from pretrain.data import tokenizer
from pretrain.huggingface import card, exporting, importing, run
from pretrain.model import decoding

torch = pytest.importorskip('torch', reason='torch is missing: pip install -e .[test,peers]')
transformers = pytest.importorskip(
    'transformers', reason='transformers is missing: pip install -e .[test,peers]'
)

pytestmark = pytest.mark.peers

FIXTURES = Path(__file__).parent / 'fixtures'
NAMES = sorted(path.name for path in FIXTURES.iterdir())
TOLERANCE = 1e-4
TEXT = 'Ripe house. The cold vine has fallen, and the house chill 123'


def load(folder):
    """The model in a folder as its card says to load it; nothing missing, nothing left over."""
    raw = transformers.AutoConfig.from_pretrained(folder)
    auto = getattr(transformers, card.auto_class(raw.architectures[0]))
    model, info = auto.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), info
    assert type(model).__name__ == raw.architectures[0]
    return model.eval()


@pytest.fixture(scope='module')
def tokens():
    words = ['ripe', 'chill', 'cold', 'vine', 'house', 'fallen']
    texts = [' '.join(random.Random(i).choices(words, k=9)) for i in range(99)]
    return tokenizer.train(texts, 290)


def words():
    """A tokenizers.Tokenizer of 61 whole words, with all special ones that an objective needs."""
    special = ['[PAD]', '</s>', '[UNK]', '[CLS]', '[SEP]', '[MASK]']
    special += [f'<extra_id_{n}>' for n in range(20)]
    names = special + [f'w{i}' for i in range(61 - len(special))]
    model = tokenizers.models.WordLevel({n: i for i, n in enumerate(names)}, unk_token='[UNK]')
    file = tokenizers.Tokenizer(model)
    file.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    file.add_special_tokens(special)
    return file


@pytest.mark.parametrize('name', NAMES)
def test_a_folder_read_and_written_again_loads_and_computes_the_same(name, tokens, tmp_path):
    """In as a run's folder, and out: what the committed fixture says is still what it computes."""
    (tmp_path / 'words').mkdir()
    file = words()
    file.save(str(tmp_path / 'words' / 'tokenizer.json'))
    importing.import_run(FIXTURES / name, tmp_path / 'run', '', tmp_path / 'words', length=16)
    exporting.export_run(tmp_path / 'run', tmp_path / 'out')
    given = dict(np.load(FIXTURES / name / 'expected.npz'))
    arguments = {n: torch.tensor(x) for n, x in given.items() if 'expected' not in n}
    for folder in (FIXTURES / name, tmp_path / 'out'):
        model = load(folder)
        with torch.no_grad():
            out = model(**arguments)
        for output in ('prediction_logits', 'logits', 'pooler_output', 'seq_relationship_logits'):
            if getattr(out, output, None) is None:
                continue
            short = {'pooler_output': 'pooled', 'seq_relationship_logits': 'classes'}
            theirs = given[f'expected_{short.get(output, "logits")}']
            np.testing.assert_allclose(getattr(out, output), theirs, rtol=0, atol=1e-5)


RUNS = {
    'gpt': lambda: gpt.get_config('smoke'),
    'gpt modern': lambda: gpt.get_config('modern,smoke'),
    'bert': lambda: bert.get_config('smoke'),
    't5': lambda: t5.get_config('smoke'),
    't5 1.1': lambda: t5.get_config('v1_1_small,smoke'),
    'electra': lambda: electra.get_config('smoke'),
    'distilbert': lambda: distilbert.get_config('smoke'),
}


@pytest.mark.parametrize('name', RUNS)
def test_a_run_of_ours_loads_and_computes_the_same(name, tokens, tmp_path):
    """Model and tokenizer, by their Auto classes; ELECTRA's two parts, a distilled student."""
    config = RUNS[name]()
    config.model.dtype = 'float32'
    learner = assembly.make_learner(config, tokens.vocabulary, frozen=False)
    drawn = train_step.draw_params(learner)
    noise = iter(jax.random.split(jax.random.key(1), 400))
    drawn = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(next(noise), x.shape), drawn)
    (tmp_path / 'run').mkdir()
    run.write(tmp_path / 'run', config, tokens, jax.tree.map(np.asarray, drawn))
    exporting.export_run(tmp_path / 'run', tmp_path / 'out')

    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / 'out')
    ids = theirs(TEXT, add_special_tokens=False).input_ids
    np.testing.assert_array_equal(ids, tokens.encode(TEXT))
    ids = np.array([ids], np.int32)[:, :24]
    models = train_step.bind(learner, drawn)
    for model, bound in models.items():
        peer = load(tmp_path / 'out' / ('generator' if model == 'generator' else ''))
        inputs, both = contract.Inputs(jnp.asarray(ids)), name.startswith('t5')
        hidden = bound.hidden(contract.Batch(inputs, inputs if both else None, None, None))
        long = torch.tensor(ids, dtype=torch.long)
        with torch.no_grad():
            out = peer(long, **({'decoder_input_ids': long} if both else {}))
        head = bound.score if model == 'discriminator' else bound.logits
        logits = out.prediction_logits if name == 'bert' else out.logits
        assert logits.std() > 0.1
        np.testing.assert_allclose(head(hidden), logits, rtol=0, atol=TOLERANCE)
        if name in ('gpt', 't5'):
            # Our table has rows that no piece has; neither side may choose them.
            assert peer.config.vocab_size > tokens.vocabulary.size
            made = peer.generate(long, do_sample=False, max_new_tokens=12)
            ours = decoding.generate(
                learner.transformers[model], drawn[model], ids, np.array([ids.shape[1]]),
                jax.random.key(0), new_tokens=12, vocabulary_size=tokens.vocabulary.size,
                eos=tokens.vocabulary.eos, prompt='encoder' if both else 'causal',
            )  # fmt: skip
            theirs = made[0, 1 if both else ids.shape[1] :].tolist()
            assert np.asarray(ours)[0, : len(theirs)].tolist() == theirs
        if name == 'bert':
            classes = bound.classify(hidden)
            np.testing.assert_allclose(classes, out.seq_relationship_logits, atol=TOLERANCE)
