"""The order of windows by real processes: any number, killed, and gone on with by others."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

BATCH, LENGTH, SEED = 8, 16, 7
# A run of so many processes: each forks off, reads its rows, and writes down what it read.
RUN = """
import json, os, sys, time
import numpy as np
from pretrain.data.corpus import Corpus
from pretrain.data.loader import Loader
from pretrain.data.windows import WindowReader

folder, out, processes, workers, step, steps, pause = sys.argv[1:]
processes, step, steps = int(processes), int(step), int(steps)
for process in range(processes):
    if os.fork() == 0:
        reader = WindowReader(Corpus(folder), 'train', {length})
        rows = slice({batch} * process // processes, {batch} * (process + 1) // processes)
        loader = Loader(reader, {seed}, {batch}, rows, step * {batch}, int(workers))
        with open(f'{{out}}.{{process}}', 'a') as file:
            for at in range(step, steps):
                windows = next(loader)
                row = [at, windows.numbers_B.tolist(), windows.tokens_BxW.tolist()]
                file.write(json.dumps(row) + '\\n')
                file.flush()
                time.sleep(float(pause))
        os._exit(0)
for _ in range(processes):
    assert os.wait()[1] == 0
"""


@pytest.fixture
def run(corpus, tmp_path, environment):
    script = tmp_path / 'run.py'
    script.write_text(RUN.format(length=LENGTH, batch=BATCH, seed=SEED))

    def run(out, processes, workers, step, steps, pause=0.0):
        arguments = [corpus.folder, tmp_path / out, processes, workers, step, steps, pause]
        return subprocess.Popen(
            [sys.executable, script, *map(str, arguments)], env=environment, start_new_session=True
        )

    return run


def read_by(tmp_path, out, processes):
    """{step: (numbers, tokens)} put together from what each process wrote; whole lines only."""
    steps = {}
    for process in range(processes):
        path = tmp_path / f'{out}.{process}'
        for line in path.read_text().splitlines() if path.exists() else ():
            try:
                at, numbers, tokens = json.loads(line)
            except ValueError:  # it was killed while it wrote
                continue
            have = steps.setdefault(at, ([], []))
            have[0].extend(numbers)
            have[1].extend(tokens)
    return {at: found for at, found in steps.items() if len(found[0]) == BATCH}


def test_every_number_of_processes_and_threads_reads_the_same(run, tmp_path):
    first, last = 3, 12
    started = {
        (processes, workers): run(f'{processes}-{workers}', processes, workers, first, last)
        for processes in (1, 2, 4, 8)
        for workers in (0, 2)
    }
    found = {}
    for (processes, workers), process in started.items():
        assert process.wait(120) == 0
        found[processes, workers] = read_by(tmp_path, f'{processes}-{workers}', processes)
    expected = found[1, 0]
    assert sorted(expected) == list(range(first, last))
    numbers = np.concatenate([expected[at][0] for at in range(first, last)])
    np.testing.assert_array_equal(numbers, np.arange(first * BATCH, last * BATCH))
    for other in found.values():
        assert other == expected


def test_killed_and_gone_on_with_by_another_number_of_processes(run, tmp_path):
    steps = 30
    whole = run('whole', 1, 0, 0, steps)
    assert whole.wait(120) == 0
    expected = read_by(tmp_path, 'whole', 1)
    done, found = 0, {}
    for processes in (2, 8, 4):
        out = f'after-{done}'
        running = run(out, processes, 2, done, steps, pause=0.05)
        while len(read_by(tmp_path, out, processes)) < 7:
            assert running.poll() is None
            time.sleep(0.02)
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
        # A step is done when all of its rows were read, as a checkpoint would have it.
        read = read_by(tmp_path, out, processes)
        for at in range(done, steps):
            if at not in read:
                break
            found[at], done = read[at], at + 1
    assert 20 <= done < steps
    last = run('last', 1, 0, done, steps)
    assert last.wait(120) == 0
    found |= read_by(tmp_path, 'last', 1)
    assert found == expected
