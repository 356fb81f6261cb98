import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from objectives import contract
from pretrain.model import transformer
from pretrain.model.config import TransformerConfig
from pretrain.model.transformer import Transformer, bind, hidden_of_layers

GPT2 = {'decoder_layers': 3, 'vocabulary': 60, 'width': 32, 'heads': 4, 'max_positions': 16}
MODERN = GPT2 | {
    'norm': 'rms', 'biases': False, 'positions': 'rotary', 'activation': 'silu', 'gated': True,
    'kv_heads': 2, 'query_key_norm': True, 'feedforward_width': 48,
}  # fmt: skip
BANDED = GPT2 | {'attention_window': 3, 'global_every': 2}
BERT = {
    'encoder_layers': 2, 'vocabulary': 60, 'width': 32, 'heads': 4, 'max_positions': 16,
    'norm_placement': 'post', 'norm_epsilon': 1e-12, 'embedding_norm': True, 'final_norm': False,
    'segment_types': 2, 'logit_transform': True, 'logit_bias': True,
    'initializer': 'truncated_normal', 'embedding_width': 20, 'classes': 3, 'token_scores': True,
    'projection_width': 8,
}  # fmt: skip
T5 = {
    'encoder_layers': 2, 'decoder_layers': 2, 'vocabulary': 60, 'width': 32, 'heads': 4,
    'norm': 'rms', 'biases': False, 'positions': 'relative', 'activation': 'relu',
    'scale_attention': False, 'scale_logits': True, 'initializer': 'fan_in',
}  # fmt: skip
MODERNBERT = {
    'encoder_layers': 3, 'vocabulary': 60, 'width': 32, 'heads': 4, 'feedforward_width': 48,
    'norm_bias': False, 'embedding_norm': True, 'first_norm': False, 'biases': False,
    'positions': 'rotary', 'rotary_theta': 500.0, 'rotary_theta_local': 20.0, 'gated': True,
    'attention_window': 5, 'global_every': 3, 'logit_transform': True, 'logit_bias': True,
}  # fmt: skip
DECODERS = {'gpt2': GPT2, 'modern': MODERN, 'banded': BANDED}
ALL = DECODERS | {
    'bert': BERT, 't5': T5, 'modernbert': MODERNBERT, 'untied': GPT2 | {'tied': False},
}  # fmt: skip


# At once, which compiles far faster than operation by operation.
init = jax.jit(transformer.init, static_argnums=0)


@functools.cache
def parameters(name):
    module = Transformer(TransformerConfig(**ALL[name]))
    # Biases and scales away from 0 and 1, so that leaving one out shows.
    noise = lambda x: 0.05 * jax.random.normal(jax.random.key(x.size), x.shape)  # noqa: E731
    return jax.jit(
        lambda: jax.tree.map(lambda x: x + noise(x), init(module, jax.random.key(0)))
    )()


def model(name, **changes):
    return bind(Transformer(TransformerConfig(**(ALL[name] | changes))), parameters(name))


def batch(tokens, **fields):
    inputs = contract.Inputs(jnp.asarray(tokens), **fields)
    return contract.Batch(inputs, inputs, inputs.tokens_BxL, jnp.ones(inputs.tokens_BxL.shape))


def tokens(rows=2, length=10, seed=0):
    return np.random.default_rng(seed).integers(3, 60, (rows, length)).astype(np.int32)


@pytest.mark.parametrize('name', list(DECODERS))
@pytest.mark.parametrize('separated', [False, True])
def test_no_layer_lets_a_later_token_leak_into_an_earlier_one(name, separated):
    """Token j changes: with 1, 2 and 3 layers nothing before j may differ, and j must."""
    before = tokens(1, 10)
    fields = {'segments_BxL': jnp.array([[1] * 4 + [2] * 6])} if separated else {}
    for layers in (1, 2, 3):
        decoder = dict(parameters(name)['decoder'])
        decoder['layers'] = jax.tree.map(lambda x, n=layers: x[:n], decoder['layers'])
        params = parameters(name) | {'decoder': decoder}
        config = TransformerConfig(**(ALL[name] | {'decoder_layers': layers}))
        run = jax.jit(lambda t: bind(Transformer(config), params).hidden(batch(t, **fields)))  # noqa: B023
        for j in range(10):
            after = before.copy()
            after[0, j] = (after[0, j] + 1) % 60
            same = np.isclose(run(before), run(after), atol=1e-6).all(axis=-1)[0]
            assert same[:j].all()
            assert not same[j]
            if separated and j < 4:
                assert same[4:].all()


def test_local_layers_see_no_further_than_their_window():
    """One layer moves information by 2 places only, in an encoder both ways."""
    one_layer = {'encoder_layers': 1, 'attention_window': 5, 'global_every': 0}
    for fields, reached in (
        (BANDED | {'decoder_layers': 1, 'global_every': 0}, [4, 5, 6]),
        (MODERNBERT | one_layer, [2, 3, 4, 5, 6]),
        (MODERNBERT | one_layer | {'attention_window': 4}, [2, 3, 4, 5, 6]),
        (MODERNBERT | one_layer | {'global_every': 3}, list(range(10))),
    ):
        module = Transformer(TransformerConfig(**(fields | {'stddev': 0.2})))
        params = init(module, jax.random.key(1))
        run = jax.jit(lambda t, m=module, p=params: bind(m, p).hidden(batch(t)))
        before = tokens(1, 10)
        after = before.copy()
        after[0, 4] += 1
        differs = ~np.isclose(run(before), run(after), atol=1e-6).all(axis=-1)[0]
        np.testing.assert_array_equal(np.flatnonzero(differs), reached)


def test_local_layers_have_wavelengths_of_their_own():
    """Windows wider than the row: layers that differ in theta alone, against one of each kind."""
    wide = {'attention_window': 99, 'rotary_theta': 500.0, 'rotary_theta_local': 20.0}

    params = parameters('modernbert')
    data = batch(tokens())

    def hidden(layers, **changes):
        first = jax.tree.map(lambda x: x[:layers], params['encoder']['layers'])
        module = Transformer(TransformerConfig(
            **(MODERNBERT | {'stddev': 0.2, 'encoder_layers': layers} | changes)
        ))  # fmt: skip
        changed = params | {'encoder': params['encoder'] | {'layers': first}}
        return jax.jit(lambda params: bind(module, params).hidden(data))(changed)

    longer = {'attention_window': 0, 'rotary_theta': 500.0}
    shorter = {'attention_window': 0, 'rotary_theta': 20.0}
    np.testing.assert_allclose(hidden(1, **wide), hidden(1, **longer), atol=1e-5)
    np.testing.assert_allclose(hidden(1, **wide, global_every=0), hidden(1, **shorter), atol=1e-5)
    both = hidden(2, **wide)  # the first is global, the second local
    assert not np.allclose(both, hidden(2, **longer), atol=1e-4)
    assert not np.allclose(both, hidden(2, **shorter), atol=1e-4)


def test_without_a_first_norm_its_parameters_are_not_read():
    data = batch(tokens())
    module = Transformer(TransformerConfig(**MODERNBERT))
    run = jax.jit(lambda params: bind(module, params).hidden(data))

    def hidden(layer, field):
        params = jax.tree.map(lambda x: x, parameters('modernbert'))
        scale = params['encoder']['layers'][field]['scale']
        params['encoder']['layers'][field]['scale'] = scale.at[layer].set(jnp.nan)
        return run(params)

    exact = run(parameters('modernbert'))
    np.testing.assert_array_equal(hidden(0, 'attention_norm'), exact)
    assert np.isnan(hidden(1, 'attention_norm')).all()
    assert np.isnan(hidden(0, 'feedforward_norm')).all()
    normed = jax.jit(model('modernbert', first_norm=True).hidden)(data)
    assert not np.allclose(normed, exact, atol=1e-3)


def test_encoders_see_all_that_is_not_padding():
    run = jax.jit(model('bert').hidden)
    short = tokens(1, 6)
    types = jnp.array([[0, 0, 0, 1, 1, 1]])
    long = np.concatenate([short, [[7, 8, 9]]], axis=1)
    plain = run(batch(short, types_BxL=types, segments_BxL=jnp.ones((1, 6), jnp.int32)))
    padded = run(batch(
        long, types_BxL=jnp.pad(types, ((0, 0), (0, 3))),
        segments_BxL=jnp.array([[1] * 6 + [0] * 3]),
    ))  # fmt: skip
    np.testing.assert_allclose(plain, padded[:, :6], atol=1e-5)
    short[0, 5] += 1
    assert not np.isclose(plain[0, 0], run(batch(short, types_BxL=types))[0, 0]).all()


def test_the_prefix_is_seen_by_all():
    run = jax.jit(lambda t: model('gpt2').hidden(batch(t, prefix_B=jnp.array([4]))))
    before = tokens(1, 8)
    after = before.copy()
    after[0, 3] += 1
    same = np.isclose(run(before), run(after), atol=1e-6).all(axis=-1)[0]
    assert not same.any()
    after = before.copy()
    after[0, 5] += 1
    same = np.isclose(run(before), run(after), atol=1e-6).all(axis=-1)[0]
    np.testing.assert_array_equal(same, [True] * 5 + [False] * 3)


def test_packed_documents_are_as_if_alone():
    for name in ('gpt2', 'modern'):
        run = jax.jit(model(name).hidden)
        first, second = tokens(1, 4, 1), tokens(1, 6, 2)
        packed = run(batch(
            np.concatenate([first, second], axis=1),
            segments_BxL=jnp.array([[1] * 4 + [2] * 6]),
            positions_BxL=jnp.array([[0, 1, 2, 3, 0, 1, 2, 3, 4, 5]]),
        ))  # fmt: skip
        np.testing.assert_allclose(packed[:, :4], run(batch(first)), atol=1e-5)
        np.testing.assert_allclose(packed[:, 4:], run(batch(second)), atol=1e-5)


@functools.cache
def loss(name, **changes):
    bound = Transformer(TransformerConfig(**(ALL[name] | changes)))
    data = batch(tokens())

    def total(params):
        model = bind(bound, params)
        hidden = model.hidden(data)
        heads = [head(hidden) for head in (model.classify, model.score, model.project) if head]
        others = sum(jnp.mean(jax.nn.sigmoid(head)) for head in heads)
        return jnp.mean(jax.nn.log_softmax(model.logits(hidden))[..., 7]) + others

    return jax.jit(jax.value_and_grad(total))(parameters(name))


@pytest.mark.parametrize('name', ['gpt2', 'modern', 't5'])
@pytest.mark.parametrize('change', [{'unroll': True}, {'remat': 'full'}, {'remat': 'dots'}])
def test_scan_and_remat_leave_gradients_as_they_are(name, change):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        loss(name),
        loss(name, **change),
    )


def test_every_parameter_of_every_family_gets_a_gradient():
    for name in ALL:
        for path, g in jax.tree_util.tree_leaves_with_path(loss(name)[1]):
            key_bias = 'key' in jax.tree_util.keystr(path) and g.ndim == 2 and name != 'modern'
            # Softmax does not change when a constant is added to all keys.
            if name == 'modernbert' and 'attention_norm' in jax.tree_util.keystr(path):
                assert (g[0] == 0).all()
                g = g[1:]
            if not key_bias:
                assert np.abs(g).max() > 1e-7, (name, path)


def test_a_tied_table_learns_from_both_ends():
    """Its gradient is that of an untied table and that of untied logits of the same numbers."""
    table = parameters('gpt2')['token_embedding']['table']
    untied = parameters('gpt2') | {'head': {'logits': {'kernel': table.T}}}
    data = batch(tokens())

    def total(params, tied):
        model = bind(Transformer(TransformerConfig(**(GPT2 | {'tied': tied}))), params)
        return jnp.mean(jax.nn.log_softmax(model.logits(model.hidden(data)))[..., 7])

    gradient = jax.jit(jax.grad(total), static_argnums=1)
    both = gradient(parameters('gpt2'), True)['token_embedding']['table']
    apart = gradient(untied, False)
    ends = apart['token_embedding']['table'], apart['head']['logits']['kernel'].T
    assert min(np.abs(end).max() for end in ends) > 1e-5
    np.testing.assert_allclose(both, sum(ends), atol=1e-7)


@pytest.mark.parametrize('name', ['gpt2', 'untied'])
def test_bfloat16_computes_in_bfloat16_and_keeps_float32_parameters_and_logits(name):
    bound = model(name, dtype='bfloat16')
    hidden = jax.jit(bound.hidden)(batch(tokens()))
    assert hidden.dtype == jnp.bfloat16
    logits = jax.jit(bound.logits)(hidden)
    assert logits.dtype == jnp.float32
    assert (logits != logits.astype(jnp.bfloat16)).any()  # they were never rounded
    exact = model(name)
    run = jax.jit(lambda data: exact.logits(exact.hidden(data)))
    np.testing.assert_allclose(logits, run(batch(tokens())), atol=0.15)
    module = Transformer(TransformerConfig(**(GPT2 | {'dtype': 'bfloat16'})))
    assert {x.dtype.name for x in jax.tree.leaves(init(module, jax.random.key(0)))} == {'float32'}


def test_the_initial_values_are_gpt2s():
    config = TransformerConfig(
        1000, decoder_layers=12, width=192, heads=4, max_positions=500, residual_scale=True,
        position_stddev=0.01,
    )  # fmt: skip
    params = init(Transformer(config), jax.random.key(0))
    layers = params['decoder']['layers']
    std = lambda x: float(jnp.std(x))  # noqa: E731
    assert std(params['token_embedding']['table']) == pytest.approx(0.02, rel=0.01)
    assert std(params['position_embedding']['table']) == pytest.approx(0.01, rel=0.01)
    assert std(layers['attention']['query']['kernel']) == pytest.approx(0.02, rel=0.01)
    assert std(layers['feedforward']['up']['kernel']) == pytest.approx(0.02, rel=0.01)
    # spec: 0.02 / sqrt(2 N), 0.004082 for 12 layers, on the two residual projections alone
    assert std(layers['attention']['out']['kernel']) == pytest.approx(0.004082, rel=0.01)
    assert std(layers['feedforward']['down']['kernel']) == pytest.approx(0.004082, rel=0.01)
    assert std(layers['attention']['out']['bias']) == 0
    one, two = layers['feedforward']['up']['kernel'][:2]
    assert abs(float(jnp.corrcoef(one.ravel(), two.ravel())[0, 1])) < 0.02  # layers differ


def test_t5_drops_inside_the_feed_forward_and_after_the_final_norm():
    data, key = batch(tokens()), jax.random.key(1)
    kept = {}
    for where in ('dropout_inside', 'dropout_final'):
        changed = jax.jit(model('t5', dropout=0.5, **{where: True}).hidden)(data, key)
        kept[where] = float((changed == 0).mean())
    assert 0.4 < kept['dropout_final'] < 0.6
    assert kept['dropout_inside'] < 0.1  # where all that is added up was dropped
    plain = jax.jit(model('t5', dropout=0.5).hidden)(data, key)
    inside = jax.jit(model('t5', dropout=0.5, dropout_inside=True).hidden)(data, key)
    assert not np.allclose(plain, inside)


@pytest.mark.parametrize(
    ('name', 'change'),
    [('gpt2', {}), ('gpt2', {'unroll': True}), ('gpt2', {'remat': 'full'}), ('bert', {}),
     ('modernbert', {})],
)  # fmt: skip
def test_hidden_states_of_every_layer_are_those_of_a_stack_cut_off_behind_it(name, change):
    fields = ALL[name] | change
    stack = 'encoder' if 'encoder_layers' in fields else 'decoder'
    inputs = batch(tokens(), segments_BxL=jnp.array([[1] * 10, [1] * 7 + [0] * 3])).inputs
    params = parameters(name)
    module = Transformer(TransformerConfig(**fields))
    found = jax.jit(lambda params: hidden_of_layers(module, params, inputs))(params)
    layers = fields[f'{stack}_layers']
    assert found.shape == (layers + 1, 2, 10, 32)
    for count in range(1, layers + 1):
        # What is kept of a layer has no final norm, but for the last.
        last = count == layers
        own = fields | {f'{stack}_layers': count}
        own |= {} if last else {'final_norm': False}
        cut = jax.tree.map(lambda x, n=count: x[:n], params[stack]['layers'])
        changed = params | {stack: params[stack] | {'layers': cut}}
        run = jax.jit(bind(Transformer(TransformerConfig(**own)), changed).hidden)
        known = run(contract.Batch(inputs, None, None, None))
        np.testing.assert_allclose(found[count], known, rtol=1e-4, atol=1e-4)
    assert np.abs(found[1:] - found[:-1]).mean(axis=(1, 2, 3)).min() > 1e-3


@pytest.mark.parametrize(
    ('name', 'change'),
    [*((name, {}) for name in ALL if name != 'untied'), ('gpt2', {'decoder_layers': 1}),
     ('gpt2', {'remat': 'full', 'unroll': True})],
)  # fmt: skip
def test_states_of_places_that_are_read_are_those_of_all_places(name, change):
    """Also their gradients, of every parameter."""
    fields = {'prefix_B': jnp.array([4, 2])} if name == 'banded' else {}
    if name != 'gpt2':  # which shows that a causal model without any mask gets one
        fields['segments_BxL'] = jnp.array([[1] * 6 + [2] * 4, [1] * 7 + [0] * 3])
    data = batch(tokens(), **fields)
    places_BxQ = jnp.array([[9, 0, 3], [5, 6, 0]])
    module = Transformer(TransformerConfig(**(ALL[name] | change)))
    params = parameters(name)
    if 'decoder_layers' in change:
        cut = jax.tree.map(lambda x: x[:1], params['decoder']['layers'])
        params = params | {'decoder': params['decoder'] | {'layers': cut}}

    def states(params, read_BxQ):
        inputs = data.inputs, data.decoder_inputs if name == 't5' else None
        return module.apply({'params': params}, *inputs, True, read_BxQ, method='hidden')

    def loss(params, read_BxQ):
        x_BxQxD = states(params, read_BxQ)
        if read_BxQ is None:
            x_BxQxD = x_BxQxD[jnp.arange(2)[:, None], places_BxQ]
        return jnp.sum(jnp.sin(3 * x_BxQxD)), x_BxQxD

    run = jax.jit(jax.grad(loss, has_aux=True))
    whole, read = run(params, None), run(params, places_BxQ)
    assert read[1].shape == (2, 3, 32)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-5), whole, read)


def test_the_layer_of_places_that_are_read_drops_too():
    """A single layer whose feed-forward adds 1 everywhere, to embeddings that are 0."""
    fields = GPT2 | {'decoder_layers': 1, 'dropout': 0.3, 'final_norm': False}
    module = Transformer(TransformerConfig(**fields))
    params = jax.tree.map(jnp.zeros_like, init(module, jax.random.key(0)))
    params['decoder']['layers']['feedforward']['down']['bias'] += 1
    read_BxQ = jnp.tile(jnp.arange(5), (200, 1))
    data = batch(tokens(200))
    x_BxQxD = jax.jit(lambda params: module.apply(
        {'params': params}, data.inputs, None, False, read_BxQ,
        rngs={'dropout': jax.random.key(1)}, method='hidden',
    ))(params)  # fmt: skip
    assert x_BxQxD.shape == (200, 5, 32)
    np.testing.assert_allclose(jnp.unique(x_BxQxD), [0, 1 / 0.7], rtol=1e-6)
    assert abs(float((x_BxQxD == 0).mean()) - 0.3) < 0.01


@pytest.mark.parametrize('name', ['gpt2', 'bert'])
def test_the_first_hidden_states_are_the_embeddings(name):
    """The sum of the tables; of BERT normed and mapped to the layers' width, as they read it."""
    params = jax.tree.map(np.asarray, parameters(name))
    read = tokens()
    types = np.arange(20).reshape(2, 10) % 2
    x = params['token_embedding']['table'][read] + params['position_embedding']['table'][:10]
    if name == 'bert':
        x = x + params['segment_embedding']['table'][types]
        x = x - x.mean(axis=-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-12)
        x = x * params['embedding_norm']['scale'] + params['embedding_norm']['bias']
        x = x @ params['embedding_projection']['kernel'] + params['embedding_projection']['bias']
    inputs = batch(read, types_BxL=jnp.asarray(types)).inputs
    module = Transformer(TransformerConfig(**ALL[name]))
    found = jax.jit(lambda params: hidden_of_layers(module, params, inputs))(params)
    np.testing.assert_allclose(found[0], x, rtol=1e-4, atol=1e-5)


def test_hidden_states_of_every_layer_are_dropped_with_a_key_alone():
    module = Transformer(TransformerConfig(**(GPT2 | {'dropout': 0.5})))
    run = jax.jit(lambda key: hidden_of_layers(module, parameters('gpt2'), inputs, key))
    inputs = batch(tokens()).inputs
    one = run(jax.random.key(1))
    np.testing.assert_array_equal(one, run(jax.random.key(1)))
    assert not np.allclose(one, run(jax.random.key(2)))
    assert 0.4 < float((one[0] == 0).mean()) < 0.6  # the embeddings
    assert (run(None)[0] != 0).all()
    bound = bind(module, parameters('gpt2'))
    dropped = jax.jit(bound.hidden)(batch(tokens()), jax.random.key(1))
    np.testing.assert_allclose(one[-1], dropped, atol=1e-5)


def test_dropout_needs_a_key_and_follows_it():
    for shared in (False, True):
        bound = model('gpt2', dropout=0.5, attention_dropout=0.3, dropout_broadcast=shared)
        data = batch(tokens())
        run = jax.jit(lambda key, bound=bound, data=data: bound.hidden(data, key))
        one = run(jax.random.key(1))
        np.testing.assert_array_equal(one, run(jax.random.key(1)))
        assert not np.allclose(one, run(jax.random.key(2)))
        exact = jax.jit(model('gpt2').hidden)(data)
        np.testing.assert_allclose(jax.jit(bound.hidden)(data), exact, atol=1e-5)


def test_attention_with_dropout_rate_near_0_equals_the_librarys():
    """The path with dropout on probabilities is our own; with next to none it must agree."""
    data = batch(tokens(), segments_BxL=jnp.array([[1] * 10, [1] * 4 + [2] * 6]))
    for name in ('gpt2', 'modern', 't5', 'bert'):
        ours = jax.jit(model(name, attention_dropout=1e-9).hidden)(data, jax.random.key(0))
        np.testing.assert_allclose(ours, jax.jit(model(name).hidden)(data), atol=2e-5)


def test_fields_are_the_recipes_fields():
    from configs.recipe import MODEL

    fields = {f.name: f.default for f in dataclasses.fields(TransformerConfig)}
    assert fields.pop('vocabulary') is dataclasses.MISSING
    assert fields == {name: value for name, value in MODEL.items() if name != 'vocabulary'}
