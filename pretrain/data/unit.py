"""A unit of work: documents read, cleaned, filtered, tokenised, and written as a shard."""

import collections
import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pretrain.data import shards, tokenizer
from pretrain.data.bad_input import Tally
from pretrain.data.filters import Filters
from pretrain.data.sentences import sentence_starts

UNDECIDED = 20_000_000  # characters that wait for the first held-out document
LONG = 1_000_000  # characters tokenised at once
LENGTHS = 32  # classes of documents by their tokens: 0, 1, 2-3, 4-7, ...


class Job(NamedTuple):
    """A corpus in the making: what a worker needs to make one of its shards.

    recipe, work: of preparation. source: source.Source. folder: of the corpus.
    """

    recipe: object
    source: object
    filters: Filters
    folder: Path
    work: object

    def stage(self, number):
        """Where unit `number` is written: its shard, or, before copies are out, beside it."""
        shard = shards.shard_folder(self.folder, number)
        if 'duplicates' in self.filters.names:
            return shard.with_name(shard.name.replace('shard', 'unit'))
        return shard


def documents(job, unit, tally, removed=None):
    """The documents of a unit, cleaned and filtered.

    Args:
        job: Job. unit: source.Unit. tally: bad_input.Tally.
        removed: Counter that filters add to.

    Yields:
        (split, text).
    """
    removed = collections.Counter() if removed is None else removed
    for raw in job.source.documents(unit, tally):
        text = job.source.clean(raw)
        if text.strip():
            text = job.filters(text, removed)
        if text.strip():
            held_out = _hash(text) < job.recipe.validation_fraction * 2**64
            yield unit.split or ('validation' if held_out else 'train'), text


_tokenizers = {}  # in a worker: one processor for all its shards


def make(job, number, unit, report):
    """Writes a unit's shard.

    Args:
        job: Job. number: of the unit. unit: source.Unit.
        report: workers.Report, which carries progress out and word to stop in.
    """
    if job.folder not in _tokenizers:
        _tokenizers.clear()
        _tokenizers[job.folder] = tokenizer.load(job.folder)
    tokens = _tokenizers[job.folder]
    tally, removed = Tally(job.work.skip, report.advance), collections.Counter()
    lengths, known = [0] * LENGTHS, {split: [] for split in shards.SPLITS}
    with shards.ShardWriter(job.stage(number), tokens.vocabulary.table_size) as writer:

        def add(split, text, ids, sentences):
            size = len(text.encode('utf-8', 'replace'))
            writer.add(split, ids, sentences, size)
            lengths[min(len(ids).bit_length(), LENGTHS - 1)] += 1
            if 'duplicates' in job.filters.names:
                known[split].append((_hash(text), size))

        # A corpus of few documents should have a held-out one all the same (whose text the
        # tokenizer has seen, and whose copies stay where they are).
        waiting = [] if number == 0 and job.recipe.validation_fraction and not unit.split else None
        held = 0
        for document in _encode(tokens, documents(job, unit, tally, removed)):
            report.check()
            if waiting is None:
                add(*document)
                continue
            waiting.append(document)
            held += len(document[1])
            if document[0] == 'validation' or held >= UNDECIDED:
                _decide(waiting, add)
                waiting = None
        if waiting:
            _decide(waiting, add)
        if 'duplicates' in job.filters.names:
            for split, pairs in known.items():
                hashes, sizes = np.array(pairs, np.uint64).reshape(-1, 2).T
                writer.add_array(f'{split}.hashes', hashes)
                writer.add_array(f'{split}.sizes', sizes)
        writer.facts.update(
            removed=removed, skipped=tally.counts, examples=tally.examples, lengths=lengths
        )


def _encode(tokens, documents):
    """Tokenises documents: short ones many at once, a long one in pieces, in bounded memory.

    Args:
        documents: iterable of (split, text).

    Yields:
        (split, text, ids, begins of sentences).
    """
    held, size = [], 0
    for split, text in documents:
        if held and size + len(text) > LONG:
            yield from _encode_held(tokens, held)
            held, size = [], 0
        held.append((split, text))
        size += len(text)
    if held:
        yield from _encode_held(tokens, held)


def _encode_held(tokens, held):
    # White space before the first sentence belongs to it: a document begins with one.
    starts = [[0, *sentence_starts(text)[1:]] for _, text in held]
    if len(held) == 1 and len(held[0][1]) > LONG:
        yield *held[0], *_encode_long(tokens, held[0][1], np.array(starts[0]))
        return
    encoded = tokens.encode_all_with_starts([text for _, text in held], starts)
    for document, found in zip(held, encoded, strict=True):
        yield *document, *found


def _encode_long(tokens, text, starts):
    ids, sentences, length = [], [], 0
    for begin, end in _pieces(text):
        inside = starts[slice(*np.searchsorted(starts, (begin, end)))] - begin
        some, begins = tokens.encode_with_starts(text[begin:end], inside)
        ids.append(some)
        sentences.append(begins + length)
        length += len(some)
    return np.concatenate(ids), np.concatenate(sentences)


def _pieces(text):
    """The (begin, end) of pieces of LONG characters, cut before white space where there is some.

    There tokens begin, so that a cut hardly ever changes an id.
    """
    begin = 0
    while len(text) - begin > LONG:
        least, cut = begin + LONG // 2, begin + LONG
        for mark in '\n ':
            found = begin + len(text[begin : max(0, text.rfind(mark, least, cut))].rstrip())
            if found >= least:
                cut = found
                break
        yield begin, cut
        begin = cut
    yield begin, len(text)


def _decide(waiting, add):
    """Adds the first documents; where none is held out, of two or more, the least by hash is."""
    held_out = any(split == 'validation' for split, *_ in waiting)
    hashes = {_hash(text) for _, text, *_ in waiting}
    least = None if held_out or len(hashes) < 2 else min(hashes)
    for split, text, ids, sentences in waiting:
        add('validation' if _hash(text) == least else split, text, ids, sentences)


def _hash(text):
    digest = hashlib.blake2b(text.encode('utf-8', 'replace'), digest_size=8).digest()
    return int.from_bytes(digest, 'big')
