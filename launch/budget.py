"""What a train step costs on devices that need not be there: memory, arithmetic, communication."""

import time
from typing import NamedTuple

import jax
import numpy as np

from launch import collectives, hlo, step_program, work


class Budget(NamedTuple):
    """All of one device and one step, unless said; bytes, operations, seconds.

    parameters: number of trained ones, over all devices. state: {'parameters', 'optimizer',
    'frozen': bytes}, exact. temporary: what the program needs besides: activations, gradients.
    code: of the program. total: all of it; None where the compiler gave up. memory: of the device.
    flops: of matrix products. kernels: custom kernels whose operations are not counted. traffic:
    with the main memory. collectives: [collectives.Traffic]. loops: names of loops of unknown
    length. seconds: {'compute', 'memory', 'wires', 'network'}, each at the best that the chip can;
    {} where no table has it. model_flops: without what is computed twice, a device's share.
    tokens: of a step, over all devices. compile_seconds: how long the compiler took. refused: what
    it said when the program did not fit.
    """

    parameters: int
    state: dict
    temporary: float
    code: float
    total: float | None
    memory: float | None
    flops: float
    kernels: dict
    traffic: float
    collectives: list
    loops: list
    seconds: dict
    model_flops: float
    tokens: int
    compile_seconds: float
    refused: str = ''

    @property
    def fits(self):
        """Whether it is less than the device has; where that is unknown, whether it compiled."""
        if self.refused or self.total is None:
            return False
        return self.memory is None or self.total <= self.memory

    @property
    def bound(self):
        """Seconds that a step takes at least: what is slowest, all else hidden behind it."""
        return max(self.seconds.values(), default=None)


def make(step, topology):
    """The Budget of a train step.

    Args:
        step: step_program.Step on the topology's devices. topology: topology.Topology.
    """
    devices = step.mesh.size
    sizes = {
        'parameters': step_program.bytes_on_a_device(step.state['params']),
        'optimizer': step_program.bytes_on_a_device(
            {name: part for name, part in step.state.items() if name != 'params'}
        ),
        'frozen': step_program.bytes_on_a_device(step.frozen),
    }
    known = {
        'parameters': sum(x.size for x in jax.tree.leaves(step.state['params'])),
        'state': sizes,
        'memory': topology.memory,
        'model_flops': step.model_flops / devices,
        'tokens': step.batch_size * step.learner.objective.window_length(),
    }
    nothing = {
        'temporary': 0.0, 'code': 0.0, 'flops': 0.0, 'kernels': {}, 'traffic': 0.0,
        'collectives': [], 'loops': [], 'seconds': {},
    }  # fmt: skip
    if topology.memory and sum(sizes.values()) > topology.memory:
        said = 'parameters and optimizer alone are more than a device has'
        return Budget(
            **known, **nothing, total=float(sum(sizes.values())), compile_seconds=0.0, refused=said
        )
    began = time.time()
    try:
        compiled = step_program.compile_step(step)
    except step_program.OutOfMemory as error:
        took = time.time() - began
        return Budget(
            **known, **nothing, total=error.needed, compile_seconds=took, refused=str(error)
        )
    took = time.time() - began
    program = hlo.parse(compiled.as_text())
    runs = hlo.runs(program)
    slices = np.array([getattr(d, 'slice_index', 0) or 0 for d in step.mesh.devices.flat])
    ids = [device.id for device in step.mesh.devices.flat]
    traffic = collectives.collect(
        program, runs.times, dict(step.mesh.shape), slices if slices.any() else None, ids
    )
    flops, kernels = work.flops(program, runs.times)
    moved = work.memory_bytes(program, runs.times)
    used = compiled.memory_analysis()
    code = used.generated_code_size_in_bytes
    total = used.argument_size_in_bytes + used.temp_size_in_bytes + code
    total += used.output_size_in_bytes - used.alias_size_in_bytes
    return Budget(
        **known,
        temporary=float(used.temp_size_in_bytes),
        code=float(code),
        total=float(total),
        flops=flops,
        kernels=kernels,
        traffic=moved,
        collectives=traffic,
        loops=runs.unknown,
        seconds=_seconds(topology.chip, flops, moved, traffic),
        compile_seconds=took,
    )


def _seconds(chip, flops, moved, traffic):
    """What each part of the chip needs by itself."""
    if chip is None:
        return {}
    seconds = {'compute': flops / chip.flops, 'memory': moved / chip.bandwidth}
    seconds['wires'] = sum(each.sent - each.between for each in traffic) / chip.wires
    between = sum(each.between for each in traffic)
    if between and chip.network:
        seconds['network'] = between / chip.network
    return seconds


def record(made):
    """A Budget as JSON takes it."""
    facts = made._asdict() | {'fits': made.fits, 'bound': made.bound}
    return facts | {'collectives': [each._asdict() for each in made.collectives]}
