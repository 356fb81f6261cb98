"""Meshes, placement of the train state and of batches, on eight CPU devices."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from pretrain import meshes, partitioning
from pretrain.errors import UserError
from pretrain.optimizers import make_optimizer


class State(NamedTuple):
    """What a trainer keeps."""

    step: Any
    params: Any
    opt_state: Any


def init_params():
    """A decoder of three layers with every kind of parameter, V=256, D=128, F=256, no zeros."""
    shapes = {
        'token_embedding': {'table': (256, 128)},
        'position_embedding': {'table': (16, 128)},
        'segment_embedding': {'table': (2, 128)},
        'embedding_norm': {'scale': (128,), 'bias': (128,)},
        'decoder': {
            'layers': {
                'attention': {
                    **{
                        name: {'kernel': (3, 128, 128), 'bias': (3, 128)}
                        for name in ('query', 'key', 'value', 'out')
                    },
                    'query_norm': {'scale': (3, 32)},
                },
                'attention_norm': {'scale': (3, 128), 'bias': (3, 128)},
                'feedforward': {
                    'up': {'kernel': (3, 128, 256), 'bias': (3, 256)},
                    'gate': {'kernel': (3, 128, 256), 'bias': (3, 256)},
                    'down': {'kernel': (3, 256, 128), 'bias': (3, 128)},
                },
            },
            'final_norm': {'scale': (128,), 'bias': (128,)},
            'relative_bias': {'table': (32, 4)},
        },
        'head': {
            'logits': {'kernel': (128, 256)},
            'bias': (256,),
            'transform': {'kernel': (128, 128), 'bias': (128,)},
        },
        'embedding_projection': {'kernel': (64, 128), 'bias': (128,)},
        'pooler': {'kernel': (128, 128), 'bias': (128,)},
        'classifier': {'kernel': (128, 2), 'bias': (2,)},
        'scores': {
            'transform': {'kernel': (128, 128), 'bias': (128,)},
            'logit': {'kernel': (128, 1), 'bias': (1,)},
        },
        'projection': {'kernel': (128, 192)},
    }
    return jax.tree.map(lambda shape: jnp.ones(shape), shapes, is_leaf=lambda x: type(x) is tuple)


def make_init(name, params=init_params):
    config = ConfigDict(
        {'name': name, 'learning_rate': 1e-3, 'schedule': {'name': 'constant', 'warmup': 0}}
    )
    optimizer = make_optimizer(config, 10, 1)

    def init():
        made = params()
        return State(jnp.zeros((), jnp.int32), made, optimizer.init(made))

    return init, optimizer


def specs(shardings):
    """{path: PartitionSpec}, trailing Nones dropped so that equal placements compare equal."""
    found = {}
    for path, sharding in jax.tree_util.tree_flatten_with_path(shardings)[0]:
        axes = list(sharding.spec)
        while axes and axes[-1] is None:
            axes.pop()
        found[jax.tree_util.keystr(path, simple=True, separator='/')] = P(*axes)
    return found


def test_parameters_are_split_in_the_megatron_manner():
    mesh = meshes.make_mesh('data=2,fsdp=2,tensor=2')
    found = specs(partitioning.state_shardings(mesh, {'params': jax.eval_shape(init_params)}))
    attention, feedforward = (
        'params/decoder/layers/attention/',
        'params/decoder/layers/feedforward/',
    )
    assert found == {
        'params/token_embedding/table': P('tensor', 'fsdp'),
        'params/position_embedding/table': P(None, 'fsdp'),
        'params/segment_embedding/table': P(None, 'fsdp'),
        'params/embedding_norm/scale': P(),
        'params/embedding_norm/bias': P(),
        **{
            f'{attention}{name}/kernel': P(None, 'fsdp', 'tensor')
            for name in ('query', 'key', 'value')
        },
        **{f'{attention}{name}/bias': P(None, 'tensor') for name in ('query', 'key', 'value')},
        f'{attention}out/kernel': P(None, 'tensor', 'fsdp'),
        f'{attention}out/bias': P(),
        f'{attention}query_norm/scale': P(),
        'params/decoder/layers/attention_norm/scale': P(),
        'params/decoder/layers/attention_norm/bias': P(),
        f'{feedforward}up/kernel': P(None, 'fsdp', 'tensor'),
        f'{feedforward}gate/kernel': P(None, 'fsdp', 'tensor'),
        f'{feedforward}up/bias': P(None, 'tensor'),
        f'{feedforward}gate/bias': P(None, 'tensor'),
        f'{feedforward}down/kernel': P(None, 'tensor', 'fsdp'),
        f'{feedforward}down/bias': P(),
        'params/decoder/final_norm/scale': P(),
        'params/decoder/final_norm/bias': P(),
        'params/decoder/relative_bias/table': P(),
        'params/head/logits/kernel': P('fsdp', 'tensor'),
        'params/head/bias': P('tensor'),
        'params/head/transform/kernel': P('fsdp'),
        'params/head/transform/bias': P(),
        'params/embedding_projection/kernel': P('fsdp'),
        'params/embedding_projection/bias': P(),
        'params/pooler/kernel': P('fsdp'),
        'params/pooler/bias': P(),
        'params/classifier/kernel': P('fsdp'),
        'params/classifier/bias': P(),
        'params/scores/transform/kernel': P('fsdp'),
        'params/scores/transform/bias': P(),
        'params/scores/logit/kernel': P('fsdp'),
        'params/scores/logit/bias': P(),
        'params/projection/kernel': P('fsdp'),
    }


@pytest.mark.parametrize(('name', 'moments'), [('adamw', 2), ('lion', 1), ('muon', None)])
def test_moments_lie_where_their_parameters_lie(name, moments):
    mesh = meshes.make_mesh('fsdp=4,tensor=2')
    init, _ = make_init(name)
    found = specs(partitioning.state_shardings(mesh, jax.eval_shape(init)))
    for path, spec in found.items():
        if not path.startswith('params/'):
            continue
        suffix = path.removeprefix('params')
        copies = [s for p, s in found.items() if p.startswith('opt_state') and p.endswith(suffix)]
        expected = moments or (1 if 'layers' in path and path.endswith('kernel') else 2)
        assert copies == [spec] * expected, path
    assert found['step'] == P()
    counts = [s for p, s in found.items() if p.endswith('count')]
    assert counts
    assert set(counts) == {P()}


def test_adafactors_rows_and_columns_are_copied():
    mesh = meshes.make_mesh('fsdp=4,tensor=2')
    init, _ = make_init('adafactor')
    abstract = jax.eval_shape(init)
    found = specs(partitioning.state_shardings(mesh, abstract))
    factored = [p for p in found if '/v_row/' in p or '/v_col/' in p]
    assert len(factored) == 2 * len(jax.tree.leaves(abstract.params))
    assert {found[path] for path in factored} == {P()}
    # What is too narrow to factor has a whole second moment, which is split.
    (bias,) = (p for p in found if p.endswith('/v/decoder/layers/feedforward/up/bias'))
    assert found[bias] == P(None, 'tensor')


def test_what_does_not_divide_is_left_whole_and_said():
    mesh = meshes.make_mesh('data=2,fsdp=2,tensor=2')
    state = {
        'params': {
            'token_embedding': {'table': jax.ShapeDtypeStruct((50_257, 64), jnp.float32)},
            'decoder': {
                'layers': {'out': {'kernel': jax.ShapeDtypeStruct((3, 7, 9), jnp.float32)}}
            },
            'head': {'logits': {'kernel': jax.ShapeDtypeStruct((64, 512), jnp.float32)}},
        }
    }
    found = specs(partitioning.state_shardings(mesh, state))
    assert found['params/token_embedding/table'] == P(None, 'fsdp')
    assert found['params/decoder/layers/out/kernel'] == P()
    whole = partitioning.unsharded(mesh, state)
    assert set(whole) == {'token_embedding/table', 'decoder/layers/out/kernel'}
    assert whole['token_embedding/table'] == '50257 does not divide by tensor=2'
    for word in ('7', '9', 'fsdp=2', 'tensor=2'):
        assert word in whole['decoder/layers/out/kernel']
    alone = meshes.make_mesh('data=8')
    assert partitioning.unsharded(alone, state) == {}


def test_init_places_shards_and_a_step_keeps_them():
    """Eight devices hold an eighth each of a kernel and of its moments, and training goes on."""
    mesh = meshes.make_mesh('fsdp=4,tensor=2')
    init, optimizer = make_init('adamw')
    shardings = partitioning.state_shardings(mesh, jax.eval_shape(init))
    state = jax.jit(init, out_shardings=shardings)()
    for tree in (state.params, optax.tree.get(state.opt_state, 'mu')):
        kernel = tree['decoder']['layers']['feedforward']['up']['kernel']
        assert {s.data.shape for s in kernel.addressable_shards} == {(3, 128 // 4, 256 // 2)}
        assert len({str(s.index) for s in kernel.addressable_shards}) == 8
        assert tree['embedding_norm']['scale'].is_fully_replicated

    def step(state):
        grads = jax.tree.map(jnp.ones_like, state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        return State(state.step + 1, optax.apply_updates(state.params, updates), opt_state)

    after = jax.jit(step, in_shardings=(shardings,), out_shardings=shardings)(state)
    # Adam's first step is -rate x sign of the gradient.
    table = after.params['token_embedding']['table']
    np.testing.assert_allclose(table, 1 - 1e-3, rtol=1e-6)
    assert table.sharding.is_equivalent_to(NamedSharding(mesh, P('tensor', 'fsdp')), 2)


def test_a_batch_is_split_over_data_and_fsdp():
    mesh = meshes.make_mesh('data=2,fsdp=2,tensor=2')
    assert partitioning.batch_shards(mesh) == 4
    assert partitioning.process_rows(mesh, 12).tolist() == list(range(12))
    rows = {'tokens': np.arange(24, dtype=np.int32).reshape(12, 2), 'weights': np.arange(12.0)}
    batch = partitioning.global_array(mesh, rows, 12)
    assert batch['tokens'].sharding == partitioning.batch_sharding(mesh)
    np.testing.assert_array_equal(batch['tokens'], rows['tokens'])
    np.testing.assert_array_equal(batch['weights'], rows['weights'])
    held = {
        (s.device, s.index[0].start or 0): np.asarray(s.data)
        for s in batch['tokens'].addressable_shards
    }
    for (device, start), part in held.items():
        data, fsdp, _, _ = np.argwhere(mesh.devices == device)[0]
        assert start == 3 * (2 * data + fsdp)
        np.testing.assert_array_equal(part, rows['tokens'][start : start + 3])


@pytest.mark.parametrize(
    ('batch_size', 'words'),
    [(10, ['10', '4 batch shards', 'data=2 x fsdp=2', '8 or 12']), (3, ['to 4,']), (0, ['to 4,'])],
)
def test_a_batch_that_does_not_divide(batch_size, words):
    mesh = meshes.make_mesh('data=2,fsdp=2,tensor=2')
    with pytest.raises(UserError) as error:
        partitioning.process_rows(mesh, batch_size)
    for word in words:
        assert word in str(error.value)
