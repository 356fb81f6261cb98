"""Signs of life of the processes of one run: who is lost is named, and nobody waits for it.

A collective, a barrier or a checkpoint waits for every process, and says at best that a connection
broke. So the connections of the roll call stay open, and a thread sends a sign of life on them. A
process that is killed closes its connection at once; one that is stopped, or whose machine is gone,
falls silent. Process 0 tells all others, and each ends with one line that names it and exit code 1:
started again, it may go well. A process that fails by itself says so first, and the others end with
its exit code.

Out of reach: a process that hangs while its threads run, as in an endless loop or at a disk that
does not answer. Where process 0 is killed, JAX may add words of its own to the line.
"""

import contextlib
import json
import os
import selectors
import signal
import sys
import threading
import time
import traceback

GRACE_S = 3  # to say an error of its own, for a process that is told of another's
LAST_S = 2  # process 0, by which the others hold on to JAX, ends so much later
LOOK_S = 0.2
SIGNS = 10  # of life, in the time that may pass without one
FINE = (None, 0, 128 + signal.SIGTERM)  # exit codes that all processes end with together

_own = None


def start(lines, own, count, timeout):
    """Begins to send and to expect signs of life, until this process ends.

    Args:
        lines: {number of a process: connection}: process 0's to each other one, or another's to 0.
        own: number of this process. count: of processes.
        timeout: seconds without a sign after which a process is lost.
    """
    global _own
    _own = Heartbeats(lines, own, count, timeout)
    _own.start()


@contextlib.contextmanager
def ending():
    """Around a command: a process that fails in it tells the others, and waits for none of them."""
    try:
        yield
    except SystemExit as end:
        if _own and end.code in FINE:
            _own.leave()
        elif _own:
            _own.fail(end.code if isinstance(end.code, int) else 1)
        raise
    except BaseException:
        if _own:
            _own.expect_verdict()
            with contextlib.suppress(OSError):  # the disk that holds what it says may be full too
                traceback.print_exc()
            _own.fail(1)
        raise


class Heartbeats(threading.Thread):
    """The thread, and what the main thread tells it. Arguments as of `start`."""

    def __init__(self, lines, own, count, timeout):
        super().__init__(name='heartbeats', daemon=True)
        self._lines, self._own, self._count, self._timeout = dict(lines), own, count, timeout
        self._begun = dict.fromkeys(lines, b'')  # of a message
        self._leaving = set()
        self._verdict = None  # [what is wrong, exit code, seconds until this process ends]
        self._failed = None  # exit code of this process, when it has said itself what is wrong
        self._selector = selectors.DefaultSelector()
        for number, line in self._lines.items():
            line.setblocking(False)
            self._selector.register(line, selectors.EVENT_READ, number)

    def leave(self):
        """Says that this process comes to its end, so that its silence will not be its death."""
        self._send('leaving')

    def expect_verdict(self):
        """Returns when no other process is the reason of an error; else ends this process."""
        until = time.monotonic() + GRACE_S
        while time.monotonic() < until:
            if self._verdict:
                self.join()
            time.sleep(LOOK_S)

    def fail(self, code):
        """Ends this process, which has said why, and tells the others."""
        self._failed = code
        if not self._verdict:
            self._verdict = [
                f'{named([self._own])} has failed with exit code {code}: see why in its own output',
                code, GRACE_S,
            ]  # fmt: skip
        self.join()

    def run(self):
        """Sends and hears signs until something is wrong, and ends the process then."""
        now = sent = time.monotonic()
        heard = dict.fromkeys(self._lines, now)
        while not self._verdict:
            if now >= sent:
                sent = now + self._timeout / SIGNS
                self._send(None)
            before, hearing = now, self._hear()
            now = time.monotonic()
            if now - before > self._timeout / 2:  # who was away itself judges nobody
                heard = dict.fromkeys(self._lines, now)
            heard |= dict.fromkeys(hearing, now)
            silent = [n for n in self._lines
                      if now - heard[n] > self._timeout / 2 and n not in self._leaving]  # fmt: skip
            longest = max((now - heard[n] for n in silent), default=0)
            if longest > self._timeout and not self._verdict:
                for number in silent:
                    self._drop(number)
                self._verdict = [
                    f'no sign of life from {named(silent)} for {self._timeout} s '
                    '(--heartbeat_timeout): stopped, or the machine gone?', 1, 0,
                ]  # fmt: skip
        self._send(self._verdict)
        self._end(*self._verdict)

    def _end(self, problem, code, grace):
        until = time.monotonic() + grace
        latest = until + (0 if self._own else LAST_S)
        while (now := time.monotonic()) < latest:
            alone = not self._lines if self._own == 0 else True
            if alone and (now > until or self._failed is not None):
                break
            self._hear()
        if self._failed is not None:
            code = self._failed
        else:
            with contextlib.suppress(OSError):
                print(f'\nerror: process {self._own} of {self._count}: {problem}', file=sys.stderr)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)  # what JAX does at an exit is to wait for the others

    def _send(self, message):
        said = b'\n' if message is None else json.dumps(message).encode() + b'\n'
        for line in list(self._lines.values()):
            with contextlib.suppress(OSError):
                line.send(said)

    def _hear(self):
        """The numbers of those that have said something, within LOOK_S."""
        if not self._lines:
            time.sleep(LOOK_S)
        hearing = [key.data for key, _ in self._selector.select(LOOK_S)]
        for number in hearing:
            try:
                said = self._lines[number].recv(65_536)
            except BlockingIOError:
                continue
            except OSError:
                said = b''
            *whole, self._begun[number] = (self._begun[number] + said).split(b'\n')
            for message in (json.loads(each) for each in whole if each):
                if message == 'leaving':
                    self._leaving.add(number)
                elif not self._verdict:
                    self._verdict = message
            if not said:
                self._drop(number)
                if number not in self._leaving and not self._verdict:
                    self._verdict = [
                        f'{named([number])} has ended without a word: killed, or out of memory?',
                        1, 0,
                    ]  # fmt: skip
        return hearing

    def _drop(self, number):
        self._selector.unregister(self._lines[number])
        self._lines.pop(number).close()


def named(numbers):
    """'process 3', 'processes 1, 2', or the first eight and how many more."""
    numbers = sorted(numbers)
    more = f' and {len(numbers) - 8} more' if len(numbers) > 8 else ''
    return f'process{"es" * (len(numbers) > 1)} {", ".join(map(str, numbers[:8]))}{more}'
