"""How likely a model finds a choice behind its context, and which choice that picks.

A decoder reads context and choice as one text, tokenised as one: a tokenizer may join the end of
the context with the beginning of the choice, and the model has never seen them apart. An encoder-
decoder reads the context in its encoder and tells the choice and an end of text.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from objectives import contract, losses
from pretrain.data.tokenizer import encodable
from pretrain.errors import UserError

BUCKETS = (32, 64, 128, 256, 512, 1024, 2048)  # places of a row; beyond the last they double
CHOICE_BUCKETS = (8, 32, 128, 512)  # tokens of a choice


class Score(NamedTuple):
    """What a model says of one choice.

    log_prob: nats, summed over its tokens. tokens: how many these are, the end of text that an
    encoder-decoder tells behind it included. bytes: of its UTF-8.
    """

    log_prob: float
    tokens: int
    bytes: int


class _Row(NamedTuple):
    """A text as the model reads it: its targets follow places first - 1, first, ... of `read`."""

    read: np.ndarray
    first: int
    targets: np.ndarray


def score(
    transformer, params, tokens, texts, *, batch=32, prompt='causal', query_starts=None,
    max_length=0, buckets=BUCKETS, progress=iter,
):  # fmt: skip
    """Scores choices, each behind its context.

    What has no room is cut from the left of the context, so that the examples of a few-shot prompt
    go and the query stays. A context that an encoder reads alone (no query_starts) is cut from its
    right, as T5's are: the name of the task stands in front.

    Args:
        transformer, params: a decoder, alone or behind an encoder.
        tokens: Tokenizer.
        texts: list of (context, choice), the choice with the space before it, where it has one.
        batch: rows at once; fewer where their logits would take too much memory.
        prompt: 'causal'; 'prefix', the context is read in both directions; or 'encoder'.
        query_starts: for each text the character of its context at which the query begins;
            nothing from there on is ever cut. None: all but one token of the context may go.
        max_length: tokens that a row may have, 0: as many as the model has learned positions for.
        buckets: ascending lengths that rows are padded to; one program is compiled for each.
        progress: wraps the list of batches (tqdm).

    Returns:
        List of Score, in the order of the texts.

    Raises:
        UserError: the model cannot read such a prompt, a query and its choice do not fit, or a
            choice has no tokens.
    """
    _check(transformer.config, prompt)
    learned = transformer.config.positions == 'learned'
    positions = transformer.config.max_positions if learned else None
    limit = min(filter(None, (max_length, positions)), default=None)
    lay_out = _for_encoder if prompt == 'encoder' else _for_decoder
    starts = [None] * len(texts) if query_starts is None else query_starts
    rows = [lay_out(tokens, *text, start, limit) for text, start in zip(texts, starts)]
    if prompt == 'encoder':
        longest = max((len(row.targets) for row in rows), default=0)
        if positions and longest > positions:
            raise UserError(
                f"a choice of {longest} tokens is more than the model's {positions} positions"
            )
    groups = {}
    for i, row in enumerate(rows):
        length = _bucket(len(row.read), buckets)
        size = min(length, limit or length), _bucket(len(row.targets), CHOICE_BUCKETS)
        groups.setdefault(size, []).append(i)
    vocabulary = tokens.vocabulary
    batches = []
    for (length, choice), members in sorted(groups.items(), reverse=True):
        memory = losses.LOGITS_AT_ONCE // (choice * vocabulary.table_size)
        width = min(max(1, memory), batch, _power_of_two(len(members)))
        for first in range(0, len(members), width):
            batches.append((length, choice, width, members[first : first + width]))
    log_probs = [0.0] * len(rows)
    for length, choice, width, members in progress(batches):
        # The last batch is filled up with its last row: all rows of a bucket are one program's.
        filled = [rows[i] for i in [*members, *members[-1:] * (width - len(members))]]
        sums_B = _sums(
            transformer, params, _padded([row.read for row in filled], length, vocabulary.pad),
            np.array([len(row.read) for row in filled]), np.array([row.first for row in filled]),
            _padded([row.targets for row in filled], choice, vocabulary.pad),
            np.array([len(row.targets) for row in filled]),
            prompt=prompt, size=vocabulary.size, start=vocabulary.pad,
        )  # fmt: skip
        for i, log_prob in zip(members, np.asarray(sums_B)):
            log_probs[i] = float(log_prob)
    return [
        Score(log_prob, len(row.targets), len(encodable(choice).encode()))
        for log_prob, row, (_, choice) in zip(log_probs, rows, texts)
    ]


def pick(scores, normalise='none'):
    """The number of the choice with the highest score; of equal ones the first.

    Args:
        scores: list of Score. normalise: 'none'; 'tokens' or 'bytes': the mean of one of them.
    """
    return int(np.argmax([s.log_prob / _divisor(s, normalise) for s in scores]))


def expected(scores, values):
    """The mean of the values that the choices stand for, each weighted by its probability.

    Args:
        scores: list of Score. values: floats.
    """
    log_probs_C = np.array([s.log_prob for s in scores])
    share_C = np.exp(log_probs_C - log_probs_C.max())
    return float(share_C @ np.asarray(values, float) / share_C.sum())


def _divisor(score, normalise):
    return {'none': 1, 'tokens': score.tokens, 'bytes': score.bytes}[normalise]


def _check(config, prompt):
    if not config.decoder_layers or not config.token_head:
        raise UserError('choices are scored by a model with a decoder and logits: this one has not')
    if (prompt == 'encoder') != bool(config.encoder_layers):
        stacks = 'an encoder' if config.encoder_layers else 'no encoder'
        raise UserError(f'prompt={prompt!r} does not suit a model with {stacks}')


def _for_decoder(tokens, context, choice, query_start, limit):
    """The _Row of a text that a decoder reads as one."""
    vocabulary = tokens.vocabulary
    ids, starts = tokens.encode_with_starts(context + choice, [len(context)])
    if not len(starts):
        raise UserError(f'the choice {choice!r} has no tokens')
    first = int(starts[0])
    # As in decoding.prompt_ids; something must stand before the first token to predict it from.
    head = [vocabulary.bos] if vocabulary.bos is not None else [] if first else [vocabulary.eos]
    cut = max(0, len(head) + len(ids) - 1 - limit) if limit else 0
    # Without a head one token of the context stays in its place.
    most = first if head else first - 1
    if cut and query_start is not None:
        query = tokens.encode_with_starts(context + choice, [query_start])[1][0]
        most = min(most, int(query))
    if cut > most:
        raise _no_room(len(head) + len(ids) - 1 - most, limit)
    ids = np.array([*head, *ids[cut:]], np.int32)
    first += len(head) - cut
    return _Row(ids[:-1], first, ids[first:])


def _for_encoder(tokens, context, choice, query_start, limit):
    """The _Row of a context that an encoder reads, and what the decoder tells."""
    eos = tokens.vocabulary.eos
    ids, told = tokens.encode(context), tokens.encode(choice)
    if not len(told):
        raise UserError(f'the choice {choice!r} has no tokens')
    cut = max(0, len(ids) + 1 - limit) if limit else 0
    if cut and query_start is None:
        ids = ids[:-cut]
    elif cut:
        query = tokens.encode_with_starts(context, [query_start])[1]
        if not len(query) or cut > query[0]:
            raise _no_room(len(ids) + 1 - int(query[0] if len(query) else 0), limit)
        ids = ids[cut:]
    return _Row(np.array([*ids, eos], np.int32), 0, np.array([*told, eos], np.int32))


def _no_room(length, limit):
    return UserError(
        f'{length} tokens of a query and its choice are more than the {limit} that a row may have: '
        'shorten it, or take a model that reads more'
    )


@functools.partial(jax.jit, static_argnums=0, static_argnames=('prompt', 'size', 'start'))
def _sums(
    transformer, params, read_BxL, lengths_B, first_B, targets_BxK, counts_B, *, prompt, size, start
):
    """float32 log-probabilities of the targets, summed over each row."""
    length, choice = read_BxL.shape[1], targets_BxK.shape[1]
    segments_BxL = (jnp.arange(length) < lengths_B[:, None]).astype(jnp.int32)
    told_BxK = jnp.arange(choice) < counts_B[:, None]
    decoder_inputs = places_BxK = None
    if prompt == 'encoder':
        shifted_BxK = jnp.pad(targets_BxK[:, :-1], ((0, 0), (1, 0)), constant_values=start)
        decoder_inputs = contract.Inputs(shifted_BxK, segments_BxL=told_BxK.astype(jnp.int32))
    else:
        places_BxK = jnp.minimum(first_B[:, None] - 1 + jnp.arange(choice), length - 1)
    prefix_B = first_B if prompt == 'prefix' else None
    inputs = contract.Inputs(read_BxL, segments_BxL=segments_BxL, prefix_B=prefix_B)
    hidden_BxLxD = transformer.apply({'params': params}, inputs, decoder_inputs, method='hidden')
    hidden_BxKxD = losses.at_places(hidden_BxLxD, places_BxK)
    logits_BxKxV = transformer.apply({'params': params}, hidden_BxKxD, method='logits')
    logits_BxKxV = logits_BxKxV.astype(jnp.float32)
    # Rows of the table that stand for no token have no part in the probability.
    logits_BxKxV = jnp.where(jnp.arange(logits_BxKxV.shape[-1]) < size, logits_BxKxV, -jnp.inf)
    told = jnp.take_along_axis(logits_BxKxV, targets_BxK[..., None], axis=-1)[..., 0]
    log_prob_BxK = told - jax.nn.logsumexp(logits_BxKxV, axis=-1)
    return jnp.sum(jnp.where(told_BxK, log_prob_BxK, 0.0), axis=1)


def _bucket(length, buckets):
    return next((b for b in buckets if b >= length), _power_of_two(length))


def _power_of_two(number):
    return 1 << (number - 1).bit_length()


def _padded(rows, length, pad):
    padded_BxL = np.full((len(rows), length), pad, np.int32)
    for row, ids in zip(padded_BxL, rows):
        row[: len(ids)] = ids
    return padded_BxL
