"""What all recipes share, against the modules that read it."""

import dataclasses

import pytest
from ml_collections import ConfigDict

from configs import recipe
from pretrain import optimizers, schedules
from pretrain.data.preparation import Recipe
from pretrain.model.config import TransformerConfig


def test_model_fields_and_defaults_are_those_of_the_transformer():
    fields = {f.name: f.default for f in dataclasses.fields(TransformerConfig)}
    fields['vocabulary'] = 0  # in a recipe: as many as the tokenizer has
    assert fields == recipe.MODEL
    assert {k: type(v) for k, v in recipe.MODEL.items()} == {
        k: type(v) for k, v in fields.items()
    }  # a flag takes the type of its default: 0 for 0.0 would refuse --config.model.dropout=0.1


def test_optimizer_and_data_keys_are_those_that_are_read():
    config = recipe.recipe()
    assert set(config.optimizer) == set(optimizers.KEYS)
    assert set(config.optimizer.schedule) == set(schedules.KEYS)
    mixture = {'mixture', 'mixing', 'temperature', 'cap'}
    reading = {'cache', 'cut', 'separator', 'workers', 'prefetch'}
    assert set(Recipe._fields) == set(config.data) - mixture - reading
    assert config.optimizer.no_decay == optimizers.NO_DECAY
    optimizers.make_optimizer(config.optimizer, config.steps, 1)


@pytest.mark.parametrize(
    'number',
    [
        'data.tokenizer_megabytes', 'data.validation_fraction', 'data.shard_megabytes',
        'optimizer.learning_rate', 'optimizer.weight_decay', 'optimizer.clip',
        'optimizer.schedule.warmup', 'optimizer.schedule.decay', 'optimizer.schedule.final',
    ],
)  # fmt: skip
def test_numbers_that_may_have_a_fraction_are_floats(number):
    """--config.data.tokenizer_megabytes=0.5 must not be refused as no whole number."""
    value = recipe.recipe()
    for key in number.split('.'):
        value = value[key]
    assert type(value) is float


def test_every_call_makes_a_recipe_of_its_own():
    first = recipe.recipe()
    first.model.width = 1
    first.optimizer.schedule.warmup = 5.0
    assert recipe.MODEL['width'] == 768
    assert recipe.recipe().model.width == 768
    assert recipe.recipe().optimizer.schedule.warmup == 0.0


def variants():
    """Two variants: one of everything that smoke cuts, and a plain one."""

    def full():
        config = recipe.recipe()
        config.steps, config.accumulation, config.mesh = 10**6, 16, 'fsdp=-1,tensor=8'
        config.objective.length = 512
        config.model.update(
            encoder_layers=12, decoder_layers=6, width=1024, heads=16, head_width=128, kv_heads=4,
            feedforward_width=4096, attention_window=256, positions='relative', max_positions=64,
        )  # fmt: skip
        config.data.update(source='jsonl:x', vocabulary_size=50_000)
        config.optimizer.schedule.update(unit='tokens', warmup=375e6, decay=260e9)
        return config

    def plain():
        config = recipe.recipe()
        config.model.update(encoder_layers=3, kv_heads=12)
        return config

    return {'full': full, 'plain': plain}


def test_select():
    assert recipe.select('plain', variants()).model.encoder_layers == 3
    assert recipe.select('full', variants()).name == 'full'
    cut = recipe.select('smoke', variants())
    assert (cut.name, cut.model.positions) == ('smoke', 'relative')  # of the first


@pytest.mark.parametrize(
    ('variant', 'says'),
    [
        ('ful', "unknown variant 'ful'; did you mean 'full'"),
        ('plain,smokes', "unknown variant 'smokes'; did you mean 'smoke'"),
        ('xyz', "unknown variant 'xyz'; there are: full, plain"),
        ('', "unknown variant ''; there are: full, plain"),
        ('plain,full', "'plain,full' names two variants; only smoke goes with another"),
    ],
)
def test_select_refuses(variant, says):
    with pytest.raises(ValueError, match=says):
        recipe.select(variant, variants())


def test_smoke_cuts_what_is_large():
    cut = recipe.select('full,smoke', variants())
    model = cut.model
    assert (model.encoder_layers, model.decoder_layers) == (2, 2)
    assert (model.width, model.heads, model.head_width, model.kv_heads) == (32, 4, 8, 2)
    assert (model.feedforward_width, model.attention_window, model.max_positions) == (64, 8, 64)
    assert cut.objective.length == 32
    assert cut.data == recipe.recipe().data
    assert (cut.steps, cut.batch_size, cut.accumulation, cut.mesh) == (20, 8, 1, 'data=-1')
    schedule = cut.optimizer.schedule
    assert (schedule.unit, schedule.warmup, schedule.decay) == ('steps', 2.0, 0.0)
    assert (cut.checkpoint.every, cut.eval.every) == (10, 10)


def test_smoke_adds_nothing():
    """No stack, window, group or length appears where there was none."""
    cut = recipe.select('plain,smoke', variants())
    assert (cut.model.encoder_layers, cut.model.decoder_layers) == (2, 0)
    assert (cut.model.kv_heads, cut.model.attention_window) == (0, 0)
    assert 'length' not in cut.objective
    keys = lambda c: {k: keys(v) if isinstance(v, ConfigDict) else 0 for k, v in c.items()}  # noqa: E731
    assert keys(cut) == keys(recipe.recipe())
