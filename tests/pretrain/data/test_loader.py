import numpy as np
import pytest

from pretrain.data import loader
from pretrain.data.windows import WindowReader


@pytest.fixture
def reader(corpus):
    return WindowReader(corpus, 'train', 16)


def test_an_epoch_reads_every_window_once(reader):
    n = len(reader)
    first, second = (reader.numbers(np.arange(e * n, (e + 1) * n), 5) for e in (0, 1))
    np.testing.assert_array_equal(np.sort(first), np.arange(n))
    np.testing.assert_array_equal(np.sort(second), np.arange(n))
    assert (first == second).mean() < 0.2
    assert (first == reader.numbers(np.arange(n), 6)).mean() < 0.2


def take(reader, steps, batch, rows, step=0, **threads):
    loading = loader.Loader(reader, 7, batch, rows, step * batch, **threads)
    try:
        return [next(loading) for _ in range(steps)]
    finally:
        loading.close()


def test_windows_do_not_depend_on_processes_batch_or_start(reader):
    """Two processes of 3 rows, one of 6, a late start, another batch size: all the same."""
    whole = take(reader, 8, 6, slice(0, 6))
    halves = zip(take(reader, 8, 6, slice(0, 3)), take(reader, 8, 6, slice(3, 6)))
    late = take(reader, 3, 6, slice(0, 6), step=5)
    other = take(reader, 4, 12, slice(0, 12))
    for i, (one, two) in enumerate(halves):
        for name in whole[i]._fields:
            expected = getattr(whole[i], name)
            np.testing.assert_array_equal(
                np.concatenate([getattr(one, name), getattr(two, name)]), expected
            )
            half = slice(6 * (i % 2), 6 * (i % 2) + 6)
            np.testing.assert_array_equal(getattr(other[i // 2], name)[half], expected)
            if i >= 5:
                np.testing.assert_array_equal(getattr(late[i - 5], name), expected)
    np.testing.assert_array_equal(whole[2].numbers_B, np.arange(12, 18))


@pytest.mark.parametrize(('workers', 'ahead'), [(0, 2), (1, 1), (2, 1), (2, 5), (4, 0)])
def test_windows_do_not_depend_on_threads(reader, workers, ahead):
    for one, other in zip(
        take(reader, 9, 5, slice(1, 4), workers=workers, ahead=ahead),
        take(reader, 9, 5, slice(1, 4)),
        strict=True,
    ):
        for name in one._fields:
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_threads_read_no_further_ahead_than_they_are_told(reader, monkeypatch):
    read = []
    whole = reader.read
    monkeypatch.setattr(reader, 'read', lambda numbers: read.append(1) or whole(numbers))
    take(reader, 3, 4, slice(0, 4), workers=2, ahead=2)
    assert 3 <= len(read) <= 5


def test_places_of_windows_in_an_epoch_are_flat(reader):
    """Chi-square of where a window stands in an epoch, over many epochs, by tenths."""
    n = len(reader)
    epochs = 400
    where = np.stack(
        [np.argsort(reader.numbers(np.arange(e * n, (e + 1) * n), 3)) for e in range(epochs)]
    )
    for window in (0, n // 2, n - 1):
        counts, _ = np.histogram(where[:, window], 10, (0, n))
        expected = epochs * np.diff(np.searchsorted(np.arange(n), np.linspace(0, n, 11))) / n
        # 9 degrees of freedom: above 27.9 once in a thousand.
        assert np.sum((counts - expected) ** 2 / expected) < 27.9


def test_evaluation_reads_each_window_once_in_a_fixed_shuffle(reader):
    """Whatever the batch; what is over is padding."""
    n = len(reader)
    seen = {}
    for batch in (4, 5):
        pieces = [
            loader.for_evaluation(reader, first, batch, slice(0, batch), n)
            for first in range(0, n, batch)
        ]
        numbers = np.concatenate([p.numbers_B for p in pieces])[:n]
        np.testing.assert_array_equal(np.sort(numbers), np.arange(n))
        tokens = np.concatenate([p.tokens_BxW for p in pieces])[:n]
        np.testing.assert_array_equal(tokens, reader.read(numbers)[0])
        seen[batch] = numbers
        padded = np.concatenate([p.documents_BxW for p in pieces])[n:]
        assert (padded == -1).all()
    np.testing.assert_array_equal(seen[4], seen[5])
    assert (np.diff(seen[4]) == 1).mean() < 0.2
    part = loader.for_evaluation(reader, 4, 4, slice(1, 4), 6)  # a process's rows; 6 windows only
    np.testing.assert_array_equal(part.numbers_B[:1], seen[4][5:6])
    assert (part.documents_BxW[1:] == -1).all()


def test_errors_reach_the_caller(reader, monkeypatch):
    def broken(numbers):
        raise OSError('disk gone')

    monkeypatch.setattr(reader, 'read', broken)
    with pytest.raises(OSError, match='disk gone'):
        take(reader, 1, 4, slice(0, 4))
