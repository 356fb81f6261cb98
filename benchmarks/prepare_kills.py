"""Kills the parent of a preparation many times, and looks at its workers and at what they leave.

    python -m benchmarks.prepare_kills --kills=20 --source=jsonl:WIKIPEDIA --shard_megabytes=4

Only the parent is killed (SIGKILL), at moments spread over the whole work, by a seed. Each time the
workers must have ended within two seconds. After every second kill the same command is started at
once, while they may still be there; after the others the folder is watched for a second, in which
no file of it may change. At the end every file of the corpus must hold the bytes of the twin's, and
nothing half-written may be left. Exit code 0 when all this holds.
"""

import hashlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from absl import app, flags

KILLS = flags.DEFINE_integer('kills', 20, 'Of a parent that runs.')
SOURCE = flags.DEFINE_string('source', 'wikipedia:excerpt', 'What is prepared.')
TOKENIZER = flags.DEFINE_string('tokenizer', '', 'Path of one; without it one is trained.')
SHARDS = flags.DEFINE_float('shard_megabytes', 0.5, 'Of text in a shard.')
SEED = flags.DEFINE_integer('seed', 0, 'Of the moments.')
ENOUGH = 2.0  # seconds in which workers must end
FILTERS = "('duplicates',)"  # so that shards are written twice, and a kill may come between


def main(_):
    """Runs the twin, then the victim, and says what it found."""
    folder = Path(tempfile.mkdtemp(prefix='prepare-kills-'))
    begun = time.time()
    start(folder / 'twin').wait()
    whole = time.time() - begun
    twin = content(folder / 'twin')
    if not twin:
        sys.exit('FAILED: the undisturbed run made nothing')
    print(f'undisturbed: {whole:.1f} s, {len(twin)} files')
    rng, slowest, changed, hits, orphaned = random.Random(SEED.value), 0.0, 0, 0, 0
    kill = 0
    victim = start(folder / 'victim')
    while hits < KILLS.value:
        kill += 1
        # A run that goes on has less to do, so moments near its start hit it as well.
        time.sleep(rng.uniform(0.5, 0.6 * whole))
        there = children(victim.pid)
        late = victim.poll() is not None
        victim.kill()
        killed = time.time()
        victim.wait()
        at_once = kill % 2 == 1
        if at_once:
            victim = start(folder / 'victim')
        while any(map(alive, there)) and time.time() - killed < 30:
            time.sleep(0.005)
        seconds = time.time() - killed
        if not late:
            hits, slowest, orphaned = hits + 1, max(slowest, seconds), orphaned + len(there)
        # Before copies are out, a shard is a unit.
        shards = len(list((folder / 'victim').glob('*/*-[0-9]*/summary.json')))
        when = 'it had ended' if late else f'{len(there)} workers, gone after {seconds:.2f} s'
        print(f'kill {kill:2}: {shards} shards; {when}', flush=True)
        if not at_once:
            before = state(folder / 'victim')
            time.sleep(1)
            changed += before != state(folder / 'victim')
            victim = start(folder / 'victim')
        if late:  # there is more to hit in a run from nothing
            victim.kill()
            victim.wait()
            while any(map(alive, children(victim.pid))):
                time.sleep(0.01)
            shutil.rmtree(folder / 'victim', ignore_errors=True)
            victim = start(folder / 'victim')
    failed = victim.wait()
    print(f'{hits} kills hit a running program, which had {orphaned} workers')
    same = content(folder / 'victim') == twin
    left = [path.name for path in (folder / 'victim').rglob('*.partial')]
    print(f'the last worker ended {slowest:.2f} s after its parent')
    print(f'{changed} times a file changed after that')
    print(f'files: {"the same as the twin" if same else "DIFFERENT"}, {len(left)} half-written')
    shutil.rmtree(folder)
    sys.exit(not (same and not failed and not left and not changed and slowest < ENOUGH and hits))


def start(cache):
    """The command, started."""
    return subprocess.Popen(
        [
            sys.executable, '-m', 'pretrain.prepare', '--config=configs/gpt.py:smoke',
            f'--out={cache}', f'--config.data.source={SOURCE.value}', '--processes=2',
            f'--config.data.shard_megabytes={SHARDS.value}', f'--config.data.filters={FILTERS}',
            f'--config.data.tokenizer={TOKENIZER.value}',
        ],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def content(cache):
    """{name: digest} of every file of the corpora; locks and the picture, which says when, not."""
    return {
        str(path.relative_to(cache)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(cache.rglob('*'))
        if path.is_file() and not path.name.startswith('.lock') and path.suffix != '.png'
    }


def state(cache):
    """{path: (size, time of the last change)} of every file."""
    found = {}
    for path in cache.rglob('*'):
        status = path.stat()
        found[path] = status.st_size, status.st_mtime_ns
    return found


def children(pid):
    """Process numbers of the workers of a process."""
    found = []
    for path in Path('/proc').glob('[0-9]*/stat'):
        try:
            parent = int(path.read_text().rpartition(')')[2].split()[1])
            command = (path.parent / 'cmdline').read_text()
        except OSError:  # it has ended
            continue
        # multiprocessing's own helper writes nothing, and ends by itself.
        if parent == pid and 'resource_tracker' not in command:
            found.append(int(path.parent.name))
    return found


def alive(pid):
    """Whether a process runs, and is no zombie that nobody has waited for."""
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except OSError:
        return False


if __name__ == '__main__':
    os.environ.setdefault('JAX_PLATFORMS', 'cpu')
    app.run(main)
