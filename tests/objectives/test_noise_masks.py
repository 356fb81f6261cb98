import collections
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from objectives import noise_masks


@pytest.mark.parametrize('density', [0.15, 0.5])
@pytest.mark.parametrize('mean_span', [2, 3, 5, 8, 10, 64])
def test_counts_are_those_of_python_s_round(density, mean_span):
    lengths = np.arange(2, 1201)
    noise, spans = noise_masks.span_counts(lengths, density, mean_span)
    for length, *counts in zip(lengths.tolist(), noise, spans):
        expected = min(max(round(length * density), 1), length - 1)
        assert counts == [expected, max(1, round(expected / mean_span))]


def test_counts_at_the_edges():
    assert noise_masks.span_counts(1, 0.15, 3) == (1, 1)  # one token counts as two
    assert noise_masks.span_counts(2, 0.9, 1) == (1, 1)
    assert noise_masks.span_counts(10, 0.9, 1) == (9, 1)  # one kept token: one span
    assert noise_masks.span_counts(512, 0.25, 0) == (128, 1)


def draw(samples, window, length, noise, spans, most_spans=None):
    one = lambda key: noise_masks.random_spans(  # noqa: E731
        key, window, length, noise, spans, most_spans or spans
    )
    return np.array(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), samples)))


def runs(mask):
    return [(value, len(list(group))) for value, group in itertools.groupby(mask.tolist())]


def test_4000_masks_of_568_tokens():
    masks = draw(4000, 568, 568, 85, 28)
    assert (masks.sum(axis=1) == 85).all()
    assert not masks[:, 0].any()
    assert masks[:, -1].all()
    lengths = collections.Counter()
    for mask in masks:
        noise = [length for value, length in runs(mask) if value]
        assert len(noise) == 28
        lengths.update(noise)
    shares = [lengths[n] / lengths.total() for n in range(1, 7)]
    np.testing.assert_allclose(shares, [0.32, 0.22, 0.15, 0.10, 0.07, 0.05], atol=0.01)
    local = masks[:, :20].mean(), masks[:, 200:368].mean(), masks[:, -20:].mean()
    np.testing.assert_allclose(local, [0.127, 0.145, 0.256], atol=0.01)


def test_compositions_are_uniform():
    # 6 noise tokens in 3 spans: C(5, 2) = 10; 5 kept tokens in 3 parts: C(4, 2) = 6.
    samples = 6000
    masks = draw(samples, 14, 11, 6, 3, most_spans=5)
    assert not masks[:, 11:].any()
    seen = collections.Counter(tuple(length for _, length in runs(mask[:11])) for mask in masks)
    parts = lambda total: [  # noqa: E731
        parts for parts in itertools.product(range(1, total), repeat=3) if sum(parts) == total
    ]
    every = {
        tuple(n for pair in zip(kept, noise) for n in pair)
        for kept in parts(5)
        for noise in parts(6)
    }
    assert len(every) == 60
    assert set(seen) == every
    expected = samples / 60
    chi_square = sum((seen[way] - expected) ** 2 / expected for way in every)
    assert chi_square < 98.3  # 59 degrees of freedom: 0.1 % lie above


def test_counts_are_traced():
    mask = jax.jit(noise_masks.random_spans, static_argnums=(1, 5))
    for length, noise, spans in ((2, 1, 1), (20, 5, 2), (9, 4, 4), (20, 19, 1), (20, 1, 1)):
        row = np.array(mask(jax.random.key(length), 20, length, noise, spans, 10))
        assert row.sum() == noise
        assert not row[length:].any()
        values = [value for value, _ in runs(row[:length])]
        assert values == [False, True] * spans
    assert mask._cache_size() == 1
    assert not mask(jax.random.key(0), 20, 1, 1, 1, 10).any()  # the noise would be the second
    assert not mask(jax.random.key(0), 20, 0, 1, 1, 10).any()


def test_independent_noise():
    one = lambda key: noise_masks.independent(key, 40, 30, 0.15)  # noqa: E731
    masks = np.array(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(1), 4000)))
    assert not masks[:, 30:].any()
    np.testing.assert_allclose(masks[:, :30].mean(), 0.15, atol=0.005)
    # Neighbours are independent: both noise in 0.15^2 of all pairs.
    np.testing.assert_allclose((masks[:, :29] & masks[:, 1:30]).mean(), 0.0225, atol=0.002)


def test_prefixes_are_uniform():
    one = lambda key: noise_masks.after_prefix(key, 12, 9)  # noqa: E731
    masks = np.array(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(2), 4000)))
    prefixes = masks.argmax(axis=1)
    for mask, prefix in zip(masks, prefixes):
        np.testing.assert_array_equal(mask, (np.arange(12) >= prefix) & (np.arange(12) < 9))
    counts = np.bincount(prefixes, minlength=12)
    assert counts.sum() == counts[1:9].sum()
    assert ((counts[1:9] - 500) ** 2 / 500).sum() < 24.3  # 7 degrees of freedom: 0.1 % above
    for length in (0, 1):
        assert not noise_masks.after_prefix(jax.random.key(0), 12, length).any()


def test_everything_is_noise():
    mask = noise_masks.everything(None, 6, 4)
    np.testing.assert_array_equal(mask, [1, 1, 1, 1, 0, 0])


def test_roll_turns_the_mask_within_its_length():
    mask = jnp.array([0, 0, 1, 0, 1, 0, 0], bool)
    one = lambda key: noise_masks.roll(key, mask, 5)  # noqa: E731
    rows = np.array(jax.vmap(one)(jax.random.split(jax.random.key(3), 1000)))
    seen = collections.Counter(tuple(row.tolist()) for row in rows)
    turned = [tuple([*np.roll(mask[:5], shift).tolist(), False, False]) for shift in range(5)]
    assert set(seen) == set(turned)
    assert all(140 < seen[way] < 260 for way in turned)  # 200 each, four deviations
    assert not noise_masks.roll(jax.random.key(0), mask & False, 0).any()


def test_rolled_spans_are_as_dense_everywhere():
    def one(key):
        mask_key, roll_key = jax.random.split(key)
        return noise_masks.roll(roll_key, noise_masks.random_spans(mask_key, 60, 60, 9, 3, 3), 60)

    masks = np.array(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(4), 4000)))
    assert (masks.sum(axis=1) == 9).all()
    np.testing.assert_allclose(masks.mean(axis=0), 0.15, atol=0.025)


def test_first_runs():
    mask = np.array([1, 1, 0, 1, 0, 1, 1], bool)
    np.testing.assert_array_equal(noise_masks.first_runs(mask, 2), [1, 1, 0, 1, 0, 0, 0])
    np.testing.assert_array_equal(noise_masks.first_runs(mask, 3), mask)
