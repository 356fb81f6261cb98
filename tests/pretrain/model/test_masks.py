"""Each kind of mask against a matrix written out by a plain loop over places."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from pretrain.model.masks import attention_mask

T = 6
SEGMENTS = np.array([[1, 1, 2, 2, 2, 0], [1, 1, 1, 1, 1, 1]])
PREFIX = np.array([3, 0])


def by_hand(b, q, k, causal, window, prefix, segments):
    see = True
    if causal:
        see = k <= q or (prefix and k < PREFIX[b])
    if window:
        see = see and (q - k < window if causal else abs(q - k) <= window // 2)
    if segments:
        see = see and SEGMENTS[b, q] == SEGMENTS[b, k] != 0
    return see


@pytest.mark.parametrize(
    ('causal', 'window', 'prefix', 'segments'),
    list(itertools.product([True, False], [None, 0, 2, 3], [True, False], [True, False])),
)
def test_equals_the_matrix(causal, window, prefix, segments):
    mask = attention_mask(
        jnp.arange(T),
        jnp.arange(T),
        causal=causal,
        window=None if window is None else jnp.int32(window),
        prefix_B=jnp.asarray(PREFIX) if prefix else None,
        query_segments_BxT=jnp.asarray(SEGMENTS) if segments else None,
        key_segments_BxS=jnp.asarray(SEGMENTS) if segments else None,
    )
    if mask is None:
        assert (causal, segments, window) == (False, False, None)
        return
    expected = [
        [[by_hand(b, q, k, causal, window, prefix, segments) for k in range(T)] for q in range(T)]
        for b in range(2)
    ]
    np.testing.assert_array_equal(np.broadcast_to(mask[:, 0], (2, T, T)), expected)


def test_queries_behind_a_cache():
    mask = attention_mask(jnp.array([3]), jnp.arange(T), causal=True, window=jnp.int32(2))
    np.testing.assert_array_equal(mask[0, 0], [[False, False, True, True, False, False]])
