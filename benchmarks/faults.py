"""Faults done to real runs of several processes: kills, signals, damage, a full disk.

    python -m benchmarks.faults --kills=20 --processes=4

All runs are the same training under `launch.local`; each must end with the parameters, bit for bit,
and the rows of metrics.jsonl of the one that was left alone, and lose no step that was saved. Exit
code 0 when all of it holds. Takes about a minute a fault on 2 cores.
"""

import datetime
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from absl import app, flags

from benchmarks import kill_and_resume
from pretrain import restoration, run_log

KILLS = flags.DEFINE_integer('kills', 20, 'How often one process is killed.')
PROCESSES = flags.DEFINE_integer('processes', 4, 'Processes of a run.')
STEPS = flags.DEFINE_integer('steps', 60, 'Steps of a run.')
SEED = flags.DEFINE_integer('seed', 0, 'Of the moments and the victims.')
EVERY = 10  # steps from one checkpoint to the next


def main(argv):
    """Does one fault after the other and says what came of it."""
    del argv
    folder = Path(tempfile.mkdtemp(prefix='faults-'))
    print(f'{datetime.date.today()}, {os.cpu_count()} cores, {PROCESSES.value} processes, {folder}')
    began = time.time()
    process = start(folder, 'twin')
    ended(process, 0)
    print(f'undisturbed: {time.time() - began:.0f} s')
    rng = random.Random(SEED.value)
    wrong = []

    def check(name, same, said):
        print(f'{name}: {said}: {"the same" if same else "DIFFERENT"}', flush=True)
        if not same:
            wrong.append(name)

    for number in range(1, KILLS.value + 1):
        check(f'kill {number}', *killed(folder, f'kill-{number}', rng))
    check('SIGTERM to one', *told_to_stop(folder, 'term', rng))
    for name, damage in DAMAGES.items():
        check(name, *damaged(folder, name.replace(' ', '-'), damage))
    check('a full disk', *full_disk(folder, 'full'))
    check('one that never starts', *missing(folder, 'missing'))
    print('all as it should be' if not wrong else f'FAILED: {", ".join(wrong)}')
    if not wrong:
        shutil.rmtree(folder)
    sys.exit(bool(wrong))


def training(folder, name):
    """The words of the training command."""
    return [
        'pretrain.train', '--config=configs/gpt.py:smoke', f'--workdir={folder / name}',
        f'--config.data.cache={folder / "cache"}', f'--config.steps={STEPS.value}',
        f'--config.checkpoint.every={EVERY}', '--config.checkpoint.keep=3', '--config.log.every=1',
        '--config.eval.every=1000', '--config.model.dropout=0.1', '--config.sample.tokens=0',
        f'--config.mesh=data=2,fsdp={PROCESSES.value // 2}',
    ]  # fmt: skip


def start(folder, name, *more):
    """Starts a run of several processes."""
    return subprocess.Popen(
        [
            sys.executable, '-m', 'launch.local', f'--processes={PROCESSES.value}', '--devices=1',
            '--grace=2', *more, '--', *training(folder, name),
        ],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors='replace',
    )  # fmt: skip


def ended(process, code):
    """(stdout, stderr) of a launcher that must end with this code."""
    out, err = process.communicate()
    if process.returncode != code:
        sys.exit(f'FAILED: exit code {process.returncode} in place of {code}: {err[-3000:]}')
    return out, err


def children(process):
    """The numbers of the processes that a launcher has started, in their order."""
    path = Path(f'/proc/{process.pid}/task/{process.pid}/children')
    return [int(number) for number in path.read_text().split()]


def logged(folder, name):
    """The last step of a run that is in its log; 0 without one."""
    rows = run_log.read_rows(folder / name)
    return rows[-1]['step'] if rows else 0


def wait_for(process, folder, name, step):
    """Returns when the run has logged the step, or has ended."""
    while logged(folder, name) < step and process.poll() is None:
        time.sleep(0.02)


def same(folder, name):
    """Whether a run has come to what the undisturbed one has come to."""
    runs = folder / 'twin', folder / name
    bits = {kill_and_resume.bits(run) for run in runs}
    twin, other = map(kill_and_resume.rows, runs)
    return len(bits) == 1 and twin == other


def killed(folder, name, rng):
    """kill -9 to one process at a random step; the launcher starts all again."""
    step, victim = rng.randrange(1, STEPS.value - 1), rng.randrange(PROCESSES.value)
    process = start(folder, name, '--restarts=1')
    wait_for(process, folder, name, step)
    at = logged(folder, name)
    os.kill(children(process)[victim], signal.SIGKILL)
    out, err = ended(process, 0)
    if 'starting again' not in err:
        return same(folder, name), f'process {victim} at step {at}, which was too late'
    found = re.findall(r'resumed from step (\d+)', out)
    resumed = int(found[-1]) if found else 0
    # The step in the log may be one behind, and the checkpoint of its last tenth be on its way.
    lost = at - resumed
    in_time = lost <= 2 * EVERY
    return in_time and same(folder, name), (
        f'process {victim} at step {at}, resumed from {resumed}'
    )


def told_to_stop(folder, name, rng):
    """SIGTERM to one process: all save the same step; the same command goes on."""
    process = start(folder, name)
    wait_for(process, folder, name, rng.randrange(5, STEPS.value // 2))
    victim = rng.randrange(PROCESSES.value)
    os.kill(children(process)[victim], signal.SIGTERM)
    out, _ = ended(process, 128 + signal.SIGTERM)
    saved = restoration.newest_whole(folder / name)
    told = f'stopped after step {saved} of {STEPS.value}, saved' in out
    out, _ = ended(start(folder, name), 0)
    told = told and f'resumed from step {saved}' in out
    return told and same(folder, name), f'process {victim}, saved step {saved}'


def flip(checkpoint):
    """One bit in the largest array file."""
    path = max(checkpoint.glob('params/**/d/*'), key=lambda p: p.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def delete(checkpoint):
    """One file of arrays is gone."""
    max(checkpoint.glob('optimizer/**/d/*'), key=lambda p: p.stat().st_size).unlink()


def truncate(checkpoint):
    """Half of the manifest is gone."""
    path = checkpoint / 'manifest.json'
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES = {'a flipped bit': flip, 'a deleted shard': delete, 'a truncated manifest': truncate}


def damaged(folder, name, damage):
    """A checkpoint is damaged between two starts: it is named, and the one before is taken."""
    process = start(folder, name)
    wait_for(process, folder, name, STEPS.value // 2)
    os.kill(process.pid, signal.SIGTERM)
    ended(process, 128 + signal.SIGTERM)
    newest = restoration.newest_whole(folder / name)
    damage(folder / name / 'checkpoints' / str(newest))
    out, err = ended(start(folder, name), 0)
    named = re.search(rf'checkpoint {newest} is damaged \((.*?)\): using (\d+)', err)
    taken = named and f'resumed from step {named[2]}' in out
    return bool(taken) and same(folder, name), named[0] if named else 'it was not named'


def full_disk(folder, name):
    """No file can grow any more: the failed save is named; with room again the run goes on."""
    process = start(folder, name)
    wait_for(process, folder, name, EVERY + 2)
    for child in children(process):
        resource.prlimit(child, resource.RLIMIT_FSIZE, (20_000, 20_000))
    _, err = ended(process, 2)
    said = re.search(r'error: (could not save .*?)$', err, re.MULTILINE)
    out, _ = ended(start(folder, name), 0)
    went_on = re.search(r'resumed from step (\d+)', out)
    return bool(said and went_on) and same(folder, name), said[1] if said else 'it was not said'


def missing(folder, name):
    """One process is never started: the others end and name it."""
    port = 20_000 + os.getpid() % 10_000
    started = [
        subprocess.Popen(
            [
                sys.executable, '-m', *training(folder, name), f'--coordinator=localhost:{port}',
                f'--processes={PROCESSES.value}', f'--process={number}', '--join_timeout=10',
            ],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for number in range(PROCESSES.value - 1)
    ]  # fmt: skip
    output = [process.communicate()[1] for process in started]
    words = f'process {PROCESSES.value - 1} of {PROCESSES.value} has not started'
    good = all(words in err for err in output)
    return good and {process.returncode for process in started} == {1}, f'all say "{words}"'


if __name__ == '__main__':
    app.run(main)
