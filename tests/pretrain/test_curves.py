"""The picture of a run."""

import json
import struct

import numpy as np
import pytest

from pretrain import curves

ROWS = [
    {'step': 1, 'loss': 9.0},
    {'step': 2, 'loss': 8.0, 'validation_loss': 8.5, 'validation_unigram': 6.7},
    {'step': 3, 'loss': 7.0},
    {'step': 4, 'loss': 6.0, 'validation_loss': 6.5, 'validation_unigram': 6.75},
]


@pytest.fixture
def pyplot():
    matplotlib = pytest.importorskip('matplotlib')
    matplotlib.use('agg')
    import matplotlib.pyplot as plt

    plt.close('all')
    return plt


@pytest.fixture
def drawn(pyplot, monkeypatch):
    """The axes of each picture that is drawn, still readable after it was closed."""
    kept, subplots = [], pyplot.subplots

    def keep(*args, **kwargs):
        figure, axes = subplots(*args, **kwargs)
        kept.append(axes)
        return figure, axes

    monkeypatch.setattr(pyplot, 'subplots', keep)
    return kept


def write(folder, rows):
    (folder / 'metrics.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))


def lines(axes):
    """{label: (x, y)}; matplotlib names lines without a label _child0 and so on."""
    return {line.get_label(): tuple(map(list, line.get_data())) for line in axes.lines}


def size(path):
    """Width and height that a PNG's header says, after its signature."""
    data = path.read_bytes()
    assert data[:8] == b'\x89PNG\r\n\x1a\n'
    assert data[12:16] == b'IHDR'
    assert b'IEND' in data[-12:]
    return struct.unpack('>II', data[16:24])


def test_a_picture_of_everything(tmp_path, drawn):
    write(tmp_path, ROWS)
    path = curves.draw(tmp_path)
    assert path == tmp_path / 'loss.png'
    width, height = size(path)
    assert 600 < width < 2000
    assert 400 < height < 1500
    assert sorted(p.name for p in tmp_path.iterdir()) == ['loss.png', 'metrics.jsonl']

    (axes,) = drawn
    shown = lines(axes)
    assert shown['_child0'] == ([1, 2, 3, 4], [9, 8, 7, 6])
    assert shown['validation'] == ([2, 4], [8.5, 6.5])
    assert shown['unigram frequencies (6.750)'][1] == [6.75, 6.75]
    # The number at the last point of the validation curve.
    (text,) = axes.texts
    assert (text.get_text(), tuple(text.xy)) == ('6.500', (4, 6.5))
    assert axes.get_title() == tmp_path.name
    assert (axes.get_xlabel(), axes.get_ylabel()) == ('step', 'loss (nats a token)')
    # Exponential mean with weight 0.8, each divided by what its weights sum up to.
    weights = np.array([[1, 0, 0], [0.8, 1, 0], [0.64, 0.8, 1]])
    expected = weights @ [9, 8, 7] / weights.sum(axis=1)
    np.testing.assert_allclose(shown['training (smoothed)'][1][:3], expected)


def test_only_training_rows(tmp_path, drawn):
    write(tmp_path, [{'step': 5, 'loss': 3.0}])
    size(curves.draw(tmp_path))
    assert set(lines(drawn[0])) == {'_child0', 'training (smoothed)'}
    assert not drawn[0].texts


def test_only_validation_rows(tmp_path, drawn):
    write(tmp_path, [{'step': 5, 'validation_loss': 3.0}])
    size(curves.draw(tmp_path))
    assert set(lines(drawn[0])) == {'validation'}


def test_a_loss_that_is_not_finite_can_be_drawn(tmp_path, pyplot):
    write(tmp_path, [*ROWS, {'step': 5, 'loss': float('nan'), 'validation_loss': float('inf')}])
    size(curves.draw(tmp_path))


@pytest.mark.parametrize('rows', [None, [], [{'step': 1, 'seconds': 3.0}]])
def test_nothing_to_draw(tmp_path, rows):
    if rows is not None:
        write(tmp_path, rows)
    assert curves.draw(tmp_path) is None
    assert not (tmp_path / 'loss.png').exists()


def test_no_figure_stays_open_and_the_picture_is_renewed(tmp_path, pyplot):
    write(tmp_path, ROWS[:1])
    first = curves.draw(tmp_path).read_bytes()
    write(tmp_path, ROWS)
    assert curves.draw(tmp_path).read_bytes() != first
    assert pyplot.get_fignums() == []
