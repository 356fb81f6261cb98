"""Several processes of one run: how they find each other, and who is missing.

JAX joins processes by itself, but a process whose partner never starts is ended by it without a
word on which. So the processes call their numbers first, on the port that JAX will then take.
"""

import contextlib
import json
import socket
import sys
import time

import jax
from absl import flags

from pretrain import heartbeats
from pretrain.errors import UserError

ANSWER_BYTES = 65_536
PAUSE_S = 0.2  # between attempts to reach process 0
STRANGER_S = 5  # who calls and says nothing for so long is none of ours


class Flags:
    """The values of the flags that `define_flags` has defined."""

    def __init__(self):
        self.distributed = flags.DEFINE_bool(
            'distributed', False,
            'Join the processes that SLURM, GKE, a Cloud TPU or Open MPI has started.',
        )  # fmt: skip
        self.coordinator = flags.DEFINE_string(
            'coordinator', '', 'host:port of process 0, where nothing tells it by itself.'
        )
        self.processes = flags.DEFINE_integer('processes', 1, 'Number of processes of the run.')
        self.process = flags.DEFINE_integer('process', 0, 'Number of this process, from 0.')
        self.join_timeout = flags.DEFINE_integer(
            'join_timeout', 300, 'Seconds to wait for the other processes.', lower_bound=1
        )
        self.heartbeat_timeout = flags.DEFINE_integer(
            'heartbeat_timeout', 100,
            'Seconds without a sign of life after which a process is given up, and all end.',
            lower_bound=1,
        )  # fmt: skip


def define_flags():
    """Defines --distributed, --coordinator, --processes, --process and the two time-outs."""
    return Flags()


def join(given):
    """Joins the other processes of the run, where the flags say that there are any.

    Args:
        given: Flags.

    Raises:
        UserError: the flags contradict each other, or --distributed finds no cluster.
    """
    address, count, own = given.coordinator.value, given.processes.value, given.process.value
    timeout = given.join_timeout.value
    devices = None
    if given.distributed.value:
        if address or count != 1 or own:
            raise UserError(
                '--distributed finds coordinator, number and count of the processes by itself: '
                'leave out --coordinator, --processes and --process, or leave out --distributed'
            )
        address, count, own, devices = _detected(timeout)
    elif not address:
        if count != 1 or own:
            raise UserError('--processes and --process need --coordinator=HOST:PORT of process 0')
        return
    if not 0 <= own < count:
        raise UserError(
            f'process {own} is not one of {count} processes, which are counted from 0: '
            + ('the cluster says so' if given.distributed.value else 'mend --process')
        )
    host, _, port = address.rpartition(':')
    if not (host and port.isdecimal() and 0 < int(port) < 65_536):
        raise UserError(f'--coordinator={address!r} is not HOST:PORT, as in 10.0.0.1:1234')
    patience = given.heartbeat_timeout.value
    if count > 1:
        lines, problem = call_roll(host.strip('[]'), int(port), count, own, timeout)
        if problem:
            # No mistake in the flags (that would be 2): started again, it may go well.
            print(f'error: process {own} of {count}: {problem}', file=sys.stderr)
            sys.exit(1)
        heartbeats.start(lines, own, count, patience)
    jax.distributed.initialize(
        address, count, own, local_device_ids=devices, initialization_timeout=timeout,
        cluster_detection_method='deactivate',
        # JAX aborts between half of this time and all of it, with a dump of every thread: only
        # should the heartbeats of this package fail.
        heartbeat_timeout_seconds=3 * patience,
    )  # fmt: skip


def _detected(timeout):
    """(address of process 0, number of processes, own number, own devices), by JAX's detection."""
    # JAX detects and joins in one call; the roll call stands between the two.
    from jax._src.clusters import ClusterEnv

    try:
        found = ClusterEnv.auto_detect_unset_distributed_params(
            None, None, None, None, None, timeout
        )
    except Exception as error:  # it reads variables of SLURM, Open MPI and others as they are
        raise UserError(
            f'--distributed cannot read what the cluster says ({type(error).__name__}: {error}): '
            'give --coordinator=HOST:PORT --processes=N --process=I'
        ) from None
    if None in found[:3]:
        raise UserError(
            '--distributed finds neither SLURM nor GKE, Cloud TPU or Open MPI here: start it by '
            'them, or give --coordinator=HOST:PORT --processes=N --process=I'
        )
    return found


def call_roll(host, port, count, own, timeout):
    """Waits until all processes are there.

    Args:
        host, port: where process 0 listens. count: number of processes. own: number of this one.
        timeout: seconds.

    Returns:
        ({number: connection} of process 0 to each other one, of another to process 0; None).
        (None, what is wrong, in words) unless all are there.
    """
    until = time.monotonic() + timeout
    if own == 0:
        return _listen(port, count, timeout, until)
    return _answer(host, port, count, own, timeout, until)


def _listen(port, count, timeout, until):
    """Process 0: collects the numbers of the others, then tells all of them how it went."""
    there, problem = {}, None
    with _listening(port) as server:
        while not _complete(there, count):
            server.settimeout(max(0.01, until - time.monotonic()))
            try:
                line, _ = server.accept()
            except TimeoutError:
                missing = [n for n in range(1, count) if n not in there]
                problem = problem or _missing(missing, count, timeout)
                break
            number, others = _heard(line)
            if number is None:
                line.close()
                continue
            wrong = None
            if others != count:
                wrong = f'process {number} was told of {others} processes, process 0 of {count}'
            elif number in there and _is_there(there[number]):
                wrong = f'two processes say that they are number {number}'
                _tell(there[number], wrong)
            elif number in there:
                there[number].close()
            there[number] = line
            if wrong:  # those that come a little later want to know it too
                problem, until = wrong, min(until, time.monotonic() + STRANGER_S)
        for line in there.values():
            _tell(line, problem)
    return (None, problem) if problem else (there, None)


def _heard(line):
    """(number of a process, count that it was told of); (None, None) of a stranger."""
    try:
        line.settimeout(STRANGER_S)
        number, others = json.loads(line.recv(ANSWER_BYTES))
        if type(number) is int and type(others) is int and 0 < number < others:
            return number, others
    except (OSError, ValueError, TypeError):
        pass
    return None, None


def _complete(there, count):
    """Whether all have called; who has died since then is taken out."""
    if len(there) == count - 1:
        for number in [number for number, line in there.items() if not _is_there(line)]:
            there.pop(number).close()
    return len(there) == count - 1


def _is_there(line):
    """Whether a process that has called still waits; else it was started again, and calls again."""
    line.settimeout(0)
    try:
        return line.recv(1, socket.MSG_PEEK) != b''
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        line.settimeout(STRANGER_S)


def _missing(numbers, count, timeout):
    verb = 'has' if len(numbers) == 1 else 'have'
    return (
        f'after {timeout} s {heartbeats.named(numbers)} of {count} {verb} not started: see why in '
        'their own output, or raise --join_timeout'
    )


def _listening(port):
    try:
        return socket.create_server(
            ('', port), family=socket.AF_INET6, backlog=4096, dualstack_ipv6=True
        )
    except (OSError, ValueError):  # the second: a machine without IPv6
        pass
    try:
        return socket.create_server(('', port), backlog=4096)
    except OSError as error:
        raise UserError(
            f'process 0 cannot listen at port {port} ({error.strerror}): give a port that is free '
            'by --coordinator, or with --distributed by JAX_COORDINATOR_PORT'
        ) from None


def _tell(line, problem):
    """Sends the answer; bad news is the last, and the port is free when the other has closed."""
    with contextlib.suppress(OSError):
        line.settimeout(5)
        line.sendall(json.dumps(problem).encode() + b'\n')
        if problem:
            line.shutdown(socket.SHUT_WR)
            while line.recv(ANSWER_BYTES):
                pass
    if problem:
        line.close()


def _answer(host, port, count, own, timeout, until):
    """Another process: gives its number, and waits for the word of process 0."""
    while time.monotonic() < until:
        try:
            line = socket.create_connection((host, port), timeout=5)
        except OSError:  # or a name that the network does not know yet
            time.sleep(PAUSE_S)
            continue
        answer = b''
        with contextlib.suppress(OSError, ValueError):
            line.sendall(json.dumps([own, count]).encode())
            # A little longer than process 0 waits for the others.
            line.settimeout(max(0.01, until - time.monotonic()) + 10)
            # Byte by byte: what follows is a sign of life.
            while not answer.endswith(b'\n') and (part := line.recv(1)):
                answer += part
            problem = json.loads(answer)
            if problem is None:
                return {0: line}, None
            line.close()
            return None, problem
        line.close()
        time.sleep(PAUSE_S)
    return None, (
        f'after {timeout} s process 0 has not started at {host}:{port}: see why in its own output, '
        'check the address, or raise --join_timeout'
    )
