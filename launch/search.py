"""Tries meshes and what the backward pass computes again, and ranks what fits."""

import copy
import itertools
import math
from typing import NamedTuple

from launch import budget, step_program
from pretrain.data.workers import bar
from pretrain.errors import UserError

REMAT = ('none', 'dots', 'full')  # the more is computed again, the less is kept
MOST = 16  # devices that share a layer (tensor) or a window (sequence): more would mostly talk
GIB = 2**30


class Candidate(NamedTuple):
    """mesh: its name. shared: its (tensor, sequence). state: bytes of a device that it takes."""

    mesh: str
    shared: tuple[int, int]
    state: int


class Trial(NamedTuple):
    """mesh: its name. remat: of the model. budget: budget.Budget."""

    mesh: str
    remat: str
    budget: budget.Budget


class Found(NamedTuple):
    """trials: [Trial], what fits first, the fastest of it before the others. combinations: of mesh
    and remat that there are. more: whether some are left that are worth a try. left_out: {why:
    (number of meshes, the first)}."""

    trials: list
    combinations: int
    more: bool
    left_out: dict


def run(config, topology, tries):
    """Compiles the most promising candidates.

    Each mesh is tried with the config's own remat, and where that does not fit, with all computed
    again; the last tries go to the fastest meshes, with less computed again.

    Args:
        config: of the run. topology: topology.Topology. tries: how many programs to compile.

    Returns:
        Found.

    Raises:
        UserError: no mesh goes together with the config.
    """
    meshes, left_out = candidates(config, topology)
    waiting = [(each, config.model.remat) for each in meshes]
    trials, needs, faster = [], {}, set()
    with bar(min(tries, len(meshes) * len(REMAT)), 'compiling', 'program') as progress:
        while len(trials) < tries:
            if not waiting or (not faster and len(trials) >= tries - tries // 4):
                less = [each for each in _with_less_again(trials, meshes) if each not in faster]
                faster |= set(less)
                waiting = less + waiting
            if not waiting:
                break
            each, remat = waiting.pop(0)
            # What another fsdp needed besides its state tells what this one does.
            known = needs.get((each.shared, remat), 0.0)
            fits = not topology.memory or each.state + known <= topology.memory
            if fits:
                made = _plan(config, topology, each.mesh, remat)
                trials.append(Trial(each.mesh, remat, made))
                progress.update(1)
                fits = made.fits
                if made.total:
                    needs[each.shared, remat] = made.total - each.state
            if not fits and remat != REMAT[-1] and (each, remat) not in faster:
                waiting.insert(0, (each, REMAT[-1]))
    trials.sort(key=lambda t: (not t.budget.fits, t.budget.bound or 0.0, t.budget.total or 0.0))
    more = waiting or set(_with_less_again(trials, meshes)) - faster
    return Found(trials, len(meshes) * len(REMAT), bool(more), left_out)


def _with_less_again(trials, meshes):
    """[(Candidate, remat)]: of what fits, the fastest first, with the next that computes less."""
    fitting = [trial for trial in trials if trial.budget.fits and trial.remat != REMAT[0]]
    fitting.sort(key=lambda trial: trial.budget.bound or 0.0)
    tried = {(trial.mesh, trial.remat) for trial in trials}
    by_name = {each.mesh: each for each in meshes}
    less = [(each.mesh, REMAT[REMAT.index(each.remat) - 1]) for each in fitting]
    return [(by_name[mesh], remat) for mesh, remat in less if (mesh, remat) not in tried]


def _plan(config, topology, mesh, remat):
    step = step_program.describe(_changed(config, mesh, remat), topology.devices)
    return budget.make(step, topology)


def candidates(config, topology):
    """([Candidate], {why: (number of meshes that were left out, the first)}).

    In the order in which they are worth a try: few devices share a layer or a window, which talk
    most, and the state takes less than half of the memory.

    Raises:
        UserError: there is none.
    """
    count = len(topology.devices)
    found, left_out, learner = {}, {}, None

    def leave(why, one):
        before, first = left_out.get(why, (0, one))
        left_out[why] = before + 1, first

    for tensor, sequence in itertools.product(_divisors(count), _divisors(count)):
        if max(tensor, sequence) > MOST or count % (tensor * sequence):
            continue
        rest = count // tensor // sequence
        for fsdp in _divisors(rest):
            mesh = f'data={rest // fsdp},fsdp={fsdp},tensor={tensor}'
            mesh += f',sequence={sequence}' if sequence > 1 else ''
            changed = _changed(config, mesh, REMAT[-1])
            try:
                step = step_program.describe(changed, topology.devices, learner)
            except UserError as error:
                leave('do not go together with the config', error)
                continue
            learner = step.learner
            if step.whole:  # on every device, of which each then computes the same
                path, why = next(iter(step.whole.items()))
                leave('would leave something whole on every device', f'{mesh}: {path}: {why}')
                continue
            state = step_program.bytes_on_a_device((step.state, step.frozen))
            if topology.memory and state > topology.memory:
                one = f'{mesh}: {state / GIB:.3g} GiB'
                leave('need more than a device has for the state alone', one)
                continue
            each = Candidate(mesh, (tensor, sequence), state)
            found.setdefault(each.shared, []).append((fsdp, each))
    if not found:
        raise UserError(f'no mesh of {count} devices fits this config; {"; ".join(said(left_out))}')
    ranked = []
    for (tensor, sequence), group in found.items():
        cramped = lambda each: bool(topology.memory) and each.state > topology.memory / 2  # noqa: E731
        group.sort(key=lambda pair: (cramped(pair[1]), pair[0]))
        for rank, (_, each) in enumerate(group):
            worth = rank + math.log2(tensor) / 2 + math.log2(sequence)
            ranked.append((worth, tensor, sequence, rank, each))
    return [each for *_, each in sorted(ranked)], left_out


def _divisors(count):
    return [n for n in range(1, count + 1) if count % n == 0]


def _changed(config, mesh, remat):
    changed = copy.deepcopy(config)
    changed.mesh, changed.model.remat = mesh, remat
    return changed


def said(left_out):
    """What was left out, a line a reason."""
    return [f'{n} {"meshes" if n > 1 else "mesh"} {why} ({one})'
            for why, (n, one) in left_out.items()]  # fmt: skip


def table(found):
    """Lines: a row a trial, best first, and what was not tried.

    Args:
        found: Found.
    """
    lines = [f'{"mesh":>34}  {"remat":>5}  {"GiB":>8}  {"fits":>4}  {"ms at least":>11}  bound by']
    for each in found.trials:
        made = each.budget
        total = f'{made.total / GIB:8.3g}' if made.total else '       ?'
        slowest = max(made.seconds, key=made.seconds.get) if made.seconds else ''
        least = f'{1e3 * made.bound:11.4g}' if made.bound else ' ' * 11
        fits = 'yes' if made.fits else 'no'
        lines.append(f'{each.mesh:>34}  {each.remat:>5}  {total}  {fits:>4}  {least}  {slowest}')
    if not any(each.budget.bound for each in found.trials):
        lines.append('no table has what these devices can do: ranked by memory')
    tried = len(found.trials)
    then = f'--tries={2 * tried} compiles more' if found.more else 'no other promises more'
    lines.append(f'{tried} of {found.combinations} pairs of mesh and remat were compiled: {then}')
    lines += [f'left out: {line}' for line in said(found.left_out)]
    return '\n'.join(lines)
