"""BERT's recipes against the paper (appendix A.2) and the released code."""

import jax.numpy as jnp
import pytest

from configs import bert
from pretrain import assembly, phases
from pretrain.schedules import make_schedule

SIZES = {'base': (12, 768, 12, 110_106_428), 'large': (24, 1024, 16, 336_226_108)}


@pytest.mark.parametrize('variant', SIZES)
def test_published_sizes(variant, count):
    layers, width, heads, parameters = SIZES[variant]
    config = bert.get_config(variant)
    model = config.model
    assert (model.encoder_layers, model.width, model.heads) == (layers, width, heads)
    assert count(config) == {'model': parameters}  # whatever the tokenizer, encoder + MLM + NSP


@pytest.mark.parametrize('variant', SIZES)
def test_published_settings(variant):
    config = bert.get_config(variant)
    model, objective, optimizer = config.model, config.objective, config.optimizer
    assert (model.dropout, model.attention_dropout, model.norm_epsilon) == (0.1, 0.1, 1e-12)
    assert (model.norm_placement, model.initializer, model.stddev) == (
        'post', 'truncated_normal', 0.02,
    )  # fmt: skip
    assert model.activation == 'gelu'  # the tanh form of the released code
    assert (objective.name, objective.length, objective.rate) == ('next_sentence', 512, 0.15)
    assert (objective.mask_share, objective.random_share) == (0.8, 0.1)
    assert not objective.whole_words
    assert (config.batch_size, config.steps) == (256, 1_000_000)
    assert (optimizer.b1, optimizer.b2, optimizer.epsilon) == (0.9, 0.999, 1e-6)
    assert (optimizer.weight_decay, optimizer.clip) == (0.01, 1.0)
    assert not optimizer.bias_correction
    assert (config.data.cut, config.data.separator) == ('document', False)
    # 1e-4, warm-up over 10,000 steps, then as if it had fallen from step 0.
    rate = make_schedule(optimizer, config.steps, 1)
    wanted = [5e-5, 1e-4 * 0.99, 5e-5, 0]
    given = [rate(jnp.int32(step)) for step in (5000, 10_000, 500_000, 1_000_000)]
    assert given == pytest.approx(wanted, abs=1e-12)


def test_both_phases_build(vocabulary):
    config = bert.get_config('base')
    lengths = []
    for phase in phases.plan(config):
        learner = assembly.make_learner(config, vocabulary(30_522), phase)
        batch = assembly.batch_shapes(learner.objective)
        lengths.append((batch.inputs.tokens_BxL.shape[1], batch.targets_BxK.shape[1]))
    assert lengths == [(128, 19), (512, 77)]


def test_modern_is_modernbert(count):
    """149,655,232 of the released model and the norm that its first layer leaves out."""
    config = bert.get_config('modern')
    assert count(config) == {'model': 149_655_232 + 768}
    assert config.objective.name == 'masked_lm'
    assert config.objective.rate == 0.3


@pytest.mark.parametrize('variant', ['tiny', 'base', 'large', 'modern'])
def test_smoke_is_of_the_same_kind(variant, count):
    whole, cut = bert.get_config(variant), bert.get_config(f'{variant},smoke')
    assert sum(count(cut).values()) < 500_000
    assert cut.objective.name == whole.objective.name
    assert cut.data.cut == whole.data.cut
    assert not cut.data.separator
    assert bool(cut.phases) == bool(whole.phases)
    assert len(phases.plan(cut)) == len(phases.plan(whole))
    assert cut.optimizer.schedule.name == whole.optimizer.schedule.name
