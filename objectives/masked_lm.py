"""Masked language modelling: hide some tokens of a text and predict them from both sides.

BERT (Devlin et al. 2018, section 3.1 and appendix A.2) on single sequences `[CLS] text [SEP]`, as
in RoBERTa and DistilBERT. A fixed share of the tokens is chosen; of these 80 % become [MASK], 10 %
a random token, 10 % stay as they are, and all of them are predicted. `mask_tokens` is all of it and
serves the objectives that mask other rows.

Departures from the papers:
* The masks are drawn anew whenever a window is read; BERT draws ten for each text and keeps them.
* Whole words: where no word fits into the number of tokens to choose, BERT chooses none; here the
  shortest word is cut to that number, so that every sequence has something to predict.
* Smoothing: DistilBERT chooses among all tokens of a batch at once; here each row has its own
  number, as in BERT, and its choice does not depend on the batch that it stands in.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from objectives import contract, losses


class Masking(NamedTuple):
    """Corrupted tokens and what stood there.

    tokens_BxL: token ids after corruption.
    targets_BxK: the ids that were chosen, 0 in unused slots.
    weights_BxK: float32, 1 for a prediction and 0 for an unused slot.
    places_BxK: int32, ascending, where the targets stood; 0 in unused slots, which come last.
    """

    tokens_BxL: jax.Array
    targets_BxK: jax.Array
    weights_BxK: jax.Array
    places_BxK: jax.Array


def predictions(length, rate):
    """The number of tokens to predict in a sequence of `length` tokens, specials included."""
    return max(1, round(length * rate))  # round() takes halves to the even number, as BERT's does


def mask_tokens(keys_B, tokens_BxL, real_BxL, config, vocabulary):
    """Chooses tokens of each row and corrupts them.

    Of a row with n real tokens predictions(n, rate) are chosen, or all that may be chosen where
    that is fewer. Special tokens and padding never are; an unknown token may be.

    Args:
        keys_B: a random key for each row (contract.row_keys).
        tokens_BxL: token ids.
        real_BxL: bool, False where padded.
        config: `rate`, `mask_share`, `random_share`, `whole_words`, `smoothing`: see make.
        vocabulary: contract.Vocabulary.

    Returns:
        Masking, with K = predictions(L, rate).
    """
    length = tokens_BxL.shape[1]
    slots = predictions(length, config.rate)
    keys_Bx3 = jax.vmap(lambda key: jax.random.split(key, 3))(keys_B)

    candidates_BxL = real_BxL & ~_is_special(tokens_BxL, vocabulary)
    # A table made in Python is exact where float32 on a device might round 0.15 x n otherwise.
    counts = np.array([0] + [predictions(n, config.rate) for n in range(1, length + 1)], np.int32)
    count_B = jnp.minimum(jnp.asarray(counts)[real_BxL.sum(1)], candidates_BxL.sum(1))

    if config.whole_words:
        chosen_BxL = _choose_words(keys_Bx3[:, 0], tokens_BxL, candidates_BxL, count_B, vocabulary)
        places_BxL = jnp.sort(jnp.where(chosen_BxL, jnp.arange(length), length), axis=1)
        places_BxK = places_BxL[:, :slots]
    else:
        score_BxL = _scores(keys_Bx3[:, 0], tokens_BxL, config.smoothing, vocabulary)
        # Not top_k, for which XLA gathers the rows of all devices on each of them.
        places_BxL = jnp.argsort(jnp.where(candidates_BxL, -score_BxL, jnp.inf), axis=1)
        places_BxK = places_BxL[:, :slots]
        used_BxK = jnp.arange(slots) < count_B[:, None]
        places_BxK = jnp.sort(jnp.where(used_BxK, places_BxK, length), axis=1)

    used_BxK = places_BxK < length  # unused slots lie one behind the end
    at_BxK = jnp.where(used_BxK, places_BxK, 0)
    targets_BxK = jnp.where(used_BxK, jnp.take_along_axis(tokens_BxL, at_BxK, axis=1), 0)
    share_BxK = jax.vmap(lambda key: jax.random.uniform(key, (slots,)))(keys_Bx3[:, 1])
    random_BxK = jax.vmap(lambda key: jax.random.randint(key, (slots,), 0, vocabulary.size))(
        keys_Bx3[:, 2]
    )
    changed_BxK = jnp.where(share_BxK < config.mask_share, vocabulary.mask, random_BxK)
    kept_BxK = share_BxK >= config.mask_share + config.random_share
    new_BxK = jnp.where(kept_BxK, targets_BxK, changed_BxK)
    put = jax.vmap(lambda tokens, places, new: tokens.at[places].set(new, mode='drop'))
    return Masking(
        tokens_BxL=put(tokens_BxL, places_BxK, new_BxK.astype(tokens_BxL.dtype)),
        targets_BxK=targets_BxK,
        weights_BxK=used_BxK.astype(jnp.float32),
        places_BxK=at_BxK.astype(jnp.int32),
    )


def take_groups(sizes_BxG, room_B):
    """The walk of BERT's whole-word masking: takes groups in order, skips those that overflow.

    No step for each group: a round takes the longest run that fits and skips, of all the others,
    those that are larger than the room left, so a few rounds reach the end.

    Args:
        sizes_BxG: int32, tokens of each group in the order in which they are tried; 0: no group.
        room_B: int32, tokens that may be taken.

    Returns:
        Bool BxG, which are taken.
    """
    room_Bx1 = room_B[:, None]

    def run(alive_BxG):
        total_BxG = jnp.cumsum(jnp.where(alive_BxG, sizes_BxG, 0), axis=1)
        fits_BxG = total_BxG <= room_Bx1
        left_Bx1 = room_Bx1 - jnp.max(jnp.where(fits_BxG, total_BxG, 0), axis=1, keepdims=True)
        return alive_BxG, alive_BxG & ~fits_BxG, left_Bx1

    def skip(state):
        alive_BxG, over_BxG, left_Bx1 = state
        return run(alive_BxG & ~(over_BxG & (sizes_BxG > left_Bx1)))

    return jax.lax.while_loop(lambda state: state[1].any(), skip, run(sizes_BxG > 0))[0]


def check(config, vocabulary, name='masked_lm', shortest=3):
    """Checks the numbers that mask_tokens and its callers need.

    Args:
        config: with `length`, `rate`, `mask_share`, `random_share`, `whole_words`, `smoothing`.
        vocabulary: contract.Vocabulary.
        name: of the objective, for messages.
        shortest: the smallest `length` that leaves room for text.

    Raises:
        ValueError: a number is out of range, or the tokenizer lacks a piece.
    """
    contract.require(vocabulary, cls=name, sep=name, mask=name)
    if config.length < shortest:
        raise ValueError(
            f'objective.length={config.length} leaves {name} no room for text beside the special '
            f'tokens: it must be at least {shortest}'
        )
    if not 0 < config.rate < 1:
        raise ValueError(
            f'objective.rate={config.rate:g} must lie between 0 and 1: it is the share of tokens '
            'to predict, 0.15 in BERT'
        )
    mask, random = config.mask_share, config.random_share
    if not (0 <= mask <= 1 and 0 <= random <= 1 and mask + random <= 1 + 1e-9):
        raise ValueError(
            f'objective.mask_share={mask:g} and objective.random_share={random:g} are shares of '
            'the chosen tokens: each from 0 to 1, together at most 1 (BERT: 0.8 and 0.1)'
        )
    if not 0 <= config.smoothing < math.inf:
        raise ValueError(
            f'objective.smoothing={config.smoothing:g} must be 0 (all tokens alike) or more '
            '(rare ones first; DistilBERT: 0.7)'
        )
    if config.smoothing:
        if config.whole_words:
            raise ValueError(
                f'objective.smoothing={config.smoothing:g} chooses single pieces: set it to 0 or '
                'objective.whole_words=False'
            )
        contract.require(vocabulary, log_frequency_V='objective.smoothing')


def make(config, vocabulary):
    """Makes the objective.

    Args:
        config: the recipe's `objective`: `length`, tokens the model reads, [CLS] and [SEP]
            included; `rate`, share of them to predict;
            `mask_share` and `random_share`, shares of the chosen ones that become [MASK] and any
            token of the vocabulary, the rest stays as it is;
            `whole_words`, all pieces of a word are chosen or none;
            `smoothing`, s: a token is chosen with a probability in proportion to its frequency to
            the power -s (DistilBERT: 0.7; 0: all alike).
        vocabulary: contract.Vocabulary.

    Returns:
        contract.Objective. Metric: accuracy over the chosen tokens.

    Raises:
        ValueError: a number is out of range, or the tokenizer lacks a piece.
    """
    check(config, vocabulary)

    def window_length():
        return config.length - 2

    def corrupt(key, windows):
        text_BxW = windows.tokens_BxW
        size_Bx1 = jnp.sum(windows.documents_BxW != contract.PADDING, axis=1, keepdims=True)
        place_L = jnp.arange(config.length)
        real_BxL = (place_L < size_Bx1 + 2) & (size_Bx1 > 0)
        tokens_BxL = jnp.pad(text_BxW, ((0, 0), (1, 1)), constant_values=vocabulary.cls)
        tokens_BxL = jnp.where(place_L == size_Bx1 + 1, vocabulary.sep, tokens_BxL)
        tokens_BxL = jnp.where(real_BxL, tokens_BxL, vocabulary.pad)
        keys_B = contract.row_keys(key, windows.numbers_B)
        masking = mask_tokens(keys_B, tokens_BxL, real_BxL, config, vocabulary)
        return contract.Batch(
            inputs=contract.Inputs(masking.tokens_BxL, segments_BxL=real_BxL.astype(jnp.int32)),
            decoder_inputs=None,
            targets_BxK=masking.targets_BxK,
            weights_BxK=masking.weights_BxK,
            places_BxK=masking.places_BxK,
        )

    def loss(models, batch, key):
        model = models['model']
        return losses.predict_targets(model, model.hidden(batch, key), batch)

    return contract.Objective(window_length, corrupt, loss, stacks=('encoder',))


def _is_special(tokens_BxL, vocabulary):
    v = vocabulary
    ids = [i for i in (v.pad, v.eos, v.cls, v.sep, v.mask) if i is not None]
    ids += (v.modes or {}).values()
    return jnp.isin(tokens_BxL, jnp.asarray(ids), method='compare_all')


def _scores(keys_B, tokens_BxL, smoothing, vocabulary):
    """Random numbers whose n highest are n draws without replacement."""
    shape = tokens_BxL.shape[1:]
    if not smoothing:
        return jax.vmap(lambda key: jax.random.uniform(key, shape))(keys_B)
    # Gumbel noise on log weights: the highest is a draw by weight, the next one a draw from the
    # rest, and so on.
    log_weight_V = -smoothing * jnp.asarray(vocabulary.log_frequency_V)
    noise_BxL = jax.vmap(lambda key: jax.random.gumbel(key, shape))(keys_B)
    return noise_BxL + log_weight_V[tokens_BxL]


def _choose_words(keys_B, tokens_BxL, candidates_BxL, count_B, vocabulary):
    """Bool BxL, True for the tokens of whole words in random order, `count` of them at most."""
    length = tokens_BxL.shape[1]
    place_BxL = jnp.broadcast_to(jnp.arange(length), tokens_BxL.shape)
    # A piece inside a word goes with the candidate before it; anything else ends a word.
    follows_BxL = jnp.pad(candidates_BxL[:, :-1], ((0, 0), (1, 0)))
    inside_BxL = ~jnp.asarray(vocabulary.word_start_V)[tokens_BxL] & follows_BxL & candidates_BxL
    if vocabulary.punctuation_V is not None:  # a mark is a word of its own, as for BERT
        mark_BxL = jnp.asarray(vocabulary.punctuation_V)[tokens_BxL]
        inside_BxL &= ~mark_BxL & ~jnp.pad(mark_BxL[:, :-1], ((0, 0), (1, 0)))
    border_BxL = jnp.where(inside_BxL, length, place_BxL)
    border_BxL = jnp.pad(border_BxL[:, 1:], ((0, 0), (0, 1)), constant_values=length)
    end_BxL = jax.lax.cummin(border_BxL, axis=1, reverse=True)
    sizes_BxL = jnp.where(candidates_BxL & ~inside_BxL, end_BxL - place_BxL, 0)

    # Sizes stand where the words begin; sort them into random order and back.
    noise_BxL = _scores(keys_B, tokens_BxL, 0, vocabulary)
    _, order_BxL, sizes_BxG = jax.lax.sort((noise_BxL, place_BxL, sizes_BxL), num_keys=1)
    shortest_Bx1 = jnp.min(jnp.where(sizes_BxG > 0, sizes_BxG, length + 1), axis=1, keepdims=True)
    cut_BxG = (sizes_BxG == shortest_Bx1) & (shortest_Bx1 > count_B[:, None])
    sizes_BxG = jnp.where(cut_BxG, count_B[:, None], sizes_BxG)
    taken_BxG = jnp.where(take_groups(sizes_BxG, count_B), sizes_BxG, 0)
    _, taken_BxL = jax.lax.sort((order_BxL, taken_BxG), num_keys=1)

    begin_BxL = jax.lax.cummax(jnp.where(inside_BxL, 0, place_BxL), axis=1)
    return place_BxL - begin_BxL < jnp.take_along_axis(taken_BxL, begin_BxL, axis=1)
