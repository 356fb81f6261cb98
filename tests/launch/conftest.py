"""The launchers as users call them, and programs of clusters that write down what they are told."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Forks, so that many calls import jax once; the flags of each launcher are defined in its child.
SERVER = """
import gc, json, os, runpy, signal, sys, traceback
import launch.accelerators, launch.commands, pretrain.data.corpus, yaml
gc.freeze()
for line in sys.stdin:
    call = json.loads(line)
    child = call.get('wait') or os.fork()
    if child == 0:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored below `pytest &`
        for stream in (1, 2):
            os.dup2(os.open(call['out'][stream - 1], os.O_WRONLY | os.O_CREAT), stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(call['folder'])
        os.environ.clear()
        os.environ.update(call['environment'])
        sys.argv = call['argv']
        code = 1
        try:
            runpy.run_module(call['module'], run_name='__main__', alter_sys=True)
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            traceback.print_exc()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)  # what jax does at an exit takes longer than all of a launcher
    if call.get('background'):
        print(child, flush=True)
    else:
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
FAKE = '''#!{python} -ISs
"""Writes down how it was called, and answers as answers.json says."""
import json, os, signal, subprocess, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
folder = {folder!r}
program, words = os.path.basename(sys.argv[0]), sys.argv[1:]
given = None if sys.stdin is None or program in ('curl', 'srun') else sys.stdin.read()
with open(folder + '/calls.jsonl', 'a') as calls:
    calls.write(json.dumps([program, words, given]) + '\\n')
line = ' '.join([program, *words]).split(' --command=')[0]
answers = json.load(open(folder + '/answers.json'))
for answer in answers:
    if answer['to'] in line and answer['times']:
        answer['times'] -= 1
        json.dump(answers, open(folder + '/answers.json', 'w'))
        sys.stdout.write(answer['says'])
        sys.stderr.write(answer['error'])
        sys.exit(answer['code'])
if program == 'srun':
    os.environ |= {{'SLURM_PROCID': '0'}}
    command = words[[w.startswith('-') for w in words].index(False):]
    os.execvp(command[0], command)
if program == 'curl':
    sys.exit(print(os.environ['WORKER']))
if program == 'gcloud' and words[2:3] == ['tpu-vm'] and words[3] in ('ssh', 'scp'):
    flags = dict(w.lstrip('-').split('=', 1) for w in words if w.startswith('--') and '=' in w)
    hosts = sorted(os.listdir(folder + '/hosts'))
    hosts = hosts if flags['worker'] == 'all' else [hosts[int(flags['worker'])]]
    running = []
    for host in hosts:
        home = folder + '/hosts/' + host
        if words[3] == 'ssh':
            command = ['bash', '-c', flags['command']]
        else:
            command = ['cp', '-r', words[4], home + '/' + words[5].partition(':')[2]]
        where = os.environ | {{'HOME': home, 'WORKER': host, 'SLURM_PROCID': host}}
        running.append(subprocess.Popen(command, cwd=home, env=where, stdin=subprocess.DEVNULL))
    sys.exit(max([process.wait() for process in running]))
'''
PROGRAMS = ('gcloud', 'kubectl', 'sbatch', 'srun', 'scontrol', 'squeue', 'curl')


class Cluster:
    """A folder of fake programs, what they were told, and what they are to answer."""

    def __init__(self, folder):
        self.folder = folder
        self.programs = folder / 'programs'
        self.programs.mkdir()
        (folder / 'hosts').mkdir()
        for name in PROGRAMS:
            self.program(name, FAKE.format(python=sys.executable, folder=str(folder)))
        (folder / 'answers.json').write_text('[]')
        self.environment = {
            'PATH': f'{self.programs}:/usr/bin:/bin', 'HOME': str(folder), 'PYTHONPATH': str(ROOT),
            'JAX_PLATFORMS': 'cpu', 'PYTHONWARNINGS': 'error:::launch,error:::pretrain',
            'LAUNCH_PAUSE': '0',
        }  # fmt: skip

    def program(self, name, text):
        """Puts a program on the PATH."""
        path = self.programs / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    def answer(self, to, says='', code=0, error='', times=-1):
        """What programs say to a command that holds `to`; the latest comes first."""
        answers = json.loads((self.folder / 'answers.json').read_text())
        made = {'to': to, 'says': says, 'code': code, 'error': error, 'times': times}
        (self.folder / 'answers.json').write_text(json.dumps([made, *answers]))

    def calls(self, program=None):
        """[(program, words, standard input)] so far."""
        path = self.folder / 'calls.jsonl'
        lines = path.read_text().splitlines() if path.exists() else []
        return [c for c in map(json.loads, lines) if program in (None, c[0])]

    def hosts(self, count):
        """Makes the homes of a pod's workers."""
        for number in range(count):
            (self.folder / 'hosts' / str(number)).mkdir(exist_ok=True)
        return sorted((self.folder / 'hosts').iterdir())


@pytest.fixture
def cluster(tmp_path):
    """Programs of SLURM, gcloud and kubectl that only write down what they are told."""
    folder = tmp_path / 'cluster'
    folder.mkdir()
    return Cluster(folder)


@pytest.fixture(scope='session')
def server():
    """A process that has imported what all launchers import."""
    environment = os.environ | {'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'}
    process = subprocess.Popen(
        [sys.executable, '-c', textwrap.dedent(SERVER)], env=environment, cwd=ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    yield process
    process.stdin.close()
    process.wait()


@pytest.fixture
def launch(server, cluster, tmp_path):
    """launch('slurm', *words) -> (exit code, stdout, stderr).

    With background=True: (process number, path of its output, a function that waits).
    """

    def ask(call):
        server.stdin.write(json.dumps(call) + '\n')
        server.stdin.flush()
        return int(server.stdout.readline())

    def launch(name, *words, folder=ROOT, background=False, **changes):
        number = len(list(tmp_path.glob('*.out')))
        out = [str(tmp_path / f'{number}.{stream}') for stream in ('out', 'err')]
        for path in out:
            Path(path).touch()
        call = {
            'module': f'launch.{name}', 'argv': [f'launch.{name}', *map(str, words)], 'out': out,
            'folder': str(folder), 'environment': cluster.environment | changes,
            'background': background,
        }  # fmt: skip
        results = lambda code: (code, *(Path(path).read_text() for path in out))  # noqa: E731
        answer = ask(call)
        if background:
            return answer, Path(out[0]), lambda: results(ask({'wait': answer}))
        return results(answer)

    return launch


@pytest.fixture
def refused(launch):
    """refused('slurm', [(words, what is said), ...]): one line, exit code 2, no traceback."""

    def refused(name, cases, **options):
        for words, says in cases:
            code, _, err = launch(name, *words, **options)
            said = [line for line in err.splitlines() if line.startswith('error: ')]
            assert code == 2, (words, err)
            assert len(said) == 1, (words, err)
            assert says in said[0], (words, said)
            assert 'Traceback' not in err, (words, err)

    return refused


@pytest.fixture(scope='session')
def shellcheck():
    """shellcheck(path): raises where shellcheck, or bash -n, finds fault with a script."""
    program = Path(sys.executable).with_name('shellcheck')

    def check(path):
        for command in ([program, '--shell=bash', '--exclude=SC2016'], ['bash', '-n']):
            done = subprocess.run([*command, path], capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr

    return check


@pytest.fixture(scope='session')
def corpus(tmp_path_factory):
    """The folder of a small finished corpus."""
    from pretrain.data.preparation import Recipe, Work, prepare

    text = tmp_path_factory.mktemp('text')
    for i in range(12):
        words = ' '.join(f'The {i} river and {n} hills are old.' for n in range(30))
        (text / f'{i}.txt').write_text(words)
    recipe = Recipe(
        source=f'text:{text}', text_field='text', tokenizer='', vocabulary_size=290,
        tokenizer_megabytes=1.0, validation_fraction=0.2, shard_megabytes=0.004,
    )  # fmt: skip
    folder = prepare(recipe, tmp_path_factory.mktemp('cache'), Work(1))
    (folder / 'summary.png').write_bytes(b'a picture')
    return folder


# Forks processes that train before any device is touched, so that all of them import jax once.
TRAINER = """
import gc, hashlib, json, os, sys
import jax
import matplotlib.pyplot, tensorboardX  # which each run would import for itself
import numpy as np
from jax.experimental import multihost_utils
from pretrain import checkpoints, commandline, train

def tell(what, state):
    digest = hashlib.sha256()
    whole = multihost_utils.process_allgather(state, tiled=True)
    for path, leaf in jax.tree_util.tree_leaves_with_path(whole):
        digest.update(jax.tree_util.keystr(path).encode() + np.asarray(leaf).tobytes())
    print(f'\\n{what}: sha256 {digest.hexdigest()}', flush=True)

save, restore = checkpoints.Checkpoints.save, checkpoints.Checkpoints.restore

def telling_save(self, state, step, *more):
    tell(f'saved {step}', state)
    return save(self, state, step, *more)

def telling_restore(self, abstract):
    found = restore(self, abstract)
    if found:
        tell(f'restored {found[1]["step"]}', found[0])
    return found

checkpoints.Checkpoints.save = telling_save
checkpoints.Checkpoints.restore = telling_restore
gc.freeze()
for line in sys.stdin:
    call = json.loads(line)
    if 'wait' in call:
        print(os.waitstatus_to_exitcode(os.waitpid(call['wait'], 0)[1]), flush=True)
        continue
    child = os.fork()
    if child == 0:
        for stream in (1, 2):
            os.dup2(os.open(call['out'], os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
        jax.config.update('jax_num_cpu_devices', call['devices'])
        sys.argv = ['pretrain.train', *call['argv']]
        commandline.run(train.main)
    print(child, flush=True)
"""


class Trained:
    """The processes of a run. `pids`: their numbers."""

    def __init__(self, ask, pids, paths):
        self._ask, self.pids, self._paths = ask, pids, paths

    def said(self):
        """What each has printed."""
        return [path.read_text() for path in self._paths]

    def kill(self, *numbers):
        """SIGKILL to these of them."""
        for number in numbers:
            os.kill(self.pids[number], signal.SIGKILL)

    def wait(self, stopped=()):
        """The exit codes, within 100 s; of those in `stopped` there are none, they are killed."""
        going = [number for number in range(len(self.pids)) if number not in stopped]
        too_late = threading.Timer(100, self.kill, going)
        too_late.start()
        codes = [self._ask({'wait': self.pids[number]}) for number in going]
        too_late.cancel()
        self.kill(*stopped)
        for number in stopped:
            self._ask({'wait': self.pids[number]})
        return codes


@pytest.fixture(scope='module')
def training(environment, tmp_path_factory):
    """training(processes, devices, *flags) -> Trained; it says what it saves and restores."""
    server = subprocess.Popen(
        [sys.executable, '-c', TRAINER], env=environment, cwd=ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip

    def ask(call):
        server.stdin.write(json.dumps(call) + '\n')
        server.stdin.flush()
        return int(server.stdout.readline())

    def training(processes, devices, *flags):
        joining = []
        if processes > 1:
            with socket.socket() as free:
                free.bind(('localhost', 0))
                port = free.getsockname()[1]
            joining = [f'--coordinator=localhost:{port}', f'--processes={processes}']
        folder = tmp_path_factory.mktemp('said')
        paths = [folder / str(number) for number in range(processes)]
        pids = []
        for number, path in enumerate(paths):
            path.touch()
            each = [f'--process={number}'] if joining else []
            argv = [*map(str, flags), *joining, *each]
            pids.append(ask({'argv': argv, 'devices': devices, 'out': str(path)}))
        return Trained(ask, pids, paths)

    yield training
    server.stdin.close()
    server.wait()
