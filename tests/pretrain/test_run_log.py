"""What a run writes down: rows, TensorBoard events, and what a kill leaves of them."""

import json
import math
import struct
import sys

import pytest

from pretrain import run_log


def write_rows(folder, rows, end=''):
    text = ''.join(json.dumps(row) + '\n' for row in rows) + end
    (folder / 'metrics.jsonl').write_text(text)


def events(folder):
    """All events of TensorBoard's files, read by the format's own description: each record is its
    length (8 bytes), a checksum (4), the protocol buffer, a checksum (4)."""
    event_pb2 = pytest.importorskip('tensorboardX.proto.event_pb2')
    found = []
    for path in sorted(folder.glob('events.out.tfevents.*')):
        data, place = path.read_bytes(), 0
        while place < len(data):
            (length,) = struct.unpack_from('<Q', data, place)
            found.append(event_pb2.Event.FromString(data[place + 12 : place + 12 + length]))
            place += length + 16
    return found


def scalars(folder):
    return {
        (value.tag, event.step): value.simple_value
        for event in events(folder)
        for value in event.summary.value
    }


def test_rows_are_on_disk_as_soon_as_they_are_written(tmp_path):
    log = run_log.RunLog(tmp_path, 4, 0)
    log.advance()
    log.write({'step': 1, 'loss': 2.5})
    # Nothing was closed: this is what a kill would leave.
    assert (tmp_path / 'metrics.jsonl').read_text() == '{"step": 1, "loss": 2.5}\n'
    log.write({'step': 2, 'loss': math.inf})
    log.close()
    assert run_log.read_rows(tmp_path) == [
        {'step': 1, 'loss': 2.5}, {'step': 2, 'loss': math.inf}
    ]  # fmt: skip


def test_rows_past_the_restored_step_go(tmp_path):
    write_rows(tmp_path, [{'step': s, 'loss': float(s)} for s in (1, 2, 3, 4)])
    log = run_log.RunLog(tmp_path, 10, 2)
    log.write({'step': 3, 'loss': 30.0})
    log.close()
    rows = [(row['step'], row['loss']) for row in run_log.read_rows(tmp_path)]
    assert rows == [(1, 1.0), (2, 2.0), (3, 30.0)]
    assert [p.name for p in tmp_path.iterdir() if 'partial' in p.name] == []


def test_a_run_from_the_start_keeps_no_rows(tmp_path):
    write_rows(tmp_path, [{'step': 1, 'loss': 1.0}])
    run_log.RunLog(tmp_path, 10, 0).close()
    assert run_log.read_rows(tmp_path) == []


@pytest.mark.parametrize('half', ['{"step": 3, "lo', '{', '{"step": 3, "loss": 1.0', 'garbage\n'])
def test_half_a_line_at_the_end(tmp_path, half):
    whole = [{'step': 1, 'loss': 2.0}, {'step': 2, 'loss': 1.0}]
    write_rows(tmp_path, whole, half)
    assert run_log.read_rows(tmp_path) == whole
    # A run that goes on writes behind the last whole row, not behind the half one.
    log = run_log.RunLog(tmp_path, 10, 5)
    log.write({'step': 6, 'loss': 0.5})
    log.close()
    assert run_log.read_rows(tmp_path) == [*whole, {'step': 6, 'loss': 0.5}]


def test_no_rows(tmp_path):
    assert run_log.read_rows(tmp_path) == []
    assert run_log.read_rows(tmp_path / 'nowhere') == []


def test_tensorboard_events(tmp_path):
    log = run_log.RunLog(tmp_path, 20, 0)
    log.write({'step': 10, 'loss': 3.5, 'accuracy': 0.25})
    log.write({'step': 20, 'loss': 3.25, 'validation_loss': 3.75, 'validation_accuracy': 0.5})
    log.close()
    assert scalars(tmp_path) == {
        ('train/loss', 10): 3.5,
        ('train/accuracy', 10): 0.25,
        ('train/loss', 20): 3.25,
        ('validation/loss', 20): 3.75,
        ('validation/accuracy', 20): 0.5,
    }
    # A run that begins anew, killed before it saved, drops all that it wrote before.
    assert [e.step for e in events(tmp_path) if e.HasField('session_log')] == [1]


def test_tensorboard_forgets_what_a_resumed_run_makes_anew(tmp_path):
    log = run_log.RunLog(tmp_path, 20, 10)
    log.write({'step': 11, 'loss': 2.0})
    log.close()
    # SessionLog.START at a step makes TensorBoard drop what older files have from there on.
    starts = [e.step for e in events(tmp_path) if e.HasField('session_log')]
    assert starts == [11]


def test_without_tensorboard(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'tensorboardX', None)  # the import then fails
    log = run_log.RunLog(tmp_path, 1, 0)
    log.write({'step': 1, 'loss': 2.0, 'validation_loss': 3.0})
    log.close()
    assert 'tensorboardX is not installed' in capsys.readouterr().out
    assert run_log.read_rows(tmp_path) == [{'step': 1, 'loss': 2.0, 'validation_loss': 3.0}]
    assert [p.name for p in tmp_path.iterdir()] == ['metrics.jsonl']


def test_the_bar_shows_step_losses_and_speed(tmp_path, capsys):
    log = run_log.RunLog(tmp_path, 20, 9)
    log.advance()
    log.write({'step': 10, 'loss': 3.14159, 'validation_loss': 4.5, 'tokens_per_second': 12345.0})
    log.close()
    shown = capsys.readouterr().err.split('\r')[-1]
    assert '10/20' in shown
    assert 'loss=3.142' in shown
    assert 'validation=4.5' in shown
    assert 'tokens/s=1.234e+04' in shown


def test_fields_that_two_equal_runs_may_differ_in():
    """README and the tests of determinism compare rows without these."""
    assert set(run_log.TIME_FIELDS) == {'seconds', 'tokens_per_second', 'mfu'}
