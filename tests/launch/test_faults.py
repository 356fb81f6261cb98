"""Faults of runs of several processes, and one that goes on with other devices."""

import json
import os
import re
import resource
import shutil
import signal
import time

import jax
import numpy as np
import orbax.checkpoint as ocp

from pretrain import restoration

# An optimizer whose steps are continuous in the gradient, so that what differs in the last bit of
# a sum stays small.
RUN = [
    '--config.checkpoint.keep=20', '--config.eval.every=100', '--config.log.every=1',
    '--config.optimizer.epsilon=0.01',
]  # fmt: skip


def losses(workdir):
    """{step: loss}; a step that was made again counts as it was made last."""
    path = workdir / 'metrics.jsonl'
    rows = map(json.loads, path.read_text().splitlines() if path.exists() else [])
    return {row['step']: row['loss'] for row in rows}


def parameters(checkpoint):
    """The numbers of a checkpoint."""
    with ocp.PyTreeCheckpointer() as reader:
        tree = reader.metadata(checkpoint / 'params').item_metadata.tree
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        return jax.tree.leaves(reader.restore(checkpoint / 'params', restore_args=as_numpy))


def told(run, what):
    """The sha256 that every process of a run tells of what it saved, or restored."""
    digests = {re.search(rf'^{what}: (sha256 \w+)$', said, re.MULTILINE)[1] for said in run.said()}
    assert len(digests) == 1
    return digests.pop()


def test_saved_on_8_devices_and_restored_on_others(training, small, tmp_path):
    flags = [*small, *RUN, '--config.steps=6', '--config.checkpoint.every=3']
    whole = tmp_path / 'whole'
    first = training(1, 8, *flags, '--config.mesh=fsdp=4,tensor=2', f'--workdir={whole}')
    assert first.wait() == [0], first.said()
    half = tmp_path / 'half'
    shutil.copytree(whole, half)
    shutil.rmtree(half / 'checkpoints' / '6')
    # On two devices of one process too: benchmarks/mesh_parity.py, for four objectives.
    others = (1, 4, 'fsdp=2,tensor=2'), (1, 1, 'data=1'), (2, 1, 'fsdp=2')
    for processes, devices, mesh in others:
        workdir = tmp_path / f'{processes}x{devices}'
        shutil.copytree(half, workdir)
        run = training(processes, devices, *flags, f'--config.mesh={mesh}', f'--workdir={workdir}')
        assert run.wait() == [0] * processes, run.said()
        assert told(run, 'restored 3') == told(first, 'saved 3')  # the same bits
        made, wanted = losses(workdir), losses(whole)
        assert made.keys() == wanted.keys() == set(range(1, 7))
        np.testing.assert_allclose(list(made.values()), list(wanted.values()), rtol=1e-6)
        ours, theirs = (parameters(folder / 'checkpoints' / '6') for folder in (workdir, whole))
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


def largest(checkpoint, item):
    """The file that holds the most of an item's arrays."""
    return max(checkpoint.glob(f'{item}/**/d/*'), key=lambda path: path.stat().st_size)


def errors(run):
    """The errors that the processes have said."""
    return [line for said in run.said() for line in said.splitlines() if 'rror' in line]


def wait_for(run, what):
    """Returns when something is so in a run that goes on."""
    for _ in range(2000):
        if what():
            return
        time.sleep(0.05)
    run.kill(*range(len(run.pids)))
    raise AssertionError(run.said())


def test_a_full_disk_damaged_checkpoints_and_a_process_that_is_stuck(training, small, tmp_path):
    flags = [*small, *RUN, '--config.steps=400', '--config.checkpoint.every=2']
    flags += ['--config.mesh=fsdp=2', '--heartbeat_timeout=3', f'--workdir={tmp_path}']
    folder = tmp_path / 'checkpoints'

    # One of the two cannot write: it says so, and both end.
    first = training(2, 1, *flags)
    wait_for(first, lambda: max(losses(tmp_path), default=0) > 8)
    resource.prlimit(first.pids[1], resource.RLIMIT_FSIZE, (20_000, 20_000))
    assert first.wait() == [2, 2], first.said()
    saved = restoration.newest_whole(tmp_path)
    assert saved >= 8
    words = f'could not save checkpoint of step {saved + 2}: File too large; '
    assert errors(first) == [
        'error: process 0 of 2: process 1 has failed with exit code 2: see why in its own output',
        f'error: {words}the checkpoint of step {saved} is whole',
    ]

    # Three checkpoints are damaged: each is named, the one before them is taken, the run goes on.
    kept = saved - 6
    flipped = largest(folder / str(saved), 'params')
    content = bytearray(flipped.read_bytes())
    content[len(content) // 2] ^= 1
    flipped.write_bytes(content)
    lacking = largest(folder / str(saved - 2), 'optimizer')
    lacking.unlink()
    os.truncate(folder / str(saved - 4) / 'manifest.json', 300)
    second = training(2, 1, *flags)
    wait_for(second, lambda: f'saved {saved}: ' in second.said()[1])
    out, other = second.said()
    for step, fault in [
        (saved, f'{flipped.relative_to(folder / str(saved))}: sha256 differs'),
        (saved - 2, f'{lacking.relative_to(folder / str(saved - 2))}: No such file or directory'),
        (saved - 4, 'manifest.json is not readable'),
    ]:
        assert f'checkpoint {step} is damaged ({fault}): using {kept}' in out
    assert 'damaged' not in other
    assert f'resumed from step {kept}' in out
    for step in range(saved - 4, saved + 1, 2):
        assert told(second, f'saved {step}') == told(first, f'saved {step}')  # the same bits

    # One is stopped in the midst of the steps: the other names it, and ends.
    os.kill(second.pids[1], signal.SIGSTOP)
    assert second.wait(stopped=[1]) == [1], second.said()
    silent = 'no sign of life from process 1 for 3 s (--heartbeat_timeout)'
    assert errors(second) == [f'error: process 0 of 2: {silent}: stopped, or the machine gone?']
