"""Groups of real models' parameters, and training with them against one optimizer a layer."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from configs.transfer import transfer
from pretrain.meshes import make_mesh
from pretrain.model.config import TransformerConfig
from pretrain.model.transformer import Transformer, init
from pretrain.optimizers import parameter_path
from pretrain.transfer import casts, finetuning, heads, layer_rates, rows

SMALL = {'vocabulary': 20, 'width': 8, 'heads': 2, 'max_positions': 4}
BERT = SMALL | {
    'encoder_layers': 3, 'norm_placement': 'post', 'embedding_norm': True, 'final_norm': False,
    'segment_types': 2, 'embedding_width': 6, 'token_head': False,
}  # fmt: skip
GPT = SMALL | {'decoder_layers': 3, 'tied': False}
T5 = SMALL | {
    'encoder_layers': 2, 'decoder_layers': 3, 'positions': 'relative', 'norm': 'rms',
    'biases': False,
}  # fmt: skip
MODELS = {'bert': BERT, 'gpt': GPT, 't5': T5}
COUNTS = {'bert': 5, 'gpt': 5, 't5': 7}  # the head, the layers, the embeddings
HEAD = {'output': {'kernel': np.ones((8, 2)), 'bias': np.ones(2)}, 'mix_scale': np.ones(())}


def parameters(name):
    """{'trunk', 'head'}: random everywhere, so that no two numbers are alike."""
    shapes = jax.eval_shape(
        lambda: init(Transformer(TransformerConfig(**MODELS[name])), jax.random.key(0))
    )
    rng = np.random.default_rng(0)
    made = lambda x: np.asarray(rng.normal(size=x.shape), np.float32)  # noqa: E731
    return jax.tree.map(made, {'trunk': shapes, 'head': HEAD if name != 't5' else {}})


def flat(tree):
    return traverse_util.flatten_dict(tree, sep='/')


# What a parameter's path begins with: its group, or those of the layers from the lowest on.
GROUPS = {
    'bert': {
        'head/': 0, 'trunk/encoder/layers/': [3, 2, 1], 'trunk/token_embedding/': 4,
        'trunk/position_embedding/': 4, 'trunk/segment_embedding/': 4, 'trunk/embedding_norm/': 4,
        'trunk/embedding_projection/': 4,
    },
    'gpt': {
        'head/': 0, 'trunk/head/': 0, 'trunk/decoder/layers/': [3, 2, 1],
        'trunk/decoder/final_norm/': 1, 'trunk/token_embedding/': 4, 'trunk/position_embedding/': 4,
    },
    't5': {
        'trunk/decoder/layers/': [3, 2, 1], 'trunk/decoder/final_norm/': 1,
        'trunk/decoder/relative_bias/': 3, 'trunk/encoder/layers/': [5, 4],
        'trunk/encoder/final_norm/': 4, 'trunk/encoder/relative_bias/': 5,
        'trunk/token_embedding/': 6,
    },
}  # fmt: skip


@pytest.mark.parametrize('name', MODELS)
def test_groups_count_from_the_head_to_the_embeddings(name):
    params = parameters(name)
    assert layer_rates.group_count(params['trunk']) == COUNTS[name]
    found = layer_rates.groups(params)
    assert found.keys() == flat(params).keys()
    met = set()
    for path, group in found.items():
        [start] = [start for start in GROUPS[name] if path.startswith(start)]
        np.testing.assert_array_equal(group, GROUPS[name][start], err_msg=path)
        met.add(start)
    assert met == GROUPS[name].keys()
    shapes = jax.eval_shape(lambda: params)
    jax.tree.map(np.testing.assert_array_equal, layer_rates.groups(shapes), found)


@pytest.mark.parametrize('name', MODELS)
def test_rates_are_powers_of_the_decay(name):
    params = parameters(name)
    found = layer_rates.rates(params, 0.5)
    for path, x in flat(params).items():
        [start] = [start for start in GROUPS[name] if path.startswith(start)]
        known = 0.5 ** np.array(GROUPS[name][start], float)
        full = np.broadcast_to(found[path], x.shape)  # one number a layer, whatever its shape
        assert found[path].dtype == jnp.float32
        if known.ndim:
            assert found[path].shape == (len(known), *[1] * (x.ndim - 1))
            for layer, rate in enumerate(known):
                assert (full[layer] == rate).all(), path
        else:
            assert found[path].size == 1
            assert (full == known).all(), path
    for rate in layer_rates.rates(params, 1.0).values():
        assert (rate == 1).all()
    third = layer_rates.rates(params, 1 / 2.6)
    deepest = 'trunk/token_embedding/table'
    np.testing.assert_allclose(third[deepest], 2.6 ** -(COUNTS[name] - 1), rtol=1e-5)


@pytest.mark.parametrize('name', MODELS)
def test_split_and_join_are_each_others_opposite(name):
    params = parameters(name)
    for count in range(COUNTS[name] + 2):
        own, frozen = layer_rates.split(params, count)
        joined = flat(layer_rates.join(own, frozen))
        assert joined.keys() == flat(params).keys()
        for path, x in flat(params).items():
            np.testing.assert_array_equal(joined[path], x, err_msg=path)
            assert joined[path].dtype == x.dtype
            group = layer_rates.groups(params)[path]
            kept = np.asarray(group) < count
            if kept.ndim:  # the upper layers, in their order
                np.testing.assert_array_equal(own.get(path, x[:0]), x[kept])
                np.testing.assert_array_equal(frozen.get(path, x[:0]), x[~kept])
                assert (path in own, path in frozen) == (kept.any(), (~kept).any())
            else:
                assert (path in own, path in frozen) == (kept, not kept)
    assert not layer_rates.split(params, COUNTS[name])[1]
    assert not layer_rates.split(params, 0)[0]


@pytest.mark.parametrize('name', MODELS)
def test_the_rates_of_a_part_are_those_of_its_layers(name):
    params = parameters(name)
    whole = layer_rates.rates(params, 0.5)
    for count in range(1, COUNTS[name] + 1):
        own, _ = layer_rates.split(params, count)
        part = layer_rates.part_rates(own, whole)
        assert part.keys() == own.keys()
        for path, x in own.items():
            group = np.atleast_1d(layer_rates.groups(params)[path])
            known = 0.5 ** group[group < count].astype(float)
            full = np.broadcast_to(part[path], x.shape)
            for i in range(len(known)):
                assert ((full[i] if len(group) > 1 else full) == known[i]).all(), path


def config(groups=0, decay=1.0, unfreeze=False, epochs=2, **optimizer):
    made = transfer('glue', 'rte')
    made.transfer.update(
        groups=groups, layer_decay=decay, unfreeze=unfreeze, epochs=epochs, batch_size=4, warmup=0.0
    )
    made.optimizer.update({'learning_rate': 0.05, 'weight_decay': 0.3} | optimizer)
    made.optimizer.schedule.update(name='constant')
    return made


MADE = [rows.Row(np.array([i % 5, 1], np.int32), None, i) for i in range(10)]


def goal(path, shape):
    return np.sin(np.arange(np.prod(shape)) + len(path)).reshape(shape).astype(np.float32)


def height(batch):
    return 1 + 0.1 * (batch.inputs.tokens_BxL[:, 0] * batch.weights_B).sum()


def pull(params, batch, key):
    """A loss without a model: every number is drawn to a place of its own."""
    terms = (
        jnp.sum(jnp.square(x - goal(path, x.shape)) * (1.5 + jnp.sin(x)))
        for path, x in flat(params).items()
    )
    return sum(terms) * height(batch)


def slope(x, goal):
    return 2 * (x - goal) * (1.5 + np.sin(x)) + (x - goal) ** 2 * np.cos(x)


def trainer(made):
    cast = casts.Cast(None, None, 1, False, None, pull, None, None, False, None)
    tokens = types.SimpleNamespace(vocabulary=types.SimpleNamespace(pad=0))
    return finetuning.Trainer(cast, made, tokens, make_mesh('data=1', jax.devices()[:1]))


def by_layer(params, settings, seed, plan):
    """AdamW in numpy, an array and two moments for every layer of every parameter."""
    section, decay = settings.optimizer, settings.transfer.layer_decay
    found = {path: np.array(x, np.float64) for path, x in flat(params).items()}
    for path, group in layer_rates.groups(params).items():
        whole, goals = found[path], goal(path, found[path].shape)
        weight_decay = 0.0 if path.endswith(('bias', 'scale')) else section.weight_decay
        for i, depth in enumerate(np.atleast_1d(group).tolist()):
            at = i if np.ndim(group) else ...
            m = v = steps = 0
            for epoch, count in enumerate(plan):
                if epoch and plan[epoch - 1] != count:
                    m = v = steps = 0  # moments begin anew with what is thawed
                for place in rows.training_batches(MADE, 4, 1, seed, epoch):
                    if depth >= count:
                        continue
                    gradient = slope(whole[at], goals[at])
                    gradient = gradient * height(rows.lay_out(MADE, place, 0))
                    steps += 1
                    m = section.b1 * m + (1 - section.b1) * gradient
                    v = section.b2 * v + (1 - section.b2) * gradient**2
                    move = m / (1 - section.b1**steps)
                    move = move / (np.sqrt(v / (1 - section.b2**steps)) + section.epsilon)
                    move = move + weight_decay * whole[at]
                    whole[at] = whole[at] - section.learning_rate * decay**depth * move
    return found


@pytest.mark.parametrize(
    ('name', 'settings', 'plan'),
    [
        ('bert', {'decay': 0.5}, [5, 5]),
        ('t5', {'decay': 1 / 2.6, 'groups': 5}, [5, 5]),
        ('gpt', {'decay': 0.5, 'unfreeze': True, 'epochs': 3}, [1, 2, 5]),
    ],
)
def test_training_is_that_of_an_adamw_for_every_layer(name, settings, plan):
    params, settings = parameters(name), config(**settings, clip=0.0)
    known = by_layer(params, settings, 7, plan)
    found = flat(trainer(settings).train(params, MADE, seed=7).params)
    assert found.keys() == known.keys()
    moved = 0
    for path in known:
        np.testing.assert_allclose(found[path], known[path], rtol=2e-3, atol=2e-4, err_msg=path)
        moved += np.abs(np.asarray(found[path]) - np.asarray(flat(params)[path])).max() > 0.01
    assert moved > 3


@pytest.mark.parametrize(('name', 'count'), [('bert', 3), ('t5', 5)])
def test_what_is_frozen_stays_bit_for_bit(name, count):
    params = parameters(name)
    found = flat(trainer(config(count)).train(params, MADE, seed=0).params)
    for path, group in layer_rates.groups(params).items():
        same = np.asarray(found[path] == flat(params)[path])
        kept = np.asarray(group) >= count
        if kept.ndim:
            same = same.reshape(len(kept), -1)
            assert same[kept].all(), path
            assert not same[~kept].all(axis=1).any(), path
        else:
            assert same.all() == kept, path


@pytest.mark.parametrize('optimizer', ['adamw', 'adafactor', 'lion', 'muon'])
def test_what_is_frozen_has_no_moments(optimizer):
    """Every array of the state has the shape of a trained part, never that of the whole."""
    params, count = parameters('bert'), 3
    own, frozen = layer_rates.split(params, count)
    state = finetuning.make_task_optimizer(config(name=optimizer)).init(own)
    held = {}
    for path, x in jax.tree_util.tree_leaves_with_path(state):
        of = [name for name in own if parameter_path(path).endswith(name)]
        if of:
            held.setdefault(of[0], []).append(x.shape)
        else:
            assert x.size <= 3, parameter_path(path)  # counts, and coefficients of Muon
    assert held.keys() == own.keys()
    if optimizer in ('adamw', 'lion'):
        moments = 2 if optimizer == 'adamw' else 1
        assert held == {path: [x.shape] * moments for path, x in own.items()}
        sizes = sum(x.size for x in jax.tree.leaves(state))
        assert sizes - 2 <= moments * sum(x.size for x in own.values()) <= sizes
    for path, shapes in held.items():
        if '/layers/' in path:
            assert {shape[0] for shape in shapes if len(shape) > 1} <= {2}, path
    assert set(frozen) - set(own)
    assert not any('embedding' in parameter_path(p)
                   for p, _ in jax.tree_util.tree_leaves_with_path(state))  # fmt: skip


def test_a_real_head_and_trunk_have_a_group_each():
    """A pooler and a mix of layers belong to the head."""
    head = heads.TaskHead(2, pooler=True, mix=True)
    shapes = jax.eval_shape(lambda: head.init(jax.random.key(0), jnp.zeros((4, 1, 8)))['params'])
    found = layer_rates.groups({'trunk': parameters('bert')['trunk'], 'head': shapes})
    assert {path for path, group in found.items() if np.ndim(group) == 0 and group == 0} == {
        'head/mix_weights', 'head/mix_scale', 'head/pooler/kernel', 'head/pooler/bias',
        'head/output/kernel', 'head/output/bias',
    }  # fmt: skip
