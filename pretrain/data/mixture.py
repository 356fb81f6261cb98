"""Several corpora as one, each read at its own rate.

Positions of a run come in blocks. In each block every corpus has a fixed number of places, its rate
of the block in whole numbers, and the places are shuffled by a key of their own. So which corpus a
position reads, and how many windows of it were read before, follow from the position alone: there
is nothing to save. A corpus is read in the order of its own epochs, each window once before any
comes again.
"""

import functools
import hashlib

import numpy as np

from objectives import contract
from pretrain.data.permutation import permute
from pretrain.data.windows import shuffled
from pretrain.errors import UserError

BLOCK = 10_000  # positions: the finest rate is one in as many
ORDER, WINDOWS = 1, 2  # keys of the shuffles, behind the seed: of a block, of a corpus

MIXINGS = ('weights', 'size')


def rates(weights, sizes, mixing, temperature, cap):
    """The share of each corpus in the windows that a run reads.

    mixing='weights' takes the weights alone; 'size' multiplies them by min(size, cap) to the power
    of 1 / temperature, which for cap 0 (none) and temperature 1 is in proportion to size (Raffel et
    al. 2020, section 3.5.2).

    Args:
        weights, sizes: of each corpus, the sizes in tokens.

    Returns:
        float64 array that sums to 1.

    Raises:
        UserError: a number is out of range.
    """
    if mixing not in MIXINGS:
        raise UserError(f'data.mixing={mixing!r} is not one of {", ".join(MIXINGS)}')
    if not temperature > 0:  # so is no nan
        raise UserError(f'data.temperature={temperature} must be above 0')
    if not cap >= 0:
        raise UserError(f'data.cap={cap} must be at least 0')
    if mixing == 'weights' and (temperature != 1 or cap):
        raise UserError(
            f'data.temperature={temperature} and data.cap={cap} change nothing with '
            'data.mixing=weights: set data.mixing=size, or leave them out'
        )
    amounts = np.asarray(weights, np.float64)
    amounts = amounts / amounts.max()
    if mixing == 'size':
        capped = np.minimum(sizes, cap or np.inf).astype(np.float64)
        amounts = amounts * (capped / capped.max()) ** (1 / temperature)
    return amounts / amounts.sum()


def places_of(rates_S):
    """How many of BLOCK places each corpus has: the nearest whole numbers that sum to BLOCK.

    Raises:
        UserError: a rate is so low that its corpus would have none.
    """
    exact = np.asarray(rates_S) * BLOCK
    whole = np.floor(exact).astype(np.int64)
    # Largest remainders first; of equal ones, the first.
    order = np.argsort(-(exact - whole), kind='stable')
    whole[order[: BLOCK - whole.sum()]] += 1
    if not whole.all():
        lowest = int(np.argmin(whole))
        raise UserError(
            f'data.mixture: source {lowest + 1} has a share of {rates_S[lowest]:.2g} of the '
            f'windows; the least is {1 / BLOCK:g}: give it more weight, or leave it out'
        )
    return whole


@functools.lru_cache(maxsize=8)
def order_of_block(places, seed, block):
    """Whom the positions of a block read.

    Args:
        places: of each corpus in the block, a tuple. seed: of the run. block: its number.

    Returns:
        (owners_P, ranks_P): the corpus of each position, and how many positions of the block
        before it are of the same corpus. Two int64 arrays of BLOCK.
    """
    slots_P = permute(np.arange(BLOCK), BLOCK, (seed, ORDER, block))
    owners_P = np.searchsorted(np.cumsum(places), slots_P, side='right')
    ranks_P = np.empty_like(owners_P)
    for owner, count in enumerate(places):
        ranks_P[owners_P == owner] = np.arange(count)
    return owners_P, ranks_P


class Mixture:
    """Several corpora of one tokenizer; what a run asks a corpus.Corpus it may ask this."""

    def __init__(self, corpora, weights, mixing='weights', temperature=1.0, cap=0):
        """Puts them together.

        Args:
            corpora: list of corpus.Corpus. weights: of each.
            mixing, temperature, cap: as of `rates`.
        """
        self.corpora = {}
        for corpus in corpora:
            name, number = next(iter(corpus.corpora)), 1
            while (unique := name if number == 1 else f'{name}-{number}') in self.corpora:
                number += 1
            self.corpora[unique] = corpus
        self.tokenizer = corpora[0].tokenizer
        sizes = [corpus.total('train', 'tokens') for corpus in corpora]
        self.rates = rates(weights, sizes, mixing, temperature, cap)
        self.places = places_of(self.rates)

    @property
    def source(self):
        """What it was made from, in words."""
        return ' and '.join(corpus.source for corpus in self.corpora.values())

    @property
    def shares(self):
        """{name: share of the windows that a run reads}."""
        return dict(zip(self.corpora, self.rates.tolist(), strict=True))

    @functools.cached_property
    def digest(self):
        """Of all corpora and their rates."""
        facts = [corpus.digest for corpus in self.corpora.values()] + self.places.tolist()
        return hashlib.sha256(repr(facts).encode()).hexdigest()

    def total(self, split, name):
        """Number of `name` (tokens, documents, sentences, bytes) in a split, or in 'all'."""
        return sum(corpus.total(split, name) for corpus in self.corpora.values())

    @functools.cached_property
    def counts_V(self):
        """How often each id is read in as many tokens as all training splits hold, float64."""
        corpora = list(self.corpora.values())
        shares = [corpus.counts_V / max(1, corpus.counts_V.sum()) for corpus in corpora]
        mixed = sum(rate * share for rate, share in zip(self.rates, shares, strict=True))
        return mixed * self.total('train', 'tokens')


class MixedReader:
    """The training windows of a mixture; the interface is that of windows.WindowReader."""

    def __init__(self, readers, places):
        """Puts readers together.

        Args:
            readers: {name: WindowReader}, of one length.
            places: of each in a block of BLOCK positions.
        """
        self.readers, self.places = readers, np.asarray(places)
        self._readers = list(readers.values())
        self.length = self._readers[0].length
        self._firsts = np.cumsum([0, *map(len, self._readers)])
        documents = [reader.documents for reader in self._readers]
        self._documents = np.cumsum([0, *documents])
        self.documents = int(self._documents[-1])

    def __len__(self):
        return int(self._firsts[-1])

    @property
    def padding(self):
        """Share of all places in the windows that are read which hold no token."""
        shares = self.places / self.places.sum()
        return float(sum(s * r.padding for s, r in zip(shares, self._readers, strict=True)))

    def numbers(self, positions, seed):
        """Which windows the positions of a run read, counted through all corpora."""
        positions = np.asarray(positions, np.int64)
        blocks, within = np.divmod(positions, BLOCK)
        owners, reads = np.empty_like(within), np.empty_like(within)
        for block in np.unique(blocks):
            here = blocks == block
            owners_P, ranks_P = order_of_block(tuple(self.places.tolist()), seed, int(block))
            owners[here] = owners_P[within[here]]
            reads[here] = block * self.places[owners[here]] + ranks_P[within[here]]
        numbers = np.empty_like(within)
        for owner in np.unique(owners):
            here = owners == owner
            key = seed, WINDOWS, int(owner)
            size = len(self._readers[owner])
            numbers[here] = self._firsts[owner] + shuffled(reads[here], size, key)
        return numbers

    def read(self, numbers):
        """Reads windows, as WindowReader.read; documents are counted through all corpora."""
        numbers = np.asarray(numbers, np.int64)
        owners = np.searchsorted(self._firsts, numbers, side='right') - 1
        arrays = tuple(np.empty((len(numbers), self.length), np.int32) for _ in range(3))
        for owner in np.unique(owners):
            here = owners == owner
            first = 0 if owner < 0 else self._firsts[owner]  # -1 is a window of padding
            found = self._readers[max(0, owner)].read(numbers[here] - first)
            there = found[2] != contract.PADDING
            found[2][there] += self._documents[max(0, owner)]
            for array, part in zip(arrays, found, strict=True):
                array[here] = part
        return arrays
