"""Rows of tokens of different lengths, laid out in batches of a few lengths.

Short pairs do not pay for long ones: a batch is as long as the bucket of its longest row, its rows
come from one bucket, and a program is compiled once a bucket. Rows that are judged together (the
two choices of COPA) stand in one unit and are never parted.
"""

from typing import NamedTuple

import numpy as np

from objectives import contract
from pretrain.errors import UserError

# A step of an eighth or less from 64 on: on GLUE's pairs a tenth of the places is padding.
BUCKETS = (
    *range(8, 64, 8), *range(64, 128, 16), *range(128, 256, 32), *range(256, 512, 64),
    *range(512, 4097, 256),
)  # fmt: skip
TARGET_BUCKETS = (4, 8, 16, 32, 64, 128)  # of the targets of text to text


class Row(NamedTuple):
    """What the model reads of an example, and what it should say.

    ids_L, types_L: token ids and segment types (None: none), int32.
    example: number of the example that the row is made of.
    target: number of a class, or a float; -1: not known.
    spans_Sx2: first and last place of marked pieces, int32.
    targets_K: ids to predict, for text to text; None: none.
    """

    ids_L: np.ndarray
    types_L: np.ndarray | None
    example: int
    target: float = -1
    spans_Sx2: np.ndarray | None = None
    targets_K: np.ndarray | None = None


class RowBatch(NamedTuple):
    """Rows side by side, padded on the right; a leaf of None is not there.

    inputs: contract.Inputs with segments 1 on real places and 0 on padding.
    lengths_B: real places. weights_B: 1, and 0 for rows that fill the batch up. targets_B: as Row.
    decoder_inputs, targets_BxK, target_weights_BxK: of text to text.
    features: what a frozen trunk made of the rows, in place of running it.
    """

    inputs: contract.Inputs
    lengths_B: np.ndarray
    weights_B: np.ndarray
    targets_B: np.ndarray
    spans_BxSx2: np.ndarray | None = None
    decoder_inputs: contract.Inputs | None = None
    targets_BxK: np.ndarray | None = None
    target_weights_BxK: np.ndarray | None = None
    features: np.ndarray | None = None


class Place(NamedTuple):
    """Which rows a batch holds: their numbers, -1 where it is filled up, and its length."""

    rows_B: np.ndarray
    length: int


def bucket(length, buckets=BUCKETS):
    """The smallest bucket that holds `length` places.

    Raises:
        UserError: none does.
    """
    for size in buckets:
        if length <= size:
            return size
    raise UserError(f'a row of {length} tokens is longer than the longest bucket, {buckets[-1]}')


def training_batches(rows, batch, unit, seed, epoch):
    """The batches of one pass over the rows, in a random order.

    Units are shuffled and dealt to their buckets; what is left of a bucket at the end moves up into
    the next longer one, so that all batches but one are full.

    Args:
        rows: list of Row. batch: rows of a batch. unit: rows in a row that stay together.
        seed, epoch: of the order; the same ones give the same batches.

    Returns:
        List of Place.
    """
    random = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    order = random.permutation(len(rows) // unit)
    places = _dealt(rows, order, batch, unit)
    return [places[i] for i in random.permutation(len(places))]


def evaluation_batches(rows, batch, unit=1):
    """Batches of all rows in the order of their lengths, as a list of Place."""
    lengths = [_longest(rows, u, unit) for u in range(len(rows) // unit)]
    return _dealt(rows, np.argsort(lengths, kind='stable'), batch, unit)


def _dealt(rows, order, batch, unit):
    at_once = max(batch // unit, 1)
    waiting, places = {}, []
    for u in map(int, order):
        size = bucket(_longest(rows, u, unit))
        waiting.setdefault(size, []).append(u)
        if len(waiting[size]) == at_once:
            places.append(_place(waiting.pop(size), size, at_once, unit))
    left = []
    for size in sorted(waiting):
        left += waiting[size]
        while len(left) >= at_once:
            places.append(_place(left[:at_once], size, at_once, unit))
            left = left[at_once:]
    if left:
        places.append(_place(left, size, at_once, unit))
    return places


def _longest(rows, u, unit):
    return max(len(row.ids_L) for row in rows[u * unit : (u + 1) * unit])


def _place(units, size, at_once, unit):
    rows_B = np.full(at_once * unit, -1)
    rows_B[: len(units) * unit] = (np.array(units)[:, None] * unit + np.arange(unit)).ravel()
    return Place(rows_B, size)


def lay_out(rows, place, pad, prefix=False):
    """The RowBatch of a Place, as numpy arrays.

    Args:
        rows: list of Row. place: Place. pad: id of padding.
        prefix: all of a row may see all of it (a prefix LM reads in both directions).
    """
    batch, length = len(place.rows_B), place.length
    chosen = [(b, rows[r]) for b, r in enumerate(place.rows_B) if r >= 0]
    first = chosen[0][1]
    tokens_BxL = np.full((batch, length), pad, np.int32)
    lengths_B = np.ones(batch, np.int32)  # a row without any place would see nothing
    weights_B, targets_B = np.zeros(batch, np.float32), np.zeros(batch, np.float32)
    types_BxL = None if first.types_L is None else np.zeros((batch, length), np.int32)
    spans_BxSx2 = None
    if first.spans_Sx2 is not None:
        spans_BxSx2 = np.zeros((batch, *first.spans_Sx2.shape), np.int32)
    for b, row in chosen:
        own = len(row.ids_L)
        tokens_BxL[b, :own], lengths_B[b] = row.ids_L, own
        weights_B[b], targets_B[b] = 1, row.target
        if types_BxL is not None:
            types_BxL[b, :own] = row.types_L
        if spans_BxSx2 is not None:
            spans_BxSx2[b] = row.spans_Sx2
    segments_BxL = (np.arange(length) < lengths_B[:, None]).astype(np.int32)
    inputs = contract.Inputs(
        tokens_BxL,
        segments_BxL=segments_BxL,
        types_BxL=types_BxL,
        prefix_B=lengths_B if prefix else None,
    )
    made = RowBatch(inputs, lengths_B, weights_B, targets_B, spans_BxSx2)
    return made if first.targets_K is None else _with_targets(made, chosen, pad)


def _with_targets(made, chosen, pad):
    """Adds what the decoder reads and predicts: the targets, and them shifted right by one."""
    size = bucket(max(len(row.targets_K) for _, row in chosen), TARGET_BUCKETS)
    targets_BxK = np.full((len(made.lengths_B), size), pad, np.int32)
    weights_BxK = np.zeros(targets_BxK.shape, np.float32)
    for b, row in chosen:
        own = len(row.targets_K)
        targets_BxK[b, :own], weights_BxK[b, :own] = row.targets_K, 1
    shifted_BxK = np.pad(targets_BxK[:, :-1], ((0, 0), (1, 0)), constant_values=pad)
    return made._replace(
        decoder_inputs=contract.Inputs(shifted_BxK),
        targets_BxK=targets_BxK,
        target_weights_BxK=weights_BxK,
    )


def padding(rows, places):
    """Share of the places of these batches that hold no token of a row."""
    read = sum(len(rows[r].ids_L) for place in places for r in place.rows_B if r >= 0)
    held = sum(len(place.rows_B) * place.length for place in places)
    return 1 - read / held
