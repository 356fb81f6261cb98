"""TFRecord files as tensorboardX writes them, Examples as Google's protobuf library does."""

import io
import itertools
import random

import pytest
from tensorboardX import crc32c as theirs
from tensorboardX.record_writer import RecordWriter

from pretrain.data import tfrecord
from pretrain.data.bad_input import Damaged

RNG = random.Random(0)


@pytest.mark.parametrize('size', [*range(20), 1023, 1024, 1025, 2047, 2048, 5000, 100_000])
def test_checksums(size):
    data = RNG.randbytes(size)
    assert tfrecord.crc32c(data) == theirs.crc32c(data)
    assert tfrecord.crc32c(bytes(size)) == theirs.crc32c(bytes(size))


def test_the_check_value_of_the_standard():
    assert tfrecord.crc32c(b'123456789') == 0xE3069283  # Koopman's catalogue, RFC 3720


@pytest.fixture
def written(tmp_path):
    texts = [RNG.randbytes(RNG.randrange(3000)) for _ in range(40)]
    writer = RecordWriter(str(tmp_path / 'a.tfrecord'))
    for text in texts:
        writer.write(text)
    writer.close()
    return texts, (tmp_path / 'a.tfrecord').read_bytes()


def test_records_of_any_stretches_are_those_of_the_file(written):
    texts, data = written
    assert [d for *_, d in tfrecord.records(io.BytesIO(data), 0, len(data))] == texts
    for _ in range(20):
        cuts = [0, *sorted(RNG.sample(range(len(data)), 5)), len(data)]
        found = [
            content
            for begin, end in itertools.pairwise(cuts)
            for *_, content in tfrecord.records(io.BytesIO(data), begin, end)
        ]
        assert found == texts


def test_damage(written):
    texts, data = written
    places = [place for place, *_ in tfrecord.records(io.BytesIO(data), 0, len(data))]
    wrong = bytearray(data)
    wrong[places[5] + 20] ^= 1
    found = [content for *_, content in tfrecord.records(io.BytesIO(wrong), 0, len(data))]
    assert found == [*texts[:5], None, *texts[6:]]
    wrong[places[7]] ^= 1
    with pytest.raises(Damaged, match=f'^{places[7]}$'):
        list(tfrecord.records(io.BytesIO(wrong), 0, len(data)))
    for cut in (places[3] + 5, places[3] + 14, len(data) - 1):
        with pytest.raises(EOFError):
            list(tfrecord.records(io.BytesIO(data[:cut]), 0, len(data)))


def test_examples(example):
    text = 'Größe — 大\0' * 100
    record = example(url=b'http://x', text=text.encode(), weight=1.5, index=-7, empty=b'')
    assert tfrecord.text_of(record, 'text') == text
    assert tfrecord.text_of(record, 'url') == 'http://x'
    assert tfrecord.text_of(record, 'empty') == ''
    assert tfrecord.text_of(record, 'index') is None
    assert tfrecord.text_of(record, 'body') is None
    assert tfrecord.keys_of(record) == ['empty', 'index', 'text', 'url', 'weight']
    assert tfrecord.text_of(b'', 'text') is None


def test_what_is_no_example_is_refused(example):
    record = example(text=b'one', index=3)
    for broken in (record[:-1], b'\xff' * 20, b'\x0b', record[:1]):
        with pytest.raises(ValueError, match=r'cut off|longer|unknown'):
            tfrecord.keys_of(broken)
    with pytest.raises(ValueError, match='utf-8'):
        tfrecord.text_of(example(text=b'\xff'), 'text')
