"""Shows what a run's checkpoints hold, without loading an array.

    python -m pretrain.inspect runs/gpt [--step=200]

Prints which steps are whole, which is the newest and which the best, the config, and a table of the
parameters.
"""

import json
import math
from pathlib import Path

import jax
from absl import flags

from pretrain import manifest, restoration
from pretrain.errors import UserError

_STEP = flags.DEFINE_integer('step', None, 'Which checkpoint; by default the newest whole one.')


def _table(rows: list[tuple[str, ...]], right: tuple[int, ...]) -> list[str]:
    """Lines of columns; those numbered in `right` are aligned at the right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return [
        '  '.join(
            cell.rjust(width) if number in right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    ]


def _indented(value: dict, depth: int = 0) -> list[str]:
    lines = []
    for name, entry in value.items():
        if isinstance(entry, dict) and entry:
            lines += ['  ' * depth + f'{name}:', *_indented(entry, depth + 1)]
        else:
            lines.append('  ' * depth + f'{name}: {json.dumps(entry, ensure_ascii=False)}')
    return lines


def steps_text(folder: Path, faults: dict[int, str | None]) -> list[str]:
    """One line a step: its number, validation loss, whole or damaged, newest and best.

    Args:
      folder: a folder of checkpoints.
      faults: what `manifest.fault` says of each of its steps.
    """
    whole = [step for step in faults if faults[step] is None]
    losses = {step: restoration.read_validation_loss(folder / str(step)) for step in whole}
    ranked = [step for step in whole if losses[step] is not None]
    best = min(ranked, key=losses.get, default=None)
    rows = [('step', 'validation loss', 'state')]
    for step, fault in faults.items():
        if fault:
            rows.append((str(step), '-', f'damaged ({fault})'))
            continue
        names = ['whole']
        names += ['newest'] if step == whole[-1] else []
        names += ['best'] if step == best else []
        loss = '-' if losses[step] is None else f'{losses[step]:.4f}'
        rows.append((str(step), loss, ', '.join(names)))
    return _table(rows, right=(0, 1))


def parameters_text(folder: Path) -> list[str]:
    """One line a parameter of the checkpoint in `folder`: path, shape, dtype, count; the total."""
    shapes = restoration.stored_shapes(folder, 'params')
    rows = [('parameter', 'shape', 'dtype', 'count')]
    for name, leaf in shapes.items():
        shape = ' x '.join(map(str, leaf.shape)) or 'scalar'
        rows.append((name, shape, str(leaf.dtype), f'{math.prod(leaf.shape):,}'))
    total = sum(math.prod(leaf.shape) for leaf in shapes.values())
    rows.append(('total', '', '', f'{total:,}'))
    return _table(rows, right=(3,))


def main(argv: list[str]) -> None:
    """Prints the checkpoints of the folder argv[1]."""
    if len(argv) != 2:
        raise UserError('give one folder: python -m pretrain.inspect runs/gpt')
    # A run that trains beside this command keeps its accelerator to itself.
    jax.config.update('jax_platforms', 'cpu')
    folder, meant = restoration.find(argv[1])
    steps = restoration.steps_in(folder)
    if not steps:
        raise UserError(f'no checkpoints in {argv[1]}: give the folder of a run that saved one')
    faults = {step: manifest.fault(folder / str(step)) for step in steps}
    print('\n'.join(steps_text(folder, faults)))
    whole = [step for step in steps if faults[step] is None]
    if not whole:
        raise UserError(f'every checkpoint in {argv[1]} is damaged')
    step = next((step for step in (_STEP.value, meant) if step is not None), whole[-1])
    if step not in whole:
        listed = ', '.join(map(str, whole))
        raise UserError(f'checkpoint {step} is not whole: choose one of {listed}')
    print(f'\nconfig of step {step}')
    config = restoration.read_json(folder / str(step), 'config')
    print('\n'.join('  ' + line for line in _indented(config)))
    print(f'\nparameters of step {step}')
    print('\n'.join('  ' + line for line in parameters_text(folder / str(step))))


if __name__ == '__main__':
    from pretrain.commandline import run

    run(main)
