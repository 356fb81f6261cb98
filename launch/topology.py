"""Devices by name: TPU slices that are not there, and the CPU or GPU that is.

The TPU compiler comes with the package libtpu and runs on any machine; its devices are
descriptions, which a program can be compiled for and not run on.
"""

import contextlib
import difflib
import importlib.util
import os
import re
from typing import NamedTuple

import jax

from launch import shapes
from launch.chips import CHIPS, Chip
from launch.shapes import ALIASES, SHAPES
from pretrain.errors import UserError

MOST_HERE = 4096  # JAX makes as many CPU devices as it is told, and each takes its time
CORES = {'v4': 2, 'v5p': 2}  # what Cloud TPU counts in names like v5p-128; else chips


class Topology(NamedTuple):
    """name: 'v5p:4x4x8', with '2*' before it for two slices. devices: of JAX, or descriptions of
    devices. chip: what they can do; None where no table says. memory: bytes of one; None: unknown.
    """

    name: str
    devices: list
    chip: Chip | None
    memory: float | None


def find(name):
    """The Topology of a name.

    Args:
        name: 'v5p:4x4x8', 'v5p-128' (as Cloud TPU counts), '2*v5e:16x16' (two slices), 'cpu:8' or
            'gpu:1' (devices of this machine).

    Raises:
        UserError: there is no such topology, or no compiler for it.
    """
    text = name.strip().lower()
    here = re.fullmatch(r'(cpu|gpu):([1-9]\d*)', text)
    if text.startswith(('cpu', 'gpu')) and (not here or int(here[2]) > MOST_HERE):
        raise UserError(
            f'--topology={name!r}: write cpu:N or gpu:N for N devices of this machine, 1 to '
            f'{MOST_HERE}'
        )
    if here:
        return _local(here[1], int(here[2]))
    slices, star, one = text.rpartition('*')
    if star and not re.fullmatch(r'[1-9]\d*', slices):
        raise UserError(f"--topology={name!r}: before * stands a number of slices, as in '2*{one}'")
    generation, shape = _shape(one, name)
    devices = _described(f'{generation}:{shape}', int(slices or 1), name)
    chip = CHIPS.get(devices[0].device_kind)
    many = f'{slices}*' if slices else ''
    return Topology(f'{many}{generation}:{shape}', devices, chip, chip and chip.memory)


def _shape(text, name):
    """('v5p', '4x4x8') of 'v5p:4x4x8' or 'v5p-256'."""
    found = re.fullmatch(r'(\w+?)(?::(\d{1,5}(?:x\d{1,5})+)|-(\d{1,6}))', text)
    generation = found[1] if found else text.split(':')[0].split('-')[0]
    generation = ALIASES.get(generation, generation)
    count = re.fullmatch(r'\w+:(\d{1,6})', text)
    if generation in SHAPES and count:  # chips, as one says cpu:4
        near = shapes.nearest(generation, int(count[1]))
        raise UserError(f'--topology={name!r} names no sides: did you mean {generation}:{near}?')
    if generation not in SHAPES or not found:
        near = difflib.get_close_matches(generation, SHAPES, 1, 0.5) or ['v5e']
        asked = shapes.chips(found[2]) if found and found[2] else int(found[3]) if found else 16
        raise UserError(
            f'--topology={name!r} is none of {", ".join(SHAPES)}, cpu, gpu: did you mean '
            f'{near[0]}:{shapes.nearest(near[0], asked)}?'
        )
    if found[3]:
        count = int(found[3]) / CORES.get(generation, 1)
        fitting = [shape for shape in SHAPES[generation] if shapes.chips(shape) == count]
        if fitting:
            return generation, fitting[0]
    elif shapes.exists(generation, found[2]):
        return generation, found[2]
    else:
        count = shapes.chips(found[2])
    near = shapes.nearest(generation, count)
    raise UserError(f'--topology={name!r} is no {generation}: the nearest is {generation}:{near}')


def _described(shape, slices, name):
    """Descriptions of the devices of TPU slices."""
    if importlib.util.find_spec('libtpu') is None:
        raise UserError(
            f'--topology={name!r} needs the TPU compiler, which is not installed: '
            "pip install 'pretraining-objectives[tpu]', or pip install libtpu"
        )
    from jax.experimental import topologies

    # The compiler looks for the machine that it runs on; these spare it the search.
    os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')
    os.environ.setdefault('TPU_ACCELERATOR_TYPE', 'v5litepod-16')
    os.environ.setdefault('TPU_WORKER_HOSTNAMES', 'localhost')
    # It lets one process at a time use the machine's TPUs; here nobody uses any.
    os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')
    options = {}
    if shape.startswith('v4:'):
        options['chip_config_name'] = 'megacore'  # a chip is one device, as on Cloud TPU
    if shape.endswith(':1x1'):
        options['chips_per_host_bounds'] = (1, 1, 1)
    if slices > 1:
        options['num_slices'] = slices
    try:
        return topologies.get_topology_desc(platform='tpu', topology_name=shape, **options).devices
    except Exception as error:
        said = str(error).splitlines()[0]
        raise UserError(f'--topology={name!r}: the TPU compiler refuses it: {said}') from None


def _local(platform, count):
    """Devices of this machine."""
    if platform == 'cpu':
        # Before the first device is used; a program that already has devices keeps its own.
        with contextlib.suppress(RuntimeError):
            jax.config.update('jax_num_cpu_devices', count)
    try:
        devices = jax.devices(platform)
    except RuntimeError:
        raise UserError(f'--topology={platform}:{count}: JAX finds no {platform} here') from None
    if len(devices) < count:
        raise UserError(
            f'--topology={platform}:{count}: this machine has {len(devices)}: '
            f'give {platform}:{len(devices)}'
        )
    chip = CHIPS.get(devices[0].device_kind)
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / count
    if platform == 'gpu':
        memory = (devices[0].memory_stats() or {}).get('bytes_limit', chip and chip.memory)
    return Topology(f'{platform}:{count}', devices[:count], chip, memory)
