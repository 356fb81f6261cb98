import numpy as np
import pytest

from pretrain.data import shards

DOCUMENTS = [
    ('train', np.array([5, 6, 7]), np.array([0, 2]), 10),
    ('validation', np.array([8]), np.array([0]), 3),
    ('train', np.array([9, 5]), np.array([0]), 4),
]


def write(folder, documents, table_size=20):
    with shards.ShardWriter(folder, table_size) as writer:
        for document in documents:
            writer.add(*document)
    return folder


@pytest.mark.parametrize('buffer', [1, 2, 1000])
def test_what_is_written_is_read(tmp_path, monkeypatch, buffer):
    monkeypatch.setattr(shards, 'BUFFER', buffer)
    folder = write(shards.shard_folder(tmp_path, 3), DOCUMENTS)
    summary = shards.read_summary(folder)
    assert summary['train'] == {'tokens': 5, 'documents': 2, 'sentences': 3, 'bytes': 14}
    assert summary['validation'] == {'tokens': 1, 'documents': 1, 'sentences': 1, 'bytes': 3}
    part = shards.open_part(folder, 'train')
    assert part.tokens.dtype == np.uint16
    np.testing.assert_array_equal(part.tokens, [5, 6, 7, 9, 5])
    np.testing.assert_array_equal(part.documents, [0, 3])
    np.testing.assert_array_equal(part.sentences, [0, 2, 3])
    counts = np.load(folder / 'counts.npy')
    np.testing.assert_array_equal(counts[5:10], [2, 1, 1, 0, 1])


def test_how_it_is_buffered_does_not_show(tmp_path, monkeypatch):
    contents = []
    for buffer in (1, 3, 1000):
        monkeypatch.setattr(shards, 'BUFFER', buffer)
        folder = write(tmp_path / str(buffer), DOCUMENTS)
        contents.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert contents[0] == contents[1] == contents[2]
    assert {'train.tokens.npy', 'counts.npy', 'summary.json'} < set(contents[0])


def test_an_array_is_the_librarys_file(tmp_path):
    writer = shards.ArrayWriter(tmp_path / 'a.npy', np.int64)
    for piece in ([1, 2], [], [3]):
        writer.extend(np.array(piece, np.int64))
    writer.close()
    np.save(tmp_path / 'b.npy', np.array([1, 2, 3]))
    assert (tmp_path / 'a.npy').read_bytes() == (tmp_path / 'b.npy').read_bytes()


def test_large_vocabularies_get_wide_ids(tmp_path):
    folder = write(tmp_path / 'a', [('train', np.array([70_000]), np.array([0]), 1)], 70_016)
    part = shards.open_part(folder, 'train')
    assert part.tokens.dtype == np.uint32
    assert part.tokens[0] == 70_000


def test_a_half_written_shard_is_none(tmp_path, monkeypatch):
    def break_off(*_):
        raise OSError('killed')

    monkeypatch.setattr(shards.os, 'rename', break_off)
    with pytest.raises(OSError, match='killed'):
        write(tmp_path / 'a', DOCUMENTS)
    assert shards.read_summary(tmp_path / 'a') is None
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    with pytest.raises(ValueError, match='stop'), shards.ShardWriter(tmp_path / 'a', 20) as writer:
        writer.add(*DOCUMENTS[0])
        raise ValueError('stop')
    assert list(tmp_path.iterdir()) == []


def test_files_appear_whole_or_not_at_all(tmp_path):
    path = tmp_path / 'sub' / 'file'
    with shards.write_whole(path) as file:
        file.write(b'one')
    with pytest.raises(ValueError, match='stop'), shards.write_whole(path) as file:
        file.write(b'two')
        raise ValueError('stop')
    assert path.read_bytes() == b'one'
    assert list(path.parent.iterdir()) == [path]


def test_the_second_to_end_a_shard_leaves_the_first_ones(tmp_path):
    with shards.ShardWriter(tmp_path / 'a', 20) as slow:
        slow.add(*DOCUMENTS[0])
        write(tmp_path / 'a', DOCUMENTS[:1])
        before = {path.name: path.stat().st_ino for path in (tmp_path / 'a').iterdir()}
    assert {path.name: path.stat().st_ino for path in (tmp_path / 'a').iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ['a']


def test_only_what_nobody_writes_any_more_is_removed(tmp_path):
    with shards.ShardWriter(tmp_path / 'shard-00000', 100) as writer:
        left = tmp_path / f'shard-00001.{"0" * 32}.partial'
        left.mkdir()
        (left / shards.LOCK).touch()
        shards.remove_left(tmp_path)
        assert not left.exists()
        writer.add('train', [1], [0], 1)
    assert shards.read_summary(tmp_path / 'shard-00000')['train']['tokens'] == 1
    assert not (tmp_path / 'shard-00000' / shards.LOCK).exists()
