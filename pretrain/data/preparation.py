"""From documents to a corpus: a tokenizer, shards, and a manifest that says they are whole.

A corpus is a folder whose name ends in a digest of everything it depends on: the source's files,
the tokenizer, the split, the size of shards. What is there is therefore never wrong, only
unfinished, and a second call goes on where a killed one stopped: records are grouped into units by
their size alone, unit i becomes shard i, and the shards that are there are not made again.
"""

import collections
import concurrent.futures
import fcntl
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import threading
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from pretrain.data import shards, tokenizer
from pretrain.data.documents import open_source
from pretrain.data.sentences import sentence_starts
from pretrain.errors import UserError

FORMAT = 2  # of the folder; a change of what is written in it must change this number
MEGABYTE = 10**6


class Recipe(NamedTuple):
    """What a corpus is made from; the fields of `data` that decide what is written.

    source: scheme and path, see documents.open_source. text_field: of JSON lines.
    tokenizer: path of a SentencePiece model, a tokenizer.json or a folder that holds one; '' trains
        a SentencePiece model on the training split.
    vocabulary_size: pieces of a trained one. tokenizer_megabytes: text that it is trained on, from
        the start of the source. validation_fraction: of the documents, chosen by a hash of the
        text, so that a document and its copies fall into one split.
    shard_megabytes: of raw text in a shard, and so in a piece of work.
    """

    source: str
    text_field: str
    tokenizer: str
    vocabulary_size: int
    tokenizer_megabytes: float
    validation_fraction: float
    shard_megabytes: float


def prepare(recipe, cache, processes=0):
    """Makes a corpus, or finishes one, or finds it made.

    Args:
        recipe: Recipe.
        cache: folder that holds corpora.
        processes: that clean and tokenise; 0: as many as there are cores.

    Returns:
        Path of the corpus.

    Raises:
        UserError: the source, the tokenizer or the disk is not as it should be.
    """
    if not 0 <= recipe.validation_fraction < 1:
        raise UserError(
            f'data.validation_fraction={recipe.validation_fraction} must be at least 0 and under 1'
        )
    if not (recipe.shard_megabytes > 0 and recipe.tokenizer_megabytes > 0):
        raise UserError('data.shard_megabytes and data.tokenizer_megabytes must be above 0')
    source = open_source(recipe.source, recipe.text_field)
    given = tokenizer.load(recipe.tokenizer) if recipe.tokenizer else None
    folder = Path(cache) / f'{source.name}-{_digest(recipe, source, given)}'
    if (folder / 'manifest.json').exists():
        return folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _lock(folder):
            if not (folder / 'manifest.json').exists():
                _make(recipe, source, given, folder, processes or len(os.sched_getaffinity(0)))
    except UserError:
        if {path.name for path in folder.iterdir()} <= {'.lock'}:
            shutil.rmtree(folder)  # there is nothing to go on from
        raise
    except OSError as error:
        raise UserError(
            f'cannot make the corpus {str(folder)!r}: {error.strerror or error}; what is whole is '
            'kept, the same command goes on from there'
        ) from None
    return folder


def _digest(recipe, source, given):
    facts = recipe._asdict() | {
        'source': source.fingerprint(),
        'tokenizer': given.digest if given else '',
        'format': FORMAT,
    }
    if given:  # these then decide nothing
        del facts['vocabulary_size'], facts['tokenizer_megabytes']
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


class _lock:
    """Held while a corpus is made, so that two runs that need it do not make it twice."""

    def __init__(self, folder):
        self.path = folder / '.lock'

    def __enter__(self):
        self.file = open(self.path, 'w')
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f'waiting for another process that prepares {self.path.parent}')
            fcntl.flock(self.file, fcntl.LOCK_EX)

    def __exit__(self, *_):
        self.file.close()


def _make(recipe, source, given, folder, processes):
    if not tokenizer.find(folder):
        trained = given or _train_tokenizer(recipe, source)
        with shards.write_whole(folder / trained.file) as file:
            file.write(trained.model)
    summaries = _write_shards(recipe, source, folder, processes)
    totals = collections.Counter()
    for summary in summaries:
        for split in shards.SPLITS:
            totals.update({(split, name): n for name, n in summary[split].items()})
    if not sum(totals[split, 'documents'] for split in shards.SPLITS):
        raise UserError(f'{recipe.source!r} holds no document with text')
    for loss in source.losses:
        print(f'warning: {loss}')
    manifest = {
        'source': recipe.source,
        'tokenizer': tokenizer.load(folder).digest,
        'losses': source.losses,
        'totals': {
            split: {n: totals[split, n] for n in ('tokens', 'documents', 'sentences', 'bytes')}
            for split in shards.SPLITS
        },
        'shards': summaries,
    }
    with shards.write_whole(folder / 'manifest.json') as file:
        file.write(json.dumps(manifest, indent=1).encode())


def _train_tokenizer(recipe, source):
    """Trains on the documents of the training split at the start of the source."""
    limit = recipe.tokenizer_megabytes * MEGABYTE
    texts, size = [], 0
    with _bar(min(limit, 50 * source.size), f'reading {source.name}') as bar:
        for record in source.records():
            text = source.clean(record.raw)
            if not text.strip() or _held_out(_hash(text), recipe):
                continue
            texts.append(text)
            size += len(text)
            bar.update(len(text))
            if size >= limit:
                break
    source.losses.clear()  # the second reading will say them again
    if not texts:
        raise UserError(f'{recipe.source!r} holds no document with text to train a tokenizer on')
    print(f'training a tokenizer of {recipe.vocabulary_size} pieces on {size / MEGABYTE:.1f} MB')
    return tokenizer.train(texts, recipe.vocabulary_size)


def _write_shards(recipe, source, folder, processes):
    summaries = {}
    waiting = {}
    context = multiprocessing.get_context('spawn')  # the caller may hold threads and devices
    pool = None
    with _bar(source.size, f'tokenising {source.name}') as bar:

        def collect(block):
            done, _ = concurrent.futures.wait(
                waiting, return_when='FIRST_COMPLETED' if block else 'ALL_COMPLETED'
            )
            for future in done:
                number, position = waiting.pop(future)
                summaries[number] = future.result()
                bar.update(max(0, position - bar.n))

        try:
            for number, (records, position) in enumerate(_units(recipe, source)):
                summary = shards.read_summary(folder, number)
                if summary:
                    summaries[number] = summary
                    bar.update(max(0, position - bar.n))
                    continue
                if pool is None:
                    pool = concurrent.futures.ProcessPoolExecutor(
                        processes, context, initializer=_ignore_interrupts
                    )
                future = pool.submit(_make_shard, recipe, source, folder, number, records)
                waiting[future] = number, position
                if len(waiting) >= 2 * processes:  # so that memory does not depend on the source
                    collect(block=True)
            while waiting:
                collect(block=True)
        except concurrent.futures.process.BrokenProcessPool:
            raise UserError(
                'a process that tokenises was killed (out of memory?): give fewer with '
                '--processes, or a smaller data.shard_megabytes; the same command goes on'
            ) from None
        finally:
            if pool is not None:
                pool.shutdown(cancel_futures=True)
    return [summaries[number] for number in sorted(summaries)]


def _units(recipe, source):
    """Groups records by size: yields (list of raw texts, position after them)."""
    limit = recipe.shard_megabytes * MEGABYTE
    raws, size, position = [], 0, 0
    for record in source.records():
        raws.append(record.raw)
        size += len(record.raw)
        position = record.position
        if size >= limit:
            yield raws, position
            raws, size = [], 0
    if raws:
        yield raws, position


_tokenizers = {}  # in a worker: one processor for all its shards


def _make_shard(recipe, source, folder, number, raws):
    if folder not in _tokenizers:
        _tokenizers[folder] = tokenizer.load(folder)
    tokens = _tokenizers[folder]
    documents = []
    for raw in raws:
        text = source.clean(raw)
        if not text.strip():
            continue
        # White space before the first sentence belongs to it: a document begins with a sentence.
        starts = [0, *sentence_starts(text)[1:]]
        ids, sentences = tokens.encode_with_starts(text, starts)
        size = len(text.encode('utf-8', 'replace'))
        documents.append((_hash(text), ids, sentences, size))
    # A corpus of few documents should have a held-out one all the same (whose text the tokenizer
    # has seen, and whose copies stay where they are).
    first = None
    hashes = [d[0] for d in documents]
    fraction = recipe.validation_fraction
    if number == 0 and fraction and len(hashes) > 1:
        first = min(hashes) if not any(_held_out(h, recipe) for h in hashes) else None
    split = lambda h: 'validation' if h == first or _held_out(h, recipe) else 'train'  # noqa: E731
    chosen = [(split(h), *rest) for h, *rest in documents]
    return shards.write_shard(folder, number, chosen, tokens.vocabulary.table_size)


def _hash(text):
    digest = hashlib.blake2b(text.encode('utf-8', 'replace'), digest_size=8).digest()
    return int.from_bytes(digest, 'big')


def _held_out(hash_, recipe):
    return hash_ < recipe.validation_fraction * 2**64


def _ignore_interrupts():
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C and stops the pool
    threading.Thread(target=_die_with_parent, args=(os.getppid(),), daemon=True).start()


def _die_with_parent(parent):
    """A worker whose parent was killed must not go on writing beside the next run."""
    while os.getppid() == parent:
        threading.Event().wait(0.5)
    os._exit(1)


def _bar(total, what):
    return tqdm(total=total, desc=what, unit='B', unit_scale=True, mininterval=0.5, leave=True)
