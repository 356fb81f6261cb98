"""A text to train on, and the commands as their users call them."""

import random
import subprocess
import sys

import numpy as np
import pytest

from objectives import contract

# Forks before any device is touched, so that a dozen calls import jax once.
FORKED = """
import json, os, sys
import pretrain.{command} as module
from pretrain import commandline
for i, argv in enumerate(json.loads(sys.stdin.read())):
    if os.fork() == 0:
        for stream, name in ((1, 'out'), (2, 'err')):
            os.dup2(os.open(f'{{sys.argv[1]}}/{{i}}.{{name}}', os.O_WRONLY | os.O_CREAT), stream)
        sys.argv = ['pretrain.{command}', *argv]
        commandline.run(module.main, {run_flag!r})
    status = os.waitstatus_to_exitcode(os.wait()[1])
    open(f'{{sys.argv[1]}}/{{i}}.code', 'w').write(str(status))
"""


@pytest.fixture(scope='session')
def text_folder(tmp_path_factory):
    """Twenty files of made-up sentences."""
    folder = tmp_path_factory.mktemp('text')
    rng = random.Random(0)
    syllables = ['ka', 'lo', 'mi', 'ter', 'on', 'sa', 've', 'ru', 'den', 'pi']
    words = [''.join(rng.choices(syllables, k=rng.randrange(1, 4))) for _ in range(150)]
    for i in range(20):
        sentences = [' '.join(rng.choices(words, k=8)).capitalize() + '.' for _ in range(40)]
        (folder / f'{i}.txt').write_text(' '.join(sentences))
    return folder


@pytest.fixture(scope='session')
def small(text_folder, tmp_path_factory):
    """Flags of a run on that text: seconds long, and the corpus shared by all."""
    return [
        '--config=configs/gpt.py:smoke',
        f'--config.data.source=text:{text_folder}',
        f'--config.data.cache={tmp_path_factory.mktemp("cache")}',
        '--config.data.vocabulary_size=400',
        '--config.data.validation_fraction=0.2',
        '--config.eval.windows=0',
    ]


@pytest.fixture(scope='session')
def vocabulary():
    """A tokenizer of 96 ids with all that an objective may ask for: 9 special, 67 pieces, 20
    sentinels."""
    bytes_V = np.where(np.arange(96) < 9, 0, 3)
    bytes_V[-20:] = 0
    return contract.Vocabulary(
        size=96, table_size=96, pad=0, eos=1, unk=2, cls=3, sep=4, mask=5,
        modes={'R': 6, 'X': 7, 'S': 8}, sentinels=tuple(range(95, 75, -1)),
        word_start_V=np.arange(96) % 3 == 0, bytes_V=bytes_V.astype(np.int32),
    )  # fmt: skip


@pytest.fixture(scope='session')
def start(environment, request):
    """start('train', *flags) -> Popen."""

    def start(command, *flags, **changes):
        return subprocess.Popen(
            [sys.executable, '-m', f'pretrain.{command}', *map(str, flags)],
            env=environment | changes, cwd=request.config.rootpath, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    return start


@pytest.fixture(scope='session')
def call(start):
    """call('train', *flags) -> CompletedProcess."""

    def call(command, *flags, **changes):
        process = start(command, *flags, **changes)
        out, err = process.communicate(timeout=300)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    return call


@pytest.fixture
def call_many(environment, request, tmp_path):
    """call_many('train', [flags, flags, ...]) -> [(exit code, stdout, stderr), ...]."""
    import json

    def call_many(command, calls, run_flag=None):
        folder = tmp_path / 'calls'
        folder.mkdir()
        script = FORKED.format(command=command, run_flag=run_flag)
        subprocess.run(
            [sys.executable, '-c', script, folder], input=json.dumps(calls), text=True, timeout=300,
            env=environment, cwd=request.config.rootpath, check=True,
        )  # fmt: skip
        read = lambda i, name: (folder / f'{i}.{name}').read_text()  # noqa: E731
        return [(int(read(i, 'code')), read(i, 'out'), read(i, 'err')) for i in range(len(calls))]

    return call_many


@pytest.fixture(scope='session')
def trained(call, small, tmp_path_factory):
    """The folder of a short finished run, and what it printed."""
    workdir = tmp_path_factory.mktemp('runs') / 'trained'
    done = call('train', *small, f'--workdir={workdir}')
    assert done.returncode == 0, done.stderr
    return workdir, done.stdout
