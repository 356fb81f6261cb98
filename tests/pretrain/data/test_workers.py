"""Pieces of work in many processes: errors, stops, and parents that die."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pretrain.data import workers
from pretrain.data.preparation import Work, prepare
from pretrain.errors import UserError


def write(path, report):
    report.advance(1)
    Path(path).write_text(str(os.getpid()))


def fail(path, report):
    raise UserError(f'{path} is bad')


def wait_to_be_told(path, report):
    Path(path).write_text('begun')
    for _ in range(600):
        report.check()
        time.sleep(0.1)
    Path(path).write_text('ended')


def fail_when_begun(path, other, report):
    while not Path(other).exists():
        time.sleep(0.02)
    fail(path, report)


def die(path, report):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize('processes', [1, 2])
def test_all_is_done(tmp_path, processes):
    paths = [tmp_path / str(i) for i in range(5)]
    workers.run({p: (write, (p,)) for p in paths}, processes, 'working', 5)
    done = {int(path.read_text()) for path in paths}
    assert (done == {os.getpid()}) == (processes == 1)
    assert len(done) <= processes


def test_the_first_error_ends_the_others(tmp_path):
    begun = tmp_path / 'b'
    tasks = {0: (wait_to_be_told, (begun,)), 1: (fail_when_begun, ('this', begun))}
    started = time.time()
    with pytest.raises(UserError, match='this is bad'):
        workers.run(tasks, 2, 'working', 2)
    assert time.time() - started < 30
    assert begun.read_text() == 'begun'


def test_a_worker_that_is_killed_is_said(tmp_path):
    with pytest.raises(UserError, match='out of memory'):
        workers.run({i: (die, (i,)) for i in range(2)}, 2, 'working', 2)


PARENT = """
import sys
from pretrain.data import workers
sys.path.insert(0, {tests!r})
import test_workers
if __name__ == '__main__':
    tasks = {{i: (test_workers.wait_to_be_told, (path,)) for i, path in enumerate({paths!r})}}
    workers.run(tasks, 2, 'working', 2)
"""


def test_workers_end_with_a_parent_that_is_killed(tmp_path, environment):
    paths = [str(tmp_path / name) for name in 'ab']
    script = tmp_path / 'parent.py'
    script.write_text(PARENT.format(tests=str(Path(__file__).parent), paths=paths))
    parent = subprocess.Popen([sys.executable, script], env=environment, stderr=subprocess.DEVNULL)
    while not all(os.path.exists(path) for path in paths):
        assert parent.poll() is None
        time.sleep(0.05)
    children = _children(parent.pid)
    assert len(children) >= 2
    parent.kill()
    parent.wait()
    _all_end(children)


WITHOUT_KERNEL = """
import os, sys, time
from pretrain.data import workers
parent = os.getpid()
if os.fork() == 0:
    print(os.getpid(), flush=True)
    workers._die_with(parent)
time.sleep(float(sys.argv[1]))
"""


def test_a_worker_notices_by_itself_too(environment):
    command = [sys.executable, '-c', WITHOUT_KERNEL, '60']
    parent = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    time.sleep(0.6)  # it has looked, and its parent was there
    assert _alive(child)
    parent.kill()
    parent.wait()
    _all_end([child])
    parent.stdout.close()


def main_of(path, report):
    Path(path).write_text(str(getattr(sys.modules['__main__'], '__file__', None)))


def test_workers_do_not_import_the_program_that_called(tmp_path):
    paths = [tmp_path / 'a', tmp_path / 'b']
    main = sys.modules['__main__']
    before = getattr(main, '__file__', None), main.__spec__
    workers.run({p: (main_of, (p,)) for p in paths}, 2, 'working', 2)
    assert (getattr(main, '__file__', None), main.__spec__) == before
    assert [path.read_text() for path in paths] == ['None', 'None']


PREPARE = """
import sys
from pretrain.data import preparation
preparation.prepare(preparation.Recipe(*{fields!r}), sys.argv[1], preparation.Work(2))
"""


def test_a_preparation_goes_on_whose_parent_alone_was_killed(
    recipe, corpus, documents, tmp_path, environment
):
    (tmp_path / 'text').mkdir()
    for number in range(100):  # twice as many as are waited for: none ends before its kill
        text = '\n\n'.join(documents[number:] + documents[:number]) * 2 + str(number)
        (tmp_path / 'text' / f'{number:03d}.txt').write_text(text)
    tokens = str(corpus.folder / 'tokenizer.model')
    large = recipe._replace(
        source=f'text:{tmp_path / "text"}', tokenizer=tokens, shard_megabytes=0.01
    )
    script = tmp_path / 'prepare.py'
    script.write_text(PREPARE.format(fields=tuple(large)))

    def start(cache):
        command = [sys.executable, script, tmp_path / cache]
        return subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)

    twin = prepare(large, tmp_path / 'twin', Work(1))
    moments = random.Random(0)
    shards = lambda: len(list((tmp_path / 'victim').glob('*/shard-*/summary.json')))  # noqa: E731
    for _ in range(3):
        enough = shards() + moments.randrange(1, 15)
        parent = start('victim')
        while shards() < enough:
            assert parent.poll() is None
            time.sleep(moments.uniform(0, 0.02))
        there = _children(parent.pid)
        assert len(there) == 2
        parent.kill()
        parent.wait()
        _all_end(there)
        before = _state(tmp_path / 'victim')
        time.sleep(0.3)
        assert _state(tmp_path / 'victim') == before
    assert shards() < len(list(twin.glob('shard-*')))
    assert _content(prepare(large, tmp_path / 'victim', Work(1))) == _content(twin)


def _state(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob('*')}


def _content(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob('*')
        if path.is_file() and not path.name.startswith('.lock')
    }


def _children(pid):
    found = []
    for path in Path('/proc').glob('[0-9]*/stat'):
        try:
            fields = path.read_text().rpartition(')')[2].split()
            command = (path.parent / 'cmdline').read_text()
        except OSError:
            continue
        # multiprocessing's own process, which tracks what is shared, ends by itself later.
        if int(fields[1]) == pid and 'resource_tracker' not in command:
            found.append(int(path.parent.name))
    return found


def _all_end(pids):
    """Waits for processes whose parent has just been killed: at most the two seconds they have."""
    killed = time.time()
    while any(map(_alive, pids)):
        assert time.time() - killed < 2
        time.sleep(0.01)


def _alive(pid):
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except OSError:
        return False
