"""TPUs and GPUs by their names: chips, hosts, and the names that GKE has for them."""

import difflib
import math
from typing import NamedTuple

from launch import known_flags, shapes
from pretrain.errors import UserError

CHIPS_PER_HOST = 4
# A v5e or v6e of 8 chips that gcloud makes is one machine; all larger ones have 4 chips a machine.
SINGLE_HOST_CHIPS = 8


class Tpu(NamedTuple):
    """A slice of a pod.

    name: as gcloud has it, v5litepod-16. chips, hosts: of the slice. runtime: name of the image.
    """

    name: str
    chips: int
    hosts: int
    runtime: str


def tpu(name):
    """The Tpu of an accelerator type.

    Raises:
        UserError: there is none of that name; the nearest is given.
    """
    known = known_flags.table('accelerators')['tpu']
    generation, _, size = name.rpartition('-')
    row = known.get(generation)
    if row is None:
        raise UserError(f'--type={name!r} is no accelerator type: {_nearest_type(name, known)}')
    if not size.isdecimal() or not _exists(row, int(size)):
        asked = max(int(size), 1) if size.isdecimal() else 1
        near = min(_sizes(row), key=lambda known: abs(math.log(known / asked)))
        raise UserError(
            f'--type={name!r} is no size of {generation}, which counts {row["counts"]}: '
            f'did you mean {generation}-{near}?'
        )
    chips = int(size) // row['cores_per_chip']
    alone = row['counts'] == 'chips' and chips <= SINGLE_HOST_CHIPS
    hosts = 1 if alone else chips // CHIPS_PER_HOST
    return Tpu(name, chips, hosts, row['runtime'])


def _sizes(row):
    # v4 and v5p are cut in cuboids of many sizes, all of them whole hosts of 8 cores.
    return row.get('sizes') or [8 * 2**n for n in range(11)]


def _exists(row, size):
    if 'sizes' in row:
        return size in row['sizes']
    return size > 0 and size % (CHIPS_PER_HOST * row['cores_per_chip']) == 0


def _nearest_type(name, known):
    aliases = {'v5e': 'v5litepod', 'v5lite': 'v5litepod', 'v5': 'v5p', 'v6': 'v6e'}
    generation, _, size = name.rpartition('-')
    near = [aliases[generation]] if generation in aliases else []
    near = near or difflib.get_close_matches(generation or name, known, 1, 0.3) or ['v5litepod']
    sizes = _sizes(known[near[0]])
    right = size.isdecimal() and _exists(known[near[0]], int(size))
    return f'did you mean {near[0]}-{size if right else sizes[0]}?'


class Pool(NamedTuple):
    """What one node pool of GKE gives to a Job.

    labels: of its nodes. resource: name of the devices. per_node: devices of a node. nodes: of one
    slice.
    """

    labels: dict[str, str]
    resource: str
    per_node: int
    nodes: int


def tpu_pool(accelerator, topology, chips_per_node=None):
    """The Pool of a TPU slice.

    Args:
        accelerator: as GKE names it, tpu-v5-lite-podslice, or as gcloud does, v5litepod.
        topology: 4x4, or 4x4x4: chips along each axis.
        chips_per_node: of its machine type; default 4, and 1 for a single chip.

    Raises:
        UserError: there is no such accelerator, or the topology is none of it.
    """
    known = known_flags.table('accelerators')['tpu']
    names = {row['gke']: row for row in known.values() if 'gke' in row}
    row = names.get(accelerator) or known.get(accelerator, {})
    if 'gke' not in row:
        near = difflib.get_close_matches(accelerator, names, 1, 0.3)
        hint = f'did you mean {near[0]}?' if near else f'it is one of {", ".join(sorted(names))}'
        raise UserError(f'--accelerator={accelerator!r} is no TPU of GKE: {hint}')
    axes = topology.split('x')
    example = '4x4' if row['dimensions'] == 2 else '4x4x4'
    if len(axes) != row['dimensions'] or not all(a.isdecimal() and int(a) > 0 for a in axes):
        raise UserError(
            f'--topology={topology!r} is none of {row["gke"]}, which has {row["dimensions"]} axes: '
            f'for example {example}'
        )
    name = next(name for name in known if known[name] is row)
    generation = shapes.ALIASES.get(name, name)
    if not shapes.exists(generation, topology):
        near = shapes.nearest(generation, shapes.chips(topology))
        raise UserError(f'--topology={topology!r} is none of {row["gke"]}: the nearest is {near}')
    chips = shapes.chips(topology)
    per_node = chips_per_node or min(chips, CHIPS_PER_HOST)
    whole = per_node == SINGLE_HOST_CHIPS == chips and row['dimensions'] == 2  # one machine
    if chips % per_node or not (whole or per_node in (1, CHIPS_PER_HOST)) or per_node == 1 < chips:
        raise UserError(
            f'--topology={topology!r} has {chips} chips, which nodes of {per_node} do not make up: '
            f'for example {example}, with --chips_per_node=4'
        )
    labels = {
        'cloud.google.com/gke-tpu-accelerator': row['gke'],
        'cloud.google.com/gke-tpu-topology': topology,
    }
    return Pool(labels, 'google.com/tpu', per_node, chips // per_node)


def gpu_pool(accelerator, nodes, per_node):
    """The Pool of `nodes` machines with `per_node` GPUs each.

    Raises:
        UserError: GKE has no GPU of that name, or a number is not positive.
    """
    known = known_flags.table('accelerators')['gpu']
    if accelerator not in known:
        near = [name for name in known if name.startswith(accelerator)]
        near += difflib.get_close_matches(accelerator, known, 1, 0.3)
        hint = f'did you mean {near[0]}?' if near else f'it is one of {", ".join(known)}'
        raise UserError(f'--accelerator={accelerator!r} is no GPU of GKE: {hint}')
    for flag, number in (('--nodes', nodes), ('--gpus_per_node', per_node)):
        if number < 1:
            raise UserError(f'{flag}={number} must be at least 1')
    labels = {'cloud.google.com/gke-accelerator': accelerator}
    return Pool(labels, 'nvidia.com/gpu', per_node, nodes)
