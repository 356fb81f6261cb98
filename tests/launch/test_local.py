"""Real processes on this machine: they join, one dies and all start again."""

import contextlib
import io
import json
import os
import re
import signal
import sys
import time

import numpy as np
import pytest

from launch import local
from pretrain import restoration

EVERY = 6  # steps from one checkpoint to the next
RUN = [
    '--config.steps=24', f'--config.checkpoint.every={EVERY}', '--config.checkpoint.keep=10',
    '--config.eval.every=100', '--config.log.every=1', '--config.mesh=fsdp=2',
    '--config.sample.tokens=0',
]  # fmt: skip


def launched(start, small, workdir, *flags):
    command = ['--processes=2', '--devices=1', *flags, '--', 'pretrain.train', *small, *RUN]
    return start('launch.local', *command, f'--workdir={workdir}')


def children(pid):
    """Process numbers of the processes that a process has started, in the order of their start."""
    return [int(n) for n in open(f'/proc/{pid}/task/{pid}/children').read().split()]


def wait_for(process, what):
    """Waits until what() is true while a process runs."""
    for _ in range(2400):
        if what():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise AssertionError('it takes too long')


def losses(workdir):
    """{step: loss}; a step that was made again counts as it was made last."""
    rows = (json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines())
    return {row['step']: row['loss'] for row in rows}


def lines(workdir):
    """How many steps have been logged."""
    path = workdir / 'metrics.jsonl'
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.fixture(scope='module')
def undisturbed(start, small, tmp_path_factory):
    """The folder of a run of two processes, and what it printed."""
    workdir = tmp_path_factory.mktemp('local') / 'undisturbed'
    process = launched(start, small, workdir)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return workdir, out, err


def test_every_process_says_what_falls_to_it(undisturbed):
    _, out, err = undisturbed
    mesh = 'mesh data=1,fsdp=2,tensor=1,sequence=1'
    assert f'process 0 of 2: 1 of 2 devices (cpu), {mesh}, windows 1 to 4 of each 8' in out
    assert f'[1] process 1 of 2: 1 of 2 devices (cpu), {mesh}, windows 5 to 8 of each 8' in err
    assert 'parameters' not in err  # only process 0 says the rest
    assert 'Gloo' not in out + err


def test_two_processes_compute_what_one_device_computes(undisturbed, call, small, tmp_path):
    done = call('train', *small, *RUN, '--config.mesh=fsdp=1', f'--workdir={tmp_path}')
    assert done.returncode == 0, done.stderr
    one, two = losses(tmp_path), losses(undisturbed[0])
    assert len(one) == 24
    assert one.keys() == two.keys()
    np.testing.assert_allclose(list(two.values()), list(one.values()), rtol=1e-5)


def test_told_to_stop_and_killed_three_times_it_ends_as_if_nothing_had_happened(
    undisturbed, start, small, bits, tmp_path
):
    workdir = tmp_path / 'run'
    process = launched(start, small, workdir, '--grace=60')
    wait_for(process, lambda: lines(workdir) >= 2)
    os.kill(children(process.pid)[1], signal.SIGTERM)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 128 + signal.SIGTERM, err
    step = restoration.newest_whole(workdir)  # saved by both, who have stopped there
    assert f'stopped after step {step} of' in out
    assert step < 24

    process = launched(start, small, workdir, '--restarts=3', '--grace=1')
    dead = []

    def kill(victim, at):
        alive = lambda: [n for n in children(process.pid) if n not in dead]  # noqa: E731
        wait_for(process, lambda: max(losses(workdir)) >= at and len(alive()) == 2)
        os.kill(alive()[victim], signal.SIGKILL)
        dead.extend(alive())

    kill(1, at=step + 1)
    kill(0, at=13)
    kill(1, at=18)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert [int(n) for n in re.findall(r'starting again, (\d) left', err)] == [2, 1, 0]
    resumed = [int(n) for n in re.findall(r'resumed from step (\d+)', out)]
    assert resumed[0] == step
    # A checkpoint that was being written when the last one was killed is not there.
    assert resumed[-1] >= 18 - 2 * EVERY
    assert bits(workdir) == bits(undisturbed[0])
    assert losses(workdir) == losses(undisturbed[0])


def test_what_is_said_is_read_on_when_nobody_listens_any_more():
    reading, writing = os.pipe()
    os.close(reading)
    said = io.BytesIO(b'much\n' * 10_000)
    with contextlib.suppress(BrokenPipeError), open(writing, 'w') as to:
        local._repeat(1, said, to)
    assert said.read() == b''


def test_what_would_be_run(launch):
    run = ['--', 'pretrain.train', '--config=a b.py:tiny', '--workdir=x']
    code, out, err = launch('local', '--processes=2', '--devices=3', '--port=99', '--dry_run', *run)
    assert code == 0, err
    for number, line in enumerate(out.splitlines()):
        assert line == (
            f'JAX_NUM_CPU_DEVICES=3 {sys.executable} -m pretrain.train --coordinator=localhost:99 '
            f"--processes=2 --process={number} '--config=a b.py:tiny' --workdir=x"
        )
    code, out, err = launch('local', '--processes=1', '--dry_run', *run)
    assert out == f"{sys.executable} -m pretrain.train '--config=a b.py:tiny' --workdir=x\n"


def test_what_is_wrong_is_said_in_one_line(refused):
    run = ['--', 'pretrain.train', '--config=a.py', '--workdir=x']
    refused('local', [
        ([], 'what is to run is missing'),
        (['--processes=2', *run[1:]], 'write -- before pretrain.train'),
        (['--', 'pretrain.trian'], 'did you mean pretrain.train?'),
        (['--', 'pretrain.prepare', '--config=a.py'], 'pretrain.prepare runs in one process'),
        (['--processes=0', *run], '--processes=0'),
        (['--port=70000', *run], '--port=70000'),
        ([*run, '--process=3'], '--process=3 behind --'),
        (['more', *run], "unknown argument 'more'"),
    ])  # fmt: skip
