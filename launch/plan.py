"""Says before a pod is rented whether a run fits, how it communicates, how fast it can be.

    python -m launch.plan --config=configs/t5.py:11b --topology=v5p:4x4x8 --mesh=fsdp=32,tensor=4
    python -m launch.plan --config=configs/bert.py:large --topology=v5e:4x4 --search

Compiles the train step that `pretrain.train` would run, with the compiler of those devices, on a
machine that has none (`pip install libtpu` once), and reads the program that comes out. Nothing is
downloaded, prepared or run.
"""

import json
import os
from pathlib import Path

import jax
from absl import flags

from launch import budget, picture, search, step_program, topology
from pretrain import commandline, storage
from pretrain.data.shards import write_whole
from pretrain.errors import UserError

CONFIG = commandline.define_config()
TOPOLOGY = flags.DEFINE_string(
    'topology', '', "Devices: 'v5p:4x4x8', 'v5p-256', '2*v5e:16x16' (two slices), 'cpu:8'."
)
MESH = flags.DEFINE_string('mesh', '', "Mesh in place of the config's.")
SEARCH = flags.DEFINE_bool('search', False, 'Try meshes and model.remat, and rank what fits.')
TRIES = flags.DEFINE_integer('tries', 8, 'Programs that --search compiles at most.', lower_bound=1)
OUT = flags.DEFINE_string('out', '', 'JSON file for the numbers; a picture lies beside it.')
GIB = 2**30


def main(argv):
    """Plans one mesh, or several."""
    if len(argv) > 1:
        raise UserError(f'unknown argument {argv[1]!r}')
    config = CONFIG.value
    if config is None:
        raise UserError('--config is missing: for example --config=configs/t5.py:11b')
    if not TOPOLOGY.value:
        raise UserError('--topology is missing: for example --topology=v5p:4x4x8, or cpu:8')
    if SEARCH.value and MESH.value:
        raise UserError(f'--mesh={MESH.value} is one mesh, --search tries many: give one of them')
    if OUT.value:  # known before a compilation of minutes
        out = storage.local(OUT.value, '--out').absolute()
        if out.suffix != '.json':
            raise UserError(f'--out={OUT.value} should end in .json: the picture ends in .png')
        if not os.access(out.parent, os.W_OK | os.X_OK):
            raise UserError(f'--out={OUT.value}: its folder is not there or cannot be written')
    gpu = TOPOLOGY.value.strip().lower().startswith('gpu')
    # Never a TPU: where libtpu is installed and none is there, JAX says so at length.
    jax.config.update('jax_platforms', 'cuda,cpu' if gpu else 'cpu')
    # A program for devices that are not there cannot be kept.
    jax.config.update('jax_enable_compilation_cache', False)
    found = topology.find(TOPOLOGY.value)
    if MESH.value:
        config.mesh = MESH.value
    if SEARCH.value:
        tried = search.run(config, found, TRIES.value)
        print(search.table(tried))
        drawn = {f'{each.mesh}\nremat={each.remat}': each.budget for each in tried.trials}
        record = [
            {'mesh': each.mesh, 'remat': each.remat, **budget.record(each.budget)}
            for each in tried.trials
        ]
    else:
        step = step_program.describe(config, found.devices)
        made = budget.make(step, found)
        print(report(config, found, step, made))
        record, drawn = budget.record(made), {config.mesh: made}
    if OUT.value:
        facts = {'config': config.name, 'topology': found.name, 'plan': record}
        with write_whole(OUT.value) as file:
            file.write(json.dumps(facts, indent=1).encode())
        path = Path(OUT.value).with_suffix('.png')
        with write_whole(path) as file:
            file.write(picture.draw(drawn, f'{config.objective.name} {config.name}, {found.name}'))
        print(f'wrote {OUT.value} and {path}')


def report(config, found, step, made):
    """What was found, in lines.

    Args:
        config: of the run. found: topology.Topology. step: step_program.Step. made: budget.Budget.
    """
    mesh = ','.join(f'{axis}={size}' for axis, size in step.mesh.shape.items())
    lines = [
        f'{config.objective.name} {config.name} on {found.name}: {step.mesh.size} devices, mesh '
        f'{mesh}, '
        f'{step.batch_size} windows of {made.tokens // step.batch_size} tokens a step, '
        f'remat={config.model.remat}',
        f'{made.parameters:,} parameters',
        '',
        'GiB of a device',
    ]
    parts = [*made.state.items(), ('activations, gradients', made.temporary), ('code', made.code)]
    lines += [f'{name:>24}  {_short(size / GIB):>10}' for name, size in parts if size]
    lines += ['', verdict(config, step, made)]
    lines += [f'left whole on every device: {path}: {why}' for path, why in step.whole.items()]
    if made.refused:
        return '\n'.join(lines)
    whole = made.flops * step.mesh.size
    lines += [
        '',
        f'{whole:.3e} FLOPs a step, {made.flops / made.model_flops:.2f} times those of the model',
    ]
    for name, count in made.kernels.items():
        lines.append(f'not counted in them: kernel {name!r}, {count:.0f} times a step')
    lines += [f'counted once, its length is unknown: loop {name}' for name in made.loops]
    lines += ['', *communication(made.collectives)]
    if made.bound:
        lines += ['', *times(found, step, made)]
    lines.append(f'compiled in {made.compile_seconds:.0f} s')
    return '\n'.join(lines)


def _short(value):
    """Four digits that count, or all before the point."""
    return f'{value:,.0f}' if value >= 1000 else f'{value:.4g}'


def verdict(config, step, made):
    """Whether it fits, and if not what to change."""
    needs = f'{made.total / GIB:.4g} GiB' if made.total else 'more'
    if made.memory is None:
        problem = 'does not fit, says the compiler' if made.refused else f'{needs} a device'
        return f'{problem}; how much it has is not known'
    has = f'{made.memory / GIB:.4g}'
    if made.fits:
        spare = (made.memory - made.total) / GIB
        return f'fits: {made.total / GIB:.2f} of {has} GiB, {spare:.1f} to spare'
    return f'does not fit: needs {needs} of {has}: {mend(config, step, made)}'


def mend(config, step, made):
    """What to change for a run that does not fit."""
    shape = step.mesh.shape
    state = sum(made.state.values())
    if state > made.memory / 2 and shape['data'] > 1:
        # As much of data as brings the state to half of the memory.
        data = shape['data']
        enough = [n for n in range(2, data + 1) if data % n == 0 and state / n <= made.memory / 2]
        size = enough[0] if enough else data
        return f'raise fsdp to {shape["fsdp"] * size} and lower data to {data // size}'
    if state > made.memory / 2 and shape['sequence'] > 1:
        return (
            f'its state takes more than half, and sequence={shape["sequence"]} does not split it: '
            'give these devices to fsdp or tensor'
        )
    if state < made.memory and config.model.remat != 'full':
        return 'set model.remat=full'
    if state > made.memory / 2:
        smaller = '' if config.optimizer.name == 'adafactor' else ', or optimizer.name=adafactor'
        return f'its state takes more than half: more devices{smaller}'
    rows = step.batch_size // (shape['data'] * shape['fsdp']) // config.accumulation
    if rows > 1:
        parts = next(n for n in range(2, rows + 1) if rows % n == 0)
        return f'set accumulation={parts * config.accumulation}'
    return 'raise tensor or sequence, or take more devices'


def communication(traffic):
    """The table of collectives."""
    if not traffic:
        return ['no communication between devices']
    heads = 'collective', 'mesh axis', 'a step', 'GB in all', 'GB sent'
    lines = ['{:>20}  {:>16}  {:>8}  {:>10}  {:>9}'.format(*heads)]
    for each in traffic:
        lines.append(
            f'{each.kind:>20}  {each.axes:>16}  {each.count:8,.0f}  '
            f'{_short(each.payload / 1e9):>10}  {_short(each.sent / 1e9):>9}'
            + (f'  ({_short(each.between / 1e9)} to other slices)' if each.between else '')
        )
    return lines


def times(found, step, made):
    """The least time of a step, and what bounds it."""
    slowest = max(made.seconds, key=made.seconds.get)
    parts = ', '.join(f'{name} {_short(1e3 * value)}' for name, value in made.seconds.items())
    rate = made.tokens / made.bound
    use = made.model_flops / found.chip.flops / made.bound
    lines = [
        f'a step takes at least {_short(1e3 * made.bound)} ms, bound by {slowest} (ms: {parts}): '
        f'at most {rate:,.0f} tokens/s, {use:.0%} of the peak',
        f'with nothing hidden behind anything {_short(1e3 * sum(made.seconds.values()))} ms',
        f'chip: {found.chip.source}',
    ]
    if any(each.between for each in made.collectives) and 'network' not in made.seconds:
        lines.append('what the network between the slices adds is not known')
    return lines


if __name__ == '__main__':
    commandline.run(main)
