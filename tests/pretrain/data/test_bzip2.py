"""Blocks of bzip2 against the standard library's decompressor."""

import bz2
import io
import random

import pytest

from pretrain.data import bzip2
from pretrain.data.bad_input import Damaged

RNG = random.Random(0)


def unpacked(packed, begin=0, end=None):
    end = len(packed) if end is None else end
    return b''.join(content for _, content in bzip2.blocks(io.BytesIO(packed), begin, end))


@pytest.mark.parametrize('level', [1, 9])
@pytest.mark.parametrize('size', [0, 1, 100, 99_999, 1_100_000])
@pytest.mark.parametrize('make', [RNG.randbytes, lambda n: b'one two three %d ' * (n // 16), bytes])
def test_every_file_unpacks_to_what_the_library_says(level, size, make):
    packed = bz2.compress(make(size), level) + bz2.compress(make(size // 2), level)
    assert unpacked(packed) == bz2.decompress(packed)


def test_stretches_of_a_file_make_the_whole():
    packed = bz2.compress(RNG.randbytes(1_500_000), 1)
    packed += bz2.compress(b'a second stream', 9)
    for _ in range(5):
        cuts = sorted(RNG.sample(range(len(packed) + 1), 4))
        parts = [unpacked(packed, *pair) for pair in zip([0, *cuts], [*cuts, len(packed)])]
        assert b''.join(parts) == bz2.decompress(packed)


@pytest.mark.parametrize('mark', [bzip2.BLOCK, bzip2.END])
def test_marks_are_found_at_every_bit_and_at_the_edge_of_windows(mark):
    for shift in range(8):
        for place in (0, 1, *range(bzip2.WINDOW - 8, bzip2.WINDOW + 3)):
            data = bytes(place) + (mark << (8 - shift)).to_bytes(7) + b'\0'
            assert list(bzip2._marks(io.BytesIO(data), 0)) == [(8 * place + shift, mark)]


def test_a_mark_by_chance_inside_a_block_is_passed_over(monkeypatch):
    packed = bz2.compress(RNG.randbytes(30_000), 9)
    marks = list(bzip2._marks(io.BytesIO(packed), 0))
    chance = marks[0][0] + 12_345, bzip2.BLOCK
    monkeypatch.setattr(bzip2, '_marks', lambda file, begin: iter(sorted([*marks, chance])))
    assert unpacked(packed) == bz2.decompress(packed)


def test_a_file_that_is_cut_off_gives_its_whole_blocks():
    packed = bz2.compress(RNG.randbytes(500_000), 1)
    found = []
    with pytest.raises(EOFError):
        for _, content in bzip2.blocks(io.BytesIO(packed[:250_000]), 0, len(packed)):
            found.append(content)
    assert b''.join(found) == bz2.decompress(packed)[: sum(map(len, found))]
    assert len(found) == 2


def test_a_damaged_block_is_named_by_its_place():
    packed = bytearray(bz2.compress(RNG.randbytes(500_000), 1))
    places = [place for place, _ in bzip2.blocks(io.BytesIO(packed), 0, len(packed))]
    packed[places[2] + 1000] ^= 255
    found = []
    with pytest.raises(Damaged, match=f'^{places[2]}$'):
        for place, _ in bzip2.blocks(io.BytesIO(packed), 0, len(packed)):
            found.append(place)
    assert found == places[:2]
    assert [p for p, _ in bzip2.blocks(io.BytesIO(packed), places[2] + 1, len(packed))] == places[
        3:
    ]
