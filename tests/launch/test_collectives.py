"""Collectives of programs whose communication is known, and groups in every way XLA writes them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from launch import collectives, hlo, topology, work
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
TILES = ROWS * 128 * 4  # the same where a row is as wide as a tile of the TPU: transfers pad to it


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


@pytest.fixture
def not_kept():
    """No compiled program is kept: one for devices that are not there cannot be read again."""
    kept = jax.config.jax_persistent_cache_min_compile_time_secs
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 3600)
    yield
    jax.config.update('jax_persistent_cache_min_compile_time_secs', kept)


@pytest.mark.parametrize(
    ('mesh', 'axis', 'sent', 'between'),
    [
        ('data=2,fsdp=2,tensor=2', 'data', TILES, TILES),
        ('data=2,fsdp=2,tensor=2', 'fsdp', TILES, 0),
        # The slices split `sequence`: those of one lie apart in the order of the mesh.
        ('tensor=2,sequence=4', 'tensor', TILES, 0),
        # Two of a slice add up, send half of the sum out each, and gather the halves.
        ('tensor=2,sequence=4', 'sequence', 2 * TILES, TILES / 2),
    ],
)
def test_slices_as_the_tpu_compiler_has_them(mesh, axis, sent, between, not_kept):
    """Two slices: what leaves one is a transfer to the host, groups are numbered within a slice."""
    mesh = meshes.make_mesh(mesh, topology.find('2*v5e:2x2').devices)
    spec = P(mesh.axis_names)

    @functools.partial(jax.shard_map, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
    def program(x):
        return jax.lax.fori_loop(0, TURNS, lambda _, x: jax.lax.psum(x, axis) * 0.5, x)

    x = jax.ShapeDtypeStruct((8 * ROWS, 128), jnp.float32, sharding=NamedSharding(mesh, spec))
    parsed = hlo.parse(jax.jit(program).lower(x).compile().as_text())
    slices = np.array([device.slice_index for device in mesh.devices.flat])
    ids = [device.id for device in mesh.devices.flat]
    found = collectives.collect(parsed, hlo.runs(parsed).times, dict(mesh.shape), slices, ids)
    assert {each.axes for each in found} == {axis}
    assert sum(each.sent for each in found) == TURNS * sent
    assert sum(each.between for each in found) == TURNS * between


@pytest.mark.parametrize(
    ('written', 'groups'),
    [
        ('"{1,3}x{0:1}",_xla', [[100_000, 300_000], [100_001, 300_001]]),
        ('{{100000,200000},{100003,200003}},_xla', [[100_000, 200_000], [100_003, 200_003]]),
        ('{{100001->200000}},_xla', [[100_001, 200_000]]),
    ],
)
def test_targets_as_the_tpu_compiler_writes_them(written, groups):
    each = hlo.Instruction('x', 'send', (), (), '', f', _xla_megascale_target={written}')
    assert collectives._targets(each).tolist() == groups


def test_targets_that_nobody_knows_are_refused():
    each = hlo.Instruction('x', 'send', (), (), '', ', _xla_megascale_target=<new way>')
    with pytest.raises(ValueError, match='new way'):
        collectives._targets(each)


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


BESIDE = """HloModule beside, num_partitions=2

%begin (p: bf16[8,128]) -> (bf16[8,128], bf16[16,128]) {
  %p = bf16[8,128]{1,0} parameter(0)
  %g.1 = bf16[16,128]{1,0} all-gather(%p), channel_id=7, replica_groups={{0,1}}, dimensions={0}
  ROOT %c.1 = (bf16[8,128]{1,0}, bf16[16,128]{1,0}) custom-call(%g.1), custom_call_target="AsyncCollectiveStart"
}

%go_on (p.1: bf16[8,128], w: bf16[16,128], x: f32[32]) -> (f32[32], bf16[8,128], bf16[16,128], bf16[16,128]) {
  %p.1 = bf16[8,128]{1,0} parameter(0)
  %w = bf16[16,128]{1,0} parameter(1)
  %x = f32[32]{0} parameter(2)
  %y = f32[32]{0} add(%x, %x)
  %g.2 = bf16[16,128]{1,0} all-gather(%p.1), channel_id=7, replica_groups={{0,1}}, dimensions={0}
  ROOT %t = (f32[32]{0}, bf16[8,128]{1,0}, bf16[16,128]{1,0}, bf16[16,128]{1,0}) tuple(%y, %p.1, %w, %g.2)
}

%end (p.2: bf16[8,128], w.2: bf16[16,128]) -> bf16[16,128] {
  %p.2 = bf16[8,128]{1,0} parameter(0)
  %w.2 = bf16[16,128]{1,0} parameter(1)
  %g.3 = bf16[16,128]{1,0} all-gather(%p.2), channel_id=7, replica_groups={{0,1}}, dimensions={0}
  ROOT %c.2 = bf16[16,128]{1,0} custom-call(%p.2, %w.2, %g.3), custom_call_target="AsyncCollectiveDone"
}

ENTRY %main (a: bf16[8,128], b: f32[32]) -> (f32[32], bf16[16,128]) {
  %a = bf16[8,128]{1,0} parameter(0)
  %b = f32[32]{0} parameter(1)
  %start = (bf16[8,128]{1,0}, bf16[16,128]{1,0}) fusion(%a), kind=kCustom, calls=%begin
  %e.0 = bf16[8,128]{1,0} get-tuple-element(%start), index=0
  %e.1 = bf16[16,128]{1,0} get-tuple-element(%start), index=1
  %beside = (f32[32]{0}, bf16[8,128]{1,0}, bf16[16,128]{1,0}, bf16[16,128]{1,0}) fusion(%e.0, %e.1, %b), kind=kOutput, calls=%go_on
  %e.2 = f32[32]{0} get-tuple-element(%beside), index=0
  %e.3 = bf16[8,128]{1,0} get-tuple-element(%beside), index=1
  %e.4 = bf16[16,128]{1,0} get-tuple-element(%beside), index=3
  %done = bf16[16,128]{1,0} fusion(%e.3, %e.4), kind=kCustom, calls=%end
  ROOT %all = (f32[32]{0}, bf16[16,128]{1,0}) tuple(%e.2, %done)
}
"""  # noqa: E501


def test_one_that_runs_beside_other_fusions_counts_once():
    """As the compiler of a v5e writes it: it stands in all three fusions."""
    program = hlo.parse(BESIDE)
    times = hlo.runs(program).times
    whole, part = 16 * 128 * 2, 8 * 128 * 2
    assert collectives.collect(program, times, {'fsdp': 2}) == [
        collectives.Traffic('all-gather', 'fsdp', 1, whole, part, 0)
    ]
    # Read: the part. Written: the part passed on, the whole; and 32 numbers read and written.
    assert work.memory_bytes(program, times) == part + part + whole + 2 * 32 * 4
