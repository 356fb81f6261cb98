"""Tiny models on separable tasks: what the running part is tried on."""

import functools
import random

import jax
import pytest

from configs import glue as configs_of_glue
from pretrain import commandline, meshes
from pretrain.transfer import experiment, glue, surgery
from pretrain.transfer.task import Example


@pytest.fixture(scope='session')
def one_device():
    """A mesh of one of the fake devices."""
    return meshes.make_mesh('data=1', jax.devices()[:1])


@pytest.fixture(scope='session')
def tiny(tiny_runs):
    """tiny('encoder' | 'decoder' | 'both') -> surgery.Source."""

    @functools.cache
    def tiny(kind):
        folder = tiny_runs[kind]
        return surgery.open_source(folder, commandline.read_run_config(folder))

    return tiny


@pytest.fixture(scope='session')
def quick():
    """quick('sst2', transfer__epochs=3) -> a config with which tiny models learn fast."""

    def quick(name='sst2', config=None, **changes):
        config = config or configs_of_glue.get_config(name)
        with config.unlocked():
            config.transfer.update(epochs=10, batch_size=8, dropout=0.0)
            config.optimizer.update(learning_rate=5e-3)
            for key, value in changes.items():
                section, _, rest = key.partition('__')
                config[section].update({rest: value})
        return config

    return quick


@pytest.fixture(scope='session')
def sst2_data(toy):
    """sst2_data(train, dev) -> Data in which one word decides; the test split knows no labels."""

    def make(train=48, dev=24, test=8):
        rng, labels = random.Random(3), ('negative', 'positive')
        examples = [
            Example(i, {'sentence': toy.sentence(rng, i % 2)}, labels[i % 2])
            for i in range(train + dev + test)
        ]
        splits = {'train': examples[:train], 'dev': examples[train : train + dev]}
        if test:
            splits['test'] = [e._replace(label=None) for e in examples[train + dev :]]
        return experiment.Data(splits, {}, 'made by hand')

    return make


@pytest.fixture(scope='session')
def sst2(tiny, quick, sst2_data, one_device):
    """sst2('encoder', data=None, mesh=None, **changes) -> Experiment."""

    def make(kind='encoder', data=None, mesh=None, **changes):
        return experiment.Experiment(
            tiny(kind), glue.TASKS['sst2'], data or sst2_data(), quick(**changes),
            mesh or one_device, show=False,
        )  # fmt: skip

    return make
