"""Eight fake devices, a shared compilation cache, a text, and the commands as users call them."""

import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from pretrain import restoration

ROOT = Path(__file__).parent.parent
COMPILED = ROOT / 'cache' / 'compiled-for-tests'
os.environ.setdefault('JAX_PLATFORMS', 'cpu')  # libtpu, which is installed, would look for TPUs
# XLA's newer way to make loops takes three times as long to compile, and here each program runs a
# few times. XLA ends where it does not know a flag, so only a jax that was tried gets them.
if jax.__version_info__ < (0, 11):
    os.environ['XLA_FLAGS'] = ' '.join([
        os.environ.get('XLA_FLAGS', ''),
        '--xla_cpu_use_fusion_emitters=false',
        '--xla_cpu_parallel_codegen_split_count=1',
    ])  # fmt: skip

jax.config.update('jax_num_cpu_devices', 8)
jax.config.update('jax_compilation_cache_dir', str(COMPILED))
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.1)
# The tests compile much and run little.
jax.config.update('jax_disable_most_optimizations', True)


def pytest_collection_modifyitems(items):
    """Commands first: begun last, their long files would leave the other process idle."""
    items.sort(key=lambda item: len(item.path.parts))


@pytest.fixture(scope='session')
def environment():
    """Environment of subprocesses: one CPU device, the shared compilation cache."""
    return os.environ | {
        'PYTHONPATH': str(ROOT),
        'JAX_PLATFORMS': 'cpu',
        'JAX_COMPILATION_CACHE_DIR': str(COMPILED),
        'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.1',
        'JAX_DISABLE_MOST_OPTIMIZATIONS': '1',
        'PYTHONWARNINGS': 'error:::pretrain,error:::objectives,error:::configs',
    }


# Forks before any device is touched, so that a dozen calls import jax once.
FORKED = """
import json, os, sys
import {module} as module
from pretrain import commandline
for i, argv in enumerate(json.loads(sys.stdin.read())):
    if os.fork() == 0:
        for stream, name in ((1, 'out'), (2, 'err')):
            os.dup2(os.open(f'{{sys.argv[1]}}/{{i}}.{{name}}', os.O_WRONLY | os.O_CREAT), stream)
        sys.argv = ['{module}', *argv]
        commandline.run(module.main, {run_flag!r}, getattr(module, 'default_config', None))
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


def _module(command):
    return command if '.' in command else f'pretrain.{command}'


@pytest.fixture(scope='session')
def start(environment, request):
    """start('train', *flags) -> Popen of pretrain.train; start('launch.plan', ...) of that."""

    def start(command, *flags, **changes):
        return subprocess.Popen(
            [sys.executable, '-m', _module(command), *map(str, flags)],
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

    def call_many(command, calls, run_flag=None):
        folder = Path(tempfile.mkdtemp(prefix='calls', dir=tmp_path))
        script = FORKED.format(module=_module(command), run_flag=run_flag)
        subprocess.run(
            [sys.executable, '-c', script, folder], input=json.dumps(calls), text=True, timeout=300,
            env=environment, cwd=request.config.rootpath, check=True,
        )  # fmt: skip
        read = lambda i, name: (folder / f'{i}.{name}').read_text()  # noqa: E731
        return [(int(read(i, 'code')), read(i, 'out'), read(i, 'err')) for i in range(len(calls))]

    return call_many


@pytest.fixture
def refused(call_many):
    """refused('train', [(flags, what is said), ...]): one line, exit code 2, no traceback."""

    def refused(command, cases, run_flag=None):
        results = call_many(command, [flags for flags, _ in cases], run_flag)
        for (flags, says), (code, _, err) in zip(cases, results, strict=True):
            said = [line for line in err.splitlines() if line.startswith('error: ')]
            assert code == 2, (flags, err)
            assert len(said) == 1, (flags, err)
            assert says in said[0], (flags, said)
            assert 'Traceback' not in err, (flags, err)

    return refused


@pytest.fixture(scope='session')
def bits():
    """bits(workdir) -> (newest step, sha256 of its arrays, whatever the files look like)."""

    def bits(workdir):
        step = restoration.newest_whole(workdir)
        digest = hashlib.sha256()
        for item in ('params', 'optimizer'):
            with ocp.PyTreeCheckpointer() as reader:
                folder = workdir / 'checkpoints' / str(step) / item
                metadata = reader.metadata(folder).item_metadata.tree
                as_numpy = ocp.RestoreArgs(restore_type=np.ndarray)
                arguments = jax.tree.map(lambda _, a=as_numpy: a, metadata)
                tree = reader.restore(folder, restore_args=arguments)
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
                digest.update(jax.tree_util.keystr(path).encode() + np.asarray(leaf).tobytes())
        return step, digest.hexdigest()

    return bits
