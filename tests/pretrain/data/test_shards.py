import numpy as np
import pytest

from pretrain.data import shards


def test_what_is_written_is_read(tmp_path):
    documents = [
        ('train', np.array([5, 6, 7]), np.array([0, 2]), 10),
        ('validation', np.array([8]), np.array([0]), 3),
        ('train', np.array([9, 5]), np.array([0]), 4),
    ]
    summary = shards.write_shard(tmp_path, 3, documents, table_size=20)
    assert summary == shards.read_summary(tmp_path, 3)
    assert summary['train'] == {'tokens': 5, 'documents': 2, 'sentences': 3, 'bytes': 14}
    part = shards.open_part(tmp_path, 3, 'train')
    assert part.tokens.dtype == np.uint16
    np.testing.assert_array_equal(part.tokens, [5, 6, 7, 9, 5])
    np.testing.assert_array_equal(part.documents, [0, 3])
    np.testing.assert_array_equal(part.sentences, [0, 2, 3])
    counts = np.load(shards.shard_folder(tmp_path, 3) / 'counts.npy')
    np.testing.assert_array_equal(counts[5:10], [2, 1, 1, 0, 1])


def test_large_vocabularies_get_wide_ids(tmp_path):
    shards.write_shard(tmp_path, 0, [('train', np.array([70_000]), np.array([0]), 1)], 70_016)
    part = shards.open_part(tmp_path, 0, 'train')
    assert part.tokens.dtype == np.uint32
    assert part.tokens[0] == 70_000


def test_a_half_written_shard_is_none(tmp_path, monkeypatch):
    def break_off(*_):
        raise OSError('killed')

    document = [('train', np.array([1]), np.array([0]), 1)]
    monkeypatch.setattr(shards.os, 'rename', break_off)
    with pytest.raises(OSError, match='killed'):
        shards.write_shard(tmp_path, 0, document, 20)
    assert shards.read_summary(tmp_path, 0) is None
    monkeypatch.undo()
    shards.write_shard(tmp_path, 0, document, 20)  # what was left over is no obstacle
    assert shards.read_summary(tmp_path, 0)


def test_files_appear_whole_or_not_at_all(tmp_path):
    path = tmp_path / 'sub' / 'file'
    with shards.write_whole(path) as file:
        file.write(b'one')
    with pytest.raises(ValueError, match='stop'), shards.write_whole(path) as file:
        file.write(b'two')
        raise ValueError('stop')
    assert path.read_bytes() == b'one'
    assert list(path.parent.iterdir()) == [path]
