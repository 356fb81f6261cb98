"""The communication of a compiled program: kinds, counts, bytes, and along which mesh axes."""

import re
from typing import NamedTuple

import numpy as np

KINDS = (
    'all-gather', 'all-reduce', 'reduce-scatter', 'all-to-all', 'collective-permute',
    'collective-broadcast', 'ragged-all-to-all',
)  # fmt: skip
# What goes between TPU slices is compiled into transfers to the host, which name what they are of.
BETWEEN = {'ONE_TO_ONE': 'collective-permute'}  # others are spelt as XLA's: ALL_REDUCE


class Traffic(NamedTuple):
    """All collectives of one kind along one set of axes in a call of the program, of one device.

    kind: XLA's name. axes: 'fsdp', or 'data+fsdp' for groups whose members differ in both. count:
    how many run. payload: bytes of the arrays that are put together or added up, whole. sent: bytes
    that a device must send at least. between: the part of them that must leave its slice.
    """

    kind: str
    axes: str
    count: float
    payload: float
    sent: float
    between: float


def collect(program, times, mesh_shape, slices=None, ids=None):
    """The collectives of a program, added up by kind and axes.

    Args:
        program: hlo.Program. times: hlo.Runs.times.
        mesh_shape: {axis: size}, in the order in which the devices are numbered.
        slices: the slice of each device in that order; None: one slice.
        ids: JAX's number of each device in that order; None: as they come.

    Returns:
        [Traffic], the one that sends most first.
    """
    sums, carried = {}, carried_on(program)
    devices = int(np.prod(list(mesh_shape.values())))
    # A program for several TPU slices numbers the devices of one of them.
    numbered = np.arange(devices)
    if slices is not None and program.partitions < devices:
        numbered = np.flatnonzero(slices == slices[0])
    places = {number: place for place, number in enumerate(range(devices) if ids is None else ids)}
    for name, count in times.items():
        computation = program.computations.get(name, {})
        for each in computation.values():
            kind = each.opcode.removesuffix('-start')
            written = re.search(r'_xla_megascale_transfer_type="(\w+)"', each.attributes)
            if kind == 'send' and written:
                kind = BETWEEN.get(written[1], written[1].lower().replace('_', '-'))
                groups = np.vectorize(places.__getitem__)(_targets(each))
                operand = computation[each.operands[0]].shapes[0].bytes
            elif kind in KINDS and (name, each.name) not in carried:
                if kind == 'all-reduce' and _scatters(name):
                    kind = 'reduce-scatter'
                groups = numbered[_groups(each, len(numbered))]
                operand = sum(computation[o].shapes[0].bytes for o in each.operands)
            else:
                continue
            payload, sent, between = _bytes(kind, operand, groups, slices)
            if not sent:  # groups of one device
                continue
            key = kind, _axes(groups, mesh_shape)
            found = sums.setdefault(key, [0.0, 0.0, 0.0, 0.0])
            for i, value in enumerate((1, payload, sent, between)):
                found[i] += count * value
    traffic = [Traffic(*key, *values) for key, values in sums.items()]
    return sorted(traffic, key=lambda each: -each.sent)


def carried_on(program):
    """{(name of a computation, of an instruction)}: collectives that have begun somewhere else.

    On some TPUs a collective runs beside a chain of fusions: it stands, with the same channel, in
    the one that begins it, in each that goes on with it, and in the one that waits for its end.

    Args:
        program: hlo.Program.
    """
    found, begun = {}, set()
    for name, computation in program.computations.items():
        begins = any('"AsyncCollectiveStart"' in each.attributes for each in computation.values())
        for each in computation.values():
            channel = each.attribute('channel_id')
            if channel and each.opcode.removesuffix('-start') in KINDS:
                if begins:
                    begun.add(channel)
                else:
                    found[name, each.name] = channel
    return {place for place, channel in found.items() if channel in begun}


def _scatters(computation):
    """TPUs keep a reduce-scatter as a fusion that adds up and takes a slice."""
    return computation.startswith('all-reduce-scatter')


def _groups(each, devices):
    """Which devices talk to each other: an int array, a row a group.

    XLA writes groups in four ways: as lists, {{0,1},{2,3}}; as a range, [2,2]<=[4] or, transposed,
    [2,2]<=[2,2]T(1,0); by axes of a mesh of its own, mesh['a'=2,'b'=2] {'b'}; as pairs.

    Raises:
        ValueError: they are written in yet another way.
    """
    pairs = re.search(r'source_target_pairs=\{(.*?\})\}', each.attributes)
    if pairs:
        return np.array(re.findall(r'\{(\d+),(\d+)\}', pairs[1]), int)
    if 'replica_groups=' not in each.attributes:
        return np.arange(devices)[None]
    written = each.attributes.partition('replica_groups=')[2]
    if written.startswith('{}'):
        return np.arange(devices)[None]
    listed = re.match(r'\{(\{[\d,]+\}(?:,\{[\d,]+\})*)\}', written)
    if listed:
        return np.array([_numbers(group) for group in re.findall(r'\{([\d,]+)\}', listed[1])])
    ranged = re.match(r'\[([\d,]+)\]<=' + RANGE, written)
    if ranged:
        return _range(*ranged.groups()[1:]).reshape(_numbers(ranged[1]))
    named = re.match(rf'mesh\[(.*?)\](?:, device_ids=\({RANGE}\))? \{{(.*?)\}}', written)
    if named:
        sizes, dims, order, chosen = named.groups()
        sizes = {axis: int(size) for axis, size in re.findall(r"'([^']+)'=(\d+)", sizes)}
        numbers = _range(dims, order) if dims else np.arange(np.prod(list(sizes.values())))
        return _of_mesh(numbers, sizes, chosen)
    raise ValueError(f'groups of devices that cannot be read: {written[:80]}')


def _targets(each):
    """The groups of a transfer between slices, or its pairs, of JAX's numbers of the devices.

    A device's number is 100,000 times its slice, from 1, and its place there. They stand as
    {{100000,200000},{100001,200001}}, as {{100000->200000}}, or short, "{1,2}x{0:1}".

    Raises:
        ValueError: they are written in yet another way.
    """
    written = each.attributes.partition('_xla_megascale_target=')[2]
    short = re.match(r'"\{([\d,]+)\}x\{(\d+):(\d+)\}"', written)
    if short:
        first, last = int(short[2]), int(short[3])
        return np.array([[100_000 * s + i for s in _numbers(short[1])]
                         for i in range(first, last + 1)])  # fmt: skip
    listed = re.match(r'\{(\{[\d,>-]+\}(?:,\{[\d,>-]+\})*)\}', written)
    if listed:
        groups = re.findall(r'\{([^}]+)\}', listed[1])
        return np.array([_numbers(group.replace('->', ',')) for group in groups])
    raise ValueError(f'a transfer between slices that cannot be read: {written[:80]}')


RANGE = r'\[([\d,]+)\](?:T\(([\d,]+)\))?'


def _numbers(text):
    return [int(n) for n in text.split(',')]


def _range(dims, order):
    numbers = np.arange(np.prod(_numbers(dims))).reshape(_numbers(dims))
    return numbers.transpose(_numbers(order)) if order else numbers


def _of_mesh(numbers, sizes, chosen):
    """Groups along the axes `chosen`: "'b'", or a part of one, "'b':(2)4": 4 after the first 2."""
    shape, inside = [], []
    parts = {axis: (int(before), int(size)) for axis, before, size in
             re.findall(r"'([^']+)':\((\d+)\)(\d+)", chosen)}  # fmt: skip
    whole = re.findall(r"'([^']+)'(?!:)", chosen)
    for axis, size in sizes.items():
        if axis in parts:
            before, own = parts[axis]
            shape += [before, own, size // before // own]
            inside += [False, True, False]
        else:
            shape.append(size)
            inside.append(axis in whole)
    order = [i for i in range(len(shape)) if not inside[i]] + [
        i for i in range(len(shape)) if inside[i]
    ]
    members = int(np.prod([shape[i] for i in range(len(shape)) if inside[i]]))
    return numbers.reshape(shape).transpose(order).reshape(-1, members)


def _axes(groups, mesh_shape):
    """The names of the axes along which the members of a group differ."""
    shape = tuple(mesh_shape.values())
    places = np.stack(np.unravel_index(groups, shape), -1)
    differ = (places != places[:, :1]).any((0, 1))
    return '+'.join(axis for axis, moves in zip(mesh_shape, differ) if moves)


def _bytes(kind, operand, groups, slices):
    """(payload, sent, between) of one collective; the least that any way of doing it must send."""
    if kind == 'collective-permute':
        moves = groups[groups[:, 0] != groups[:, 1]]
        if not len(moves):
            return 0.0, 0.0, 0.0
        across = slices is not None and (slices[moves[:, 0]] != slices[moves[:, 1]]).any()
        return operand, operand, operand if across else 0.0
    n = groups.shape[1]
    if n == 1:
        return 0.0, 0.0, 0.0
    parts = 1 if slices is None else max(len(set(slices[group])) for group in groups)
    each_slice = n // parts
    payload = operand * n if kind == 'all-gather' else operand
    rounds = 2 if kind == 'all-reduce' else 1
    sent = rounds * payload * (n - 1) / n
    between = rounds * payload * (parts - 1) / parts
    if not kind.endswith('all-to-all'):  # there each has its own to send, else its slice shares one
        between /= each_slice
    return payload, sent, between
