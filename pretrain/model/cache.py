"""Decoding with a cache: one pass over the prompts, then only the new token of each row."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from objectives import contract


class Context(NamedTuple):
    """What the cross-attention of a decoder reads, computed once from what the encoder made.

    keys_NxBxCxGxK, values_NxBxCxGxK: of all layers, for C places of the encoder.
    mask_Bx1x1xC: bool, False where the encoder's row is padded; None: nowhere.
    """

    keys_NxBxCxGxK: jax.Array | None
    values_NxBxCxGxK: jax.Array | None
    mask_Bx1x1xC: jax.Array | None


class Cache(NamedTuple):
    """Keys and values of the tokens decoded so far, for all layers of the decoder.

    keys_NxBxSxGxK, values_NxBxSxGxK: S places, filled up to `index`.
    segments_BxS: 1, and 0 where there is no token (left padding, places not reached yet).
    index: int32 scalar, the place of the next token.
    context: of an encoder-decoder, from its first step on. Its rows may be fewer than B: then
        B / rows neighbours share one.
    """

    keys_NxBxSxGxK: jax.Array
    values_NxBxSxGxK: jax.Array
    segments_BxS: jax.Array
    index: jax.Array
    context: Context | None = None

    def with_segments(self, new_BxT):
        """segments_BxS with those of T new tokens."""
        return jax.lax.dynamic_update_slice(self.segments_BxS, new_BxT, (0, self.index))

    def rows(self, rows_R):
        """The Cache whose row r is row rows_R[r] of this one; the context stays as it is."""
        return self._replace(
            keys_NxBxSxGxK=self.keys_NxBxSxGxK[:, rows_R],
            values_NxBxSxGxK=self.values_NxBxSxGxK[:, rows_R],
            segments_BxS=self.segments_BxS[rows_R],
        )


def empty(config, batch, length):
    """A Cache of `length` places for `batch` rows of a decoder with the given config."""
    shape = config.decoder_layers, batch, length, config.key_heads, config.k
    zeros = jnp.zeros(shape, config.dtype)
    return Cache(zeros, zeros, jnp.zeros((batch, length), jnp.int32), jnp.zeros((), jnp.int32))


def read_prompts(transformer, params, prompts_BxP, lengths_B, new_tokens, prompt, start):
    """The pass over the prompts.

    Args:
        transformer, params: with a decoder.
        prompts_BxP: int32; each prompt at the right end of its row (padded on the left) or, for
            'encoder', at the left end.
        lengths_B: tokens of each prompt, 1 .. P.
        new_tokens: room in the cache for so many more.
        prompt: 'causal'; 'prefix', read in both directions (prefix LM); or 'encoder', read by the
            encoder of an encoder-decoder.
        start: id that the decoder reads first, for 'encoder'.

    Returns:
        (logits_BxV of the first new token, Cache).
    """
    batch, width = prompts_BxP.shape
    place_P = jnp.arange(width)
    if prompt == 'encoder':
        real_BxP = place_P < lengths_B[:, None]
        encoder_inputs = contract.Inputs(prompts_BxP, segments_BxL=real_BxP.astype(jnp.int32))
        inputs = contract.Inputs(jnp.full((batch, 1), start, jnp.int32))
        cache = empty(transformer.config, batch, 1 + new_tokens)
        return _step(transformer, params, inputs, cache, encoder_inputs)
    real_BxP = place_P >= width - lengths_B[:, None]
    prefix_B = jnp.full(batch, width) if prompt == 'prefix' else None
    inputs = contract.Inputs(
        prompts_BxP, segments_BxL=real_BxP.astype(jnp.int32), prefix_B=prefix_B
    )
    return _step(transformer, params, inputs, empty(transformer.config, batch, width + new_tokens))


def read_token(transformer, params, token_B, cache):
    """One more token a row: (logits_BxV of the next one, the new Cache)."""
    return _step(transformer, params, contract.Inputs(token_B[:, None]), cache)


def _step(transformer, params, *inputs):
    hidden_BxTxD, cache = transformer.apply({'params': params}, *inputs, method='step')
    return transformer.apply({'params': params}, hidden_BxTxD[:, -1], method='logits'), cache
