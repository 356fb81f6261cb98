"""The windows of tokens that are cut from a corpus."""

import bisect
import functools
import resource

import numpy as np

from objectives import contract
from pretrain.data import layout, shards
from pretrain.data.permutation import permute
from pretrain.errors import UserError

CUTS = ('stream', *layout.LAYOUTS)


def shuffled(positions, count, key):
    """Which of `count` things each position reads, in epochs that are shuffled one by one.

    Args:
        positions: int64 array, 0 and above. count: of the things. key: tuple of integers.

    Returns:
        int64 array.
    """
    positions = np.asarray(positions, np.int64)
    epochs, places = np.divmod(positions, count)
    chosen = np.empty_like(places)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        chosen[here] = permute(places[here], count, (*key, int(epoch)))
    return chosen


class WindowReader:
    """Cuts a split into windows of W tokens; window i is always the same.

    With cut='stream' the documents stand one after the other (with an eos after each if
    `separator`), and the stream is cut every W tokens. Other cuts lay the windows out in a table
    (layout.py): with cut='document' a window begins at the start of a sentence and holds one
    document only; with cut='pack' it holds whole documents, as many as fill it best.
    """

    def __init__(self, corpus, split, length, cut='stream', separator=True, tail=False):
        """Lays out the windows.

        Args:
            corpus: Corpus. split: 'train', 'validation' or 'all'. length: W.
            cut, separator: `data.cut` and `data.separator`.
            tail: keep the last window of the stream, which is not full (for evaluation).

        Attribute padding: share of all places in the split's windows that hold no token.

        Raises:
            UserError: there is not one window in the split; unknown cut.
        """
        if cut not in CUTS:
            raise UserError(f'data.cut={cut!r} is not one of {", ".join(CUTS)}')
        self.corpus, self.length, self.cut, self.separator = corpus, length, cut, separator
        self._eos = corpus.tokenizer.vocabulary.eos
        self._pad = corpus.tokenizer.vocabulary.pad
        if separator and self._eos < 0:
            raise UserError('data.separator=true needs a tokenizer with an eos piece')
        self._parts = corpus.parts(split)
        # The separators count as tokens of the stream: its length in each part.
        sizes = [tokens + separator * documents for _, _, tokens, documents in self._parts]
        self._begins = np.cumsum([0, *sizes])
        self._documents = np.cumsum([0, *[documents for *_, documents in self._parts]])
        self._open = functools.lru_cache(_open_files() // 6)(self._open_part)
        if cut != 'stream':
            places = [(shards.shard_folder(corpus.folder, n), s) for n, s, _, _ in self._parts]
            laid = layout.tables(places, length, cut, bool(separator))
            self._table = functools.lru_cache(_open_files() // 6)(lambda part: laid[part].open())
            self._firsts = np.cumsum([0, *[part.windows for part in laid]])
            self._count = int(self._firsts[-1])
            tokens = sum(part.tokens for part in laid)
        else:
            total = int(self._begins[-1])
            self._count = -(-total // length) if tail else total // length
            tokens = min(total, self._count * length)
        if not self._count:
            raise UserError(
                f'a window of {length} tokens is longer than the {split} split '
                f'({int(self._begins[-1])} tokens): give more text or a smaller objective.length'
            )
        self.padding = 1 - tokens / (self._count * length)

    def __len__(self):
        return self._count

    @property
    def documents(self):
        """How many documents the split holds."""
        return int(self._documents[-1])

    def numbers(self, positions, seed):
        """Which windows the positions of a run read.

        Args:
            positions: int64 array: p is in epoch p // n of n windows, each with its own shuffle.
            seed: of the run.

        Returns:
            int64 array: within an epoch each window comes once.
        """
        return shuffled(positions, len(self), (seed,))

    def read(self, numbers):
        """Reads windows.

        Args:
            numbers: window numbers, 0 .. len - 1, or -1 for a window of padding.

        Returns:
            (tokens, sentences, documents), int32 arrays of shape (len(numbers), W), as in
            contract.Windows.
        """
        shape = len(numbers), self.length
        tokens = np.full(shape, self._pad, np.int32)
        sentences = np.full(shape, contract.PADDING, np.int32)
        documents = np.full(shape, contract.PADDING, np.int32)
        for row, number in enumerate(map(int, numbers)):
            if number >= 0:
                place = 0
                for part, begin, end in self._spans(number):
                    to = slice(place, place + end - begin)
                    views = tokens[row, to], sentences[row, to], documents[row, to]
                    self._read_span(part, begin, end, *views)
                    # Each stretch begins with a sentence, but one that goes on in a window.
                    if place:
                        sentences[row, to] += sentences[row, place - 1] + 1
                    place = to.stop
        self.corpus.check_ids(tokens)
        return tokens, sentences, documents

    def _spans(self, number):
        """The stretches of parts that make a window: (part, begin, end) in the part's stream."""
        if self.cut != 'stream':
            part = bisect.bisect_right(self._firsts, number) - 1
            place, table = number - int(self._firsts[part]), self._table(part)
            for begin, end in table.spans[table.firsts[place] : table.firsts[place + 1]]:
                yield part, int(begin), int(end)
            return
        begin = number * self.length
        end = min(begin + self.length, int(self._begins[-1]))
        part = bisect.bisect_right(self._begins, begin) - 1
        while begin < end:
            base, stop = int(self._begins[part]), int(self._begins[part + 1])
            yield part, begin - base, min(end, stop) - base
            begin, part = min(end, stop), part + 1

    def _read_span(self, part, begin, end, tokens, sentences, documents):
        """Fills in tokens, sentence numbers (from 0) and document numbers of a stretch of a part.

        Document by document: most windows hold few, and copying beats any search by tokens.
        """
        if begin >= end:
            raise self._damaged(part, begin, end)
        arrays, separator = self._open(part), int(self.separator)
        begins, total = arrays.documents, len(arrays.tokens)
        # In the stream, document d begins behind the separators of the d documents before it.
        place = lambda d: int(begins[d]) + separator * d  # noqa: E731
        number = bisect.bisect_right(range(len(begins)), begin, key=place) - 1
        base, at, size = int(self._documents[part]), 0, end - begin
        sentences[:] = 0
        while at < size:
            low = begin + at - separator * number
            stop = int(begins[number + 1]) if number + 1 < len(begins) else total
            high = min(stop, low + size - at)
            text = at + high - low
            after = min(size, text + separator) if high == stop else text
            if not (0 <= low <= high <= total and at < after):
                raise self._damaged(part, begin, end)
            tokens[at:text] = arrays.tokens[low:high]
            marks = arrays.sentences[slice(*arrays.sentences.searchsorted((low, high)))]
            sentences[marks + (at - low)] = 1
            tokens[text:after] = self._eos  # which belongs to the last sentence of its document
            documents[at:after] = base + number
            at, number = after, number + 1
        sentences[0] = 0
        np.cumsum(sentences, out=sentences)

    def _damaged(self, part, begin, end):
        return UserError(
            f'{str(self.corpus.folder)!r} is damaged: shard {self._parts[part][0]} holds no text '
            f'from {begin} to {end}: delete the folder and prepare it again'
        )

    def _open_part(self, index):
        number, split, _, _ = self._parts[index]
        part = shards.open_part(shards.shard_folder(self.corpus.folder, number), split)
        return shards.Part(*map(np.asarray, part))  # a memmap is slow to be cut


@functools.cache
def _open_files():
    """Files that the process may hold open; a corpus of many shards would like three for each."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, 65_536) if hard != resource.RLIM_INFINITY else 65_536
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return max(soft, wanted)
