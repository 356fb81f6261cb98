"""Does a process take the memory that launch.plan says, on the device that is here?

    python -m benchmarks.plan_memory --config=configs/gpt.py:gpt2_355m --config.batch_size=1 \
        --config.accumulation=1 --config.model.remat=full

Plans a step for one device, then makes the state and takes two steps on it, and compares. On a CPU:
the rise of the process's resident memory, for the state, and at its peak for the step; on a GPU:
what its allocator says it holds, and held at most. The config should have a state of 2 GB or more:
beside a smaller one the libraries themselves weigh.
"""

import functools
import re
import time
from pathlib import Path

import jax
import numpy as np

from launch import budget, step_program, topology
from objectives import contract
from pretrain import commandline, partitioning, train_step

CONFIG = commandline.define_config()
GIB = 2**30


def resident(field):
    """GiB of this process by /proc: VmRSS, or VmHWM for the most that it had."""
    text = Path('/proc/self/status').read_text()
    return int(re.search(rf'{field}:\s+(\d+) kB', text)[1]) * 1024 / GIB


def held(device, most=False):
    """GiB that a device holds, or has held at most."""
    if device.platform == 'cpu':
        return resident('VmHWM' if most else 'VmRSS')
    return device.memory_stats()['peak_bytes_in_use' if most else 'bytes_in_use'] / GIB


def main(argv):
    """Plans, makes, compares."""
    del argv
    config = CONFIG.value
    config.mesh = 'data=1'
    device = jax.devices()[0]
    found = topology.find(f'{device.platform}:1')
    step = step_program.describe(config, found.devices)
    plan = budget.make(step, found)
    state_planned = sum(plan.state.values()) / GIB
    kind = f'{device.device_kind}, jax {jax.__version__}'
    print(f'{config.name} on {kind}, {step.batch_size} windows a step')

    # Compiled before the first look: the compiler's own memory is not the program's.
    update = step_program.compile_step(step)
    shardings = jax.tree.map(lambda x: x.sharding, step.state)
    draw = jax.jit(functools.partial(train_step.init_state, step.learner), out_shardings=shardings)
    draw = draw.lower().compile()
    width = step.learner.objective.window_length()
    ones = np.ones((step.batch_size, width), np.int32)
    windows = contract.Windows(ones, ones, 0 * ones, np.arange(step.batch_size, dtype=np.int32))
    windows = partitioning.global_array(step.mesh, windows, step.batch_size)
    before = held(device)
    state = jax.block_until_ready(draw())
    state_took = held(device) - before
    for _ in range(2):
        began = time.time()
        state, measured = update(state, windows, step.frozen)
        jax.block_until_ready(measured)
        seconds = time.time() - began
    peak = held(device, most=True) - before
    total_planned = (plan.total - plan.code) / GIB
    for name, planned, took in (
        ('state', state_planned, state_took), ('step', total_planned, peak)
    ):  # fmt: skip
        print(f'{name:>6}  planned {planned:7.3f} GiB  took {took:7.3f} GiB  {took / planned:.3f}')
    print(f'a step took {seconds:.1f} s')


if __name__ == '__main__':
    commandline.run(main)
