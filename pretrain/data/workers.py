"""Work on many units by many processes: progress, a stop at the first error, no orphans."""

import concurrent.futures
import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import threading

from tqdm import tqdm

from pretrain.data.bad_input import Stopped
from pretrain.errors import UserError

DEATH_SIGNAL = 1  # of Linux's prctl: what the kernel sends a process when its parent dies
LOOK = 0.3  # seconds between looks at the progress


class Report:
    """What a piece of work tells its caller, and is told: how far it is, and whether to stop."""

    def __init__(self, count=None, stop=None):
        self._count, self._stop = count, stop

    def advance(self, amount):
        """Adds to the progress."""
        if self._count is not None:
            with self._count.get_lock():
                self._count.value += amount

    def check(self):
        """Raises Stopped when the work is to be given up."""
        if self._stop is not None and self._stop.value:
            raise Stopped


class _BarReport(Report):
    def __init__(self, bar):
        super().__init__()
        self._bar = bar

    def advance(self, amount):
        self._bar.update(amount)


def run(tasks, processes, what, total, done=0, unit='B'):
    """Does pieces of work, and shows how far it is.

    Args:
        tasks: {name: (function, arguments)}; the function is given the arguments and a Report.
        processes: 0: as many as there are cores. One, or one piece of work: this process does it.
        what: is done, in words. total, done: of the progress, all of it and at the start, in units.

    Raises:
        What the first function to fail raises; the others are stopped first. Whatever they have
        written whole stays.
    """
    processes = min(processes or len(os.sched_getaffinity(0)), len(tasks))
    with bar(total, what, unit) as progress:
        progress.update(done)
        if processes <= 1:
            for function, arguments in tasks.values():
                function(*arguments, _BarReport(progress))
        else:
            _run_pool(tasks, processes, progress)
        progress.update(max(0, total - progress.n))


def _run_pool(tasks, processes, progress):
    context = multiprocessing.get_context('spawn')  # the caller may hold threads and devices
    count, stop = context.Value('q'), context.RawValue('b')
    begun = progress.n
    pool = concurrent.futures.ProcessPoolExecutor(
        processes, context, initializer=_begin, initargs=(os.getpid(), count, stop)
    )
    try:
        with _apart_from_main():
            waiting = {pool.submit(_call, function, args) for function, args in tasks.values()}
        while waiting:
            finished, waiting = concurrent.futures.wait(waiting, LOOK, 'FIRST_COMPLETED')
            progress.update(max(0, begun + count.value - progress.n))
            for future in finished:
                future.result()
    except concurrent.futures.process.BrokenProcessPool:
        raise UserError(
            'a process that tokenises was killed (out of memory?): give fewer with --processes, '
            'or a smaller data.shard_megabytes; the same command goes on'
        ) from None
    finally:
        stop.value = 1  # without an error there is nobody left to read it
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _apart_from_main():
    """Inside of it, processes that begin do not import the program that has called.

    It takes them seconds (jax, flax), in which they would not notice that their parent is gone.
    """
    main = sys.modules['__main__'].__dict__
    kept = {name: main[name] for name in ('__spec__', '__file__') if name in main}
    main.update(dict.fromkeys(kept))
    try:
        yield
    finally:
        main.update(kept)


_report = Report()


def _call(function, arguments):
    return function(*arguments, _report)


def _begin(parent, count, stop):
    global _report
    _report = Report(count, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C and stops the pool
    # A worker whose parent was killed must not go on writing beside the next run: the kernel ends
    # it at once, or, where it is no Linux, it sees to it itself.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(DEATH_SIGNAL, signal.SIGKILL)
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()


def _die_with(parent):
    while os.getppid() == parent:
        threading.Event().wait(0.5)
    os._exit(1)


def bar(total, what, unit='B'):
    """A progress bar; its rate is shown in thousands and millions of the unit."""
    return tqdm(total=total, desc=what, unit=unit, unit_scale=True, mininterval=0.5, leave=True)
