"""Text from a decoder, alone or behind an encoder: greedy or drawn; and texts in and out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from pretrain.errors import UserError
from pretrain.model import cache as caches
from pretrain.model.beam_search import beam_search


@functools.partial(
    jax.jit,
    static_argnums=0,
    static_argnames=(
        'new_tokens', 'top_k', 'top_p', 'vocabulary_size', 'eos', 'prompt', 'start',
    ),
)  # fmt: skip
def generate(
    transformer, params, prompts_BxP, lengths_B, key, *, new_tokens, vocabulary_size, eos,
    temperature=0.0, top_k=0, top_p=1.0, prompt='causal', start=0,
):  # fmt: skip
    """Continues prompts; the loop ends when all rows have ended.

    Args:
        transformer: Transformer with a decoder (static).
        params, prompts_BxP, lengths_B, prompt, start: see cache.read_prompts.
        key: of the random choices; row b draws from fold_in(key, b).
        new_tokens: how many to make.
        vocabulary_size: ids from here on (padding of the table) are never chosen.
        eos: after it a row has ended and is filled up with it; -1: rows do not end.
        temperature: 0 takes the likeliest token; else logits are divided by it and drawn from.
        top_k: draw from the k likeliest; 0: from all.
        top_p: draw from the fewest tokens that hold this share of the probability (Holtzman et
            al. 2020), computed after temperature and top_k.

    Returns:
        int32 tokens_BxN, the new tokens.
    """
    batch = prompts_BxP.shape[0]
    row_keys_B = jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(batch))

    def choose(logits_BxV, number):
        meant_V = jnp.arange(logits_BxV.shape[1]) < vocabulary_size
        logits_BxV = jnp.where(meant_V, logits_BxV, -jnp.inf)
        keys_B = jax.vmap(lambda k: jax.random.fold_in(k, number))(row_keys_B)
        allowed_BxV = restrict(logits_BxV / jnp.maximum(temperature, 1e-6), top_k, top_p)
        drawn_B = jax.vmap(jax.random.categorical)(keys_B, allowed_BxV)
        return jnp.where(temperature > 0, drawn_B, jnp.argmax(logits_BxV, axis=-1))

    def step(now):
        number, tokens_BxN, ended_B, logits_BxV, cache = now
        token_B = jnp.where(ended_B, eos, choose(logits_BxV, number)).astype(jnp.int32)
        tokens_BxN = tokens_BxN.at[:, number].set(token_B)
        logits_BxV, cache = caches.read_token(transformer, params, token_B, cache)
        return number + 1, tokens_BxN, ended_B | (token_B == eos), logits_BxV, cache

    logits_BxV, cache = caches.read_prompts(
        transformer, params, prompts_BxP, lengths_B, new_tokens, prompt, start
    )
    tokens_BxN = jnp.full((batch, new_tokens), eos, jnp.int32)
    now = jnp.int32(0), tokens_BxN, jnp.zeros(batch, bool), logits_BxV, cache
    going = lambda now: (now[0] < new_tokens) & ~jnp.all(now[2])  # noqa: E731
    return jax.lax.while_loop(going, step, now)[1]


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
    beams=1, length_penalty=1.0, early_stopping=False, prompt='causal',
):  # fmt: skip
    """Continues texts, or answers them where an encoder reads them.

    Args:
        transformer, params: with a decoder.
        tokens: Tokenizer.
        prompts: list of str; an empty one begins a new document.
        key: of the random choices.
        new_tokens, temperature, top_k, top_p: see generate.
        beams: above 1: beam search, without random choices.
        length_penalty, early_stopping: see beam_search.
        prompt: see cache.read_prompts.

    Returns:
        List of str: what the decoder makes of each prompt, up to the end of the document.

    Raises:
        UserError: prompt and new tokens are more than the model has positions.
    """
    vocabulary = tokens.vocabulary
    ids = [prompt_ids(tokens, text, prompt) for text in prompts]
    width = max(map(len, ids))
    check_room(transformer.config, width, new_tokens, prompt)
    padded_BxP = np.full((len(ids), width), vocabulary.pad, np.int32)
    for row, own in zip(padded_BxP, ids):
        row[slice(0, len(own)) if prompt == 'encoder' else slice(width - len(own), width)] = own
    read = transformer, params, padded_BxP, np.array([len(p) for p in ids])
    settings = {
        'new_tokens': new_tokens, 'vocabulary_size': vocabulary.size, 'eos': vocabulary.eos,
        # What the decoder reads first in training: see objectives/encodings.py lay_out.
        'prompt': prompt, 'start': vocabulary.pad,
    }  # fmt: skip
    if beams > 1:
        made_BxN, _ = beam_search(
            *read, beams=beams, length_penalty=length_penalty, early_stopping=early_stopping,
            **settings,
        )  # fmt: skip
    else:
        made_BxN = generate(
            *read, key, temperature=temperature, top_k=top_k, top_p=top_p, **settings
        )
    texts = []
    for own, row in zip(ids, np.asarray(made_BxN)):
        ends = np.flatnonzero(row == vocabulary.eos)
        row = row[: ends[0]] if len(ends) else row
        texts.append(tokens.decode(row) if prompt == 'encoder' else behind(tokens, own, row))
    return texts


def behind(tokens, before, ids):
    """The text of ids that follow others: many tokenizers drop a space where a text begins."""
    if not tokens.vocabulary.bytes_V[before].any():  # special ids alone: here it does begin
        return tokens.decode(ids)
    whole, start = tokens.decode([*before, *ids]), tokens.decode(before)
    return whole[len(start) :] if whole.startswith(start) else tokens.decode(ids)


def prompt_ids(tokens, text, prompt):
    """The ids of a prompt as the model reads it.

    Args:
        tokens: Tokenizer. text: str, in which names of special ids stand for these.
        prompt: 'encoder': its eos ends the text; else the tokenizer's bos, where it has one,
            begins it, and an empty text is that alone, or the eos of the document before it.
    """
    vocabulary = tokens.vocabulary
    ids = tokens.encode(text, specials=True).tolist() if text else []
    if prompt == 'encoder':
        return [*ids, vocabulary.eos]
    if vocabulary.bos is not None:
        return [vocabulary.bos, *ids]
    return ids or [vocabulary.eos]


def check_room(config, width, new_tokens, prompt):
    """Refuses more tokens than a model with learned positions has positions for.

    Raises:
        UserError: as said.
    """
    if config.positions != 'learned':
        return
    most = config.max_positions
    if prompt != 'encoder' and width + new_tokens > most:
        raise UserError(
            f'{width} tokens of prompt and {new_tokens} new ones are more than the '
            f"model's {most} positions: shorten the prompt or make fewer"
        )
    if width > most:
        raise UserError(
            f"{width} tokens of prompt are more than the model's {most} positions: shorten it"
        )
    if new_tokens > most:
        raise UserError(
            f"{new_tokens} new tokens are more than the model's {most} positions: make fewer"
        )
