"""A prepared corpus, and the windows of tokens that are cut from it."""

import bisect
import contextlib
import functools
import hashlib
import json
from pathlib import Path

import numpy as np

from objectives import contract
from pretrain.data import shards, tokenizer
from pretrain.errors import UserError

CUTS = ('stream', 'document')


class Corpus:
    """A folder made by preparation.prepare."""

    def __init__(self, folder):
        """Opens the folder.

        Raises:
            UserError: it is not there, not finished, or its tokenizer is not the one that made
                its shards.
        """
        self.folder = Path(folder)
        path = self.folder / 'manifest.json'
        if not path.exists():
            raise UserError(
                f'{str(folder)!r} is no finished corpus (no manifest.json): '
                'python -m pretrain.prepare makes it'
            )
        try:
            self.manifest = json.loads(path.read_text())
            self._check_shards()
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise UserError(
                f'{str(folder)!r} is damaged ({type(error).__name__}: {error}): delete the folder '
                'and prepare it again'
            ) from None
        self.tokenizer = tokenizer.load(self.folder)
        if self.tokenizer.digest != self.manifest['tokenizer']:
            raise UserError(
                f'the tokenizer in {str(folder)!r} ({self.tokenizer.digest[:12]}) is not the one '
                f'its shards were made with ({self.manifest["tokenizer"][:12]}): '
                'delete the folder and prepare it again'
            )

    def _check_shards(self):
        """Raises when an array is missing, cut off, or not as long as the manifest says."""
        self.manifest['tokenizer'], self.manifest['source'], self.manifest['totals']
        for number, summary in enumerate(self.manifest['shards']):
            np.load(shards.shard_folder(self.folder, number) / 'counts.npy', mmap_mode='r')
            for split in shards.SPLITS:
                part = shards.open_part(self.folder, number, split)
                for name, array in part._asdict().items():
                    if len(array) != summary[split][name]:
                        raise ValueError(
                            f'{split}.{name}.npy of shard {number} holds {len(array)} numbers, '
                            f'not {summary[split][name]}'
                        )

    @functools.cached_property
    def digest(self):
        """Of the tokenizer and the sizes of all shards: corpora that differ in it are different."""
        facts = [self.manifest['tokenizer'], self.manifest['shards']]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    @functools.cached_property
    def counts_V(self):
        """How often each id occurs in the training split, int64."""
        numbers = range(len(self.manifest['shards']))
        return sum(np.load(shards.shard_folder(self.folder, n) / 'counts.npy') for n in numbers)

    def total(self, split, name):
        """Number of `name` (tokens, documents, sentences, bytes) in a split, or in 'all'."""
        splits = shards.SPLITS if split == 'all' else (split,)
        return sum(self.manifest['totals'][s][name] for s in splits)

    def parts(self, split):
        """The (shard number, split, tokens, documents) that make up a split, or 'all', in order."""
        splits = shards.SPLITS if split == 'all' else (split,)
        return [
            (number, s, summary[s]['tokens'], summary[s]['documents'])
            for s in splits
            for number, summary in enumerate(self.manifest['shards'])
            if summary[s]['tokens']
        ]


class WindowReader:
    """Cuts a split into windows of W tokens; window i is always the same.

    With cut='stream' the documents stand one after the other (with an eos after each if
    `separator`), and the stream is cut every W tokens. With cut='document' a window begins at the
    start of a sentence and holds one document only: the next window begins with the first
    sentence that did not fit whole, or, when one sentence fills more than a window, goes on inside
    that sentence.
    """

    def __init__(self, corpus, split, length, cut='stream', separator=True, tail=False):
        """Lays out the windows.

        Args:
            corpus: Corpus. split: 'train', 'validation' or 'all'. length: W.
            cut, separator: `data.cut` and `data.separator`.
            tail: keep the last window of the stream, which is not full (for evaluation).

        Raises:
            UserError: there is not one window in the split; unknown cut.
        """
        if cut not in CUTS:
            raise UserError(f'data.cut={cut!r} is not one of {", ".join(CUTS)}')
        self.corpus, self.length, self.cut, self.separator = corpus, length, cut, separator
        self._eos = corpus.tokenizer.vocabulary.eos
        self._pad = corpus.tokenizer.vocabulary.pad
        self._size = corpus.tokenizer.vocabulary.size
        if separator and self._eos < 0:
            raise UserError('data.separator=true needs a tokenizer with an eos piece')
        self._parts = corpus.parts(split)
        # The separators count as tokens of the stream: its length in each part.
        sizes = [tokens + separator * documents for _, _, tokens, documents in self._parts]
        self._begins = np.cumsum([0, *sizes])
        self._documents = np.cumsum([0, *[documents for *_, documents in self._parts]])
        self._open = functools.lru_cache(maxsize=64)(self._open_part)
        if cut == 'document':
            self._starts = [self._plan(i) for i in range(len(self._parts))]
            self._firsts = np.cumsum([0, *map(len, self._starts)])
            self._count = int(self._firsts[-1])
        else:
            total = int(self._begins[-1])
            self._count = -(-total // length) if tail else total // length
        if not self._count:
            raise UserError(
                f'a window of {length} tokens is longer than the {split} split '
                f'({int(self._begins[-1])} tokens): give more text or a smaller objective.length'
            )

    def __len__(self):
        return self._count

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
                    t, s, d = self._read_span(part, begin, end)
                    to = slice(place, place + len(t))
                    tokens[row, to], documents[row, to] = t, d
                    # A part begins with a document, and so with a sentence.
                    sentences[row, to] = s + (sentences[row, place - 1] + 1 if place else 0)
                    place += len(t)
        if tokens.size and tokens.max() >= self._size:
            raise UserError(
                f'{str(self.corpus.folder)!r} is damaged: it holds the id {tokens.max()}, the '
                f'tokenizer has {self._size}: delete the folder and prepare it again'
            )
        return tokens, sentences, documents

    def _spans(self, number):
        """The stretches of parts that make a window: (part, begin, end) in the part's stream."""
        if self.cut == 'document':
            part = bisect.bisect_right(self._firsts, number) - 1
            begin, end = self._starts[part][number - self._firsts[part]]
            yield part, int(begin), int(end)
            return
        begin = number * self.length
        end = min(begin + self.length, int(self._begins[-1]))
        part = bisect.bisect_right(self._begins, begin) - 1
        while begin < end:
            base, stop = int(self._begins[part]), int(self._begins[part + 1])
            yield part, begin - base, min(end, stop) - base
            begin, part = min(end, stop), part + 1

    def _read_span(self, part, begin, end):
        """Tokens, sentence numbers (from 0) and document numbers of a stretch of one part."""
        arrays, separator = self._open(part), int(self.separator)
        begins, total = arrays.documents, len(arrays.tokens)
        # In the stream, document d begins behind the separators of the d documents before it.
        place = lambda d: int(begins[d]) + separator * d  # noqa: E731
        first = bisect.bisect_right(range(len(begins)), begin, key=place) - 1
        after = bisect.bisect_left(range(len(begins)), end, key=place)
        edges = begins[first:after] + separator * np.arange(first, after)
        stops = np.append(begins[first + 1 : after + 1], total)[: after - first]

        places = np.arange(begin, end)
        document = np.searchsorted(edges, places, side='right') - 1
        spots = places - separator * (document + first)
        is_eos = spots == stops[document]
        spots -= is_eos  # an eos belongs to the last sentence of its document
        low, high = int(spots[0]), int(spots[-1])
        tokens = np.asarray(arrays.tokens[low : high + 1], np.int32)[spots - low]
        tokens[is_eos] = self._eos
        marks = arrays.sentences[slice(*np.searchsorted(arrays.sentences, (low, high), 'right'))]
        sentences = np.searchsorted(marks, spots, side='right')
        return tokens, sentences, document + first + int(self._documents[part])

    def _plan(self, part):
        """cut='document': the (begin, end) of a part's windows, in its stream; kept on disk."""
        number, split, _, _ = self._parts[part]
        folder = shards.shard_folder(self.corpus.folder, number)
        path = folder / f'{split}.windows-{self.length}-{int(self.separator)}.npy'
        if path.exists():
            return np.load(path, mmap_mode='r')
        windows = self._lay_out(self._open(part))
        # A cache that cannot be written, on a read-only disk, is made anew each time.
        with contextlib.suppress(OSError), shards.write_whole(path) as file:
            np.save(file, windows)
        return windows

    def _lay_out(self, arrays):
        sentences, windows = arrays.sentences, []
        for d in range(len(arrays.documents)):
            begin = int(arrays.documents[d])
            last = d + 1 == len(arrays.documents)
            stop = len(arrays.tokens) if last else int(arrays.documents[d + 1])
            shift = self.separator * d
            while begin < stop:
                # The eos goes with the document's last token if there is room for it.
                whole = stop + self.separator
                end = min(begin + self.length, whole)
                windows.append((begin + shift, end + shift))
                if end >= stop:
                    break
                following = int(sentences[np.searchsorted(sentences, end, side='right') - 1])
                begin = following if following > begin else end
        return np.asarray(windows, np.int64).reshape(-1, 2)

    def _open_part(self, index):
        number, split, _, _ = self._parts[index]
        return shards.open_part(self.corpus.folder, number, split)
