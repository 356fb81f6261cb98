import numpy as np
import pytest

from pretrain.data.permutation import permute


def test_is_a_bijection_for_every_small_n():
    for n in range(1, 2001):
        out = permute(np.arange(n), n, (0, n))
        assert np.array_equal(np.sort(out), np.arange(n)), n


@pytest.mark.parametrize('n', [10**9, 2**31 + 11])
def test_sampled_for_a_large_n(n):
    rng = np.random.default_rng(0)
    indices = np.unique(rng.integers(0, n, 200_000))
    out = permute(indices, n, (3, 1))
    assert len(np.unique(out)) == len(indices)
    assert 0 <= out.min() < n * 1e-3
    assert n * (1 - 1e-3) < out.max() < n
    # Neighbours land anywhere: a tenth of the range each gets a tenth of them, within 5 sigma.
    counts = np.bincount(permute(np.arange(100_000), n, (3, 1)) * 10 // n, minlength=10)
    assert np.abs(counts - 10_000).max() < 5 * np.sqrt(100_000 * 0.1 * 0.9)


def test_each_place_is_equally_likely_over_keys():
    n, keys = 7, 7000
    first = [int(permute(np.array([2]), n, (seed, 0))[0]) for seed in range(keys)]
    counts = np.bincount(first, minlength=n)
    chi2 = ((counts - keys / n) ** 2 / (keys / n)).sum()
    assert chi2 < 22.5  # 6 degrees of freedom, p = 0.001


def test_depends_on_the_key_alone():
    n = 1000
    a, b = permute(np.arange(n), n, (0, 0)), permute(np.arange(n), n, (0, 1))
    assert (a == b).mean() < 0.02
    some = np.array([[5, 17], [999, 0]])
    np.testing.assert_array_equal(permute(some, n, (0, 0)), a[some])


def test_indices_out_of_range_are_refused():
    with pytest.raises(ValueError, match='0 to 9'):
        permute(np.array([10]), 10, (0,))
