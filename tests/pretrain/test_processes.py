"""How processes find each other: the roll call, the flags, the detection of a cluster."""

import concurrent.futures
import json
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
    """What each of these processes is told, by its place in `numbers`; None: all is well."""
    counts = counts or [count] * len(numbers)
    with concurrent.futures.ThreadPoolExecutor(len(numbers)) as pool:
        waiting = [
            pool.submit(processes.call_roll, 'localhost', port, others, number, timeout)
            for number, others in zip(numbers, counts)
        ]
        answers = [each.result() for each in waiting]
    for lines, problem in answers:
        assert bool(lines) != bool(problem)
        for line in (lines or {}).values():
            line.close()
    return [problem for _, problem in answers]


def test_all_are_there_and_the_port_is_free_again(port):
    with concurrent.futures.ThreadPoolExecutor(5) as pool:
        call = lambda n: processes.call_roll('localhost', port, 5, n, 20)  # noqa: E731
        lines = [lines for lines, _ in pool.map(call, range(5))]
    with socket.create_server(('', port)):  # although they are connected still
        for number in range(1, 5):
            lines[0][number].sendall(b'to %d' % number)
            assert lines[number][0].recv(100) == b'to %d' % number
    for line in [line for each in lines for line in each.values()]:
        line.close()


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


def test_one_that_was_started_again_meanwhile_is_no_second(port):
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        first = pool.submit(processes.call_roll, 'localhost', port, 3, 0, 20)
        for _ in range(200):  # until process 0 listens
            try:
                died = socket.create_connection(('localhost', port))
                break
            except ConnectionRefusedError:
                time.sleep(0.02)
        died.sendall(json.dumps([1, 3]).encode())
        time.sleep(0.2)
        died.close()
        others = [pool.submit(processes.call_roll, 'localhost', port, 3, n, 20) for n in (1, 2)]
        for each in (first, *others):
            lines, problem = each.result()
            assert problem is None
            for line in lines.values():
                line.close()


def test_a_machine_without_ipv6(port, monkeypatch):
    monkeypatch.setattr(socket, 'has_dualstack_ipv6', lambda: False)
    processes._listening(port).close()


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
        lines, problem = first.result()
        assert problem is None
        lines[1].close()


JOIN = """
import os, sys
from absl import flags
from jax._src.clusters import cloud_tpu_cluster
from pretrain import commandline, processes
cloud_tpu_cluster.running_in_cloud_tpu_vm = 'ON_TPU' in os.environ
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


def slurm(port):
    """As SLURM tells two tasks on one node; the port comes from the number of the job."""
    job = {
        'SLURM_JOB_ID': str(port), 'SLURM_STEP_NODELIST': 'localhost', 'SLURM_NTASKS': '2',
        'SLURM_JOB_NUM_NODES': '1',
    }  # fmt: skip
    return [job | {'SLURM_PROCID': str(i), 'SLURM_LOCALID': str(i)} for i in range(2)]


def open_mpi(port):
    """As mpirun tells two ranks; the port is given, as the number of a job makes few."""
    job = {
        'OMPI_MCA_orte_hnp_uri': '1531576320.0;tcp://127.0.0.1,10.0.0.1:34911',
        'OMPI_COMM_WORLD_SIZE': '2', 'JAX_COORDINATOR_PORT': str(port),
    }  # fmt: skip
    ranks = ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_LOCAL_RANK')
    return [job | dict.fromkeys(ranks, str(i)) for i in range(2)]


def gke(port):
    """As GKE tells the only worker of each of two slices; that there are TPUs is made up."""
    job = {
        'ON_TPU': '1', 'TPU_SKIP_MDS_QUERY': '1', 'TPU_WORKER_HOSTNAMES': 'localhost',
        'TPU_WORKER_ID': '0', 'MEGASCALE_COORDINATOR_ADDRESS': 'localhost:1',
        'MEGASCALE_NUM_SLICES': '2', 'JAX_COORDINATOR_PORT': str(port),
    }  # fmt: skip
    return [job | {'MEGASCALE_SLICE_ID': str(i)} for i in range(2)]


@pytest.mark.parametrize('cluster', [slurm, open_mpi, gke])
def test_a_cluster_is_detected(cluster, environment, port):
    ended = joined(cluster(port), '--distributed', environment=environment)
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
    given |= {'join_timeout': 5, 'heartbeat_timeout': 5}
    given = {name: SimpleNamespace(value=v) for name, v in (given | changed).items()}
    with pytest.raises(UserError) as error:
        processes.join(SimpleNamespace(**given))
    assert says in str(error.value)


def test_a_port_that_is_taken(port):
    with socket.create_server(('', port)), pytest.raises(UserError, match=f'port {port}'):
        processes.call_roll('localhost', port, 2, 0, 5)
