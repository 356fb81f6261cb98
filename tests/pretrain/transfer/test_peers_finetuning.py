"""Fine-tuning here and with transformers + torch, from the same weights: rows, losses, training.

A small BERT is drawn by transformers, saved and read as `pretrain.convert` reads it; only the
classifier, which a conversion leaves behind, is copied by the test.
"""

import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import glue
from configs import squad as squad_config
from pretrain import commandline, meshes
from pretrain.huggingface import importing
from pretrain.transfer import casts, encoding, finetuning, rows, squad_task, surgery
from pretrain.transfer.squad import Question
from pretrain.transfer.task import Example, Task

torch = pytest.importorskip('torch', reason='torch is missing: pip install -e .[test,peers]')
transformers = pytest.importorskip(
    'transformers', reason='transformers is missing: pip install -e .[test,peers]'
)

pytestmark = pytest.mark.peers

WORDS = [
    'the',
    'cold',
    'vine',
    'has',
    'fallen',
    'on',
    'ripe',
    'house',
    'chill',
    'un',
    '.',
    ',',
    '?',
]
ENDS = ['##fall', '##en', '##s', '##ing']
SPECIAL = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]']
TEXT_WORDS = [
    'The',
    'Cold',
    'vines',
    'has',
    'on',
    'ripe,',
    'unfallen',
    'houses',
    'chill',
    'on?',
    'x7.',
]
PAIR = Task(
    name='pair', title='Pair', benchmark='own', kind='classes', labels=('no', 'maybe', 'yes'),
    texts=('a', 'b'), metrics=('accuracy',), read=None, length=64,
)  # fmt: skip
SINGLE = Task(
    name='single', title='Single', benchmark='own', kind='classes', labels=('no', 'yes'),
    texts=('a',), metrics=('accuracy',), read=None, length=64,
)  # fmt: skip
NUMBER = Task(
    name='number', title='Number', benchmark='own', kind='number', labels=(), texts=('a', 'b'),
    metrics=('pearson',), read=None, length=64,
)  # fmt: skip
# Products of float32 in another order; a wrong scale, epsilon or mask shows above 1e-3.
TOLERANCE = 1e-5
STEPS_TOLERANCE = 1e-4


def save(folder, kind, labels=3):
    """A random model of a class of transformers, saved with its tokenizer; also returned."""
    letters = 'abcdefghijklmnopqrstuvwxyz0123456789'
    pieces = [*SPECIAL, *WORDS, *ENDS, *letters, *(f'##{letter}' for letter in letters)]
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(pieces), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=48, max_position_embeddings=64, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0, num_labels=labels, layer_norm_eps=1e-6,
        problem_type='regression' if labels == 1 else None,
    )  # fmt: skip
    peer = getattr(transformers, kind)(config)
    with torch.no_grad():
        for parameter in peer.parameters():  # biases too, so that leaving one out shows
            parameter += 0.2 * torch.randn(parameter.shape)
    peer.save_pretrained(folder)
    (folder / 'vocab.txt').write_text('\n'.join(pieces) + '\n')
    (folder / 'tokenizer_config.json').write_text(
        '{"tokenizer_class": "BertTokenizer", "do_lower_case": true}'
    )
    return peer.eval()


def opened(folder, workdir):
    """The surgery.Source of a converted folder."""
    importing.import_run(folder, workdir)
    return surgery.open_source(workdir, commandline.read_run_config(workdir))


def taken_over(cast, source, layer):
    """Our parameters: those of the checkpoint, and the last map from a torch.nn.Linear."""
    drawn = casts.draw(cast, jax.random.key(0))
    trunk, head, _ = surgery.take_over(*surgery.read_params(source), drawn['trunk'], drawn['head'])
    head['output'] = {
        'kernel': jnp.asarray(layer.weight.detach().numpy().T),
        'bias': jnp.asarray(layer.bias.detach().numpy().copy()),
    }
    return jax.tree.map(jnp.asarray, {'trunk': trunk, 'head': head})


def text(rng, most):
    """Up to `most` words."""
    return ' '.join(rng.choices(TEXT_WORDS, k=rng.randint(1, most)))


def examples_of(task, count):
    """Random examples whose rows differ in length."""
    rng = random.Random(1)
    return [
        Example(
            i,
            {name: text(rng, rng.choice((1, 1, 12))) for name in task.texts},
            rng.uniform(0, 5) if task.kind == 'number' else rng.choice(task.labels),
        )
        for i in range(count)
    ]


def config_of(**transfer):
    """The default protocol without dropout."""
    config = glue.get_config()
    config.transfer.update(dropout=0.0, head_dropout=0.0, **transfer)
    return config


def tensors(batch, task):
    """Our batch as transformers' arguments; rows that only fill it up are left out."""
    real_B = batch.weights_B > 0
    inputs = batch.inputs
    kind = torch.float if task.kind == 'number' else torch.long
    names = {
        'input_ids': inputs.tokens_BxL,
        'attention_mask': inputs.segments_BxL,
        'token_type_ids': inputs.types_BxL,
    }
    made = {name: torch.tensor(x[real_B], dtype=torch.long) for name, x in names.items()}
    return made | {'labels': torch.tensor(batch.targets_B[real_B], dtype=kind)}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp('peer')
    save(made, 'BertForSequenceClassification')
    return made


@pytest.fixture(scope='module')
def source(folder):
    return opened(folder, folder / 'run')


@pytest.mark.parametrize('task', [PAIR, SINGLE])
def test_rows_are_those_of_the_tokenizers_of_transformers(task, folder, source):
    """The one in Python cuts as BERT's code does; the one in Rust may cut the other text once.

    Where both texts are cut and one place is over, BERT gives it to the first text, the Rust one to
    that which was longer, or the second of two as long.
    """
    from transformers.models.bert.tokenization_bert_legacy import BertTokenizerLegacy

    fast = transformers.AutoTokenizer.from_pretrained(folder)
    assert fast.is_fast
    slow = BertTokenizerLegacy(str(folder / 'vocab.txt'))
    examples = examples_of(task, 60)
    uncut = encoding.encoder_rows(source.tokenizer, task, examples, 1000, True)
    cut = others = 0
    for length in (7, 8, 15, 16, 33, 64, 1000):
        made = encoding.encoder_rows(source.tokenizer, task, examples, length, True)
        for example, row, whole in zip(examples, made, uncut):
            texts = [example.fields[name] for name in task.texts]
            options = {
                'truncation': 'longest_first', 'max_length': length, 'return_token_type_ids': True,
            }  # fmt: skip
            by_slow, by_fast = (t(*texts, **options) for t in (slow, fast))
            assert row.ids_L.tolist() == by_slow['input_ids']
            assert row.types_L.tolist() == by_slow['token_type_ids']
            cut += len(row.ids_L) < len(whole.ids_L)
            same = row.ids_L.tolist() == by_fast['input_ids']
            assert same == (row.types_L.tolist() == by_fast['token_type_ids'])
            first, second = (int((whole.types_L == kind).sum()) for kind in (0, 1))
            room = length - 3
            both = min(first - 2, second - 1) > room // 2  # each is longer than its half
            assert same or (len(texts) == 2 and both and room % 2 and second - 1 >= first - 2)
            others += not same
    assert cut > 30
    assert others > 0 or len(task.texts) == 1


@pytest.mark.parametrize('task', [PAIR, NUMBER])
def test_outputs_and_loss_of_the_head_are_those_of_transformers(task, tmp_path):
    peer = save(tmp_path, 'BertForSequenceClassification', 1 if task is NUMBER else 3)
    source = opened(tmp_path, tmp_path / 'run')
    cast = casts.make_cast(source, task, config_of(length=24).transfer)
    params = taken_over(cast, source, peer.classifier)
    made = cast.rows(examples_of(task, 21), True)
    for place in rows.evaluation_batches(made, 8):  # the last holds five rows
        batch = rows.lay_out(made, place, source.tokenizer.vocabulary.pad)
        with torch.no_grad():
            theirs = peer(**tensors(batch, task))
        ours_BxU = np.asarray(cast.outputs(params, batch))[batch.weights_B > 0]
        assert theirs.logits.std() > 0.1
        np.testing.assert_allclose(ours_BxU, theirs.logits, rtol=0, atol=TOLERANCE)
        loss = cast.loss(params, batch, jax.random.key(0))
        np.testing.assert_allclose(loss, theirs.loss, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize('task', [PAIR, NUMBER])
def test_twenty_steps_are_those_of_torch(task, tmp_path):
    """AdamW, decay of all but biases and norms, a tenth of warm-up, linear decay, clipping."""
    peer = save(tmp_path, 'BertForSequenceClassification', 1 if task is NUMBER else 3)
    source = opened(tmp_path, tmp_path / 'run')
    config = config_of(batch_size=8, epochs=4, length=16)
    # A rate at which the losses move, a decay that shows within so few steps, and an epsilon that
    # drowns gradients of rounding alone: the bias of the keys has no other, and Adam would make
    # whole steps of it.
    config.optimizer.update(learning_rate=1e-3, weight_decay=0.1, epsilon=1e-6)
    cast = casts.make_cast(source, task, config.transfer)
    made = cast.rows(examples_of(task, 37), True)
    seen = []

    def recorded(params, batch, key):
        loss = cast.loss(params, batch, key)
        jax.debug.callback(lambda x: seen.append(float(x)), loss, ordered=True)
        return loss

    params = taken_over(cast, source, peer.classifier)
    mesh = meshes.make_mesh('data=1', jax.devices()[:1])
    trainer = finetuning.Trainer(cast._replace(loss=recorded), config, source.tokenizer, mesh)
    done = trainer.train(params, made, seed=3)
    jax.effects_barrier()

    batches = [
        tensors(rows.lay_out(made, place, source.tokenizer.vocabulary.pad), task)
        for epoch in range(4)
        for place in rows.training_batches(made, 8, 1, 3, epoch)
    ]
    steps = len(batches)
    assert done.steps == steps == 20
    assert {len(b['labels']) for b in batches} == {8, 5}
    assert len({b['input_ids'].shape[1] for b in batches}) > 1
    decayed = [p for name, p in peer.named_parameters() if p.ndim > 1]
    kept = [p for name, p in peer.named_parameters() if 'bias' in name or 'LayerNorm' in name]
    assert len(decayed) + len(kept) == len(list(peer.parameters()))
    adamw = torch.optim.AdamW(
        [{'params': decayed, 'weight_decay': 0.1}, {'params': kept, 'weight_decay': 0.0}],
        lr=1e-3, betas=(0.9, 0.999), eps=1e-6,
    )  # fmt: skip
    schedule = transformers.get_linear_schedule_with_warmup(adamw, 2, steps)
    peer.train()
    theirs, norms = [], []
    for batch in batches:
        adamw.zero_grad()
        loss = peer(**batch).loss
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(peer.parameters(), 1.0)))
        adamw.step()
        schedule.step()
        theirs.append(loss.item())
    assert max(norms) > 1  # so the clipping is tried
    assert np.std(theirs) > 0.02
    np.testing.assert_allclose(seen, theirs, rtol=0, atol=STEPS_TOLERANCE)
    assert done.loss == pytest.approx(np.mean(theirs[-5:]), abs=STEPS_TOLERANCE)

    save_again = tmp_path / 'trained'
    peer.save_pretrained(save_again)
    for name in ('vocab.txt', 'tokenizer_config.json'):
        (save_again / name).write_bytes((tmp_path / name).read_bytes())
    wanted = taken_over(cast, opened(save_again, tmp_path / 'trained-run'), peer.classifier)
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), params, wanted)
    assert min(jax.tree.leaves(moved)) > 1e-6
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=STEPS_TOLERANCE),
        done.params,
        wanted,
    )


def test_span_logits_and_loss_are_those_of_transformers(tmp_path):
    peer = save(tmp_path, 'BertForQuestionAnswering', 2)
    source = opened(tmp_path, tmp_path / 'run')
    config = squad_config.get_config()
    config.transfer.update(dropout=0.0, length=32)
    config.squad.update(stride=8, question_length=8)
    task = Task(
        name='squad_v1.1', title='SQuAD 1.1', benchmark='squad', kind='span', labels=(),
        texts=('question', 'context'), metrics=('f1',), read=None, length=384,
    )  # fmt: skip
    cast = squad_task.span_cast(source, task, config)
    rng = random.Random(2)
    questions = []
    for i in range(4):
        context = ' '.join(rng.choices(TEXT_WORDS, k=30))
        start = context.index(' ', 20) + 1
        answer = context[start : context.index(' ', start + 1)]
        questions.append(Question(str(i), 'Has the vine fallen?', context, ((answer, start),)))
    made = [row for row in cast.rows(questions, True) if len(row.ids_L) == 32]
    assert len(made) > 8
    assert len({tuple(row.spans_Sx2[0]) for row in made}) > 3
    params = taken_over(cast, source, peer.qa_outputs)
    place = rows.Place(np.arange(len(made)), 32)
    batch = rows.lay_out(made, place, source.tokenizer.vocabulary.pad)
    given = tensors(batch, task)
    given.pop('labels')
    spans_Bx2 = torch.tensor(batch.spans_BxSx2[:, 0], dtype=torch.long)
    with torch.no_grad():
        theirs = peer(**given, start_positions=spans_Bx2[:, 0], end_positions=spans_Bx2[:, 1])
    ours_BxLx2 = cast.outputs(params, batch)
    assert theirs.start_logits.std() > 0.1
    for at, logits_BxL in enumerate((theirs.start_logits, theirs.end_logits)):
        np.testing.assert_allclose(ours_BxLx2[..., at], logits_BxL, rtol=0, atol=TOLERANCE)
    loss = cast.loss(params, batch, jax.random.key(0))
    np.testing.assert_allclose(loss, theirs.loss, rtol=0, atol=TOLERANCE)
