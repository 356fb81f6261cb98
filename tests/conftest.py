"""Eight fake devices, a shared compilation cache, a text, and the commands as users call them."""

import gc
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
# What tracing allocates stays for long: Python need not look so often for what can go.
gc.set_threshold(100_000, 20, 100)


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


# Imports what others have written, once, and forks for each call before a device is touched.
SERVER = """
import atexit, gc, importlib, json, os, runpy, signal, sys, threading, traceback
import absl.app, flax.linen, jax.experimental.multihost_utils, matplotlib.pyplot
import ml_collections.config_flags, optax, orbax.checkpoint, sentencepiece, tensorboardX, tqdm

def forked(run, out):
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    signal.alarm(300)
    for stream, path in enumerate(['/dev/null', *out]):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), stream)
    code = 1
    try:
        run()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    threading._shutdown()  # as at every exit, but that nobody clears away what was imported
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

def main():  # as python -m MODULE, or python FILE
    os.chdir(call['folder'])
    sys.argv = [call['command'], *call['calls'][0]]
    if call['command'].endswith('.py'):
        runpy.run_path(call['command'], run_name='__main__')
    else:
        runpy.run_module(call['command'], run_name='__main__', alter_sys=True)

def many():  # and the command is imported once
    from pretrain import commandline
    module = importlib.import_module(call['command'])
    default = getattr(module, 'default_config', None)
    run = lambda: commandline.run(module.main, call['run_flag'], default)
    for argv, out in zip(call['calls'], call['out'][1:]):
        sys.argv = [call['command'], *argv]
        print(forked(run, out), flush=True)

gc.freeze()
gc.set_threshold(100_000, 20, 100)
for line in sys.stdin:
    call = json.loads(line)
    print(forked(many if 'run_flag' in call else main, call['out'][0]), flush=True)
"""


@pytest.fixture(scope='session')
def fork(environment, request):
    """fork('pretrain.train', [flags]) -> [CompletedProcess]; a file's name is a command, too.

    With run_flag: the process that imports the command, then that of each of many lists of flags.
    """
    server = subprocess.Popen(
        [sys.executable, '-c', SERVER], env=environment, cwd=request.config.rootpath, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip

    def fork(command, calls, folder=request.config.rootpath, **run_flag):
        calls = [[str(word) for word in argv] for argv in calls]
        with tempfile.TemporaryDirectory() as outputs:
            out = [[f'{outputs}/{i}.{n}' for n in ('out', 'err')] for i in range(len(calls) + 1)]
            call = {'command': command, 'calls': calls, 'folder': str(folder), 'out': out}
            server.stdin.write(json.dumps(call | run_flag) + '\n')
            server.stdin.flush()
            codes = [int(server.stdout.readline())]
            codes += map(int, Path(out[0][0]).read_text().split()) if run_flag else []
            read = lambda pair: [Path(path).read_text() for path in pair]  # noqa: E731
            return [
                subprocess.CompletedProcess(command, code, *read(pair))
                for code, pair in zip(codes, out)
            ]

    yield fork
    server.stdin.close()
    server.wait()


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
def call(fork):
    """call('train', *flags) -> CompletedProcess."""
    return lambda command, *flags: fork(_module(command), [flags])[0]


@pytest.fixture(scope='session')
def call_many(fork):
    """call_many('train', [flags, flags, ...]) -> [(exit code, stdout, stderr), ...]."""

    def call_many(command, calls, run_flag=None):
        first, *done = fork(_module(command), calls, run_flag=run_flag)
        assert first.returncode == 0, first.stderr
        return [(each.returncode, each.stdout, each.stderr) for each in done]

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
