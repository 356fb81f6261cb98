"""A mesh of devices from one short string: which axes there are, and which device lies where.

| axis | batch rows | length | parameters and optimizer state |
|---|---|---|---|
| data | split | whole | copied |
| fsdp | split | whole | split, gathered layer by layer when used (fully sharded data parallel) |
| tensor | copied | whole | split, and the computation with them (Megatron, Shoeybi et al. 2019) |
| sequence | copied | split; keys and values gathered (context parallel) | copied |

Groups of devices that lie far apart (the slices of a TPU system, the nodes of a GPU cluster) split
`data` first, because it talks least, then `fsdp`, `sequence` and `tensor`.
"""

import difflib
import math
import re

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from pretrain.errors import UserError

AXES = ('data', 'fsdp', 'tensor', 'sequence')
BATCH_AXES = ('data', 'fsdp')


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
    grid = _device_grid(tuple(sizes.values()), devices, text)
    return Mesh(grid, AXES, (AxisType.Auto,) * len(AXES))


def _fill(sizes, count, text):
    """Replaces the -1 so that the product of the sizes is the number of devices."""
    open_axis = next((axis for axis, size in sizes.items() if size == -1), None)
    fixed = math.prod(size for size in sizes.values() if size != -1)
    if open_axis and count % fixed == 0:
        return sizes | {open_axis: count // fixed}
    if fixed == count:
        return sizes

    given = [f'{axis}={size}' for axis, size in sizes.items() if size > 1]
    product = f'{" x ".join(given)} = {fixed}' if len(given) > 1 else f'{fixed}'
    if open_axis:
        problem = f'sizes that make {product}, which does not divide the {count} devices'
    else:
        problem = f'sizes for {product} devices, but there are {count}'
    raise UserError(f'mesh={text!r} gives {problem}: {_mend(sizes, open_axis, fixed, count)}')


def _mend(sizes, open_axis, fixed, count):
    """The one axis that can be changed least to make the mesh fit, and to what; else several."""
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
    if mends:
        axis, size = min(mends, key=lambda mend: abs(math.log(mend[1] / sizes[mend[0]])))
        return f'set {axis}={size}'
    named = [axis for axis, size in sizes.items() if size > 1]
    near = _nearest(tuple(sizes[axis] for axis in named), count, open_axis is not None)
    return 'set ' + ','.join(f'{axis}={size}' for axis, size in zip(named, near))


def _nearest(sizes, count, divides):
    """Sizes whose product is `count`, or divides it, each the nearest that it can be."""
    divisors = [n for n in range(1, count + 1) if count % n == 0]
    if not sizes[1:]:
        fitting = divisors if divides else [count]
        return (min(fitting, key=lambda n: abs(math.log(n / sizes[0]))),)
    every = [(n, *_nearest(sizes[1:], count // n, divides)) for n in divisors]
    off = lambda near: sum(abs(math.log(n / size)) for n, size in zip(near, sizes))  # noqa: E731
    return min(every, key=off)


def _device_grid(shape, devices, text):
    """Devices in the order that suits their wires, an array of the mesh's shape."""
    options = {'devices': devices, 'allow_split_physical_axes': True}
    slices = len({getattr(device, 'slice_index', 0) for device in devices})
    try:
        if slices == 1:
            return mesh_utils.create_device_mesh(shape, **options)
        outer = _over_slices(shape, slices, text)
        inner = tuple(size // split for size, split in zip(shape, outer))
        return mesh_utils.create_hybrid_device_mesh(inner, outer, **options)
    except (AssertionError, NotImplementedError):
        # What JAX says of wires it has no order for, as of a TPU v4 seen as two cores a chip.
        order = ('slice_index', 'process_index', 'id')
        devices = sorted(devices, key=lambda device: [getattr(device, a, 0) or 0 for a in order])
        return np.array(devices, dtype=object).reshape(shape)


def _over_slices(shape, slices, text):
    """Into how many parts each axis is split over slices, the axis that talks least first."""
    outer, left = [1] * len(shape), slices
    for axis in ('data', 'fsdp', 'sequence', 'tensor'):
        i = AXES.index(axis)
        outer[i] = math.gcd(shape[i], left)
        left //= outer[i]
    if left > 1:
        raise UserError(
            f'mesh={text!r}: the devices are {slices} slices, which no axes can be split into: '
            f'set data={slices}'
        )
    return tuple(outer)
