"""How processes find each other: the roll call, the flags, the detection of a cluster."""

import concurrent.futures
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from pretrain import processes
from pretrain.errors import UserError


@pytest.fixture
def port():
    with socket.socket() as free:
        free.bind(('localhost', 0))
        return free.getsockname()[1]


def calls(port, count, numbers, timeout=20, counts=None):
    """What each of these processes is told, by its place in `numbers`."""
    counts = counts or [count] * len(numbers)
    with concurrent.futures.ThreadPoolExecutor(len(numbers)) as pool:
        waiting = [
            pool.submit(processes.call_roll, 'localhost', port, others, number, timeout)
            for number, others in zip(numbers, counts)
        ]
        return [each.result() for each in waiting]


def test_all_are_there_and_the_port_is_free_again(port):
    assert calls(port, 5, [3, 1, 0, 4, 2]) == [None] * 5
    with socket.create_server(('', port)):
        pass


def test_who_is_missing_is_named_to_all(port):
    said = calls(port, 5, [0, 1, 3], timeout=1)
    assert len(set(said)) == 1
    assert 'after 1 s processes 2, 4 of 5 have not started' in said[0]
    (alone,) = calls(port, 2, [0], timeout=1)
    assert 'process 1 of 2 has not started' in alone


def test_many_that_are_missing_are_counted(port):
    (said,) = calls(port, 100, [0], timeout=1)
    assert 'processes 1, 2, 3, 4, 5, 6, 7, 8 and 91 more of 100' in said


def test_the_first_is_missing(port):
    said = calls(port, 3, [1, 2], timeout=1)
    assert all(f'process 0 has not started at localhost:{port}' in each for each in said)


def test_two_have_one_number(port):
    said = calls(port, 3, [0, 1, 1])
    assert said[0] == 'two processes say that they are number 1'


def test_they_are_told_different_counts(port):
    said = calls(port, 3, [0, 1, 2], counts=[3, 3, 4])
    assert 'process 2 was told of 4 processes, process 0 of 3' in said


def test_strangers_at_the_port_do_no_harm(port):
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        first = pool.submit(processes.call_roll, 'localhost', port, 2, 0, 20)
        for said in (b'GET / HTTP/1.0\r\n\r\n', b'', b'7', b'[9, 2, 3]'):
            for _ in range(200):
                try:
                    line = socket.create_connection(('localhost', port), timeout=5)
                    break
                except ConnectionRefusedError:
                    time.sleep(0.05)
            with line:
                line.sendall(said)
        assert calls(port, 2, [1]) == [None]
        assert first.result() is None


JOIN = """
import sys
from absl import flags
from pretrain import commandline, processes
given = processes.define_flags()
def main(argv):
    import jax
    processes.join(given)
    print(jax.process_index(), jax.process_count(), jax.device_count())
commandline.run(main)
"""


def joined(environments, *argv, environment):
    """(exit code, stdout, stderr) of a process in each of these environments."""
    started = [
        subprocess.Popen(
            [sys.executable, '-c', JOIN, *argv], env=environment | changes, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for changes in environments
    ]  # fmt: skip
    ended = [process.communicate(timeout=120) for process in started]
    return [(p.returncode, *output) for p, output in zip(started, ended)]


def test_a_slurm_job_is_detected(environment, port):
    """As SLURM tells two tasks on one node; the port comes from the number of the job."""
    job = {
        'SLURM_JOB_ID': str(port), 'SLURM_STEP_NODELIST': 'localhost', 'SLURM_NTASKS': '2',
        'SLURM_JOB_NUM_NODES': '1',
    }  # fmt: skip
    tasks = [job | {'SLURM_PROCID': str(i), 'SLURM_LOCALID': str(i)} for i in range(2)]
    ended = joined(tasks, '--distributed', environment=environment)
    assert [code for code, *_ in ended] == [0, 0], ended
    assert [out.split('\n')[-2] for _, out, _ in ended] == ['0 2 2', '1 2 2']


@pytest.mark.parametrize(
    ('changed', 'says'),
    [
        ({'distributed': True}, 'finds neither SLURM nor GKE'),
        ({'distributed': True, 'processes': 2}, 'leave out --coordinator'),
        ({'processes': 2}, 'need --coordinator'),
        ({'process': 1}, 'need --coordinator'),
        ({'coordinator': 'x:1', 'processes': 2, 'process': 2}, 'counted from 0'),
        ({'coordinator': 'host', 'processes': 2}, "--coordinator='host' is not HOST:PORT"),
        ({'coordinator': 'host:0', 'processes': 2}, 'is not HOST:PORT'),
    ],
)
def test_flags_that_do_not_go_together(changed, says):
    given = {'distributed': False, 'coordinator': '', 'processes': 1, 'process': 0}
    given = {name: SimpleNamespace(value=v) for name, v in (given | changed).items()}
    with pytest.raises(UserError) as error:
        processes.join(SimpleNamespace(**given, join_timeout=SimpleNamespace(value=5)))
    assert says in str(error.value)


def test_a_port_that_is_taken(port):
    with socket.create_server(('', port)), pytest.raises(UserError, match=f'port {port}'):
        processes.call_roll('localhost', port, 2, 0, 5)
