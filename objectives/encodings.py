"""Encodings: how a text and its noise mask become what is read and what must be predicted.

T5 (Raffel et al. 2020, sections 3.1.4 and 3.3): an objective is a noise mask, an encoding of the
inputs and one of the targets. An encoding works on one row and gives (values_W, emitted_W): what
stands at each place of the text, and which places are there at all; `compact` closes the gaps.
`lay_out` lays inputs and targets out for an encoder-decoder or for a decoder that stands alone.

Where a text begins with noise (an i.i.d. or a rolled mask) its first noise has sentinel 0 in the
inputs, but in the targets sentinel 0 stands for the first kept text: the numbers of the two sides
are shifted by one, as in T5.

Departure from T5: tokens drawn at random are plain pieces, never sentinels or other special ids;
T5 leaves out the reserved ids alone.
"""

import difflib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from objectives import contract

# Layouts, and the stacks of the model that each is for.
LAYOUTS = {'encoder_decoder': ('encoder', 'decoder'), 'decoder': ('decoder',)}


class Pieces(NamedTuple):
    """Ids that encodings put into a text.

    sentinels_S: in the order of their use. plain_P: the pieces that may be drawn at random.
    """

    pad: int
    eos: int
    sentinels_S: np.ndarray
    plain_P: np.ndarray


def pieces(vocabulary):
    """The Pieces of a contract.Vocabulary; no sentinels where it has none."""
    sentinels = vocabulary.sentinels or ()
    special = {vocabulary.pad, vocabulary.eos, vocabulary.unk, vocabulary.cls, vocabulary.sep}
    special |= {vocabulary.mask, *(vocabulary.modes or {}).values(), *sentinels}
    plain = [id for id in range(vocabulary.size) if id not in special]
    return Pieces(
        vocabulary.pad, vocabulary.eos, np.array(sentinels, np.int32), np.array(plain, np.int32)
    )


def sentinels(tokens_W, marked_W, sentinels_S):
    """Each run of marked tokens becomes one sentinel, in order; the rest stays."""
    first_W = marked_W & ~jnp.pad(marked_W[:-1], (1, 0))
    sentinel_W = jnp.asarray(sentinels_S)[jnp.cumsum(first_W) - 1]
    return jnp.where(first_W, sentinel_W, tokens_W), ~marked_W | first_W


def _all(values_W):
    return values_W, jnp.ones(values_W.shape, bool)


def _random(key, tokens_W, pieces):
    return jax.random.choice(key, jnp.asarray(pieces.plain_P), tokens_W.shape)


def _mask(key, tokens_W, noise_W, pieces):
    del key
    return _all(jnp.where(noise_W, pieces.sentinels_S[0], tokens_W))


def _mask_or_random(key, tokens_W, noise_W, pieces):
    which_key, random_key = jax.random.split(key)
    random_W = jax.random.bernoulli(which_key, 0.1, tokens_W.shape)
    drawn_W = _random(random_key, tokens_W, pieces)
    put_W = jnp.where(random_W, drawn_W, pieces.sentinels_S[0])
    return _all(jnp.where(noise_W, put_W, tokens_W))


def _random_tokens(key, tokens_W, noise_W, pieces):
    return _all(jnp.where(noise_W, _random(key, tokens_W, pieces), tokens_W))


def _shuffle(key, tokens_W, noise_W, pieces):
    del pieces
    # Both orders have the noise first, one as it stands, one at random; what follows is the same.
    order_W = jnp.argsort(~noise_W, stable=True)
    score_W = jnp.where(noise_W, jax.random.uniform(key, tokens_W.shape), 2.0)
    drawn_W = tokens_W[jnp.argsort(score_W, stable=True)]
    return _all(jnp.zeros_like(drawn_W).at[order_W].set(drawn_W))


# name -> f(key, tokens_W, noise_W, pieces) -> (values_W, emitted_W)
INPUTS = {
    'sentinels': lambda key, tokens, noise, pieces: sentinels(tokens, noise, pieces.sentinels_S),
    'mask': _mask,
    'mask_or_random': _mask_or_random,
    'random': _random_tokens,
    'drop': lambda key, tokens, noise, pieces: (tokens, ~noise),
    'keep': lambda key, tokens, noise, pieces: _all(tokens),
    'shuffle': _shuffle,
}

# name -> f(tokens_W, noise_W, pieces) -> (values_W, emitted_W)
TARGETS = {
    'sentinels': lambda tokens, noise, pieces: sentinels(tokens, ~noise, pieces.sentinels_S),
    'noise': lambda tokens, noise, pieces: (tokens, noise),
    'full': lambda tokens, noise, pieces: _all(tokens),
}


def compact(values_W, emitted_W, size, pieces):
    """The emitted values without gaps, trimmed to size - 1, then EOS, then padding.

    Whether a place is padding is never told from its id: a text may hold any id.

    Returns:
        (tokens_K, count): K = size, and how many of them are real, the EOS included.
    """
    place_W = jnp.cumsum(emitted_W) - 1
    place_W = jnp.where(emitted_W & (place_W < size - 1), place_W, size)
    tokens_K = jnp.full(size, pieces.pad, jnp.int32)
    tokens_K = tokens_K.at[place_W].set(values_W, mode='drop')
    count = jnp.minimum(jnp.sum(emitted_W), size - 1)
    return tokens_K.at[count].set(pieces.eos), count + 1


def encode(key, names, tokens_W, noise_W, length, sizes, pieces, first=None):
    """Inputs and targets of one row.

    Args:
        key: of this row.
        names: (a name of INPUTS, a name of TARGETS).
        tokens_W, noise_W: the window and its noise mask. length: its real tokens, traced.
        sizes: (I, K), static lengths, each with room for the EOS.
        pieces: Pieces.
        first: id of a token to be put before the inputs (a mode token), or None.

    Returns:
        ((inputs_I, count), (targets_K, count)); of a row without tokens, which is padding alone,
        both counts are 0.
    """
    real_W = jnp.arange(tokens_W.shape[0]) < length
    values_W, emitted_W = INPUTS[names[0]](key, tokens_W, noise_W, pieces)
    read = values_W, emitted_W & real_W
    if first is not None:
        read = jnp.insert(values_W, 0, first), jnp.insert(read[1], 0, True)
    values_W, emitted_W = TARGETS[names[1]](tokens_W, noise_W, pieces)
    told = values_W, emitted_W & real_W

    def side(values_W, emitted_W, size):
        tokens_K, count = compact(values_W, emitted_W, size, pieces)
        return jnp.where(length > 0, tokens_K, pieces.pad), jnp.where(length > 0, count, 0)

    return side(*read, sizes[0]), side(*told, sizes[1])


def lay_out(inputs, targets, layout, pad, length=None):
    """Lays inputs and targets out for the stacks of a model.

    'encoder_decoder': the decoder reads the targets shifted right by one, with pad in front.
    'decoder': each row is its inputs and, right behind them, its targets; the inputs are a prefix
    that all may see (UL2, for decoder-only models), and a target is predicted at the place of the
    token before it.

    Args:
        inputs: (inputs_BxI, counts_B). targets: (targets_BxK, counts_B).
        layout: a name of LAYOUTS.
        pad: id.
        length: places of a row in the layout 'decoder'; None: I + K.

    Returns:
        contract.Batch.
    """
    (inputs_BxI, read_B), (targets_BxK, told_B) = inputs, targets
    size = inputs_BxI.shape[1]
    place_K = jnp.arange(targets_BxK.shape[1])
    weights_BxK = (place_K < told_B[:, None]).astype(jnp.float32)
    if layout == 'encoder_decoder':
        segments_BxI = (jnp.arange(size) < read_B[:, None]).astype(jnp.int32)
        shifted_BxK = jnp.pad(targets_BxK[:, :-1], ((0, 0), (1, 0)), constant_values=pad)
        return contract.Batch(
            inputs=contract.Inputs(inputs_BxI, segments_BxL=segments_BxI),
            decoder_inputs=contract.Inputs(shifted_BxK),
            targets_BxK=targets_BxK,
            weights_BxK=weights_BxK,
        )
    length = length or size + place_K.shape[0]
    place_L = jnp.arange(length)
    after_BxL = place_L - read_B[:, None]
    target_BxL = jnp.take_along_axis(targets_BxK, after_BxL.clip(0, place_K.shape[0] - 1), axis=1)
    input_BxL = inputs_BxI[:, place_L.clip(max=size - 1)]
    tokens_BxL = jnp.where(after_BxL < 0, input_BxL, target_BxL)
    real_BxL = after_BxL < told_B[:, None]
    return contract.Batch(
        inputs=contract.Inputs(
            tokens_BxL=jnp.where(real_BxL, tokens_BxL, pad),
            segments_BxL=real_BxL.astype(jnp.int32),
            prefix_B=read_B,
        ),
        decoder_inputs=None,
        targets_BxK=targets_BxK,
        weights_BxK=weights_BxK,
        places_BxK=(read_B[:, None] + place_K - 1).clip(0, length - 1),
    )


def check_name(key, name, names):
    """Raises ValueError, with the nearest of `names`, when `name` is none of them."""
    if name not in names:
        near = difflib.get_close_matches(str(name), names, 1)
        hint = f'did you mean {near[0]!r}?' if near else f'there are: {", ".join(names)}'
        raise ValueError(f'unknown objective.{key}={name!r}; {hint}')


def check_sentinels(needed, vocabulary, objective, mend):
    """Raises ValueError when the tokenizer has fewer sentinels than are needed."""
    contract.require(vocabulary, sentinels=objective)
    if needed > len(vocabulary.sentinels):
        raise ValueError(
            f'{objective} needs {needed} sentinels, the tokenizer has '
            f'{len(vocabulary.sentinels)}: {mend}'
        )
