"""A prepared corpus."""

import functools
import hashlib
import json
import os
from pathlib import Path

import numpy as np

from pretrain.data import shards, tokenizer
from pretrain.errors import UserError


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
        """Raises when an array is missing, or not as long as the manifest says.

        By the sizes of files: to open those of all of C4's shards takes minutes on many disks.
        """
        for name in ('tokenizer', 'source', 'lengths', 'removed', 'skipped'):
            self.manifest[name]
        for split in shards.SPLITS:
            for name in ('documents', 'sentences', 'tokens', 'bytes'):
                self.manifest['totals'][split][name]
        for number, summary in enumerate(self.manifest['shards']):
            folder = shards.shard_folder(self.folder, number)
            sizes = {entry.name: entry.stat().st_size for entry in os.scandir(folder)}
            sizes['counts.npy']
            for split in shards.SPLITS:
                wrong = shards.wrong_size(sizes, split, summary[split])
                if wrong:
                    raise ValueError(f'{wrong} of shard {number} is not of the size it was')

    @property
    def source(self):
        """What it was made from, as a config names it."""
        return self.manifest['source']

    @property
    def corpora(self):
        """{name: Corpus}, as mixture.Mixture has it: itself."""
        return {self.folder.name.rpartition('-')[0]: self}

    @property
    def shares(self):
        """{name: share of the windows that a run reads}."""
        return dict.fromkeys(self.corpora, 1.0)

    @functools.cached_property
    def digest(self):
        """Of the tokenizer and the sizes of all shards: corpora that differ in it are different."""
        facts = [self.manifest['tokenizer'], self.manifest['shards']]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    @functools.cached_property
    def counts_V(self):
        """How often each id occurs in the training split, int64."""
        numbers = range(len(self.manifest['shards']))
        return sum(shards.load(shards.shard_folder(self.folder, n) / 'counts.npy') for n in numbers)

    def document(self, number):
        """The ids of a document of the training split, by its number there."""
        for shard, split, _, count in self.parts('train'):
            if number < count:
                part = shards.open_part(shards.shard_folder(self.folder, shard), split)
                end = part.documents[number + 1] if number + 1 < count else len(part.tokens)
                ids = np.asarray(part.tokens[part.documents[number] : end], np.int64)
                self.check_ids(ids)
                return ids
            number -= count
        raise IndexError(number)

    def check_ids(self, ids):
        """Raises UserError where an array holds an id that the tokenizer does not have."""
        size = self.tokenizer.vocabulary.size
        if ids.size and ids.max() >= size:
            raise UserError(
                f'{str(self.folder)!r} is damaged: it holds the id {ids.max()}, the tokenizer has '
                f'{size}: delete the folder and prepare it again'
            )

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
