"""Copies found in parts, against a dictionary."""

import random

import numpy as np
import pytest

from pretrain.data import duplicates


@pytest.mark.parametrize('part', [1, 7, 100, 10**6])
def test_every_copy_is_found_and_nothing_else(tmp_path, monkeypatch, part):
    monkeypatch.setattr(duplicates, 'PART', part)
    rng = random.Random(0)
    values = [rng.randrange(2**64) for _ in range(60)] + [0, 2**64 - 1]
    units, hashes = [], {}
    for number in range(5):
        units.append(tmp_path / str(number))
        units[-1].mkdir()
        for split in ('train', 'validation'):
            hashes[number, split] = rng.choices(values, k=rng.randrange(40))
            array = np.array(hashes[number, split], np.uint64)
            np.save(units[-1] / f'{split}.hashes.npy', array)
    seen, expected = set(), {}
    for split in ('validation', 'train'):  # what is held out stays, its copies in training go
        for number in range(5):
            expected[number, split] = []
            for place, value in enumerate(hashes[number, split]):
                if value in seen:
                    expected[number, split].append(place)
                seen.add(value)
    found = duplicates.find(units)
    assert {
        (number, split): places.tolist()
        for number, copies in enumerate(found)
        for split, places in copies.items()
    } == expected
    assert sum(map(len, expected.values())) > 50
