"""The GPT recipes against the numbers of the papers."""

import ast
import math
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import configs
from configs import gpt
from objectives import contract
from pretrain import assembly
from pretrain.errors import UserError
from pretrain.model import transformer
from pretrain.schedules import make_schedule

GPT2_VOCABULARY = 50257
GPT2 = {  # layers, width, heads; parameters (Radford et al. 2019, table 2, and the released files)
    'gpt2_124m': (12, 768, 12, 124_439_808),
    'gpt2_355m': (24, 1024, 16, 354_823_168),
    'gpt2_774m': (36, 1280, 20, 774_030_080),
    'gpt2_1558m': (48, 1600, 25, 1_557_611_200),
}
GPT3 = {  # parameters, layers, width, heads, tokens of a batch, peak (Brown et al. 2020, table 2.1)
    'gpt3_125m': (125e6, 12, 768, 12, 0.5e6, 6e-4),
    'gpt3_350m': (350e6, 24, 1024, 16, 0.5e6, 3e-4),
    'gpt3_760m': (760e6, 24, 1536, 16, 0.5e6, 2.5e-4),
    'gpt3_1_3b': (1.3e9, 24, 2048, 16, 1e6, 2e-4),
    'gpt3_2_7b': (2.7e9, 32, 2560, 32, 1e6, 1.6e-4),
    'gpt3_6_7b': (6.7e9, 32, 4096, 32, 2e6, 1.2e-4),
    'gpt3_13b': (13e9, 40, 5120, 40, 2e6, 1e-4),
    'gpt3_175b': (175e9, 96, 12288, 96, 3.2e6, 0.6e-4),
}
VARIANTS = ['tiny', 'modern', *GPT2, *GPT3]
SIZES = {  # all that `,smoke` may change of a model
    'vocabulary', 'decoder_layers', 'width', 'heads', 'head_width', 'kv_heads', 'feedforward_width',
    'attention_window', 'max_positions',
}  # fmt: skip


def vocabulary(size=GPT2_VOCABULARY):
    """A vocabulary of which only the sizes matter."""
    nothing = np.zeros(size, np.int32)
    return contract.Vocabulary(
        size, size, 0, 1, None, None, None, None, None, None, nothing > 0, nothing
    )


def parameters(config, vocabulary_size=8320):
    """How many a model has with a tokenizer of this many ids."""
    module = assembly.make_transformer(config, vocabulary(vocabulary_size))
    shapes = jax.eval_shape(lambda: transformer.init(module, jax.random.key(0)))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))


@pytest.mark.parametrize('variant', VARIANTS)
def test_variants_build(variant):
    config = gpt.get_config(variant)
    assert config.name == variant
    module = assembly.make_learner(config, vocabulary()).transformers['model']
    assert module.config.encoder_layers == 0
    # In each of these sizes the heads of the table fill the width.
    assert module.config.k * module.config.heads == module.config.width


@pytest.mark.parametrize('variant', VARIANTS)
def test_smoke_is_small_and_of_the_same_kind(variant):
    whole, cut = gpt.get_config(variant), gpt.get_config(f'{variant},smoke')
    assert cut.name == f'{variant},smoke'
    assert (cut.model.encoder_layers, cut.model.decoder_layers) == (0, 2)
    assert (cut.model.width, cut.model.heads) == (32, 4)
    assert cut.objective.length * cut.batch_size * cut.steps <= 10_000
    assert cut.model.max_positions >= cut.objective.length
    assert parameters(cut) < 500_000
    assert cut.model.vocabulary == 0  # the table has the size of the tokenizer
    assert {k for k in whole.model if cut.model[k] != whole.model[k]} <= SIZES
    # Grouped queries stay grouped and local layers local, one of the two and narrow enough to bite.
    assert (0 < cut.model.kv_heads < cut.model.heads) == (whole.model.kv_heads > 0)
    local = assembly.make_transformer(cut, vocabulary(8320)).config.windows(2)
    assert local == ([0, 8] if variant in GPT3 else [0, 0])
    assert cut.mesh == 'data=-1'
    assert cut.accumulation == 1
    assert cut.data.source == 'wikipedia:excerpt'
    assert cut.data.vocabulary_size <= 8192
    assembly.make_learner(cut, vocabulary(8320))  # the schedule fits the run


def test_smoke_alone_is_the_first_variant():
    smoke, tiny = gpt.get_config('smoke').to_dict(), gpt.get_config('tiny,smoke').to_dict()
    assert smoke | {'name': ''} == tiny | {'name': ''}


def test_the_default_is_tiny():
    assert gpt.get_config().to_dict() == gpt.get_config('tiny').to_dict()


@pytest.mark.parametrize('variant', GPT2)
def test_gpt2_sizes(variant):
    layers, width, heads, count = GPT2[variant]
    config = gpt.get_config(variant)
    assert (config.model.decoder_layers, config.model.width) == (layers, width)
    assert config.model.heads == heads
    assert config.objective.length == config.model.max_positions == 1024
    assert config.batch_size == 512
    # The table is GPT-2's, however few pieces the tokenizer has.
    assert parameters(config, 8320) == parameters(config, GPT2_VOCABULARY) == count


@pytest.mark.parametrize('variant', GPT3)
def test_gpt3_sizes(variant):
    count, layers, width, heads, batch, peak = GPT3[variant]
    config = gpt.get_config(variant)
    assert (config.model.decoder_layers, config.model.width) == (layers, width)
    assert config.model.heads == heads
    assert config.objective.length == config.model.max_positions == 2048
    assert config.optimizer.learning_rate == peak
    assert parameters(config) == pytest.approx(count, rel=0.03)
    # Rows for all of GPT-2's ids, and such as a mesh can split.
    assert GPT2_VOCABULARY <= config.model.vocabulary < GPT2_VOCABULARY + 128
    assert config.model.vocabulary % 64 == 0
    assert config.batch_size * 2048 == pytest.approx(batch, rel=0.05)
    assert config.batch_size * 2048 * config.steps == pytest.approx(300e9, rel=0.01)
    # Every second layer is local, the first is not.
    windows = assembly.make_transformer(config, vocabulary()).config.windows(4)
    assert windows == [0, 256, 0, 256]


@pytest.mark.parametrize('variant', [*GPT2, *GPT3])
def test_hyper_parameters(variant):
    """Section 2.3 of the GPT-2 paper and its released code; GPT-3, section 2.1 and appendix B."""
    config = gpt.get_config(variant)
    model, optimizer = config.model, config.optimizer
    assert (optimizer.name, optimizer.b1, optimizer.b2) == ('adamw', 0.9, 0.95)
    assert (optimizer.epsilon, optimizer.weight_decay, optimizer.clip) == (1e-8, 0.1, 1.0)
    assert (model.stddev, model.position_stddev, model.residual_scale) == (0.02, 0.01, True)
    assert (model.norm, model.norm_placement, model.norm_epsilon) == ('layer', 'pre', 1e-5)
    assert (model.activation, model.positions) == ('gelu', 'learned')
    assert model.final_norm
    assert model.biases
    assert model.tied
    assert not model.logit_bias
    assert model.dropout == model.attention_dropout == 0
    assert model.feedforward_width in (0, 4 * model.width)
    assert not config.objective.separate_documents
    assert config.data.separator
    assert config.data.cut == 'stream'


@pytest.mark.parametrize('variant', GPT3)
def test_gpt3_schedule_in_tokens(variant, monkeypatch):
    """Warm-up over 375M tokens, cosine to a tenth at 260B, constant to 300B (appendix B)."""
    peak = GPT3[variant][-1]
    config = gpt.get_config(variant)
    given = []  # the length of the run and the tokens of a step, as the learner counts them
    monkeypatch.setattr(assembly, 'make_optimizer', lambda config, *rest: given.extend(rest))
    assembly.make_learner(config, vocabulary())
    steps, tokens = given
    assert steps * tokens == pytest.approx(300e9, rel=0.01)
    rate = make_schedule(config.optimizer, steps, tokens)
    at = lambda count: float(rate(round(count / tokens)))  # noqa: E731
    step = peak * tokens / 375e6  # what one step of the warm-up adds
    assert at(0) == 0
    assert at(375e6 / 2) == pytest.approx(peak / 2, abs=step)
    assert float(rate(math.ceil(375e6 / tokens))) == pytest.approx(peak, rel=1e-5)
    assert float(rate(math.floor(375e6 / tokens) - 1)) < peak - 0.9 * step
    # Half-way between 1 and 0.1 in the middle of the cosine, which is linear there.
    assert at((375e6 + 260e9) / 2) == pytest.approx(0.55 * peak, rel=1e-4)
    assert at(255e9) > 0.1005 * peak
    for count in (260e9, 280e9, 300e9):
        assert at(count) == pytest.approx(0.1 * peak, rel=1e-5)


def test_modern_is_as_large_as_tiny():
    tiny, modern = gpt.get_config('tiny'), gpt.get_config('modern')
    assert parameters(modern) == pytest.approx(parameters(tiny), rel=0.1)
    # Three matrices of the gated feed-forward are as large as two of four times the width.
    model = modern.model
    assert 3 * model.feedforward_width == pytest.approx(2 * 4 * tiny.model.width, rel=0.02)
    assert (model.norm, model.positions, model.activation) == ('rms', 'rotary', 'silu')
    assert model.gated
    assert not model.biases
    assert 0 < model.kv_heads < model.heads
    assert modern.optimizer.to_dict() == tiny.optimizer.to_dict()


def test_a_tokenizer_that_the_table_cannot_hold_is_refused():
    with pytest.raises(UserError, match=r'model\.vocabulary=50257 is less than the 50258 ids'):
        parameters(gpt.get_config('gpt2_124m'), GPT2_VOCABULARY + 1)


def test_the_table_of_tiny_is_as_large_as_its_tokenizer():
    config = gpt.get_config('tiny')
    assert parameters(config, 8320) - parameters(config, 320) == 8000 * config.model.width


def test_tiny_ends_on_a_checkpoint_and_an_evaluation():
    config = gpt.get_config('tiny')
    assert config.steps % config.checkpoint.every == config.steps % config.eval.every == 0
    assert config.eval.windows == 0  # all of the held-out text


@pytest.mark.parametrize(
    ('variant', 'says'),
    [
        ('gpt2_124', "unknown variant 'gpt2_124'; did you mean 'gpt2_124m'"),
        ('gpt3_175B', "did you mean 'gpt3_175b'"),
        ('tiny,smok', "unknown variant 'smok'; did you mean 'smoke'"),
        ('zzz', "unknown variant 'zzz'; there are: tiny, modern, gpt2_124m"),
        ('tiny,modern', "'tiny,modern' names two variants"),
        ('smoke,tiny', "'smoke,tiny' names two variants"),
    ],
)
def test_bad_variants(variant, says):
    with pytest.raises(ValueError, match=says):
        gpt.get_config(variant)


def test_configs_import_nothing_but_ml_collections():
    """A config is read before JAX is, and by tools that have none."""
    allowed = {'configs', 'ml_collections', *sys.stdlib_module_names}
    files = list(Path(configs.__file__).parent.glob('*.py'))
    assert len(files) >= 3
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, path
                names = [node.module]
            for name in names:
                assert name.split('.')[0] in allowed, f'{path} imports {name}'
