"""Collectives of programs whose communication is known, and groups in every way XLA writes them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from launch import collectives, hlo
from pretrain import meshes

ROWS, WIDTH, TURNS = 16, 32, 5


def collected(body, axis, slices=None):
    """The collectives of a loop of TURNS turns of `body` on an array of ROWS x WIDTH a device."""
    mesh = meshes.make_mesh('data=2,fsdp=2,tensor=2')
    spec = P(('data', 'fsdp', 'tensor'))

    @functools.partial(jax.shard_map, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
    def program(x):
        return jax.lax.fori_loop(0, TURNS, lambda _, x: body(x, axis), x)

    text = jax.jit(program).lower(jnp.ones((8 * ROWS, WIDTH))).compile().as_text()
    parsed = hlo.parse(text)
    times = hlo.runs(parsed).times
    return collectives.collect(parsed, times, dict(mesh.shape), slices)


BYTES = ROWS * WIDTH * 4  # of a device's part


@pytest.mark.parametrize('axis', ['data', 'fsdp', 'tensor', ('data', 'tensor')])
def test_sums(axis):
    n = 2 if isinstance(axis, str) else 4
    (found,) = collected(lambda x, a: jax.lax.psum(x, a) * 0.5, axis)
    name = axis if isinstance(axis, str) else '+'.join(axis)
    assert found == collectives.Traffic(
        'all-reduce', name, TURNS, TURNS * BYTES, TURNS * 2 * BYTES * (n - 1) / n, 0
    )


def test_gathers_and_scatters():
    def body(x, axis):
        whole = jax.lax.all_gather(x, axis, tiled=True)
        return jax.lax.psum_scatter(jnp.sin(whole), axis, tiled=True)

    found = {each.kind: each for each in collected(body, 'fsdp')}
    gather = found['all-gather']
    assert (gather.axes, gather.count) == ('fsdp', TURNS)
    assert (gather.payload, gather.sent) == (TURNS * 2 * BYTES, TURNS * BYTES)
    scatter = found.get('reduce-scatter') or found['all-reduce']
    assert (scatter.axes, scatter.payload) == ('fsdp', TURNS * 2 * BYTES)


def test_permutations():
    def body(x, axis):
        return jax.lax.ppermute(x, axis, [(0, 1), (1, 0)])

    (found,) = collected(body, 'tensor')
    assert found == collectives.Traffic(
        'collective-permute', 'tensor', TURNS, TURNS * BYTES, TURNS * BYTES, 0
    )


def test_what_leaves_a_slice():
    """Slices of four devices, split along data: a sum over all sends a quarter of itself out."""
    slices = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    (inside,) = collected(lambda x, a: jax.lax.psum(x, a) * 0.5, 'fsdp', slices)
    assert inside.between == 0
    (across,) = collected(lambda x, a: jax.lax.psum(x, a) * 0.5, 'data', slices)
    assert across.between == across.sent == TURNS * BYTES
    (both,) = collected(lambda x, a: jax.lax.psum(x, a) / 4, ('data', 'tensor'), slices)
    assert both.between == TURNS * 2 * BYTES / 2 / 2
    (moved,) = collected(lambda x, a: jax.lax.ppermute(x, a, [(0, 1), (1, 0)]), 'data', slices)
    assert moved.between == moved.sent


@pytest.mark.parametrize(
    ('written', 'groups'),
    [
        ('replica_groups={{0,1},{2,3}}', [[0, 1], [2, 3]]),
        ('replica_groups={{0,2},{1,3}}, use_global_device_ids=true', [[0, 2], [1, 3]]),
        ('replica_groups=[2,2]<=[4]', [[0, 1], [2, 3]]),
        ('replica_groups=[2,2]<=[2,2]T(1,0), dimensions={0}', [[0, 2], [1, 3]]),
        ("replica_groups=mesh['a'=2,'b'=2] {'b'}, to_apply=%add", [[0, 1], [2, 3]]),
        ("replica_groups=mesh['a'=2,'b'=2] {'a'}", [[0, 2], [1, 3]]),
        ("replica_groups=mesh['a'=2,'b'=2], device_ids=([2,2]T(1,0)) {'b'}", [[0, 2], [1, 3]]),
        ("replica_groups=mesh['a'=4] {'a':(2)2}", [[0, 1], [2, 3]]),
        ("replica_groups=mesh['a'=4] {'a':(1)2}", [[0, 2], [1, 3]]),
        ("replica_groups=mesh['a'=2,'b'=2] {'a','b'}", [[0, 1, 2, 3]]),
        ('replica_groups={}', [[0, 1, 2, 3]]),
        ('channel_id=1', [[0, 1, 2, 3]]),
        ('source_target_pairs={{0,1},{1,0}}', [[0, 1], [1, 0]]),
    ],
)  # fmt: skip
def test_groups_as_xla_writes_them(written, groups):
    each = hlo.Instruction('x', 'all-reduce', (), (), '', f', channel_id=3, {written}')
    assert collectives._groups(each, 4).tolist() == groups


def test_groups_that_nobody_knows_are_refused():
    each = hlo.Instruction('x', 'all-reduce', (), (), '', ', replica_groups=<new way>')
    with pytest.raises(ValueError, match='new way'):
        collectives._groups(each, 4)
