"""Reads the text of a compiled XLA program: its instructions, and how often each one runs.

XLA's own analysis counts the body of a loop once. Here a loop is followed by evaluating the few
scalars that its condition depends on, so a scan over 96 layers counts 96 times.
"""

import functools
import operator
import re
from typing import NamedTuple

BYTES = {
    'pred': 1, 's4': 0.5, 'u4': 0.5, 's8': 1, 'u8': 1, 's16': 2, 'u16': 2, 's32': 4, 'u32': 4,
    's64': 8, 'u64': 8, 'f16': 2, 'bf16': 2, 'f32': 4, 'f64': 8, 'c64': 8, 'c128': 16,
    'f8e4m3fn': 1, 'f8e5m2': 1, 'f8e4m3b11fnuz': 1, 'f8e4m3': 1, 'f8e3m4': 1, 'f8e8m0fnu': 1,
    'token': 0, 'opaque': 0,
}  # fmt: skip
MOST_TURNS = 1_000_000  # of a loop that is followed
# bf16[4,128]{1,0:T(8,128)(2,1)S(1)}: the layout, and in it the space, are not always there.
SHAPE = re.compile(r'\b([a-z]\w*)\[([\d,<=]*)\](?:\{[^}S]*(?:S\((\d+)\))?[^}]*\})?')


class Shape(NamedTuple):
    """dtype: XLA's name, 'bf16'. dims: sizes, those of one device. space: 0 is the device's main
    memory, 1 a TPU's memory on the chip."""

    dtype: str
    dims: tuple[int, ...]
    space: int = 0

    @property
    def size(self):
        """Number of elements."""
        count = 1
        for size in self.dims:
            count *= size
        return count

    @property
    def bytes(self):
        """Bytes without the padding of a layout."""
        return self.size * BYTES.get(self.dtype, 4)


class Instruction(NamedTuple):
    """One line of a computation.

    shapes: of the result; several for a tuple, nested ones flattened. operands: names.
    attributes: the rest of the line. arguments: what stands in the parentheses.
    """

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    arguments: str
    attributes: str

    def attribute(self, name):
        """The word after `name=`, without a leading %; None where it is not there."""
        found = re.search(rf'\b{name}=%?([\w.-]+)', self.attributes)
        return found and found[1]

    @property
    def called(self):
        """Names of the computations that it runs once a time: fusions, calls, branches."""
        if self.opcode in ('while', 'reduce', 'all-reduce', 'reduce-scatter', 'scatter', 'sort'):
            return []
        names = re.findall(r'\b(?:calls|to_apply)=%?([\w.-]+)', self.attributes)
        for group in re.findall(r'\b(?:calls|branch_computations)=\{([^}]*)\}', self.attributes):
            names += [name.strip(' %') for name in group.split(',')]
        names += re.findall(r'\b(?:true|false)_computation=%?([\w.-]+)', self.attributes)
        return names

    @property
    def source(self):
        """The name of the operation in the program that was traced; '' without one."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found[1] if found else ''


class Program(NamedTuple):
    """computations: {name: {instruction's name: Instruction}}, in order. roots: {computation: name
    of its result}. entry: name of the computation that a call of the program runs. partitions:
    devices that its groups number; of several TPU slices those of one."""

    computations: dict[str, dict[str, Instruction]]
    roots: dict[str, str]
    entry: str
    partitions: int = 1


def parse(text):
    """The Program of the text of a compiled module (`compiled.as_text()`).

    Raises:
        ValueError: it has no entry computation.
    """
    computations, roots, entry = {}, {}, None
    current = None
    for line in text.splitlines():
        head = re.match(r'(ENTRY )?%?([\w.-]+) \(.*\) -> .*\{$', line)
        if head and not line.startswith(' '):
            current = head[2]
            computations[current] = {}
            entry = current if head[1] else entry
        elif line.startswith('}'):
            current = None
        elif current and (line.startswith('  ') and ' = ' in line):
            made = _instruction(line)
            if made:
                computations[current][made.name] = made
                if line.lstrip().startswith('ROOT '):
                    roots[current] = made.name
    if entry is None:
        raise ValueError('this text holds no compiled program: no ENTRY')
    partitions = re.search(r'^HloModule .*\bnum_partitions=(\d+)', text, re.M)
    return Program(computations, roots, entry, int(partitions[1]) if partitions else 1)


def _instruction(line):
    found = re.match(r'\s+(?:ROOT )?%?([\w.-]+) = ', line)
    if not found:
        return None
    rest = line[found.end() :]
    if rest.startswith('('):
        end = _closing(rest, 0) + 1
    else:
        end = rest.index(' ')
    shapes = tuple(
        Shape(dtype, tuple(int(n.lstrip('<=')) for n in dims.split(',') if n), int(space or 0))
        for dtype, dims, space in SHAPE.findall(rest[:end])
    )
    opened = rest.index('(', end)
    closed = _closing(rest, opened)
    arguments = rest[opened + 1 : closed]
    return Instruction(
        found[1],
        rest[end:opened].strip(),
        shapes,
        tuple(re.findall(r'%([\w.-]+)', arguments)),
        arguments,
        rest[closed + 1 :],
    )


def _closing(text, opened):
    """Where the parenthesis that opens at `opened` closes."""
    depth = 0
    for i in range(opened, len(text)):
        depth += (text[i] == '(') - (text[i] == ')')
        if not depth:
            return i
    raise ValueError(f'a parenthesis does not close: {text[opened : opened + 60]}')


class Runs(NamedTuple):
    """times: {computation: how often a call of the program runs it}. unknown: names of the loops
    whose length could not be told, which are counted once."""

    times: dict[str, float]
    unknown: list[str]


def runs(program):
    """How often each computation runs in one call of the program.

    A branch of a conditional counts as if it were always taken.

    Args:
        program: Program.

    Returns:
        Runs.
    """
    times, unknown = {}, []

    def visit(name, count):
        times[name] = times.get(name, 0) + count
        for each in program.computations.get(name, {}).values():
            if each.opcode == 'while':
                turns = trip_count(program, name, each)
                if turns is None:
                    unknown.append(each.name)
                    turns = 1
                visit(each.attribute('body'), count * turns)
            else:
                for called in each.called:
                    visit(called, count)

    visit(program.entry, 1)
    return Runs(times, unknown)


def trip_count(program, computation, loop):
    """How often the body of a loop runs; None where that depends on data.

    Args:
        program: Program. computation: name of the one in which the loop stands.
        loop: Instruction with the opcode 'while'.
    """
    known = re.search(r'known_trip_count\D*(\d+)', loop.attributes)
    if known:
        return int(known[1])
    condition, body = loop.attribute('condition'), loop.attribute('body')
    turns = 0
    try:
        state = _value(program, computation, loop.operands[0], _unknown)
        while _value(program, condition, program.roots[condition], lambda _, s=state: s):
            turns += 1
            if turns > MOST_TURNS:
                return None
            state = _value(program, body, program.roots[body], lambda _, s=state: s)
    except _Unknown:
        return None
    return turns


class _Unknown(Exception):
    """A value that depends on data."""


def _unknown(_):
    raise _Unknown


COMPARE = {
    'LT': operator.lt, 'LE': operator.le, 'GT': operator.gt, 'GE': operator.ge, 'EQ': operator.eq,
    'NE': operator.ne,
}  # fmt: skip
ARITHMETIC = {
    'add': operator.add, 'subtract': operator.sub, 'multiply': operator.mul, 'minimum': min,
    'maximum': max, 'and': operator.and_, 'or': operator.or_,
}  # fmt: skip
SAME = ('copy', 'convert', 'bitcast', 'reshape', 'broadcast', 'opt-barrier', 'copy-start',
        'copy-done')  # fmt: skip


def _value(program, computation, name, parameter):
    """What an instruction makes: an int, or for a tuple a function from an index to its element.

    Elements are computed when they are asked for, because most of them depend on data.

    Args:
        parameter: function from the number of a parameter of the computation to its value.
    """
    each = program.computations[computation].get(name)
    if each is None:
        raise _Unknown

    def operand(i):
        return _value(program, computation, each.operands[i], parameter)

    if each.opcode == 'parameter':
        return parameter(int(each.arguments))
    if each.opcode == 'constant':
        if re.fullmatch(r'-?\d+', each.arguments):
            return int(each.arguments)
        if each.arguments in ('true', 'false'):
            return int(each.arguments == 'true')
        raise _Unknown
    if each.opcode == 'tuple':
        return functools.cache(operand)
    if each.opcode == 'get-tuple-element':
        return operand(0)(int(each.attribute('index')))
    if each.opcode in SAME:
        return operand(0)
    if each.opcode in ARITHMETIC:
        return ARITHMETIC[each.opcode](operand(0), operand(1))
    if each.opcode == 'compare':
        return int(COMPARE[each.attribute('direction')](operand(0), operand(1)))
    if each.opcode in ('fusion', 'call'):
        (called,) = each.called
        return _value(program, called, program.roots[called], functools.cache(operand))
    raise _Unknown
