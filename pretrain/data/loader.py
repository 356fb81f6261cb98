"""The windows of a run, step by step, read ahead by threads.

The position of a run is one integer, the number of windows read so far. Window p of the run is a
pure function of (seed, p), so any process can read any part of any step, with as many threads as it
likes.
"""

import collections
import concurrent.futures

import numpy as np

from objectives import contract
from pretrain.data.permutation import permute

AT_ONCE = 4096  # windows whose numbers are computed together: it is the calls that cost
EVALUATION = (0,)  # the key of the one shuffle; those of training are (seed, epoch)


def read(reader, seed, positions):
    """The contract.Windows (numpy) at some positions of the run."""
    arrays = reader.read(reader.numbers(positions, seed))
    return contract.Windows(*arrays, np.asarray(positions, np.int32))


def for_evaluation(reader, first, batch, rows, count):
    """Windows first .. first + batch - 1 of a fixed shuffle of the split, for evaluation.

    Shuffled, because neighbours are of one document: the first windows would be no sample of the
    split, and a next sentence from another document needs other documents in the batch.

    Args:
        reader: windows.WindowReader. first: place of the first window in that order.
        batch: how many. rows: slice of them that this process supplies.
        count: from this place on come windows of padding, so that all batches have one shape.

    Returns:
        contract.Windows (numpy), each with its number in the corpus, so that what is random in a
        row is the same whatever the batch.
    """
    places = np.arange(first, first + batch)[rows]
    size = len(reader)
    shuffled = permute(places % size, size, EVALUATION)
    there = np.where(places < count, shuffled, -1)
    return contract.Windows(*reader.read(there), shuffled.astype(np.int32))


class Loader:
    """Iterates over the windows of this process's rows (contract.Windows), step by step.

    Close it when done; an error while reading is raised where the windows are asked for.
    """

    def __init__(self, reader, seed, batch, rows, position, workers=1, ahead=2):
        """Starts to read.

        Args:
            reader: windows.WindowReader or mixture.MixedReader. seed: of the run.
            batch: windows a step, over all processes.
            rows: slice of the batch that this process supplies.
            position: windows that the run has read before.
            workers: threads that read; 0: the caller's own, when it asks.
            ahead: steps that are read before they are asked for.
        """
        self._pool = concurrent.futures.ThreadPoolExecutor(workers, 'loader') if workers else None
        self._reader = reader
        self._steps = _steps(reader, seed, batch, rows, position)
        self._waiting = collections.deque()
        if self._pool:
            for _ in range(ahead):
                self._send()

    def _send(self):
        self._waiting.append(self._pool.submit(self._read, *next(self._steps)))

    def _read(self, positions, numbers):
        return contract.Windows(*self._reader.read(numbers), positions)

    def __next__(self):
        if not self._pool:
            return self._read(*next(self._steps))
        self._send()
        return self._waiting.popleft().result()

    def __iter__(self):
        return self

    def close(self):
        """Stops the threads."""
        if self._pool:
            self._pool.shutdown(cancel_futures=True)


def _steps(reader, seed, batch, rows, position):
    """Yields each step's (positions, numbers of windows) of this process."""
    steps = max(1, AT_ONCE // batch)
    while True:
        positions = np.arange(position, position + steps * batch).reshape(steps, batch)[:, rows]
        numbers = reader.numbers(positions.ravel(), seed).reshape(positions.shape)
        yield from zip(positions.astype(np.int32), numbers, strict=True)
        position += steps * batch
