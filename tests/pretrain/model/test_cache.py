"""Logits of cached steps against the forward pass of the whole row, which has no cache."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from objectives import contract
from pretrain.model import cache as caches
from pretrain.model.config import TransformerConfig
from pretrain.model.transformer import Transformer, bind, init

V, START = 40, 3
GPT2 = {'decoder_layers': 2, 'width': 32, 'heads': 4, 'max_positions': 32, 'stddev': 0.3}
MODERN = GPT2 | {'norm': 'rms', 'positions': 'rotary', 'kv_heads': 2, 'query_key_norm': True}
T5 = {
    'encoder_layers': 2, 'decoder_layers': 2, 'width': 16, 'heads': 2, 'head_width': 12,
    'norm': 'rms', 'biases': False, 'positions': 'relative', 'scale_attention': False,
    'stddev': 0.3, 'scale_logits': True,
}  # fmt: skip
DECODERS = {
    'gpt2': GPT2,
    'modern': MODERN,
    'banded': GPT2 | {'attention_window': 3, 'global_every': 2},
    'relative': GPT2 | {'positions': 'relative'},
}
PAIRS = {
    't5': (T5, 150, [150, 131, 1], 140),  # from a distance of 128 on all share a bucket
    'learned': (GPT2 | {'encoder_layers': 2, 'norm_placement': 'post'}, 7, [7, 2, 5], 9),
    'modern': (MODERN | {'encoder_layers': 1, 'attention_window': 3}, 7, [7, 2, 5], 9),
}


def make(fields):
    module = Transformer(TransformerConfig(V, **fields))
    params = jax.jit(functools.partial(init, module))(jax.random.key(0))
    # Away from 0 and 1, or biases and the relative bias would hardly show.
    keys = iter(jax.random.split(jax.random.key(1), 200))
    return module, jax.tree.map(lambda x: x + 0.1 * jax.random.normal(next(keys), x.shape), params)


@functools.partial(jax.jit, static_argnums=(0, 5))
def with_cache(module, params, prompts, lengths, tokens, prompt):
    """logits_BxTxV that say each of tokens_BxT."""
    logits, cache = caches.read_prompts(
        module, params, prompts, lengths, tokens.shape[1], prompt, START
    )

    def step(now, token):
        return caches.read_token(module, params, token, now[1]), now[0]

    return jnp.moveaxis(jax.lax.scan(step, (logits, cache), tokens.T)[1], 0, 1)


@functools.partial(jax.jit, static_argnums=0)
def without_cache(module, params, *inputs):
    model = bind(module, params)
    return model.logits(model.hidden(contract.Batch(*inputs, None, None)))


def random_tokens(*shape):
    return np.random.default_rng(shape[1]).integers(0, V, shape).astype(np.int32)


@pytest.mark.parametrize('prompt', ['causal', 'prefix'])
@pytest.mark.parametrize('family', list(DECODERS))
def test_a_decoder_alone(family, prompt):
    """Prompts padded on the left; without a cache each row stands at the left, unpadded."""
    module, params = make(DECODERS[family])
    width, new, lengths = 6, 9, np.array([6, 1, 4])
    prompts, tokens = random_tokens(3, width), random_tokens(3, new)
    made = with_cache(module, params, prompts, lengths, tokens, prompt)
    rows = np.zeros((3, width + new), np.int32)
    for row, own, length, more in zip(rows, prompts, lengths, tokens):
        row[: length + new] = [*own[width - length :], *more]
    prefix = lengths if prompt == 'prefix' else None
    whole = without_cache(module, params, contract.Inputs(rows, prefix_B=prefix), None)
    places = lengths[:, None] - 1 + np.arange(new)
    whole = np.take_along_axis(np.asarray(whole), places[:, :, None], axis=1)
    assert whole.std() > 0.3
    np.testing.assert_allclose(made, whole, rtol=0, atol=3e-5)


@pytest.mark.parametrize('family', list(PAIRS))
def test_an_encoder_and_a_decoder(family):
    fields, width, lengths, new = PAIRS[family]
    module, params = make(fields)
    prompts, tokens = random_tokens(3, width), random_tokens(3, new)
    lengths = np.array(lengths)
    made = with_cache(module, params, prompts, lengths, tokens, 'encoder')
    segments = (np.arange(width) < lengths[:, None]).astype(np.int32)
    read = np.concatenate([np.full((3, 1), START), tokens[:, :-1]], axis=1)
    whole = without_cache(
        module, params, contract.Inputs(prompts, segments_BxL=segments), contract.Inputs(read)
    )
    assert np.asarray(whole).std() > 0.2
    np.testing.assert_allclose(made, whole, rtol=0, atol=3e-5)
    # What stands in the padding is of no account, and what the encoder read is.
    other = np.where(segments == 0, 1, prompts)
    again = with_cache(module, params, other, lengths, tokens, 'encoder')
    np.testing.assert_allclose(again, made, rtol=0, atol=1e-6)
    other = with_cache(module, params, prompts[::-1], lengths, tokens, 'encoder')
    assert np.abs(other - made).max() > 0.01


def test_the_context_is_computed_once_and_shared_by_beams():
    """Steps do not read the kernels of its keys and values; a row's beams read one context."""
    module, params = make(PAIRS['learned'][0])
    prompts, lengths, token = random_tokens(2, 5), np.array([5, 3]), np.array([4, 9], np.int32)
    first = jax.jit(lambda *read: caches.read_prompts(module, *read, 2, 'encoder', START)[1])(
        params, prompts, lengths
    )
    step = jax.jit(functools.partial(caches.read_token, module))
    token = jnp.asarray(token)
    logits, _ = step(params, token, first)
    broken = jax.tree_util.tree_map_with_path(
        lambda path, x: x * np.nan if 'cross_attention/' in (name := jax.tree_util.keystr(
            path, simple=True, separator='/')) and ('/key/' in name or '/value/' in name) else x,
        params,
    )  # fmt: skip
    assert any(np.isnan(x).any() for x in jax.tree.leaves(broken))
    np.testing.assert_array_equal(step(broken, token, first)[0], logits)

    beams = first.rows(np.array([0, 0, 0, 1, 1, 1]))
    assert beams.context.keys_NxBxCxGxK.shape[1] == 2
    tokens = np.array([4, 7, 4, 2, 9, 9], np.int32)
    shared, _ = step(params, jnp.asarray(tokens), beams)
    np.testing.assert_allclose(shared[::2][:2], logits[:1].repeat(2, axis=0), atol=1e-5)
    np.testing.assert_allclose(shared[4:], logits[1:].repeat(2, axis=0), atol=1e-5)
    assert np.abs(shared[1] - shared[0]).max() > 0.01


def test_an_empty_cache_is_sized_by_groups():
    cache = caches.empty(TransformerConfig(V, **MODERN), 2, 5)
    assert cache.keys_NxBxSxGxK.shape == (2, 2, 5, 2, 8)
