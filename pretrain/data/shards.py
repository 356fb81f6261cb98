"""Tokenised text on disk: folders of arrays that are memory-mapped when read.

A shard is a folder `shard-00007` with, for each split, three arrays: `tokens` (uint16 or uint32),
`documents` (where each document begins) and `sentences` (where each sentence begins), and
`counts.npy`, how often each token occurs in the training split. It is written under another name
and renamed when it is whole and on the disk, so a folder with the right name is a whole shard.
"""

import contextlib
import json
import os
import shutil
import uuid
from pathlib import Path
from typing import NamedTuple

import numpy as np

SPLITS = ('train', 'validation')


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


def write_shard(corpus, number, documents, table_size):
    """Writes one shard; after a return it is whole and on the disk.

    Args:
        corpus: folder of the corpus.
        number: the shard's.
        documents: list of (split, ids, sentence tokens, bytes of text).
        table_size: rows of the embedding table, which decides the width of the ids.

    Returns:
        Its summary: for each split the number of tokens, documents, sentences and bytes.
    """
    folder = shard_folder(corpus, number)
    partial = folder.with_name(folder.name + '.partial')
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        summary = _write_arrays(partial, documents, table_size)
        os.rename(partial, folder)
    finally:  # on a full disk half a shard would be in the way
        shutil.rmtree(partial, ignore_errors=True)
    _sync(folder.parent)
    return summary


def _write_arrays(folder, documents, table_size):
    dtype = np.uint16 if table_size <= 2**16 else np.uint32
    summary = {}
    for split in SPLITS:
        chosen = [d for d in documents if d[0] == split]
        lengths = np.asarray([len(ids) for _, ids, _, _ in chosen], np.int64)
        begins = np.cumsum(lengths) - lengths
        part = Part(
            tokens=_concatenate([ids for _, ids, _, _ in chosen]).astype(dtype),
            documents=begins,
            sentences=_concatenate([s + b for b, (_, _, s, _) in zip(begins, chosen)]),
        )
        for name, array in part._asdict().items():
            np.save(folder / f'{split}.{name}.npy', array)
        summary[split] = {
            'tokens': len(part.tokens),
            'documents': len(chosen),
            'sentences': len(part.sentences),
            'bytes': sum(d[3] for d in chosen),
        }
        if split == 'train':
            np.save(folder / 'counts.npy', np.bincount(part.tokens, minlength=table_size))
    (folder / 'summary.json').write_text(json.dumps(summary))
    for path in folder.iterdir():
        _sync(path)
    return summary


def read_summary(corpus, number):
    """The summary of a whole shard, or None when it is not there yet."""
    path = shard_folder(corpus, number) / 'summary.json'
    return json.loads(path.read_text()) if path.exists() else None


def open_part(corpus, number, split):
    """Memory-maps one split of one shard."""
    folder = shard_folder(corpus, number)
    return Part(*[np.load(folder / f'{split}.{n}.npy', mmap_mode='r') for n in Part._fields])


@contextlib.contextmanager
def write_whole(path):
    """A file opened for binary writing that appears under its name only when it is whole."""
    path = Path(path)
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


def _concatenate(arrays):
    return np.concatenate(arrays).astype(np.int64) if arrays else np.zeros(0, np.int64)


def _sync(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
