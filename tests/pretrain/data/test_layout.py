"""Packing by best fit, against the rule applied by looking at every window."""

import random
import shutil

import numpy as np
import pytest

from pretrain.data import layout
from pretrain.errors import UserError


def slow_best_fit(sizes, length):
    """Contents of windows: each size, the longest first, goes where it leaves least room."""
    windows = []
    for size in sorted(sizes, reverse=True):
        fits = [w for w in windows if sum(w) + size <= length]
        if fits:
            max(fits, key=sum).append(size)
        else:
            windows.append([size])
    return sorted(sorted(window) for window in windows)


@pytest.mark.parametrize('length', [1, 10, 64, 1000])
def test_best_fit(length):
    rng = random.Random(length)
    for _ in range(50):
        sizes = [rng.randrange(1, length + 1) for _ in range(rng.randrange(1, 60))]
        ends = np.cumsum(sizes)
        documents = np.stack([ends - sizes, ends], axis=1)
        table = layout.packed(documents, None, length, 0)
        windows = [
            table.spans[a:b] for a, b in zip(table.firsts[:-1], table.firsts[1:], strict=True)
        ]
        found = sorted(sorted((w[:, 1] - w[:, 0]).tolist()) for w in windows)
        # Windows with equal room may be chosen either way: what they hold may differ, not how many.
        expected = slow_best_fit(sizes, length)
        assert len(found) == len(expected)
        assert sorted(map(sum, found)) == sorted(map(sum, expected))
        assert sorted(map(tuple, table.spans.tolist())) == list(map(tuple, documents.tolist()))
        assert table.tokens == sum(sizes)


def test_blocks_bound_what_is_packed_together(monkeypatch):
    documents = np.stack([np.arange(0, 60, 3), np.arange(3, 63, 3)], axis=1)
    monkeypatch.setattr(layout, 'BLOCK', 5)
    table = layout.packed(documents, None, 100, 0)
    assert np.diff(table.firsts).tolist() == [5, 5, 5, 5]


def test_separators_count():
    documents = np.array([[0, 3], [3, 7], [7, 20]])
    table = layout.packed(documents, None, 9, 1)
    assert table.spans.tolist() == [[9, 18], [4, 9], [0, 4], [18, 23]]
    assert np.diff(table.firsts).tolist() == [1, 1, 2]
    assert table.tokens == 20 + 3


def test_an_eos_that_does_not_fit_breaks_no_document():
    documents = np.array([[0, 9], [9, 12]])
    table = layout.packed(documents, None, 9, 1)
    assert table.spans.tolist() == [[0, 9], [10, 14]]
    assert np.diff(table.firsts).tolist() == [1, 1]


def test_a_damaged_table_is_made_anew(corpus, tmp_path):
    folder = shutil.copytree(corpus.folder / 'shard-00000', tmp_path / 'shard')
    made = layout.lay_out(folder, 'train', 16, 'pack', True)
    layout.tables([(folder, 'train')], 16, 'pack', True)
    (path,) = folder.glob('train.windows-pack-16-1.npy')
    whole = path.read_bytes()
    for content in (whole[:100], whole[:-8], b'', b'x' * len(whole), whole[:128] + bytes(800)):
        path.write_bytes(content)
        table = layout.tables([(folder, 'train')], 16, 'pack', True)[0].open()
        np.testing.assert_array_equal(table.spans, made.spans)
        assert path.read_bytes() == whole


def test_a_damaged_shard_is_not_laid_out(corpus, tmp_path):
    folder = shutil.copytree(corpus.folder / 'shard-00000', tmp_path / 'shard')
    path = folder / 'train.documents.npy'
    places = np.load(path)
    for place, number in ((1, 2**60), (1, -5), (0, 3)):  # endless, backwards, not from the start
        changed = places.copy()
        changed[place] = number
        np.save(path, changed)
        with pytest.raises(UserError, match=r'is damaged: its documents .* prepare it again'):
            layout.lay_out(folder, 'train', 16, 'pack', True)


def test_a_split_without_documents_has_no_windows():
    table = layout.packed(np.zeros((0, 2), int), None, 9, 1)
    assert table.firsts.tolist() == [0]
    assert layout.by_document(np.zeros((0, 2), int), None, 9, 1).firsts.tolist() == [0]
