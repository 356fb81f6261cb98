"""ELECTRA's recipes against the paper's table 6 and the released code."""

import pytest

from configs import electra

# transformers counts these with the tables in both models: ours stand in the discriminator alone.
# Tokens, positions, segments, and the norm's scale and bias.
SHARED_SMALL = (30_522 + 512 + 2 + 2) * 128
SHARED_BASE = (30_522 + 512 + 2 + 2) * 768
SIZES = {
    'small': {'discriminator': 13_549_057, 'generator': 4_620_026 - SHARED_SMALL},
    'base': {'discriminator': 109_483_009, 'generator': 33_740_602 - SHARED_BASE},
}
SETTINGS = {  # length, batch, rate, steps, share of chosen tokens
    'small': (128, 128, 5e-4, 1_000_000, 0.15),
    'base': (512, 256, 2e-4, 766_000, 0.15),
    'large': (512, 2048, 2e-4, 400_000, 0.25),
}


@pytest.mark.parametrize('variant', SIZES)
def test_published_sizes(variant, count):
    assert count(electra.get_config(variant)) == SIZES[variant]


@pytest.mark.parametrize('variant', SETTINGS)
def test_published_settings(variant):
    config = electra.get_config(variant)
    objective, optimizer = config.objective, config.optimizer
    assert SETTINGS[variant] == (
        objective.length, config.batch_size, optimizer.learning_rate, config.steps, objective.rate,
    )  # fmt: skip
    assert (objective.mask_share, objective.random_share) == (0.85, 0.0)
    assert objective.discriminator_weight == 50.0
    assert (optimizer.epsilon, optimizer.weight_decay) == (1e-6, 0.01)
    assert (optimizer.schedule.name, optimizer.schedule.warmup) == ('electra', 10_000.0)
    assert not optimizer.bias_correction
    # Heads of 64 in both models, the generator narrower and as deep.
    assert config.model.head_width == 64
    assert config.generator.width == 64 * config.generator.heads
    assert config.generator.feedforward_width == 4 * config.generator.width
    assert config.model.encoder_layers == (24 if variant == 'large' else 12)


@pytest.mark.parametrize('variant', ['tiny', 'small', 'base', 'large'])
def test_smoke_is_of_the_same_kind(variant, count):
    sizes = count(electra.get_config(f'{variant},smoke'))
    assert 0 < sizes['generator'] < sizes['discriminator'] < 500_000
