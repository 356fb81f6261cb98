"""Tries meshes and what the backward pass computes again, and ranks what fits."""

import copy
from typing import NamedTuple

from launch import budget, step_program
from pretrain.data.workers import bar
from pretrain.errors import UserError

REMAT = ('none', 'dots', 'full')
MOST_TENSOR = 16  # more devices than this share no layer: they would mostly talk
GIB = 2**30


class Trial(NamedTuple):
    """mesh: its name. remat: of the model. budget: budget.Budget."""

    mesh: str
    remat: str
    budget: budget.Budget


def run(config, topology, tries):
    """Compiles the most promising candidates.

    Args:
        config: of the run. topology: topology.Topology. tries: how many programs to compile.

    Returns:
        [Trial]: what fits first, the fastest of it before the others.

    Raises:
        UserError: no mesh goes together with the config.
    """
    trials = []
    waiting = candidates(config, topology)
    with bar(min(tries, len(waiting)), 'compiling', 'program') as progress:
        hopeless = set()
        for mesh, remat in waiting:
            if len(trials) >= tries:
                break
            if (mesh, remat) in hopeless:
                continue
            changed = _changed(config, mesh, remat)
            made = budget.make(step_program.describe(changed, topology.devices), topology)
            trials.append(Trial(mesh, remat, made))
            if made.refused.startswith('parameters'):
                hopeless |= {(mesh, other) for other in REMAT}
            progress.update(1)
    return sorted(
        trials, key=lambda t: (not t.budget.fits, t.budget.bound or 0.0, t.budget.total or 0.0)
    )


def candidates(config, topology):
    """[(mesh, remat)]: those that the sizes allow, the ones that talk least first.

    Raises:
        UserError: there is none.
    """
    count = len(topology.devices)
    found, refused = [], None
    for tensor in _divisors(count):
        if tensor > MOST_TENSOR:
            continue
        for fsdp in _divisors(count // tensor):
            mesh = f'data={count // tensor // fsdp},fsdp={fsdp},tensor={tensor}'
            try:
                step = step_program.describe(_changed(config, mesh, 'full'), topology.devices)
            except UserError as error:
                refused = error
                continue
            if step.whole:  # a tensor that stays whole on every device
                refused = UserError(next(f'{path}: {why}' for path, why in step.whole.items()))
                continue
            state = step_program.bytes_on_a_device(step.state)
            if topology.memory and state > topology.memory:
                refused = UserError(f'{mesh}: its state alone needs {state / GIB:.0f} GiB')
                continue
            # Tensor parallelism sends most, fsdp its parameters, data its gradients.
            found.append((tensor, fsdp, mesh))
    if not found:
        raise UserError(f'no mesh of {count} devices fits this config; the last: {refused}')
    meshes = [mesh for *_, mesh in sorted(found)]
    # Each mesh as the config has it first, then with less computed again, then with more.
    own = config.model.remat
    order = [own, *(remat for remat in REMAT if remat != own)]
    return [(mesh, remat) for remat in order for mesh in meshes]


def _divisors(count):
    return [n for n in range(1, count + 1) if count % n == 0]


def _changed(config, mesh, remat):
    changed = copy.deepcopy(config)
    changed.mesh, changed.model.remat = mesh, remat
    return changed


def table(trials):
    """Lines: a row a trial, best first."""
    lines = [f'{"mesh":>28}  {"remat":>5}  {"GiB":>8}  {"fits":>4}  {"ms at least":>11}  bound by']
    for each in trials:
        made = each.budget
        total = f'{made.total / GIB:8.3g}' if made.total else '       ?'
        slowest = max(made.seconds, key=made.seconds.get) if made.seconds else ''
        least = f'{1e3 * made.bound:11.4g}' if made.bound else ' ' * 11
        fits = 'yes' if made.fits else 'no'
        lines.append(f'{each.mesh:>28}  {each.remat:>5}  {total}  {fits:>4}  {least}  {slowest}')
    if not any(each.budget.bound for each in trials):
        lines.append('no table has what these devices can do: ranked by memory')
    return '\n'.join(lines)
