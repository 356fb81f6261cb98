"""Tokenised text on disk: folders of arrays that are memory-mapped when read.

A shard is a folder `shard-00007` with, for each split, three arrays: `tokens` (uint16 or uint32),
`documents` (where each document begins) and `sentences` (where each sentence begins), and
`counts.npy`, how often each token occurs in the training split. It is written under another name,
in constant memory, and renamed when it is whole and on the disk, so a folder with the right name is
a whole shard.
"""

import contextlib
import fcntl
import io
import json
import os
import shutil
import uuid
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pretrain import storage
from pretrain.errors import UserError

SPLITS = ('train', 'validation')
BUFFER = 1 << 20  # numbers held before they are written
LOCK = '.lock'  # held while a shard is written
HEADER = 128  # bytes before the numbers in a file that numpy writes


class Part(NamedTuple):
    """One split of one shard.

    tokens: ids. documents: index of each document's first token. sentences: of each sentence's.
    """

    tokens: np.ndarray
    documents: np.ndarray
    sentences: np.ndarray


def shard_folder(corpus, number):
    """Path of the shard with this number."""
    return Path(corpus) / f'shard-{number:05d}'


class ShardWriter:
    """Writes the shard `folder`, document by document.

    As a context it is finished at its end, whole and on the disk, or, after an error, removed.
    """

    def __init__(self, folder, table_size):
        """Begins.

        Args:
            folder: path of the shard.
            table_size: rows of the embedding table, which decides the width of the ids.
        """
        self.folder = Path(folder)
        self._partial = self.folder.with_name(f'{self.folder.name}.{uuid.uuid4().hex}.partial')
        self._partial.mkdir(parents=True)
        self._lock = open(self._partial / LOCK, 'w')
        with contextlib.suppress(OSError):  # a disk without locks
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        wide = np.uint16 if table_size <= 2**16 else np.uint32
        types = Part(wide, np.int64, np.int64)._asdict()
        self._arrays = {
            (split, name): ArrayWriter(self._partial / f'{split}.{name}.npy', dtype)
            for split in SPLITS
            for name, dtype in types.items()
        }
        self._bytes = dict.fromkeys(SPLITS, 0)
        self._counts_V = np.zeros(table_size, np.int64)
        self._uncounted, self._size = [], 0
        self.facts = {}  # more that the summary is to hold

    def add(self, split, ids, sentences, size):
        """Adds a document.

        Args:
            split: of SPLITS. ids: of its tokens. sentences: index of each sentence's first token
                in it. size: bytes of its text.
        """
        ids = np.asarray(ids)
        tokens = self._arrays[split, 'tokens']
        begin = tokens.length
        tokens.extend(ids)
        self._arrays[split, 'documents'].extend(np.array([begin]))
        self._arrays[split, 'sentences'].extend(np.asarray(sentences, np.int64) + begin)
        self._bytes[split] += size
        if split == 'train':
            self._uncounted.append(ids)
            self._size += len(ids)
            if self._size >= BUFFER:
                self._count()

    def add_array(self, name, array):
        """Adds an array to the shard, as NAME.npy."""
        np.save(self._partial / f'{name}.npy', array)

    def _count(self):
        if self._uncounted:
            ids = np.concatenate(self._uncounted)
            self._counts_V += np.bincount(ids, minlength=len(self._counts_V))
        self._uncounted, self._size = [], 0

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        try:
            for array in self._arrays.values():
                array.close()
            if kind is None:
                self._finish()
        finally:  # on a full disk half a shard would be in the way
            shutil.rmtree(self._partial, ignore_errors=True)
            self._lock.close()

    def _finish(self):
        self._count()
        np.save(self._partial / 'counts.npy', self._counts_V)
        sizes = {
            split: {name: self._arrays[split, name].length for name in Part._fields}
            | {'bytes': self._bytes[split]}
            for split in SPLITS
        }
        (self._partial / 'summary.json').write_text(json.dumps(sizes | self.facts))
        for path in self._partial.iterdir():
            _sync(path)
        try:
            os.rename(self._partial, self.folder)
        except OSError:  # another process was faster, with the same bytes
            if read_summary(self.folder) is None:
                raise
        else:
            (self.folder / LOCK).unlink()
        _sync(self.folder.parent)


class ArrayWriter:
    """A one-dimensional .npy file that is written from start to end, in constant memory."""

    def __init__(self, path, dtype):
        self.length, self._dtype = 0, np.dtype(dtype)
        self._held, self._size = [], 0
        self._file = open(path, 'wb')
        self._write_header()

    def extend(self, array):
        """Appends an array's values."""
        self._held.append(np.asarray(array).astype(self._dtype))
        self._size += len(array)
        self.length += len(array)
        if self._size >= BUFFER:
            self._flush()

    def close(self):
        """Writes what is left, and the length."""
        self._flush()
        self._file.seek(0)
        self._write_header()
        self._file.close()

    def _flush(self):
        if self._held:
            np.concatenate(self._held).tofile(self._file)
        self._held, self._size = [], 0

    def _write_header(self):
        # numpy leaves room in the header for the longest length that there is.
        facts = {'descr': np.lib.format.dtype_to_descr(self._dtype), 'fortran_order': False}
        np.lib.format.write_array_header_1_0(self._file, facts | {'shape': (self.length,)})


def read_summary(folder):
    """The summary of a whole shard, or None when it is not there yet."""
    path = Path(folder) / 'summary.json'
    return json.loads(path.read_text()) if path.exists() else None


def open_part(folder, split):
    """Memory-maps one split of the shard in a folder; UserError as of `load`."""
    return Part(*[load(Path(folder) / f'{split}.{name}.npy') for name in Part._fields])


def load(path):
    """Memory-maps an array of a shard.

    Raises:
        UserError: the file is not there, or holds no array.
    """
    try:
        return np.load(path, mmap_mode='r')
    except (ValueError, EOFError, FileNotFoundError) as error:
        raise UserError(
            f'{str(path)!r} is damaged ({error}): delete the folder of the corpus, '
            f'{str(Path(path).parent.parent)!r}, and prepare it again'
        ) from None


def remove_left(folder):
    """Removes what killed processes have left half-written in a corpus, and nobody writes now."""
    for left in Path(folder).glob('*.partial'):
        # Where it cannot be told, on a disk without locks, it stays, which costs space alone.
        with contextlib.suppress(OSError), open(left / LOCK) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left, ignore_errors=True)


def wrong_size(sizes, split, lengths):
    """The name of an array in a shard whose file cannot hold as many numbers as it should.

    Args:
        sizes: {file name: bytes} of a shard. split: of SPLITS. lengths: {array: numbers}.

    Returns:
        str, or None where all are right.
    """
    for name in Part._fields:
        file = f'{split}.{name}.npy'
        widths = (2, 4) if name == 'tokens' else (8,)
        if all(sizes[file] != HEADER + width * lengths[name] for width in widths):
            return file
    return None


@contextlib.contextmanager
def write_whole(path):
    """A file opened for binary writing that appears under its name only when it is whole.

    Args:
        path: of the file; its folder is made. On gs:// it is put there at the end.
    """
    path = storage.place(path)
    if storage.is_remote(path):
        content = io.BytesIO()
        yield content
        with storage.errors(path, 'write'):
            path.write_bytes(content.getvalue())
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # Process numbers repeat in the containers of one shared disk.
    partial = path.with_name(f'{path.name}.{uuid.uuid4().hex}.partial')
    try:
        with open(partial, 'wb') as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _sync(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
