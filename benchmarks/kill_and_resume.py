"""Kills a run many times, at random moments, and compares it with its undisturbed twin.

    python benchmarks/kill_and_resume.py --kills=20

What is killed (SIGKILL, the whole process group) is everything that `pretrain.train` does from a
cold start: making the corpus, compiling, training, saving. Each time the same command is started
again. At the end the newest checkpoint must hold the same bits as the twin's, metrics.jsonl the
same rows (time fields apart), and the corpus the same files. Exit code 0 when all three hold.
"""

import argparse
import datetime
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from pretrain import restoration, run_log


def main():
    """Runs the twin, then the victim, and says what it found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--kills', type=int, default=20)
    parser.add_argument('--steps', type=int, default=400)
    parser.add_argument('--seed', type=int, default=0)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix='kill-and-resume-'))
    print(f'{datetime.date.today()}, {os.cpu_count()} cores, {options.kills} kills, in {folder}')

    began = time.time()
    subprocess.run(command(folder, 'twin', options.steps), check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)  # fmt: skip
    whole = time.time() - began
    print(f'undisturbed: {whole:.0f} s')

    rng = random.Random(options.seed)
    survived = 0
    for kill in range(options.kills):
        # A run that starts late in its steps needs time to get there, so moments spread over all.
        moment = rng.uniform(0.5, 0.5 * whole)
        process = subprocess.Popen(
            command(folder, 'victim', options.steps), start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            _, err = process.communicate(timeout=moment)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            _, err = process.communicate()
            steps = [row['step'] for row in run_log.read_rows(folder / 'victim')]
            print(
                f'kill {kill + 1:2} after {moment:5.1f} s: {steps[-1] if steps else 0} steps logged'
            )
        else:
            survived += 1
            if process.returncode:
                sys.exit(f'FAILED: exit code {process.returncode}: {err[-2000:]}')
        said = [line for line in err.splitlines() if 'damaged' in line or 'Traceback' in line]
        if said:
            print('   said:', *said, sep='\n   ')
    subprocess.run(command(folder, 'victim', options.steps), check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)  # fmt: skip

    found = {
        'parameters and optimizer, bit for bit': bits(folder / 'twin') == bits(folder / 'victim'),
        'rows of metrics.jsonl': rows(folder / 'twin') == rows(folder / 'victim'),
        'files of the corpus': corpus(folder / 'twin-cache') == corpus(folder / 'victim-cache'),
    }
    print(f'{options.kills - survived} kills hit a running program, {survived} came too late')
    for what, same in found.items():
        print(f'{what}: {"the same" if same else "DIFFERENT"}')
    if all(found.values()):
        shutil.rmtree(folder)
    sys.exit(not all(found.values()))


def command(folder, name, steps):
    """The command line of a run whose corpus and programs are its own."""
    return [
        sys.executable, '-m', 'pretrain.train', '--config=configs/gpt.py:smoke',
        f'--workdir={folder / name}', f'--config.data.cache={folder / f"{name}-cache"}',
        '--config.data.shard_megabytes=0.5', f'--config.steps={steps}', '--config.log.every=5',
        '--config.checkpoint.every=15', '--config.eval.every=50', '--config.model.dropout=0.1',
        '--config.sample.tokens=0',
    ]  # fmt: skip


def bits(workdir):
    """Step and digest of the arrays of the newest checkpoint."""
    step = restoration.newest_whole(workdir)
    digest = hashlib.sha256()
    for item in ('params', 'optimizer'):
        with ocp.PyTreeCheckpointer() as reader:
            path = workdir / 'checkpoints' / str(step) / item
            tree = reader.metadata(path).item_metadata.tree
            arguments = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
            restored = reader.restore(path, restore_args=arguments)
        for key, leaf in jax.tree_util.tree_leaves_with_path(restored):
            digest.update(jax.tree_util.keystr(key).encode() + np.asarray(leaf).tobytes())
    return step, digest.hexdigest()


def rows(workdir):
    """Rows of metrics.jsonl without the fields that tell the time."""
    return [
        {key: value for key, value in row.items() if key not in run_log.TIME_FIELDS}
        for row in run_log.read_rows(workdir)
    ]


def corpus(cache):
    """Digest of each file of a corpus."""
    return {
        str(path.relative_to(cache)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(cache.rglob('*'))
        if path.is_file() and 'compiled' not in path.parts and path.name != '.lock'
    }


if __name__ == '__main__':
    main()
