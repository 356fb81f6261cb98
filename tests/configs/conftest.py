"""Counting parameters of a recipe's models without making them."""

import math

import jax
import numpy as np
import pytest

from objectives import contract
from pretrain import assembly, train_step


@pytest.fixture(scope='session')
def vocabulary():
    """vocabulary(size): one that has all special ids and a hundred sentinels."""

    def make(size):
        bytes_V = np.full(size, 4, np.int32)
        bytes_V[:9] = bytes_V[-100:] = 0
        return contract.Vocabulary(
            size=size, table_size=size, pad=0, eos=1, unk=2, cls=3, sep=4, mask=5,
            modes={'R': 6, 'X': 7, 'S': 8}, sentinels=tuple(range(size - 1, size - 101, -1)),
            word_start_V=np.arange(size) % 2 == 0, bytes_V=bytes_V,
            log_frequency_V=np.full(size, -9.0, np.float32),
        )  # fmt: skip

    return make


@pytest.fixture(scope='session')
def count(vocabulary):
    """count(config, size) -> {model name: parameters}, shared ones with their owner."""

    def count(config, size=8320):
        learner = assembly.make_learner(config, vocabulary(size))
        params = jax.eval_shape(lambda: train_step.draw_params(learner))
        return {
            name: sum(math.prod(x.shape) for x in jax.tree.leaves(tree))
            for name, tree in params.items()
        }

    return count
