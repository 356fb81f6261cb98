"""Devices: the mesh, which part of the train state and of a batch lies where, and nothing else.

A mesh is named by one short string, and a table says for a parameter's path which dimension goes
along which axis; XLA finds the communication. The axes:

| axis | batch rows | parameters and optimizer state |
|---|---|---|
| data | split | copied |
| fsdp | split | split, gathered layer by layer when used (fully sharded data parallel) |
| tensor | copied | split, and the computation with them (Megatron, Shoeybi et al. 2019) |
| sequence | copied | copied; kept for splitting the length |
"""

import difflib
import itertools
import math
import re

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from pretrain.errors import UserError

AXES = ('data', 'fsdp', 'tensor', 'sequence')
BATCH_AXES = ('data', 'fsdp')

# The first pattern found in a parameter's path says how the parameter of one layer is split; below
# `layers/` the layer axis comes before it, whole. What no pattern finds (norms, biases of out and
# down, relative positions) is small and copied to every device.
RULES = (
    (r'token_embedding/table$', P('tensor', 'fsdp')),
    (r'(position|segment)_embedding/table$', P(None, 'fsdp')),
    # Megatron: what makes heads or hidden units is split by its outputs, what reads them by its
    # inputs, so that a pair needs one sum over `tensor`.
    (r'(query|key|value|up|gate)/kernel$', P('fsdp', 'tensor')),
    (r'(query|key|value|up|gate)/bias$', P('tensor')),
    (r'(out|down)/kernel$', P('tensor', 'fsdp')),
    (r'logits/kernel$', P('fsdp', 'tensor')),
    (r'head/bias$', P('tensor')),
    (r'kernel$', P('fsdp', None)),
)


def parse_mesh(text: str) -> dict[str, int]:
    """Sizes of the axes that a mesh's name gives.

    Args:
        text: 'data=-1,fsdp=2,tensor=1', in any order, or the sizes alone in the order of AXES
            ('-1,2,1'). -1, once at most, is what the devices leave; an axis left out is 1.

    Returns:
        {axis: size} in the order of AXES, with the -1 where it was.

    Raises:
        UserError: it is not such a text.
    """
    example = "for instance 'data=-1,fsdp=1,tensor=1'"
    parts = [part.strip() for part in str(text).split(',')]
    if not any(parts):
        raise UserError(f'mesh={text!r} is empty: give {example}')
    named = ['=' in part for part in parts]
    if not any(named):
        if len(parts) > len(AXES):
            raise UserError(
                f'mesh={text!r} has {len(parts)} sizes for the {len(AXES)} axes {", ".join(AXES)}'
            )
        parts = [f'{axis}={size}' for axis, size in zip(AXES, parts)]
    elif not all(named):
        raise UserError(f'mesh={text!r} mixes named axes and bare sizes: name all, {example}')

    sizes = dict.fromkeys(AXES, 1)
    given = set()
    for part in parts:
        axis, _, size = (piece.strip() for piece in part.partition('='))
        if axis not in AXES:
            nearest = difflib.get_close_matches(axis, AXES, n=1)
            hint = f'did you mean {nearest[0]!r}? ' if nearest else ''
            raise UserError(
                f'mesh={text!r}: unknown axis {axis!r}: {hint}There are {", ".join(AXES)}'
            )
        if axis in given:
            raise UserError(f'mesh={text!r} gives {axis} twice: give it once')
        given.add(axis)
        if not re.fullmatch(r'-1|0*[1-9]\d*', size):
            raise UserError(
                f'mesh={text!r}: {axis}={size or "(nothing)"} must be a whole number from 1, or -1 '
                'for what the devices leave'
            )
        sizes[axis] = int(size)
    open_axes = [axis for axis, size in sizes.items() if size == -1]
    if len(open_axes) > 1:
        raise UserError(
            f'mesh={text!r}: {" and ".join(open_axes)} are both -1, only one can be inferred: '
            f'set {open_axes[-1]}=1'
        )
    return sizes


def make_mesh(text: str, devices=None) -> Mesh:
    """The mesh that a text names, over all devices of all processes.

    Args:
        text: as in `parse_mesh`.
        devices: which; None means all that JAX has.

    Returns:
        A mesh with the axes AXES, all of type Auto: XLA places what nobody has placed.

    Raises:
        UserError: wrong text, or sizes that do not fit the number of devices.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = _fill(parse_mesh(text), len(devices), text)
    return Mesh(_device_grid(tuple(sizes.values()), devices), AXES, (AxisType.Auto,) * len(AXES))


def _fill(sizes, count, text):
    """Replaces the -1 so that the product of the sizes is the number of devices."""
    open_axis = next((axis for axis, size in sizes.items() if size == -1), None)
    fixed = math.prod(size for size in sizes.values() if size != -1)
    if open_axis and count % fixed == 0:
        return sizes | {open_axis: count // fixed}
    if fixed == count:
        return sizes

    if open_axis:
        problem = f'sizes that make {fixed}, which does not divide the {count} devices'
    else:
        problem = f'sizes for {fixed} devices, but there are {count}'
    raise UserError(f'mesh={text!r} gives {problem}: {_mend(sizes, open_axis, fixed, count)}')


def _mend(sizes, open_axis, fixed, count):
    """The one axis that can be changed least to make the mesh fit, and to what."""
    mends = []
    for axis, size in sizes.items():
        if axis == open_axis or count % (fixed // size):
            continue
        room = count // (fixed // size)
        if open_axis is None:
            mends.append((axis, room))
        elif size > 1:
            divisors = [n for n in range(1, room + 1) if room % n == 0]
            mends.append((axis, min(divisors, key=lambda n, size=size: abs(n - size))))
    if not mends:
        return "give 'data=-1'"
    axis, size = min(mends, key=lambda mend: abs(math.log(mend[1] / sizes[mend[0]])))
    return f'set {axis}={size}'


def _device_grid(shape, devices):
    """Devices in the order that suits their wires, if each process then has its rows together."""
    try:
        grid = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
        if _rows_are_contiguous(grid):
            return grid
    except (AssertionError, NotImplementedError):
        # What JAX says of wires it has no order for, as of a TPU v4 seen as two cores a chip.
        pass
    # On a TPU torus, neighbours along the batch can belong to hosts in turn. A host reads one run
    # of rows, so the order of the processes comes first then.
    devices = sorted(devices, key=lambda device: (device.process_index, device.id))
    return np.array(devices, dtype=object).reshape(shape)


def _rows_are_contiguous(grid) -> bool:
    """Whether the batch shards of every process follow one another.

    Args:
        grid: devices, an array of the mesh's shape.
    """
    shards = grid.reshape(grid.shape[0] * grid.shape[1], -1)
    owned = {}
    for shard, row in enumerate(shards):
        for device in row:
            owned.setdefault(device.process_index, set()).add(shard)
    return all(max(own) - min(own) + 1 == len(own) for own in owned.values())


def state_shardings(mesh: Mesh, abstract_state):
    """Where every leaf of a train state lies.

    Args:
        mesh: of `make_mesh`.
        abstract_state: tree of arrays or ShapeDtypeStructs, by `jax.eval_shape`. The parameters are
            what lies below its `params` (an attribute or a key).

    Returns:
        The tree with a NamedSharding for each leaf. Parameters are split by RULES. A leaf
        elsewhere whose path ends in a parameter's path and which has its shape (a moment) lies as
        the parameter does; all others (Adafactor's rows and columns, counters) are copied. A
        dimension that its axis does not divide is left whole.
    """
    parameters = _parameter_specs(mesh, abstract_state)

    def sharding(key_path, leaf):
        parts = _path(key_path).split('/')
        for start in range(len(parts)):
            shape, spec, _ = parameters.get('/'.join(parts[start:]), (None, None, None))
            if shape == leaf.shape:
                return NamedSharding(mesh, spec)
        return NamedSharding(mesh, P())

    return jax.tree_util.tree_map_with_path(sharding, abstract_state)


def unsharded(mesh: Mesh, abstract_state) -> dict[str, str]:
    """Parameters that RULES would split but whose sizes the mesh does not divide.

    Args:
        mesh, abstract_state: as for `state_shardings`.

    Returns:
        {'head/bias': '50257 does not divide by tensor=2'}, empty when all fit.
    """
    specs = _parameter_specs(mesh, abstract_state)
    return {path: '; '.join(whole) for path, (_, _, whole) in specs.items() if whole}


def _parameter_specs(mesh, abstract_state):
    """{path below params: (shape, spec, [why a dimension is whole])}."""
    specs = {}
    for key_path, leaf in jax.tree_util.tree_flatten_with_path(abstract_state)[0]:
        top, _, path = _path(key_path).partition('/')
        if top == 'params':
            specs[path] = (leaf.shape, *_fit(mesh, path, leaf.shape))
    return specs


def _fit(mesh, path, shape):
    spec = next((spec for pattern, spec in RULES if re.search(pattern, path)), P())
    axes = list(spec)
    if axes and 'layers' in path.split('/'):
        axes = [None, *axes]
    if axes and len(axes) != len(shape):
        raise ValueError(f'{path} of shape {shape} has not the {len(axes)} dimensions of its rule')
    whole = []
    for i, axis in enumerate(axes):
        if axis and shape[i] % mesh.shape[axis]:
            whole.append(f'{shape[i]} does not divide by {axis}={mesh.shape[axis]}')
            axes[i] = None
    return P(*axes), whole


def _path(key_path) -> str:
    return jax.tree_util.keystr(key_path, simple=True, separator='/')


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows (the leading axis) split over data and fsdp, the other axes whole."""
    return NamedSharding(mesh, P(BATCH_AXES))


def batch_shards(mesh: Mesh) -> int:
    """Into how many parts the rows of a batch are split."""
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def process_rows(mesh: Mesh, batch_size: int) -> slice:
    """The rows of a global batch that this process must supply.

    Processes that share a batch shard (tensor parallel over hosts) each supply its rows.

    Args:
        mesh: of `make_mesh`.
        batch_size: rows of the global batch.

    Returns:
        A slice of the global batch with plain start and stop.

    Raises:
        UserError: the rows do not divide over the batch shards.
    """
    shards = batch_shards(mesh)
    if batch_size % shards or batch_size < 1:
        below = batch_size // shards * shards
        valid = f'{below} or {below + shards}' if below > 0 else f'{shards}'
        product = ' x '.join(f'{axis}={mesh.shape[axis]}' for axis in BATCH_AXES)
        raise UserError(
            f'batch_size={batch_size} does not divide over the {shards} batch shards of the mesh '
            f'({product}): set batch_size to {valid}, or change the mesh'
        )
    indices = batch_sharding(mesh).addressable_devices_indices_map((batch_size,))
    bounds = sorted({index[0].indices(batch_size)[:2] for index in indices.values()})
    for (_, stop), (start, _) in itertools.pairwise(bounds):
        # make_mesh orders the devices so; a mesh made otherwise would mix up the rows in silence.
        assert stop == start, f'rows of this process are not contiguous: {bounds}'
    return slice(bounds[0][0], bounds[-1][1])


def global_array(mesh: Mesh, rows_tree, batch_size: int):
    """Global arrays of a batch, each process giving its own rows.

    Args:
        mesh: of `make_mesh`.
        rows_tree: tree of numpy arrays, leading axis the rows that `process_rows` names.
        batch_size: rows of the global batch.

    Returns:
        The tree with jax.Arrays of batch_size rows, laid out by `batch_sharding`.
    """
    sharding = batch_sharding(mesh)
    return jax.tree.map(
        lambda rows: jax.make_array_from_process_local_data(
            sharding, rows, (batch_size, *rows.shape[1:])
        ),
        rows_tree,
    )
