"""T5's recipes against the paper and the released gin files."""

import jax.numpy as jnp
import pytest

from configs import t5
from pretrain import assembly
from pretrain.schedules import make_schedule

SIZES = {
    'small': 60_506_624,
    'base': 222_903_552,
    'large': 737_668_096,
    '3b': 2_851_598_336,
    '11b': 11_307_321_344,
    'v1_1_small': 76_961_152,
    'v1_1_base': 247_577_856,
    'v1_1_large': 783_150_080,
    'v1_1_xl': 2_849_757_184,
    'v1_1_xxl': 11_135_332_352,
}


@pytest.mark.parametrize('variant', SIZES)
def test_published_sizes(variant, count):
    assert count(t5.get_config(variant)) == {'model': SIZES[variant]}


@pytest.mark.parametrize('variant', ['base', 'v1_1_base'])
def test_published_settings(variant, vocabulary):
    config = t5.get_config(variant)
    model, optimizer, old = config.model, config.optimizer, not variant.startswith('v')
    assert model.dropout == model.attention_dropout == (0.1 if old else 0.0)
    assert model.dropout_broadcast
    assert (model.norm, model.norm_epsilon, model.positions) == ('rms', 1e-6, 'relative')
    assert (model.relative_buckets, model.relative_distance) == (32, 128)
    assert (model.activation, model.gated) == (('relu', False) if old else ('gelu', True))
    assert model.tied == model.scale_logits == old
    assert not model.scale_attention
    assert not model.biases
    assert config.objective.z_loss == 1e-4
    assert not config.data.separator
    assert (config.steps, config.batch_size) == ((2**19, 128) if old else (1_000_000, 2048))
    assert (optimizer.name, optimizer.weight_decay, optimizer.clip) == ('adafactor', 0.0, 0.0)
    rate = make_schedule(optimizer, config.steps, 1)
    given = [rate(jnp.int32(step)) for step in (0, 10_000, 40_000, 524_288)]
    assert given == pytest.approx([0.01, 0.01, 0.005, 0.001381], rel=1e-4)

    learner = assembly.make_learner(config, vocabulary(32_100))
    batch = assembly.batch_shapes(learner.objective)
    assert learner.objective.window_length() == 568
    assert batch.inputs.tokens_BxL.shape[1] == 512
    assert batch.targets_BxK.shape[1] == 114


@pytest.mark.parametrize('variant', ['tiny', 'base', 'v1_1_xxl'])
def test_smoke_is_of_the_same_kind(variant, count):
    whole, cut = t5.get_config(variant), t5.get_config(f'{variant},smoke')
    assert count(cut)['model'] < 700_000
    assert cut.objective.inputs_length == 32
    assert (cut.model.encoder_layers, cut.model.decoder_layers) == (2, 2)
    for key in ('gated', 'tied', 'positions', 'scale_attention'):
        assert cut.model[key] == whole.model[key]
    assert cut.optimizer.name == whole.optimizer.name
