"""Beam search: the k likeliest continuations are carried on side by side.

The rules that decide which text wins are those of transformers' generate(num_beams=k,
do_sample=False), so that both give the same token ids: see the comments.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pretrain.model import cache as caches

# Logarithms of probabilities of what must not be chosen. It is finite as in transformers: where
# there are fewer candidates than places, something that must not be chosen fills them.
NEVER = -1e9


class Beams(NamedTuple):
    """Where a search stands.

    number: new tokens so far. go: whether to go on.
    open_BxkxN, log_p_Bxk: texts that go on and the logarithms of their probabilities, best first.
    closed_BxkxN, score_Bxk, is_closed_Bxk: ended texts and their scores, best first; is_closed is
        False in places that are not taken yet.
    hope_B: an open text may still become better than the worst closed one.
    logits_RxV, cache: of the open texts, R = B k.
    """

    number: jax.Array
    go: jax.Array
    open_BxkxN: jax.Array
    log_p_Bxk: jax.Array
    closed_BxkxN: jax.Array
    score_Bxk: jax.Array
    is_closed_Bxk: jax.Array
    hope_B: jax.Array
    logits_RxV: jax.Array
    cache: caches.Cache


@functools.partial(
    jax.jit,
    static_argnums=0,
    static_argnames=(
        'beams', 'new_tokens', 'vocabulary_size', 'eos', 'early_stopping', 'prompt', 'start',
    ),
)  # fmt: skip
def beam_search(
    transformer, params, prompts_BxP, lengths_B, *, beams, new_tokens, vocabulary_size, eos,
    length_penalty=1.0, early_stopping=False, prompt='causal', start=0,
):  # fmt: skip
    """The best continuation of each prompt that a search with k beams finds.

    The score of a text is the sum of the logarithms of its tokens' probabilities divided by
    length ** length_penalty, where the length counts the new tokens, an eos included, and not the
    prompt. That is transformers' score. (GNMT, Wu et al. 2016, section 7, and T5's own code
    divide by ((5 + length) / 6) ** alpha.)

    Args:
        transformer: Transformer with a decoder (static).
        params, prompts_BxP, lengths_B, new_tokens, prompt, start: see cache.read_prompts.
        beams: k. With 1 this is greedy search only if early_stopping=True: else it may go on
            behind an eos, for a text with a better score.
        vocabulary_size: ids from here on (padding of the table) are never chosen; the softmax is
            that of the whole table, which training gave.
        eos: ends a text; -1: none does.
        length_penalty: 0: the likeliest text; the larger, the longer.
        early_stopping: when a row is done: True, as soon as it has k ended texts; False, when
            besides the best open text would not beat the worst of them by its score of now;
            'never', when it would not even with the best score it can reach.

    Returns:
        (tokens_BxN, scores_B): int32, filled up with eos behind the end; float32.
    """
    batch = prompts_BxP.shape[0]
    read = transformer, params
    logits_BxV, cache = caches.read_prompts(
        *read, prompts_BxP, lengths_B, new_tokens, prompt, start
    )
    rows_R = jnp.repeat(jnp.arange(batch), beams)
    vocabulary = logits_BxV.shape[1]
    none_BxkxN = jnp.full((batch, beams, new_tokens), eos, jnp.int32)
    keep = functools.partial(jnp.take_along_axis, axis=1)

    def penalty(length):
        return jnp.float32(length) ** length_penalty

    def step(now):
        log_p_RxV = jax.nn.log_softmax(now.logits_RxV)
        log_p_RxV = jnp.where(jnp.arange(vocabulary) < vocabulary_size, log_p_RxV, -jnp.inf)
        log_p_BxkxV = now.log_p_Bxk[:, :, None] + log_p_RxV.reshape(batch, beams, vocabulary)
        # Twice as many candidates as beams: with k that end there are k left that go on.
        log_p_BxC, which_BxC = jax.lax.top_k(log_p_BxkxV.reshape(batch, -1), 2 * beams)
        beam_BxC, token_BxC = which_BxC // vocabulary, which_BxC % vocabulary
        texts_BxCxN = keep(now.open_BxkxN, beam_BxC[:, :, None])
        texts_BxCxN = texts_BxCxN.at[:, :, now.number].set(token_BxC)
        number = now.number + 1
        ends_BxC = (token_BxC == eos) | (number == new_tokens)

        # An end counts among the first k candidates only. Of a row that is done none does: it
        # waits for the other rows.
        done_B = ~now.hope_B
        if early_stopping is True:
            done_B |= jnp.all(now.is_closed_Bxk, axis=1)
        is_closed_BxC = ends_BxC & (jnp.arange(2 * beams) < beams)
        score_BxC = log_p_BxC / penalty(number)
        score_BxC += NEVER * done_B[:, None] + NEVER * ~is_closed_BxC
        join = lambda old, new: jnp.concatenate([old, new], axis=1)  # noqa: E731
        score_Bxk, best_Bxk = jax.lax.top_k(join(now.score_Bxk, score_BxC), beams)
        closed_BxkxN = keep(join(now.closed_BxkxN, texts_BxCxN), best_Bxk[:, :, None])
        is_closed_Bxk = keep(join(now.is_closed_Bxk, is_closed_BxC), best_Bxk)

        log_p_Bxk, next_Bxk = jax.lax.top_k(log_p_BxC + NEVER * ends_BxC, beams)
        rows_Bxk = jnp.arange(batch)[:, None] * beams + keep(beam_BxC, next_Bxk)
        logits_RxV, cache = caches.read_token(
            *read, keep(token_BxC, next_Bxk).reshape(-1), now.cache.rows(rows_Bxk.reshape(-1))
        )

        # What the best open text may reach. A larger length is better for a negative sum.
        reach = number
        if early_stopping == 'never':
            reach = jnp.where(length_penalty > 0, new_tokens, number)
        worst_Bxk = jnp.where(is_closed_Bxk, score_Bxk[:, -1:], NEVER)
        hope_B = now.hope_B & jnp.any(log_p_Bxk[:, :1] / penalty(reach) > worst_Bxk, axis=1)
        go = jnp.any(hope_B) & ~jnp.all(ends_BxC)
        if early_stopping is True:
            go &= ~jnp.all(is_closed_Bxk)
        return Beams(
            number, go, keep(texts_BxCxN, next_Bxk[:, :, None]), log_p_Bxk,
            closed_BxkxN, score_Bxk, is_closed_Bxk, hope_B, logits_RxV, cache,
        )  # fmt: skip

    found = jax.lax.while_loop(
        lambda now: now.go,
        step,
        Beams(
            number=jnp.int32(0),
            go=jnp.array(True),
            open_BxkxN=none_BxkxN,
            # The beams are still alike: only the first has candidates.
            log_p_Bxk=jnp.full((batch, beams), NEVER).at[:, 0].set(0.0),
            closed_BxkxN=none_BxkxN,
            score_Bxk=jnp.full((batch, beams), NEVER),
            is_closed_Bxk=jnp.zeros((batch, beams), bool),
            hope_B=jnp.ones(batch, bool),
            logits_RxV=logits_BxV[rows_R],
            cache=cache.rows(rows_R),
        ),
    )
    return found.closed_BxkxN[:, 0], found.score_Bxk[:, 0]
