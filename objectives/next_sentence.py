"""Masked language modelling on pairs of texts, and: is the second text the next one?

BERT (Devlin et al. 2018, section 3.1 task 2 and appendix A.2) with rows `[CLS] A [SEP] B [SEP]`:
half of the time, and always where A has no next sentence, B comes from another document. With
`order`, ALBERT's task (Lan et al. 2019, section 3.1) on the same pairs: A and B always follow each
other and are swapped half of the time. Windows must come with `data.cut=document`: one document
each, from the beginning of a sentence.

A pair is made as in BERT's own code: sentences from the beginning of the window until they have
the wanted number of tokens (the chunk), a border drawn among them, B from the chunk or from another
document, and what is too long cut off at random ends. Departures from it:
* Text of a window that is not used (the tail of the chunk when B comes from elsewhere, and all
  behind the chunk) is not put back, as windows are cut once: the tail waits for another epoch, and
  sentences that begin and end in the last `overhang` tokens of a window serve as random texts only.
* The other document is that of the next row of the batch that has another one, so that the choice
  depends on the batch; everything else that is drawn for a row depends on the row alone. In a
  batch of a single document B comes from that document and still counts as random (as in BERT
  when ten tries have found no other).
* B from another document begins at any sentence of that row's window, not of its whole document.
  Where the document goes on behind the window, only sentences are drawn that leave enough text:
  BERT's B is short where a document ends, and a B that is short where windows end would tell by
  its length that it is random.
* A long last sentence is cut by the end of the window, `overhang` tokens behind the longest pair;
  BERT has it whole until the pair is cut to length.
* ALBERT has no pair from a chunk of a single sentence, except with random texts; here it is cut at
  any token. A chunk of a single token is `[CLS] A [SEP]` without a label.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from objectives import contract, losses, masked_lm


class Text(NamedTuple):
    """A stretch of each row of some windows.

    tokens_BxW: token ids. begin_B: its first place. size_B: its number of tokens.
    """

    tokens_BxW: jax.Array
    begin_B: jax.Array
    size_B: jax.Array


def make(config, vocabulary):
    """Makes the objective.

    Args:
        config: the recipe's `objective`: the keys of masked_lm.make, and
            `order`, predict the order of two texts (ALBERT) instead of the next sentence (BERT);
            `short_share`, share of the pairs that are wanted shorter than a row (BERT: 0.1);
            `overhang`, tokens that a window holds more than a pair, so that its last sentence is
            mostly whole before it is cut;
            `sentence_coefficient`, weight of the sentence loss beside the masked one (1).
        vocabulary: contract.Vocabulary.

    Returns:
        contract.Objective. Labels: 0, B is next (in order); 1, B is random (swapped); -1, none.
        Metrics: accuracy over the chosen tokens; next_sentence_accuracy (sentence_order_accuracy);
        label_1, the share of rows with label 1.

    Raises:
        ValueError: a number is out of range, or the tokenizer lacks a piece.
    """
    name = 'sentence_order' if config.order else 'next_sentence'
    masked_lm.check(config, vocabulary, name, shortest=5)  # two tokens and three special ones
    if not 0 <= config.short_share <= 1:
        raise ValueError(
            f'objective.short_share={config.short_share:g} is a share of the pairs: it must be '
            'from 0 to 1 (BERT: 0.1)'
        )
    if config.overhang < 0:
        raise ValueError(
            f'objective.overhang={config.overhang} makes windows shorter than pairs: it must be 0 '
            'or more'
        )
    contract.require_number('sentence_coefficient', config.sentence_coefficient)

    def window_length():
        return config.length - 3 + config.overhang

    def corrupt(key, windows):
        keys_Bx2 = jax.vmap(jax.random.split)(contract.row_keys(key, windows.numbers_B))
        a, b, labels_B = make_pairs(keys_Bx2[:, 0], windows, config)
        tokens_BxL, types_BxL, real_BxL = _lay_out(a, b, config.length, vocabulary)
        masking = masked_lm.mask_tokens(keys_Bx2[:, 1], tokens_BxL, real_BxL, config, vocabulary)
        return contract.Batch(
            inputs=contract.Inputs(
                masking.tokens_BxL, segments_BxL=real_BxL.astype(jnp.int32), types_BxL=types_BxL
            ),
            decoder_inputs=None,
            targets_BxK=masking.targets_BxK,
            weights_BxK=masking.weights_BxK,
            places_BxK=masking.places_BxK,
            labels_B=labels_B,
        )

    def loss(models, batch, key):
        model = models['model']
        hidden_BxLxD = model.hidden(batch, key)
        terms, metrics = losses.predict_targets(model, hidden_BxLxD, batch)
        logits_BxC = model.classify(hidden_BxLxD).astype(jnp.float32)
        counts_B = batch.labels_B >= 0
        chosen_BxC = batch.labels_B[:, None] == jnp.arange(2)
        log_p_BxC = jax.nn.log_softmax(logits_BxC)
        correct_B = counts_B & (jnp.argmax(logits_BxC, axis=1) == batch.labels_B)
        weight = jnp.sum(counts_B).astype(jnp.float32)
        term = contract.Term(
            -jnp.sum(jnp.where(chosen_BxC, log_p_BxC, 0.0)), weight, config.sentence_coefficient
        )
        accuracy = contract.Mean(jnp.sum(correct_B).astype(jnp.float32), weight)
        # Beside it: what always answering 1 would reach.
        ones = contract.Mean(jnp.sum(batch.labels_B == 1).astype(jnp.float32), weight)
        metrics |= {f'{name}_accuracy': accuracy, 'label_1': ones}
        return contract.Loss(terms | {name: term}, metrics)

    return contract.Objective(
        window_length,
        corrupt,
        loss,
        models={'model': {'classes': 2}},
        stacks=('encoder',),
        cut='document',
    )


def make_pairs(keys_B, windows, config):
    """Draws the two texts of each row and cuts them to length.

    Args:
        keys_B: a random key for each row.
        windows: contract.Windows, cut at documents.
        config: see make.

    Returns:
        (a, b, labels_B): two Texts, of L - 3 tokens at most together; neither is empty but in rows
        of padding (label -1) and, with `order`, where the row has a single token (label -1).
    """
    most = config.length - 3
    tokens_BxW, sentences_BxW = windows.tokens_BxW, windows.sentences_BxW
    keys_Bx2 = jax.vmap(jax.random.split)(keys_B)
    draws_Bx5 = jax.vmap(lambda key: jax.random.uniform(key, (5,)))(keys_Bx2[:, 0])
    short_B, target_B, border_B, coin_B, start_B = draws_Bx5.T

    real_B = windows.documents_BxW[:, 0] != contract.PADDING
    size_B = _size(sentences_BxW)
    target_B = jnp.where(short_B < config.short_share, 2 + _below(target_B, most - 1), most)
    n_B = _at(sentences_BxW, jnp.minimum(target_B, size_B) - 1) + 1  # sentences of the chunk
    chunk_B = _size(sentences_BxW, n_B)
    border_B = 1 + _below(border_B, jnp.maximum(n_B - 1, 1))
    a_size_B = _size(sentences_BxW, border_B)
    zero_B = jnp.zeros_like(a_size_B)

    if config.order:
        cut_B = jnp.minimum(1 + _below(start_B, jnp.maximum(chunk_B - 1, 1)), chunk_B)
        a_size_B = jnp.where(n_B > 1, a_size_B, cut_B)
        labels_B = (coin_B < 0.5).astype(jnp.int32)
        first = Text(tokens_BxW, zero_B, a_size_B)
        second = Text(tokens_BxW, a_size_B, chunk_B - a_size_B)
        real_B &= second.size_B > 0
        # A text alone is never put last, where it would leave A empty.
        swapped_B = real_B & (labels_B == 1)
        a = _select(swapped_B, second, first)
        b = _select(swapped_B, first, second)
    else:
        labels_B = ((n_B == 1) | (coin_B < 0.5)).astype(jnp.int32)
        a = Text(tokens_BxW, zero_B, a_size_B)
        rest = Text(tokens_BxW, a_size_B, chunk_B - a_size_B)
        other = _random_next(start_B, target_B - a_size_B, windows)
        b = _select(labels_B == 1, other, rest)
        b = b._replace(size_B=jnp.where(real_B, b.size_B, 0))

    bits_BxW = jax.vmap(lambda key: jax.random.bits(key, tokens_BxW.shape[1:]))(keys_Bx2[:, 1])
    a_left_B, b_left_B = lengths_left(a.size_B, b.size_B, most)
    a = _cut(a, a_left_B, bits_BxW & 1)
    b = _cut(b, b_left_B, bits_BxW >> 1 & 1)
    return a, b, jnp.where(real_B, labels_B, -1)


def lengths_left(a_B, b_B, most):
    """What BERT's cutting leaves of two lengths.

    It takes one token at a time from the longer text, from B where both are equal, until both
    together have `most`.

    Args:
        a_B, b_B: int32 lengths.
        most: an int.

    Returns:
        (a_B, b_B).
    """
    half = most // 2
    return (
        jnp.minimum(a_B, jnp.maximum(most - b_B, most - half)),
        jnp.minimum(b_B, jnp.maximum(most - a_B, half)),
    )


def partners(documents_B):
    """The row from which each row takes text of another document.

    Args:
        documents_B: document numbers of the rows; PADDING for rows of padding.

    Returns:
        int32 B: the first row behind it, from the last row on to the first, that has another
        document; where there is none, the next row that is no padding, in the end itself.
    """
    rows = documents_B.shape[0]
    place_B = jnp.arange(rows)
    steps_BxB = (place_B[None, :] - place_B[:, None] - 1) % rows  # the row itself comes last
    steps_BxB += rows * (documents_B[None, :] == documents_B[:, None])
    steps_BxB += 2 * rows * (documents_B[None, :] == contract.PADDING)
    return jnp.argmin(steps_BxB, axis=1)


def _random_next(start_B, wanted_B, windows):
    """Sentences of another document, as many as give `wanted` tokens and at least one."""
    partners_B = partners(windows.documents_BxW[:, 0])
    sentences_BxW = windows.sentences_BxW[partners_B]
    width = sentences_BxW.shape[1]
    size_B = _size(sentences_BxW)
    wanted_B = jnp.maximum(wanted_B, 1)
    # A full window is cut where its document goes on: begin where enough is left of it.
    latest_B = jnp.where(size_B == width, width - wanted_B, size_B - 1)
    sentence_B = _below(start_B, _at(sentences_BxW, latest_B) + 1)
    begin_B = _size(sentences_BxW, sentence_B)
    last_B = _at(sentences_BxW, jnp.minimum(begin_B + wanted_B, size_B) - 1)
    end_B = _size(sentences_BxW, last_B + 1)
    return Text(windows.tokens_BxW[partners_B], begin_B, end_B - begin_B)


def _cut(text, size_B, bits_BxW):
    """Cuts a text to a size, each token that goes from its front (bit 1) or its back (bit 0)."""
    gone_Bx1 = (text.size_B - size_B)[:, None]
    goes_BxW = jnp.arange(bits_BxW.shape[1]) < gone_Bx1
    front_B = jnp.sum(jnp.where(goes_BxW, bits_BxW, 0), axis=1).astype(jnp.int32)
    return Text(text.tokens_BxW, text.begin_B + front_B, size_B)


def _lay_out(a, b, length, vocabulary):
    """`[CLS] A [SEP] B [SEP]`, or `[CLS] A [SEP]` without B, or padding alone without A."""
    place_L = jnp.arange(length)
    a_end_Bx1 = a.size_B[:, None] + 1  # the place of the first [SEP]
    b_end_Bx1 = a_end_Bx1 + b.size_B[:, None] + 1
    last_Bx1 = jnp.where(b.size_B[:, None] > 0, b_end_Bx1, a_end_Bx1)
    real_BxL = (place_L <= last_Bx1) & (a.size_B[:, None] > 0)
    in_b_BxL = place_L > a_end_Bx1

    def read(text, first_Bx1):
        places_BxL = text.begin_B[:, None] + place_L - first_Bx1
        return jnp.take_along_axis(text.tokens_BxW, places_BxL, axis=1, mode='clip')

    tokens_BxL = jnp.where(in_b_BxL, read(b, a_end_Bx1 + 1), read(a, 1))
    is_sep_BxL = (place_L == a_end_Bx1) | (place_L == b_end_Bx1)
    tokens_BxL = jnp.where(is_sep_BxL, vocabulary.sep, tokens_BxL)
    tokens_BxL = jnp.where(place_L == 0, vocabulary.cls, tokens_BxL)
    tokens_BxL = jnp.where(real_BxL, tokens_BxL, vocabulary.pad)
    return tokens_BxL, (real_BxL & in_b_BxL).astype(jnp.int32), real_BxL


def _size(sentences_BxW, before_B=None):
    """Tokens of the sentences with numbers below `before`; of all sentences without it."""
    counts_BxW = sentences_BxW != contract.PADDING
    if before_B is not None:
        counts_BxW &= sentences_BxW < before_B[:, None]
    return jnp.sum(counts_BxW, axis=1, dtype=jnp.int32)


def _at(x_BxW, place_B):
    """The entry of each row at a place; places outside mean the nearest inside."""
    place_B = jnp.clip(place_B, 0, x_BxW.shape[1] - 1)
    return jnp.take_along_axis(x_BxW, place_B[:, None], axis=1)[:, 0]


def _below(uniform_B, n_B):
    """Uniform numbers in [0, 1) to integers in 0 .. n - 1."""
    return jnp.floor(uniform_B * n_B).astype(jnp.int32)


def _select(which_B, one, other):
    """One Text where `which` is True, the other elsewhere."""
    return jax.tree.map(
        lambda x, y: jnp.where(which_B.reshape(-1, *[1] * (x.ndim - 1)), x, y), one, other
    )
