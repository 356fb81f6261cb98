"""What an encoder puts in the place of masks."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from objectives import contract, losses
from pretrain.errors import UserError

NAMES = '[MASK]', '<mask>'  # that tokenizers have for it


class Filling(NamedTuple):
    """A piece in the place of a mask: its probability, the piece, the text with it."""

    probability: float
    piece: str
    text: str


@functools.partial(jax.jit, static_argnums=0, static_argnames=('top_k', 'vocabulary_size'))
def likeliest(bind, params, tokens_BxL, lengths_B, places_BxK, *, top_k, vocabulary_size):
    """The likeliest tokens at some places.

    Args:
        bind: params -> contract.Model with logits over the vocabulary (static).
        params: what it takes.
        tokens_BxL: int32, padded on the right. lengths_B: real tokens of each row.
        places_BxK: int32.
        top_k: how many tokens.
        vocabulary_size: ids from here on (padding of the table) are left out; the softmax is that
            of the whole table, which training gave.

    Returns:
        (probabilities_BxKxC, tokens_BxKxC), C = top_k, the likeliest first.
    """
    model = bind(params)
    real_BxL = jnp.arange(tokens_BxL.shape[1]) < lengths_B[:, None]
    inputs = contract.Inputs(tokens_BxL, segments_BxL=real_BxL.astype(jnp.int32))
    hidden_BxLxD = model.hidden(contract.Batch(inputs, None, None, None))
    logits_BxKxV = model.logits(losses.at_places(hidden_BxLxD, places_BxK))
    return jax.lax.top_k(jax.nn.softmax(logits_BxKxV)[..., :vocabulary_size], top_k)


def fill_masks(bind, params, tokens, texts, top_k):
    """Fills each mask of some texts, one at a time.

    Args:
        bind, params, top_k: see likeliest.
        tokens: Tokenizer with the ids cls, sep and mask.
        texts: list of str, in which names of special ids stand for these. The model reads each as
            it was trained (objectives/masked_lm.py): [CLS] text [SEP].

    Returns:
        For each text, for each of its masks: list of Filling, the likeliest first. The other
        masks of the text stay in it.

    Raises:
        UserError: a text has no mask.
    """
    vocabulary = tokens.vocabulary
    rows, masks = [], []
    for text in texts:
        ids = text_ids(tokens, text)
        masks.append(np.flatnonzero(ids == vocabulary.mask))
        if not len(masks[-1]):
            mask = [vocabulary.mask]
            known = (name for name in NAMES if tokens.encode(name, specials=True).tolist() == mask)
            raise UserError(
                f'the prompt {text!r} has no mask: write {next(known, "the mask piece")} where a '
                'piece is to be filled in'
            )
        rows.append(ids)
    lengths_B = np.array([len(ids) for ids in rows])
    tokens_BxL = np.full((len(rows), lengths_B.max()), vocabulary.pad, np.int32)
    places_BxK = np.zeros((len(rows), max(map(len, masks))), np.int32)
    for row, ids in enumerate(rows):
        tokens_BxL[row, : len(ids)] = ids
        places_BxK[row, : len(masks[row])] = masks[row]
    probabilities, found = likeliest(
        bind, params, tokens_BxL, lengths_B, places_BxK,
        top_k=min(top_k, vocabulary.size), vocabulary_size=vocabulary.size,
    )  # fmt: skip
    probabilities, found = np.asarray(probabilities), np.asarray(found)

    def filled(row, k):
        for p, id in zip(probabilities[row, k], found[row, k]):
            ids = rows[row].copy()
            ids[masks[row][k]] = id
            yield Filling(float(p), tokens.decode([id]), tokens.decode(ids[1:-1]))

    return [[list(filled(row, k)) for k in range(len(own))] for row, own in enumerate(masks)]


def text_ids(tokens, text):
    """int array of ids: [CLS] text [SEP], names of special ids in the text standing for these."""
    vocabulary = tokens.vocabulary
    ids = tokens.encode(text, specials=True)
    return np.concatenate([[vocabulary.cls], ids, [vocabulary.sep]]).astype(np.int64)
