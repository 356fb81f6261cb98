"""Files in stretches: the lines of all extents are those of the file, whatever is cut where."""

import bz2
import gzip
import os
import random
import tracemalloc
import zlib

import pytest

from pretrain.data import files
from pretrain.data.bad_input import Tally
from pretrain.errors import UserError

PACKERS = {'': bytes, '.gz': gzip.compress, '.bz2': lambda data: bz2.compress(data, 1)}


def write(folder, data, suffix='', name='a.txt'):
    path = folder / (name + suffix)
    path.write_bytes(data)
    [file] = files.find(path, ())
    return file


def lines_of(extents, tally=None):
    return [
        line for extent in extents for line in files.lines(files.Content(extent, tally or Tally()))
    ]


@pytest.mark.parametrize('suffix', PACKERS)
def test_lines_of_all_extents_are_those_of_the_file(tmp_path, suffix):
    rng = random.Random(1)
    for _ in range(60):
        texts = [
            rng.choice(['a', 'é', '\u2028 x', '']) * rng.randrange(30)
            for _ in range(rng.randrange(1, 50))
        ]
        text = '\n'.join(texts) + rng.choice(['', '\n', '\n\n'])
        if not text:
            continue
        file = write(tmp_path, PACKERS[suffix](text.encode()), suffix)
        for target in (1e6, 300, 40, 7):
            found = lines_of(files.divide(file, target))
            assert [line.text for line in found] == text.removesuffix('\n').split('\n')
            assert [line.whole for line in found[:-1]] == [True] * (len(found) - 1)
            assert found[-1].whole == text.endswith('\n')


@pytest.mark.parametrize('suffix', PACKERS)
def test_lines_know_their_number_in_the_file(tmp_path, suffix):
    text = ''.join(f'{number} {"x" * (number % 13)}\n' for number in range(1, 400))
    if suffix == '.bz2':  # several blocks
        text = ''.join(f'{number} {os.urandom(30_000).hex()}\n' for number in range(1, 20))
    file = write(tmp_path, PACKERS[suffix](text.encode()), suffix)
    extents = files.divide(file, file.size * files.RATIOS[suffix[1:] or 'plain'] / 7)
    assert len(extents) == 7
    for line in lines_of(extents):
        assert str(line.where) == f'{file.path}, line {line.text.split()[0]}'


def test_an_extent_reads_no_further_than_its_last_line(tmp_path):
    file = write(tmp_path, b'word of a line\n' * 300_000)
    read = []
    extent = files.Extent(file, 0, 1000, 1000)
    list(files.lines(files.Content(extent, Tally(advance=read.append))))
    assert sum(read) <= files.CHUNK


@pytest.mark.parametrize('suffix', PACKERS)
def test_progress_adds_up_to_the_file(tmp_path, suffix):
    data = ''.join(f'{os.urandom(40).hex()}\n' for _ in range(30_000)).encode()
    file = write(tmp_path, PACKERS[suffix](data), suffix)
    read = []
    lines_of(files.divide(file, file.size / 5), Tally(advance=read.append))
    assert abs(sum(read) - file.size) < 6 * files.CHUNK


def test_division(tmp_path):
    plain = write(tmp_path, b'x' * 1000)
    assert [(e.begin, e.end) for e in files.divide(plain, 250)] == [
        (0, 250), (250, 500), (500, 750), (750, None)
    ]  # fmt: skip
    assert [(e.begin, e.end) for e in files.divide(plain, 1e6)] == [(0, None)]
    packed = write(tmp_path, gzip.compress(os.urandom(100_000)), '.gz')
    assert len(files.divide(packed, 1000)) == files.MOST_OF_GZ


def test_a_gz_of_one_letter_is_read_in_constant_memory(tmp_path):
    stream = zlib.compressobj(wbits=31)
    line = b'word ' * 20_000 + b'\n'
    data = b''.join(stream.compress(line) for _ in range(500)) + stream.flush()
    file = write(tmp_path, data, '.gz')
    tracemalloc.start()
    count = sum(1 for _ in files.lines(files.Content(files.Extent(file, 0, None, 0), Tally())))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 500
    assert peak < 8_000_000 < 500 * len(line) / 5


def test_several_gz_streams_and_padding_are_one_file(tmp_path):
    data = gzip.compress(b'one\ntw') + gzip.compress(b'o\nthree\n') + bytes(100)
    assert [line.text for line in lines_of(files.divide(write(tmp_path, data, '.gz'), 1e6))] == [
        'one', 'two', 'three'
    ]  # fmt: skip


BAD = {  # what is wrong: (bytes of a file with four lines, the line, the words, its kind)
    'nul': (b'one\ntw\0o\nthree\nfour\n', 2, 'a NUL byte, at byte 2 of the line', 'nul'),
    'latin': (b'one\ntwo\nthr\xe9e\nfour\n', 3, 'no UTF-8, at byte 3 of the line', 'no_utf8'),
    'cut_utf8': (b'one\ntwo\nthree\nfour\xc3', 4, 'no UTF-8, at byte 4 of the line', 'no_utf8'),
    'long': (
        b'one\n' + b'x' * 16_000_001 + b'\nthree\nfour', 2, 'a line of 16 MB, over 16', 'long_line'
    ),
}  # fmt: skip


@pytest.mark.parametrize('suffix', ['', '.gz'])
@pytest.mark.parametrize('name', BAD)
def test_bad_lines_stop_or_are_skipped_and_counted(tmp_path, name, suffix):
    data, number, words, kind = BAD[name]
    file = write(tmp_path, PACKERS[suffix](data), suffix)
    for target in (1e9, 15):
        if name == 'long' and target == 15:
            continue
        with pytest.raises(UserError) as caught:
            lines_of(files.divide(file, target))
        assert str(caught.value).startswith(f'{file.path}, line {number}: {words};')
        assert '--on_bad_input=skip' in str(caught.value)
        tally = Tally(skip=True)
        kept = {'one', 'two', 'three', 'four'} - {['one', 'two', 'three', 'four'][number - 1]}
        assert {line.text for line in lines_of(files.divide(file, target), tally)} == kept
        assert tally.counts == {kind: 1}
        assert tally.examples[kind] == [f'{file.path}, line {number}: {words}']


def test_a_line_of_50_megabytes_is_passed_in_bounded_memory(tmp_path):
    with open(tmp_path / 'a.txt', 'wb') as out:
        for _ in range(50):
            out.write(b'y' * 1_000_000)
        out.write(b'\nlast\n')
    [file] = files.find(tmp_path / 'a.txt', ())
    tally = Tally(skip=True)
    tracemalloc.start()
    texts = [line.text for line in lines_of(files.divide(file, 1e9), tally)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert texts == ['last']
    assert tally.counts == {'long_line': 1}
    assert peak < 2 * files.LONGEST_LINE


@pytest.mark.parametrize('suffix', ['.gz', '.bz2'])
@pytest.mark.parametrize('target', [1e9, 200_000])
def test_what_is_cut_off_or_damaged_is_said_once(tmp_path, suffix, target):
    text = ''.join(f'{number} {os.urandom(40).hex()}\n' for number in range(9000)).encode()
    packed = PACKERS[suffix](text)
    whole = text.decode().split('\n')
    cut = packed[: len(packed) * 2 // 3]
    damaged = bytearray(packed)
    place = len(packed) * 2 // 3
    damaged[place : place + 200] = bytes(200)
    for data, kind, words in (
        (cut, 'cut_off', 'cut off'),
        (damaged, 'damaged', 'damaged at byte '),
    ):
        file = write(tmp_path, bytes(data), suffix)
        with pytest.raises(UserError, match=f'{file.path}: {words}'):
            lines_of(files.divide(file, target))
        tally = Tally(skip=True)
        found = [line.text for line in lines_of(files.divide(file, target), tally)]
        assert tally.counts[kind] == 1
        # What zlib makes of damage before it notices is anything.
        if suffix == '.bz2' or kind == 'cut_off':
            assert tally.counts == {kind: 1}
            assert set(found) <= set(whole)
        assert len(found) > 9000 * 0.4


def test_find(tmp_path):
    for name in ('b/z.txt', 'a.txt', 'b/a.txt.gz', 'e.md', '.f.txt', '.git/g.txt'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('x')
    (tmp_path / 'empty.txt').touch()
    found = files.find(tmp_path, ('.txt', '.txt.gz'))
    assert [file.relative for file in found] == ['a.txt', 'b/a.txt.gz', 'b/z.txt', 'empty.txt']
    with pytest.raises(UserError, match='no such file'):
        files.find(tmp_path / 'no', ())
    (tmp_path / 'link.txt').symlink_to(tmp_path / 'nothing')
    with pytest.raises(UserError, match=r'link.txt: No such file'):
        files.find(tmp_path, ('.txt',))
    (tmp_path / 'link.txt').unlink()
    with pytest.raises(UserError, match=r'no file in it ends in \.xml'):
        files.find(tmp_path, ('.xml',))
    with pytest.raises(UserError, match='a folder; name one'):
        files.find(tmp_path, ())
    with pytest.raises(UserError, match=r'empty.txt: is empty'):
        files.find(tmp_path / 'empty.txt', ())
    with pytest.raises(UserError, match=r"a\.txt\.gz: no gz file, it begins with b'x'"):
        files.kind(found[1])
