"""The windows of a run, step by step, read ahead by a thread.

The position of a run is one integer, the number of windows read so far. Window p of the run is
window permute(p mod n) of epoch p // n, each epoch with a shuffle of its own: a pure function of
(seed, p), so any process can read any part of any step.
"""

import queue
import threading

import numpy as np

from objectives import contract
from pretrain.data.permutation import permute

READ_AHEAD = 2  # steps
EVALUATION = (0,)  # the key of the one shuffle; those of training are (seed, epoch)


def corpus_windows(positions, count, seed):
    """Which window of the corpus each position of the run reads.

    Args:
        positions: int64 array of positions in the run.
        count: windows in the corpus. seed: of the run.

    Returns:
        int64 array: within an epoch of `count` positions each window comes once.
    """
    positions = np.asarray(positions, np.int64)
    epochs, places = np.divmod(positions, count)
    chosen = np.empty_like(places)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        chosen[here] = permute(places[here], count, (seed, int(epoch)))
    return chosen


def read(reader, seed, positions):
    """The contract.Windows (numpy) at some positions of the run."""
    arrays = reader.read(corpus_windows(positions, len(reader), seed))
    return contract.Windows(*arrays, np.asarray(positions, np.int32))


def for_evaluation(reader, first, batch, rows, count):
    """Windows first .. first + batch - 1 of a fixed shuffle of the split, for evaluation.

    Shuffled, because neighbours are of one document: the first windows would be no sample of the
    split, and a next sentence from another document needs other documents in the batch.

    Args:
        reader: corpus.WindowReader. first: place of the first window in that order.
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

    def __init__(self, reader, seed, batch, rows, position):
        """Starts to read.

        Args:
            reader: corpus.WindowReader. seed: of the run.
            batch: windows a step, over all processes.
            rows: slice of the batch that this process supplies.
            position: windows that the run has read before.
        """
        self._queue = queue.Queue(READ_AHEAD)
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._read, args=(reader, seed, batch, rows, position), daemon=True
        )
        self._thread.start()

    def _read(self, reader, seed, batch, rows, position):
        while not self._stop.is_set():
            positions = np.arange(position, position + batch)[rows]
            try:
                item = read(reader, seed, positions)
            except Exception as error:  # handed to the thread that asks for windows
                item = error
            while not self._stop.is_set():
                try:
                    self._queue.put(item, timeout=0.2)
                    break
                except queue.Full:
                    continue
            if isinstance(item, Exception):
                return
            position += batch

    def __next__(self):
        item = self._queue.get()
        if isinstance(item, Exception):
            raise item
        return item

    def __iter__(self):
        return self

    def close(self):
        """Stops the thread."""
        self._stop.set()
        self._thread.join()
