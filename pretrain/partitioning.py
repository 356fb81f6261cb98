"""Which part of the train state, of a batch and of an activation lies on which device.

Two short tables say it: RULES for the parameters by their paths, DIMENSIONS for the activations by
the names of their dimensions. XLA finds the communication. The axes are those of meshes.py.
"""

import functools
import math
import re

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from pretrain.errors import UserError
from pretrain.meshes import BATCH_AXES

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

ANYWHERE = 'anywhere'
# The axes that split the dimensions of an activation, by their names in the names of arrays; what
# has no line here is whole on every device: the width D, and the length S of keys and values.
DIMENSIONS = {
    'B': BATCH_AXES,
    'L': 'sequence',
    'T': 'sequence',
    'H': 'tensor',
    'G': 'tensor',
    'F': 'tensor',
    'V': 'tensor',
    'K': ANYWHERE,  # predicted positions lie as the objective has taken them from L
}


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


def laid(x, dimensions):
    """An activation, laid on the mesh that is set (`jax.set_mesh`) by what its dimensions are.

    XLA guesses most placements well and a few badly, and one bad guess gathers a whole batch on
    every device; so the model says at a few places how its activations lie.

    Args:
        x: array.
        dimensions: their names as they stand in the names of arrays: 'BxLxD' of `x_BxLxD`.

    Returns:
        x, placed by DIMENSIONS; as it was where no mesh is set, or one of one device. A dimension
        that its axes do not divide is left to XLA.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return x
    axes = [DIMENSIONS.get(name) for name in dimensions.split('x')]
    for i, (size, axis) in enumerate(zip(x.shape, axes, strict=True)):
        names = axis if isinstance(axis, tuple) else (axis,)
        if axis == ANYWHERE or size % math.prod(mesh.shape[a] for a in names if a):
            axes[i] = P.UNCONSTRAINED
    return jax.lax.with_sharding_constraint(x, P(*axes))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def gathered(parameter, name):
    """A parameter as a device computes with it, together again along `fsdp`; its gradient: `kept`.

    Args:
        parameter: of one layer. name: its path.

    Returns:
        parameter; as it was where no mesh is set.
    """
    return _one_layer(parameter, name, lambda axis: None if axis == 'fsdp' else axis)


def kept(gradient, name):
    """The gradient of a parameter of one layer, each device with its part. Arguments as above."""
    return _one_layer(gradient, name, lambda axis: axis)


gathered.defvjp(
    lambda parameter, name: (gathered(parameter, name), None),
    # Each device's rows are added up whole before the parts are kept; told of the parts alone, XLA
    # gathers the rows of all devices instead.
    lambda name, _, gradient: (kept(gathered(gradient, name), name),),
)


def _one_layer(x, name, axis):
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return x
    spec, _ = _fit(mesh, name.replace('/layers/', '/'), x.shape)
    return jax.lax.with_sharding_constraint(x, P(*map(axis, spec)))


def laid_by_rows(tree):
    """Arrays with a row for each window of the batch, laid as the batch is: each row is whole.

    Args:
        tree: of arrays Bx..., inside a jitted function.

    Returns:
        The tree; as it was where no mesh is set.
    """
    return jax.tree.map(lambda x: laid(x, 'x'.join('B' + '1' * (x.ndim - 1))), tree)


def laid_as_parameters(tree):
    """Gradients, laid where their parameters lie: a sum over devices then ends in its shards.

    Args:
        tree: as the parameters, inside a jitted function.

    Returns:
        The tree; as it was where no mesh is set.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return tree

    def place(key_path, x):
        spec, _ = _fit(mesh, _path(key_path), x.shape)
        return jax.lax.with_sharding_constraint(x, spec)

    return jax.tree_util.tree_map_with_path(place, tree)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows (the leading axis) split over data and fsdp, the other axes whole."""
    return NamedSharding(mesh, P(BATCH_AXES))


def batch_shards(mesh: Mesh) -> int:
    """Into how many parts the rows of a batch are split."""
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


@functools.lru_cache
def process_rows(mesh: Mesh, batch_size: int) -> np.ndarray:
    """The rows of a global batch that this process must supply.

    Processes that share a batch shard (tensor parallel over hosts) each supply its rows.

    Args:
        mesh: of `make_mesh`.
        batch_size: rows of the global batch.

    Returns:
        Their numbers, int array in rising order: one run of rows, or on a torus, whose wires decide
        which chips are neighbours, several.

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
    own = {row for (index,) in indices.values() for row in range(*index.indices(batch_size))}
    rows = np.array(sorted(own))
    rows.setflags(write=False)  # all callers are given the same array
    return rows


def global_array(mesh: Mesh, rows_tree, batch_size: int):
    """Global arrays of a batch, each process giving its own rows.

    Args:
        mesh: of `make_mesh`.
        rows_tree: tree of numpy arrays, leading axis the rows that `process_rows` names.
        batch_size: rows of the global batch.

    Returns:
        The tree with jax.Arrays of batch_size rows, laid out by `batch_sharding`.
    """
    sharding, own = batch_sharding(mesh), process_rows(mesh, batch_size)

    def place(rows):
        def shard(index):
            first, last, _ = index[0].indices(batch_size)
            return rows[slice(*np.searchsorted(own, (first, last)))]

        return jax.make_array_from_callback((batch_size, *rows.shape[1:]), sharding, shard)

    return jax.tree.map(place, rows_tree)


def check_batch(mesh, batch_size, parts):
    """Refuses a batch that does not divide into its parts and over the mesh.

    Args:
        mesh: of `make_mesh`. batch_size: rows of the global batch. parts: it is worked off in.

    Raises:
        UserError: it does not; a size that does is named.
    """
    shards = batch_shards(mesh)
    fits = -(-batch_size // (parts * shards)) * parts * shards
    if batch_size % parts:
        raise UserError(
            f'batch_size={batch_size} is not divisible by accumulation={parts}: '
            f'set batch_size={fits}, or another accumulation'
        )
    if parts > 1 and batch_size // parts % shards:
        raise UserError(
            f'batch_size={batch_size} in accumulation={parts} parts makes parts of '
            f'{batch_size // parts} windows, which the mesh cannot split into {shards}: '
            f'set batch_size={fits}'
        )
    process_rows(mesh, batch_size)
