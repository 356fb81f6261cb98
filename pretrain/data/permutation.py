"""A shuffle of n things that is computed, not stored: a keyed bijection on 0 .. n-1.

A balanced Feistel network (Luby and Rackoff 1988) permutes the smallest power of four that holds n,
and a value that falls outside 0 .. n-1 is sent through again until it falls inside (cycle walking,
Black and Rogaway 2002), which happens less than four times on average.
"""

import numpy as np

ROUNDS = 8


def permute(indices, n, key):
    """Where each index goes in the shuffle of 0 .. n-1 that belongs to `key`.

    Args:
        indices: integer array, each in 0 .. n-1.
        n: number of things, 1 .. 2**62.
        key: tuple of integers; another key is another shuffle.

    Returns:
        int64 array of the same shape; for fixed n and key a bijection.
    """
    values = np.asarray(indices)
    if values.size and not (values.min() >= 0 and values.max() < n):
        raise ValueError(f'indices reach from {values.min()} to {values.max()}, not 0 to {n - 1}')
    values = values.astype(np.uint64)
    half = max(1, -(-(n - 1).bit_length() // 2))
    round_keys = np.random.SeedSequence([int(k) for k in key]).generate_state(ROUNDS, np.uint64)
    values = _feistel(values, half, round_keys)
    outside = values >= n
    while outside.any():
        values[outside] = _feistel(values[outside], half, round_keys)
        outside = values >= n
    return values.astype(np.int64)


def _feistel(values, half, round_keys):
    mask = np.uint64((1 << half) - 1)
    left, right = values >> np.uint64(half), values & mask
    for key in round_keys:
        left, right = right, left ^ (_mix(right ^ key) & mask)
    return (left << np.uint64(half)) | right


def _mix(x):
    """The finalizer of SplitMix64 (Steele et al. 2014): each input bit reaches each output bit."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
