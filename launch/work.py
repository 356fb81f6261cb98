"""What a compiled program does on one device: arithmetic, and traffic with the main memory."""

import re

from launch import collectives

# These move nothing by themselves: names for parts of what others made, or control.
FREE = {
    'parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast', 'while', 'conditional',
    'call', 'after-all', 'partition-id', 'replica-id', 'opt-barrier', 'copy-done', 'async-start',
    'async-update', 'async-done', 'iota',
}  # fmt: skip
SLICES = ('dynamic-slice', 'slice', 'gather')


def flops(program, times):
    """Floating-point operations of the matrix products that a call of the program makes.

    Everything else (norms, softmax, the optimizer) is bound by memory, and counts nothing.

    Args:
        program: hlo.Program. times: hlo.Runs.times.

    Returns:
        (operations, {target of a custom call: how often it runs}): kernels that bring their own
        code, whose operations are not known here and not counted.
    """
    total, kernels = 0.0, {}
    for name, count in times.items():
        for each in program.computations.get(name, {}).values():
            if each.opcode == 'dot':
                total += count * _dot(program.computations[name], each)
            elif each.opcode == 'convolution':
                total += count * _convolution(program.computations[name], each)
            elif each.opcode == 'custom-call' and _is_kernel(each):
                target = _target(each)
                kernels[target] = kernels.get(target, 0) + count
    return total, kernels


def _target(each):
    found = re.search(r'custom_call_target="([^"]*)"', each.attributes)
    return found[1] if found else ''


def _is_kernel(each):
    return any(word in _target(each) for word in ('gemm', 'matmul', 'conv', 'fmha', 'custom_call'))


def _dims(computation, each, operand):
    return computation[each.operands[operand]].shapes[0].dims


def _dot(computation, each):
    lhs = _dims(computation, each, 0)
    found = re.search(r'lhs_contracting_dims=\{([\d,]*)\}', each.attributes)
    contracted = 1
    for axis in found[1].split(',') if found and found[1] else ():
        contracted *= lhs[int(axis)]
    return 2.0 * each.shapes[0].size * contracted


def _convolution(computation, each):
    """TPUs compute products of matrices as convolutions; holes and padding are not multiplied."""
    lhs, rhs, out = re.search(r'dim_labels=([\w?]+)_([\w?]+)->([\w?]+)', each.attributes).groups()
    inputs, kernel = _dims(computation, each, 0), _dims(computation, each, 1)
    result = each.shapes[0].dims
    groups = int(each.attribute('batch_group_count') or 1)
    total = 2.0 * inputs[lhs.index('b')] / groups
    total *= result[out.index('f')] * kernel[rhs.index('i')]
    window = _window(each.attributes)
    for axis in range(len(lhs) - 2):
        label = str(axis)
        at = lambda key, default, axis=axis: window[key][axis] if key in window else default  # noqa: E731
        low = at('pad', (0, 0))[0]
        total *= _pairs(
            inputs[lhs.index(label)], kernel[rhs.index(label)], result[out.index(label)],
            at('stride', 1), low, at('lhs_dilate', 1), at('rhs_dilate', 1),
        )  # fmt: skip
    return total


def _window(attributes):
    """{'size': [2, 1], 'pad': [(0, 1), (0, 0)], ...}."""
    found = re.search(r'window=\{([^}]*)\}', attributes)
    window = {}
    for part in found[1].split() if found else ():
        key, _, value = part.partition('=')
        values = value.split('x')
        if key == 'pad':
            window[key] = [tuple(int(n) for n in v.split('_')) for v in values]
        elif key in ('size', 'stride', 'lhs_dilate', 'rhs_dilate'):
            window[key] = [int(v) for v in values]
    return window


def _pairs(size, kernel, out, stride, low, lhs_dilate, rhs_dilate):
    """How many pairs of an output place and a kernel place meet a real input."""
    count = 0
    for k in range(kernel):
        for o in range(out):
            at = o * stride - low + k * rhs_dilate
            count += at % lhs_dilate == 0 and 0 <= at // lhs_dilate < size
    return count


def memory_bytes(program, times):
    """Bytes that a call of the program reads from and writes to the device's main memory.

    Each instruction that is not inside a fusion reads its operands and writes its result; where it
    only takes slices of an operand, or changes a slice of it in place, the slices count.

    Args:
        program: hlo.Program. times: hlo.Runs.times.
    """
    fused = {
        called
        for computation in program.computations.values()
        for each in computation.values()
        if each.opcode == 'fusion'
        for called in each.called
    }
    carried = {name for _, name in collectives.carried_on(program)}
    return sum(
        count * _traffic(program, program.computations[name], each, carried)
        for name, count in times.items()
        if name in program.computations and name not in fused
        for each in program.computations[name].values()
        if each.opcode not in FREE and not each.opcode.endswith('-done')
    )


def _traffic(program, computation, each, carried):
    """Bytes of one instruction; `carried` are the collectives that others have begun."""
    operands = [_in_memory(computation[o].shapes) for o in each.operands if o in computation]
    written = _in_memory(each.shapes)
    if each.opcode in ('copy-start', 'slice-start'):  # their results: what is read, and the copy
        ends = each.shapes[:2]
        return min(shape.bytes for shape in ends) * sum(shape.space == 0 for shape in ends)
    if each.opcode.endswith('-start'):  # its result names the operand too
        return written
    if each.opcode in SLICES:
        return 2 * written
    if each.opcode == 'dynamic-update-slice':
        return 2 * operands[1]
    if each.opcode != 'fusion':
        return written + sum(operands)
    body = program.computations[each.called[0]]
    if '"AsyncCollectiveDone"' in body[program.roots[each.called[0]]].attributes:
        return 0.0
    made, touched = _outputs(body, body[program.roots[each.called[0]]], each.shapes, carried)
    return made + sum(
        _read(body, part, operands[int(part.arguments)])
        for part in body.values()
        if part.opcode == 'parameter' and part.name not in touched
    )


def _in_memory(shapes):
    return sum(shape.bytes for shape in shapes if shape.space == 0)


def _outputs(body, root, shapes, carried):
    """(bytes that a fusion writes, names of its parameters that it changes in place)."""
    made = [root] * len(shapes)
    if root.opcode == 'tuple':
        made = [body[name] for name in root.operands]
    written, touched = 0.0, set()
    for each, shape in zip(made, shapes):
        if each.opcode == 'parameter' or each.name in carried:  # passed on as it is
            touched.add(each.name)
            continue
        while each.opcode in ('bitcast', 'copy', 'convert') and each.operands[0] in body:
            each = body[each.operands[0]]
        if each.opcode == 'dynamic-update-slice':
            touched.add(each.operands[0])
            shape = shape._replace(dims=body[each.operands[1]].shapes[0].dims)
            written += 2 * _in_memory([shape])
        else:
            written += _in_memory([shape])
    return written, touched


def _read(body, part, whole):
    """Bytes that a fusion reads of the parameter `part`, which has `whole` bytes."""
    users = [user for user in body.values() if part.name in user.operands]
    if whole and users and all(user.opcode in SLICES for user in users):
        return min(whole, sum(user.shapes[0].bytes for user in users))
    return whole
