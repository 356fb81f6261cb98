"""Pooling and heads against numpy, with any amount of padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pretrain.transfer import heads

LENGTHS = [5, 1, 3]
WIDTH = 6


def states(length, layers=0, seed=0):
    """hidden_3xLxD (with layers JxLxD before) whose padding is far from 0 and above all else."""
    rng = np.random.default_rng(seed)
    leading = (layers,) if layers else ()
    hidden = rng.normal(-3, 1, (*leading, 3, 5, WIDTH)).astype(np.float32)
    hidden = np.pad(hidden, [(0, 0)] * (hidden.ndim - 2) + [(0, length - 5), (0, 0)])
    for b, own in enumerate(LENGTHS):
        hidden[..., b, own:, :] = 1000 + rng.normal(size=(*leading, length - own, WIDTH))
    return hidden


def by_hand(real_LxD, pooling):
    return {
        'first': lambda: real_LxD[0],
        'last': lambda: real_LxD[-1],
        'mean': lambda: real_LxD.sum(axis=0) / len(real_LxD),
        'concat': lambda: np.concatenate(
            [real_LxD[-1], np.sort(real_LxD, axis=0)[-1], real_LxD.mean(axis=0)]
        ),
    }[pooling]()


@pytest.mark.parametrize('pooling', heads.POOLINGS)
@pytest.mark.parametrize('length', [5, 8, 13])
def test_pooling_sees_real_places_only(pooling, length):
    hidden = states(length)
    found = heads.pool(jnp.asarray(hidden), jnp.array(LENGTHS), pooling)
    known = [by_hand(hidden[b, :own], pooling) for b, own in enumerate(LENGTHS)]
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, known, rtol=1e-5)


@pytest.mark.parametrize('pooling', heads.POOLINGS)
def test_pooling_of_every_layer_at_once(pooling):
    hidden = states(7, layers=4)
    spans = jnp.array([[[1, 2]], [[0, 0]], [[2, 2]]])
    found = heads.pool(jnp.asarray(hidden), jnp.array(LENGTHS), pooling, spans)
    for j in range(4):
        alone = heads.pool(jnp.asarray(hidden[j]), jnp.array(LENGTHS), pooling, spans)
        np.testing.assert_allclose(found[j], alone, rtol=1e-6)
        plain = by_hand(hidden[j, 0, :5], pooling)
        np.testing.assert_allclose(found[j, 0, : len(plain)], plain, rtol=1e-5)


def test_the_means_of_marked_pieces_follow_in_their_order():
    """Both ends belong to a piece; one may come before the other, and they may overlap."""
    hidden = states(8)
    spans = np.array([[[3, 4], [0, 2]], [[0, 0], [0, 0]], [[1, 1], [0, 2]]], np.int32)
    found = heads.pool(jnp.asarray(hidden), jnp.array(LENGTHS), 'first', jnp.asarray(spans))
    assert found.shape == (3, 3 * WIDTH)
    for b in range(3):
        pieces = [hidden[b, start : end + 1].mean(axis=0) for start, end in spans[b]]
        np.testing.assert_allclose(
            found[b], np.concatenate([hidden[b, 0], *pieces]), rtol=1e-5, atol=1e-6
        )


def test_half_precision_is_pooled_in_float32():
    """257 places of 1, then one of 0.5: a sum in bfloat16 would stop at 256."""
    hidden = jnp.ones((1, 300, 2), jnp.bfloat16)
    found = heads.pool(hidden, jnp.array([300]), 'mean')
    np.testing.assert_array_equal(found, np.ones((1, 2), np.float32))


def test_no_gradient_reaches_padding():
    hidden = jnp.asarray(states(9))
    for pooling in heads.POOLINGS:
        total = lambda h, p=pooling: jnp.sum(jnp.sin(heads.pool(h, jnp.array(LENGTHS), p)))  # noqa: E731
        gradient = np.asarray(jax.grad(total)(hidden))
        assert np.isfinite(gradient).all()
        for b, own in enumerate(LENGTHS):
            assert (gradient[b, own:] == 0).all()
            assert np.abs(gradient[b, :own]).max() > 0


def run(head, params, features, key=None):
    rngs = None if key is None else {'dropout': key}
    return head.apply({'params': params}, features, deterministic=key is None, rngs=rngs)


def drawn(head, features, seed=0):
    """Parameters of the head, all away from 0 and 1, so that leaving one out shows."""
    params = head.init(jax.random.key(seed), features)['params']
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(seed)
    leaves = [x + rng.normal(0, 0.3, x.shape).astype(np.float32) for x in leaves]
    return jax.tree.unflatten(tree, leaves)


def dense(params, x):
    return np.asarray(x) @ np.asarray(params['kernel']) + np.asarray(params['bias'])


def features(seed=0, layers=0):
    shape = (layers, 4, WIDTH) if layers else (4, WIDTH)
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_a_plain_head_is_linear():
    head, x = heads.TaskHead(3), features()
    params = drawn(head, x)
    assert set(params) == {'output'}
    found = run(head, params, x)
    assert found.shape == (4, 3)
    np.testing.assert_allclose(found, dense(params['output'], x), rtol=1e-4, atol=1e-5)


def test_the_pooler_is_dense_and_tanh_of_the_same_width():
    head, x = heads.TaskHead(2, pooler=True), features()
    params = drawn(head, x)
    assert params['pooler']['kernel'].shape == (WIDTH, WIDTH)
    known = dense(params['output'], np.tanh(dense(params['pooler'], x)))
    np.testing.assert_allclose(run(head, params, x), known, rtol=1e-4, atol=1e-5)


def test_a_hidden_layer_is_norm_dense_and_relu():
    head, x = heads.TaskHead(2, hidden_width=5), features()
    params = drawn(head, x)
    centred = x - x.mean(axis=1, keepdims=True)
    normed = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-6)
    normed = normed * np.asarray(params['norm']['scale']) + np.asarray(params['norm']['bias'])
    inner = np.maximum(dense(params['hidden'], normed), 0)
    assert inner.shape == (4, 5)
    assert (inner == 0).any()
    known = dense(params['output'], inner)
    np.testing.assert_allclose(run(head, params, x), known, rtol=1e-3, atol=1e-4)


def test_the_mix_of_layers_begins_as_their_mean():
    head, x = heads.TaskHead(2, mix=True), features(layers=3)
    params = head.init(jax.random.key(0), x)['params']
    assert params['mix_weights'].shape == (3,)
    assert (params['mix_weights'] == 0).all()
    assert params['mix_scale'].shape == ()
    assert params['mix_scale'] == 1
    known = dense(params['output'], (x[0] + x[1] + x[2]) / 3)
    np.testing.assert_allclose(run(head, params, x), known, rtol=1e-4, atol=1e-6)


def test_the_mix_of_layers_with_other_weights():
    head, x = heads.TaskHead(2, mix=True, pooler=True), features(layers=3)
    params = drawn(head, x) | {
        'mix_weights': jnp.log(jnp.array([1.0, 5.0, 2.0])), 'mix_scale': jnp.float32(0.7),
    }  # fmt: skip
    mixed = 0.7 * (x[0] / 8 + x[1] * 5 / 8 + x[2] * 2 / 8)
    known = dense(params['output'], np.tanh(dense(params['pooler'], mixed)))
    np.testing.assert_allclose(run(head, params, x), known, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    'fields', [{}, {'pooler': True}, {'hidden_width': 40}, {'mix': True}], ids=str
)
def test_dropout_needs_a_key_and_follows_it(fields):
    head = heads.TaskHead(3, dropout=0.5, **fields)
    x = features(layers=3 if 'mix' in fields else 0)
    params = drawn(head, x)
    exact = run(head, params, x)
    np.testing.assert_array_equal(exact, head.apply({'params': params}, x))  # the default
    one = run(head, params, x, jax.random.key(1))
    assert not np.allclose(one, exact)
    np.testing.assert_array_equal(one, run(head, params, x, jax.random.key(1)))
    assert not np.allclose(one, run(head, params, x, jax.random.key(2)))
    none = heads.TaskHead(3, dropout=0.0, **fields)
    np.testing.assert_allclose(run(none, params, x, jax.random.key(1)), exact, rtol=1e-6)


def test_dropout_stands_right_before_the_last_layer_and_keeps_the_mean():
    """An identity for a last layer shows it: of many ones about a quarter is 0, the rest 4 / 3."""
    head = heads.TaskHead(200, dropout=0.25)
    params = {'output': {'kernel': jnp.eye(200), 'bias': jnp.zeros(200)}}
    found = np.asarray(run(head, params, np.ones((50, 200), np.float32), jax.random.key(0)))
    np.testing.assert_allclose(np.unique(found), [0, 4 / 3], rtol=1e-6)
    assert 0.23 < (found == 0).mean() < 0.27


def test_the_outputs_are_drawn_small_and_biases_are_0():
    params = heads.TaskHead(300, pooler=True).init(jax.random.key(0), np.zeros((1, 300)))['params']
    for part in params.values():
        assert float(jnp.std(part['kernel'])) == pytest.approx(0.02, rel=0.02)
        assert (part['bias'] == 0).all()


def test_the_span_head_is_one_linear_map_of_every_place():
    hidden = states(6).astype(jnp.bfloat16)
    head = heads.SpanHead()
    params = drawn(head, hidden)
    found = head.apply({'params': params}, hidden)
    assert found.shape == (3, 6, 2)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(
        found, dense(params['output'], hidden.astype(np.float32)), rtol=1e-4, atol=1e-3
    )
