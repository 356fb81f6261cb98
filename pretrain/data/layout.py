"""Where windows lie that are not cut blindly, as tables beside the shards they belong to.

The table of a split of a shard says of each window which stretches of the shard's stream it holds;
it depends on the shard, the length and the cut alone, and is made once: by pretrain.prepare, or by
the first run that needs it.
"""

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pretrain.data import shards, workers
from pretrain.errors import UserError

# Documents that are packed with each other; the rest of a block may fill its windows less well.
BLOCK = 10_000
WORTH = 20_000_000  # tokens, from which on several processes lay out


class Table(NamedTuple):
    """The windows of a split of a shard.

    spans: (begin, end) in the stream of documents and separators, shape (stretches, 2).
    firsts: index of each window's first stretch, and at the end their number.
    """

    spans: np.ndarray
    firsts: np.ndarray

    @property
    def tokens(self):
        """How many all windows hold."""
        return int(np.sum(self.spans[:, 1] - self.spans[:, 0]))


class Laid(NamedTuple):
    """A table as far as all of them are needed at once.

    windows, tokens: how many. open: gives the Table.
    """

    windows: int
    tokens: int
    open: Callable[[], Table]


def tables(places, length, cut, separator):
    """Reads the tables of some parts of a corpus, and makes those that are not there, or damaged.

    Args:
        places: list of (folder of a shard, split).
        length: tokens of a window. cut: of LAYOUTS. separator: an eos after each document.

    Returns:
        list of Laid.
    """
    paths = [_path(folder, split, length, cut, separator) for folder, split in places]
    missing = {
        path: (_make, (folder, split, length, cut, separator))
        for path, (folder, split) in zip(paths, places, strict=True)
        if not _sizes(path)
    }
    if missing and not _writable(places[0][0]):
        # On a read-only disk tables live as long as the process.
        held = {path: lay_out(*arguments) for path, (_, arguments) in missing.items()}
        return [_held(held[path]) if path in held else _on_disk(path) for path in paths]
    tokens = sum((folder / f'{split}.tokens.npy').stat().st_size // 2 for folder, split in places)
    if missing and tokens > WORTH:
        what = f'laying out windows of {length} tokens'
        workers.run(missing, 0, what, len(paths), len(paths) - len(missing), ' shards')
    else:
        for function, arguments in missing.values():
            function(*arguments, workers.Report())
    return [_on_disk(path) for path in paths]


def _held(table):
    return Laid(len(table.firsts) - 1, table.tokens, lambda: table)


def _on_disk(path):
    windows, tokens = _sizes(path)
    return Laid(windows, tokens, lambda: _read(path))


def _sizes(path):
    """(windows, tokens) of the table in a file; None where there is no whole one."""
    try:
        array = np.load(path, mmap_mode='r')
        windows, tokens = array[:2].tolist()
        stretches = int(array[windows + 2])
    except (ValueError, IndexError, EOFError, FileNotFoundError):
        return None
    return (windows, tokens) if len(array) == windows + 3 + 2 * stretches else None


def _path(folder, split, length, cut, separator):
    return folder / f'{split}.windows-{cut}-{length}-{int(separator)}.npy'


def _writable(folder):
    with contextlib.suppress(OSError), tempfile.TemporaryFile(dir=folder):
        return True
    return False


def _read(path):
    """One array: the numbers of windows and of tokens, the firsts, then the spans."""
    array = np.asarray(np.load(path, mmap_mode='r'))
    spans = int(array[0]) + 3
    return Table(array[spans:].reshape(-1, 2), array[2:spans])


def _make(folder, split, length, cut, separator, report):
    table = lay_out(folder, split, length, cut, separator)
    sizes = [len(table.firsts) - 1, table.tokens]
    with shards.write_whole(_path(folder, split, length, cut, separator)) as file:
        np.save(file, np.concatenate([sizes, table.firsts, table.spans.ravel()]))
    report.advance(1)


def lay_out(folder, split, length, cut, separator):
    """The Table of one split of a shard."""
    part = shards.open_part(Path(folder), split)
    ends = np.append(part.documents, len(part.tokens))[1:]
    documents = np.stack([part.documents, ends], axis=1)
    if len(documents) and (documents[0, 0] or np.any(documents[:, 0] >= documents[:, 1])):
        raise UserError(
            f'{str(folder)!r} is damaged: its documents of the split {split!r} do not follow on '
            'each other: delete the folder of the corpus and prepare it again'
        )
    return LAYOUTS[cut](documents, np.asarray(part.sentences), length, int(separator))


def by_document(documents, sentences, length, separator):
    """Windows of one document each, which begin at sentences.

    The next window begins with the first sentence that did not fit whole or, when one sentence
    fills more than a window, goes on inside that sentence. An eos goes with its document's last
    token if there is room for it.

    Args:
        documents: (begin, end) of each. sentences: begin of each.
        length: tokens of a window. separator: tokens after each document, 0 or 1; they count in
            the table, not in the arguments.
    """
    spans = []
    for number, (begin, stop) in enumerate(documents.tolist()):
        shift = separator * number
        while begin < stop:
            end = min(begin + length, stop + separator)
            spans.append((begin + shift, end + shift))
            if end >= stop:
                break
            following = int(sentences[np.searchsorted(sentences, end, side='right') - 1])
            begin = following if following > begin else end
    return _table(spans, np.arange(len(spans) + 1))


def packed(documents, sentences, length, separator):
    """Windows of whole documents, packed by best fit (Ding et al. 2024, section 3).

    A document longer than a window gives whole windows and a rest. Rests and short documents are
    put, the longest first, each into the window that it leaves least room in, among the windows of
    its block of documents. An eos that would be a rest of its own is left out. Arguments as of
    by_document.
    """
    del sentences
    shifts = separator * np.arange(len(documents))
    places = (documents + shifts[:, None] + [0, separator]).tolist()
    windows = []
    for first in range(0, len(places), BLOCK):
        windows += _pack(places[first : first + BLOCK], length, separator)
    spans = [span for window in windows for span in window]
    return _table(spans, np.cumsum([0, *map(len, windows)]))


def _table(spans, firsts):
    return Table(np.array(spans, np.int64).reshape(-1, 2), firsts)


def _pack(places, length, separator):
    """The windows of one block: lists of (begin, end)."""
    windows, rests = [], []
    for begin, end in places:
        while end - begin >= length:
            windows.append([(begin, begin + length)])
            begin += length
        if end - begin > separator:
            rests.append((end - begin, begin))
    rests.sort(key=lambda rest: (-rest[0], rest[1]))
    # Bit s is set where a window has room for s tokens: the lowest at or above a size is one shift.
    open_, room = {}, 0
    for size, begin in rests:
        fits = room >> size
        if fits:
            space = size + (fits & -fits).bit_length() - 1
            window = open_[space].pop()
            if not open_[space]:
                room ^= 1 << space
        else:
            space, window = length, []
            windows.append(window)
        window.append((begin, begin + size))
        left = space - size
        if left:
            open_.setdefault(left, []).append(window)
            room |= 1 << left
    for window in windows:
        window.sort()
    return windows


LAYOUTS = {'document': by_document, 'pack': packed}
