"""Runs several processes of one run on this machine, and starts them again when one dies.

    python -m launch.local --processes=4 --devices=2 -- \\
        pretrain.train --config=configs/gpt.py:tiny --workdir=runs/gpt --config.mesh=data=2,fsdp=4

Each process gets its number and the address of the first; what the others say is printed with
their number before it. When one ends badly the others are stopped, and with --restarts=N all are
started again, at most N times: training goes on from the last checkpoint. What the user must mend
(exit code 2) is not tried again. Ctrl-C and SIGTERM reach all processes, which save first.
"""

import contextlib
import ctypes
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time

from absl import flags

from launch import commands
from pretrain.data.workers import DEATH_SIGNAL

PROCESSES = flags.DEFINE_integer('processes', 2, 'How many processes.', lower_bound=1)
DEVICES = flags.DEFINE_integer(
    'devices', 0, 'CPU devices of each process; 0: what JAX finds.', lower_bound=0
)
RESTARTS = flags.DEFINE_integer(
    'restarts', 0, 'How often all processes are started again.', lower_bound=0
)
GRACE = flags.DEFINE_float(
    'grace', 10.0, 'Seconds that the others have to end by themselves when one has died.',
    lower_bound=0.0,
)  # fmt: skip
PORT = flags.DEFINE_integer(
    'port', 0, 'Port of process 0; 0: one that is free.', lower_bound=0, upper_bound=65_535
)
DRY_RUN = flags.DEFINE_bool('dry_run', False, 'Print the commands and start nothing.')
NOISE = b'[Gloo] Rank'  # of the library that joins CPUs


def main(argv, training):
    """Starts, watches, starts again."""
    commands.no_more(argv)
    training = commands.parse(training)
    commands.check_processes(training, PROCESSES.value)
    if DRY_RUN.value:
        for words, changes in processes(training, PORT.value or 12345):
            print(' '.join([f'{k}={v}' for k, v in changes.items()] + [shlex.join(words)]))
        return
    for attempt in range(RESTARTS.value + 1):
        code, stopped = run(training)
        if code in (0, commands.MISTAKE) or stopped or attempt == RESTARTS.value:
            sys.exit(code)
        left = RESTARTS.value - attempt - 1
        print(f'launch.local: exit code {code}: starting again, {left} left', file=sys.stderr)


def processes(training, port):
    """[(words of a process's command, {variable of its environment: value})].

    Args:
        training: commands.Training. port: of process 0.
    """
    changes = {'JAX_NUM_CPU_DEVICES': str(DEVICES.value)} if DEVICES.value else {}
    if PROCESSES.value == 1:
        return [(training.command(sys.executable), changes)]
    each = [f'--coordinator=localhost:{port}', f'--processes={PROCESSES.value}']
    return [
        (training.command(sys.executable, (*each, f'--process={number}')), changes)
        for number in range(PROCESSES.value)
    ]


def run(training):
    """Runs all processes to their end.

    Args:
        training: commands.Training.

    Returns:
        (exit code, stopped): of the process that ended first with another code than 0, as a shell
        gives it; whether this program was asked to end by a signal.
    """
    started, stopped = [], []

    def forward(number, frame):
        # Asked twice, it waits no longer.
        word = signal.SIGKILL if stopped else signal.SIGTERM
        stopped.append(number)
        for each in started:
            if each.poll() is None:
                each.send_signal(word)

    before = {n: signal.signal(n, forward) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        for number, (words, changes) in enumerate(processes(training, PORT.value or _free_port())):
            started.append(_start(number, words, os.environ | changes))
        if stopped:  # while they were started: not all were there to be told
            for each in started:
                each.send_signal(signal.SIGTERM)
        pipes = [(0, started[0].stdout, sys.stdout), (0, started[0].stderr, sys.stderr)]
        pipes += [(n, each.stdout, sys.stderr) for n, each in enumerate(started) if n]
        speaking = [threading.Thread(target=_repeat, args=pipe, daemon=True) for pipe in pipes]
        for each in speaking:
            each.start()
        code = _watch(started, stopped)
        for each in speaking:
            each.join(5)
    finally:
        for each in started:
            if each.poll() is None:
                each.kill()
            each.wait()
        for number, handler in before.items():
            signal.signal(number, handler)
    return code, bool(stopped)


def _watch(started, stopped):
    """Waits for all; once one has failed, for the others as long as --grace says."""
    code, until = 0, None
    while None in [each.poll() for each in started]:
        failed = [each.returncode for each in started if each.returncode]
        if failed and until is None:
            # Its partners fail soon after one that was killed: that one is the reason.
            code = next((each for each in failed if each < 0), failed[0])
            until = time.monotonic() + GRACE.value
        # A process that was asked to end writes a checkpoint first, however long that takes.
        if until and time.monotonic() > until and not stopped:
            for each in started:
                if each.poll() is None:
                    each.kill()
        time.sleep(0.05)
    failed = [each.returncode for each in started if each.returncode]
    code = code or next((each for each in failed if each < 0), failed[0] if failed else 0)
    return 128 - code if code < 0 else code


def _start(number, words, environment):
    """Starts a process, with pipes for what it says: of the first, one for its results."""
    # Ctrl-C in a terminal reaches every process of its group; here it is this program's to forward.
    return subprocess.Popen(
        words, env=environment | {'PYTHONUNBUFFERED': '1'}, start_new_session=True,
        preexec_fn=_with_parent, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if number else subprocess.PIPE,
    )  # fmt: skip


def _with_parent():
    """Should this program be killed, the kernel asks its processes to end."""
    with contextlib.suppress(OSError, AttributeError):  # no Linux
        ctypes.CDLL(None).prctl(DEATH_SIGNAL, signal.SIGTERM)


def _repeat(number, output, to):
    """Prints what a process says: of the first as it is, of another its number before each line."""
    mark = b'[%d] ' % number if number else b''
    begun = b''
    while chunk := output.read1():
        if to is sys.stderr and not number:  # a progress bar is one line that never ends
            said = chunk
        else:
            *lines, begun = (begun + chunk).split(b'\n')
            said = b''.join(mark + line + b'\n' for line in lines if not line.startswith(NOISE))
        _write(to, said)
    _write(to, mark * bool(begun) + begun)


def _write(to, said):
    # Whoever read this may have gone (`| head`): what is said is read on, or the run would wait.
    with contextlib.suppress(BrokenPipeError):
        to.buffer.write(said)
        to.flush()


def _free_port():
    with socket.socket() as free:
        free.bind(('localhost', 0))
        return free.getsockname()[1]


if __name__ == '__main__':
    commands.run(main)
