"""The phases of a run: stretches of steps with a batch size and a length of their own.

BERT trains nine tenths of its steps at length 128 and the rest at 512 (Devlin et al. 2019,
appendix A.2); GPT-3's batches grow over the first billions of tokens (Brown et al. 2020, appendix
B). Which windows a step reads is a pure function of the config: windows are counted through all
phases, so the position of a run stays one integer.
"""

from typing import NamedTuple

from pretrain.errors import UserError

LENGTHS = ('length', 'inputs_length', 'window')  # the keys of objectives that say it


MOST_WINDOWS = 2**31 - 1  # of a run: their numbers are int32 on the device


class Phase(NamedTuple):
    """Steps `begin` + 1 .. `end` of a run.

    batch_size: windows a step. length: of the objective; None: as the config says.
    windows: read before this phase.
    """

    begin: int
    end: int
    batch_size: int
    length: int | None
    windows: int

    def position(self, step):
        """Windows that the run has read after this many steps."""
        return self.windows + (step - self.begin) * self.batch_size


def plan(config):
    """The phases of a run, in order; at least one.

    Args:
        config: with `steps`, `batch_size` and `phases`, a tuple of (steps, batch size, length) of
            the phases before the last, which takes the steps that are left and has the config's
            own batch size and length.

    Raises:
        UserError: the phases are not such triples, or leave no step for the last.
    """
    phases, begin, windows = [], 0, 0
    for entry in config.get('phases', ()):
        whole = isinstance(entry, tuple) and len(entry) == 3
        if not whole or not all(type(n) is int and n > 0 for n in entry):
            raise UserError(
                f'phases={config.phases!r}: each is (steps, batch size, length), whole numbers '
                'above 0, for instance ((900, 256, 128),)'
            )
        steps, batch_size, length = entry
        phases.append(Phase(begin, begin + steps, batch_size, length, windows))
        begin, windows = begin + steps, windows + steps * batch_size
    if begin >= config.steps:
        raise UserError(
            f'phases take {begin} steps and leave none of steps={config.steps} for the last: '
            f'set steps to more than {begin}'
        )
    last = Phase(begin, config.steps, config.batch_size, None, windows)
    if last.position(last.end) > MOST_WINDOWS:
        raise UserError(
            f'steps={config.steps} read {last.position(last.end):,} windows; the most that a run '
            f'can count is {MOST_WINDOWS:,}: fewer steps, or longer windows'
        )
    return [*phases, last]


def position(plan, step):
    """Windows that a run of these phases has read after `step` steps."""
    phase = next((phase for phase in plan if step <= phase.end), plan[-1])
    return phase.position(step)


def objective_of(config, phase):
    """The config's `objective` with the length of a phase.

    Raises:
        UserError: the objective has no key that says a length.
    """
    if phase.length is None:
        return config.objective
    objective = config.objective.copy_and_resolve_references()
    name = next((name for name in LENGTHS if name in objective), None)
    if name is None:
        raise UserError(
            f'phases need an objective with one of the keys {", ".join(LENGTHS)}; '
            f'{config.objective.name!r} has none'
        )
    objective[name] = phase.length
    return objective
