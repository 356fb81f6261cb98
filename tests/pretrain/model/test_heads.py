"""Heads against matrix products written out (against peers: test_peers_encoders.py)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from objectives import contract
from pretrain.errors import UserError
from pretrain.model.config import TransformerConfig
from pretrain.model.transformer import Transformer, bind, init

FIELDS = {
    'vocabulary': 23, 'encoder_layers': 1, 'width': 16, 'heads': 2, 'activation': 'gelu_erf',
    'classes': 3, 'token_scores': True, 'projection_width': 5, 'embedding_width': 12,
    'logit_transform': True, 'logit_bias': True, 'embedding_norm': True, 'segment_types': 2,
}  # fmt: skip


def drawn(**changes):
    """(Transformer, parameters of its shapes, none of them special)."""
    module = Transformer(TransformerConfig(**(FIELDS | changes)))
    shapes = jax.eval_shape(lambda: init(module, jax.random.key(0)))
    rng = np.random.default_rng(0)
    return module, jax.tree.map(
        lambda x: jnp.asarray(0.3 + 0.3 * rng.normal(size=x.shape), x.dtype), shapes
    )


def dense(params, x):
    return x @ params['kernel'] + params['bias']


def gelu(x):
    return x * 0.5 * (1 + erf(x / np.sqrt(2)))


def test_heads_by_hand():
    module, params = drawn()
    model = bind(module, params)
    p = jax.tree.map(np.asarray, params)
    h = np.random.default_rng(1).normal(size=(2, 4, 16)).astype(np.float32)
    close = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4)  # noqa: E731

    close(jax.jit(model.classify)(h), dense(p['classifier'], np.tanh(dense(p['pooler'], h[:, 0]))))
    scores = dense(p['scores']['logit'], gelu(dense(p['scores']['transform'], h)))
    close(jax.jit(model.score)(h), scores[..., 0])
    close(jax.jit(model.project)(h), h @ p['projection']['kernel'])

    x = gelu(dense(p['head']['transform'], h))
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    x = x * p['head']['norm']['scale'] + p['head']['norm']['bias']
    assert x.shape[-1] == 12
    expected = x @ p['token_embedding']['table'].T + p['head']['bias']
    close(jax.jit(model.logits)(h), expected)


def test_shapes():
    _, params = drawn()
    shapes = jax.tree.map(jnp.shape, params)
    assert shapes['token_embedding'] == {'table': (23, 12)}
    assert shapes['position_embedding'] == {'table': (1024, 12)}
    assert shapes['segment_embedding'] == {'table': (2, 12)}
    assert shapes['embedding_norm']['scale'] == (12,)
    assert shapes['embedding_projection'] == {'kernel': (12, 16), 'bias': (16,)}
    assert shapes['head']['transform'] == {'kernel': (16, 12), 'bias': (12,)}
    assert shapes['classifier'] == {'kernel': (16, 3), 'bias': (3,)}
    assert shapes['projection'] == {'kernel': (16, 5)}
    _, untied = drawn(tied=False)
    assert untied['head']['transform']['kernel'].shape == (16, 16)
    _, plain = drawn(biases=False)
    assert 'bias' not in plain['head']['transform']
    assert 'bias' not in plain['pooler']
    assert 'bias' in plain['classifier']


def test_a_bfloat16_model_has_float32_logits():
    module, params = drawn(dtype='bfloat16')
    model = bind(module, params)
    inputs = contract.Inputs(jnp.arange(8).reshape(2, 4))
    hidden = jax.jit(model.hidden)(contract.Batch(inputs, None, None, None))
    assert hidden.dtype == jnp.bfloat16
    for head in (model.logits, model.classify, model.score):
        logits = jax.jit(head)(hidden)
        assert logits.dtype == jnp.float32
        assert (logits != logits.astype(jnp.bfloat16)).any()  # they were never rounded


def test_a_model_has_the_heads_of_its_config():
    module, params = drawn(classes=0, token_scores=False, projection_width=0, embedding_width=0)
    model = bind(module, params)
    assert (model.classify, model.score, model.project) == (None, None, None)
    assert set(params) == {
        'token_embedding', 'position_embedding', 'segment_embedding', 'embedding_norm', 'encoder',
        'head',
    }  # fmt: skip

    module, params = drawn(token_head=False)
    assert 'head' not in params
    with pytest.raises(UserError, match=r'model\.token_head=False'):
        bind(module, params).logits(jnp.zeros((1, 1, 16)))
