"""Text from a decoder: one pass over the prompts, then one token at a time with a cache."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from objectives import contract
from pretrain.errors import UserError
from pretrain.model.transformer import empty_cache


@functools.partial(
    jax.jit,
    static_argnums=0,
    static_argnames=('new_tokens', 'top_k', 'top_p', 'vocabulary_size', 'eos', 'prompt'),
)
def generate(
    transformer, params, prompts_BxP, lengths_B, key, *, new_tokens, vocabulary_size, eos,
    temperature=0.0, top_k=0, top_p=1.0, prompt='causal',
):  # fmt: skip
    """Continues prompts.

    Args:
        transformer: Transformer with a decoder alone (static).
        params: its parameters.
        prompts_BxP: int32, each prompt at the right end of its row, padded on the left.
        lengths_B: tokens of each prompt, 1 .. P.
        key: of the random choices; row b draws from fold_in(key, b).
        new_tokens: how many to make.
        vocabulary_size: ids from here on (padding of the table) are never chosen.
        eos: after it a row has ended and is filled up with it; -1: rows do not end.
        temperature: 0 takes the likeliest token; else logits are divided by it and drawn from.
        top_k: draw from the k likeliest; 0: from all.
        top_p: draw from the fewest tokens that hold this share of the probability (Holtzman et
            al. 2020), computed after temperature and top_k.
        prompt: 'causal', or 'prefix': the prompt is read in both directions (prefix LM).

    Returns:
        int32 tokens_BxN, the new tokens.
    """
    batch, width = prompts_BxP.shape
    pads_B = width - lengths_B
    real_BxP = (jnp.arange(width) >= pads_B[:, None]).astype(jnp.int32)
    row_keys_B = jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(batch))

    def forward(tokens_BxT, segments_BxT, cache):
        places_T = cache.index + jnp.arange(tokens_BxT.shape[1])
        positions_BxT = jnp.maximum(places_T - pads_B[:, None], 0)
        prefix_B = jnp.full(batch, width) if prompt == 'prefix' else None
        hidden_BxTxD, cache = transformer.apply(
            {'params': params},
            contract.Inputs(tokens_BxT, positions_BxT, segments_BxT, prefix_B=prefix_B),
            cache,
            method='step',
        )
        logits_BxV = transformer.apply({'params': params}, hidden_BxTxD[:, -1], method='logits')
        return jnp.where(
            jnp.arange(logits_BxV.shape[1]) < vocabulary_size, logits_BxV, -jnp.inf
        ), cache

    def choose(logits_BxV, number):
        keys_B = jax.vmap(lambda k: jax.random.fold_in(k, number))(row_keys_B)
        allowed_BxV = restrict(logits_BxV / jnp.maximum(temperature, 1e-6), top_k, top_p)
        drawn_B = jax.vmap(jax.random.categorical)(keys_B, allowed_BxV)
        return jnp.where(temperature > 0, drawn_B, jnp.argmax(logits_BxV, axis=-1))

    def step(carry, number):
        logits_BxV, ended_B, cache = carry
        token_B = jnp.where(ended_B, eos, choose(logits_BxV, number)).astype(jnp.int32)
        ended_B |= token_B == eos
        ones_Bx1 = jnp.ones((batch, 1), jnp.int32)
        logits_BxV, cache = forward(token_B[:, None], ones_Bx1, cache)
        return (logits_BxV, ended_B, cache), token_B

    cache = empty_cache(transformer.config, batch, width + new_tokens)
    logits_BxV, cache = forward(prompts_BxP, real_BxP, cache)
    start = logits_BxV, jnp.zeros(batch, bool), cache
    _, tokens_NxB = jax.lax.scan(step, start, jnp.arange(new_tokens))
    return tokens_NxB.T


def restrict(logits_BxV, top_k, top_p):
    """Sets the logits of tokens outside the top k, then outside the top p, to -inf.

    Args:
        logits_BxV: float32.
        top_k: 0: no limit; of equal logits the lower id comes first.
        top_p: share of the probability, above 0; from 1 on there is no limit, and the likeliest
            token always stays.
    """
    if not top_k and top_p >= 1:
        return logits_BxV
    order_BxV = jnp.argsort(-logits_BxV, axis=-1, stable=True)
    sorted_BxV = jnp.take_along_axis(logits_BxV, order_BxV, axis=-1)
    if top_k:
        sorted_BxV = jnp.where(jnp.arange(sorted_BxV.shape[-1]) < top_k, sorted_BxV, -jnp.inf)
    if top_p < 1:
        share_BxV = jax.nn.softmax(sorted_BxV)
        before_BxV = jnp.cumsum(share_BxV, axis=-1) - share_BxV
        keep_BxV = (before_BxV < top_p).at[:, 0].set(True)
        sorted_BxV = jnp.where(keep_BxV, sorted_BxV, -jnp.inf)
    rank_BxV = jnp.argsort(order_BxV, axis=-1)
    return jnp.take_along_axis(sorted_BxV, rank_BxV, axis=-1)


def continue_texts(
    transformer, params, tokens, prompts, key, *, new_tokens, temperature=0.0, top_k=0, top_p=1.0,
    prompt='causal',
):  # fmt: skip
    """Continues texts.

    Args:
        transformer, params: of a decoder.
        tokens: Tokenizer.
        prompts: list of str; an empty one begins a new document.
        key: of the random choices.
        new_tokens, temperature, top_k, top_p, prompt: see generate.

    Returns:
        List of str: what follows each prompt, up to the end of the document.

    Raises:
        UserError: prompt and new tokens are more than the model has positions.
    """
    vocabulary = tokens.vocabulary
    ids = [tokens.encode(p) if p else np.array([vocabulary.eos]) for p in prompts]
    width = max(map(len, ids))
    config = transformer.config
    if config.positions == 'learned' and width + new_tokens > config.max_positions:
        raise UserError(
            f'{width} tokens of prompt and {new_tokens} new ones are more than the '
            f"model's {config.max_positions} positions: shorten the prompt or make fewer"
        )
    padded = np.full((len(ids), width), vocabulary.pad, np.int32)
    for row, own in zip(padded, ids):
        row[width - len(own) :] = own
    made_BxN = generate(
        transformer, params, padded, np.array([len(p) for p in ids]), key,
        new_tokens=new_tokens, vocabulary_size=vocabulary.size, eos=vocabulary.eos,
        temperature=temperature, top_k=top_k, top_p=top_p, prompt=prompt,
    )  # fmt: skip
    texts = []
    for row in np.asarray(made_BxN):
        ends = np.flatnonzero(row == vocabulary.eos)
        texts.append(tokens.decode(row[: ends[0]] if len(ends) else row))
    return texts
