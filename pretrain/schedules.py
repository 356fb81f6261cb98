"""Learning rates as pure functions of the step.

| name | up to `warmup` | afterwards |
|---|---|---|
| constant | linear from 0 to the peak | the peak |
| linear | linear from 0 | linear to final x peak at the decay's end, then constant |
| cosine | linear from 0 | half a cosine to final x peak at the decay's end, then constant |
| wsd | linear from 0 | the peak, then linear to final x peak over the last `decay` of the run |
| bert | linear from 0 | linear as if it had begun to fall at step 0: it drops at warm-up's end |
| electra | linear from 0, times the factor that bert has afterwards | as bert |
| rsqrt | learning_rate / sqrt(warmup), flat | learning_rate / sqrt(t), t in steps (T5) |
| slanted | linear from final x peak | linear to final x peak at the decay's end (ULMFiT) |
"""

import difflib
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from pretrain.errors import UserError

SCHEDULES = ('linear', 'cosine', 'rsqrt', 'constant', 'wsd', 'bert', 'electra', 'slanted')
UNITS = ('steps', 'tokens')
KEYS = ('name', 'unit', 'warmup', 'decay', 'final')


def make_schedule(
    config, steps: int, tokens_per_step: int | Sequence[tuple[int, int]]
) -> Callable[[jax.Array], jax.Array]:
    """The learning rate of every step of a run.

    Keys of `config` (the recipe's `optimizer`; GPT-3's values in brackets, section 2.1 and app. B):
        learning_rate: the peak [6e-4 for 125M parameters]; for rsqrt the factor (T5: 1, with a
            warmup of 10,000 steps).
        schedule.name: one of SCHEDULES [cosine].
        schedule.unit: what warmup and decay count, 'steps' or 'tokens' [tokens]; default steps.
        schedule.warmup: where the rate reaches its peak, counted from the start [375e6].
        schedule.decay: where the decay ends, counted from the start, 0 at the end of the run
            [260e9]; for wsd the length of the final decay. Not read by constant and rsqrt.
        schedule.final: the rate after the decay as a fraction of the peak [0.1; BERT: 0]. As decay.

    Args:
        config: ml_collections.ConfigDict.
        steps: length of the run.
        tokens_per_step: tokens of one global batch, which turn tokens into steps; of a run whose
            steps differ in them (step, tokens): from that step on, the first from 0.

    Returns:
        step -> rate, float32. The step is the number of updates done before (the first is 0), an
        integer below 2^31, traced or not, or an array of them. Borders between the pieces are
        kept as whole steps and a fraction, so that no count of tokens is ever a float32 or int32.

    Raises:
        UserError: unknown name, unit or key; numbers that are negative or do not fit the run.
    """
    schedule = config.schedule
    for key in schedule:
        require_known('optimizer.schedule key', key, KEYS)
    name = require_known('optimizer.schedule.name', schedule.name, SCHEDULES)
    unit = require_known('optimizer.schedule.unit', schedule.get('unit', 'steps'), UNITS)
    peak = require_number('optimizer.learning_rate', config.learning_rate)
    warmup = require_number('optimizer.schedule.warmup', schedule.get('warmup', 0))
    decay = require_number('optimizer.schedule.decay', schedule.get('decay', 0))
    final = require_number('optimizer.schedule.final', schedule.get('final', 0.0))
    if final > 1:
        raise UserError(
            f'optimizer.schedule.final={final:g} is a fraction of the peak: give 0 to 1, '
            'for instance 0.1'
        )

    if isinstance(tokens_per_step, int):
        tokens_per_step = [(0, tokens_per_step)]
    stretches = tokens_per_step if unit == 'tokens' else [(0, 1)]
    after, run, per_step = _clock(stretches, steps)
    if name == 'rsqrt':
        flat = max(warmup / per_step, 1.0)
        return lambda step: peak * jnp.maximum(after(step, 0.0), flat) ** -0.5

    # The numbers are compared in the user's unit, then all becomes steps.
    if warmup > run:
        raise UserError(
            f'optimizer.schedule.warmup={warmup:.12g} {unit} is beyond the run of {run:.12g} '
            f'{unit}: lower it, or raise steps'
        )
    if name == 'wsd':
        start, end = _final_decay(warmup, decay, run, unit)
    else:
        start, end = 0.0 if name in ('bert', 'electra') else warmup, decay or run
        if name != 'constant' and decay and decay <= warmup:
            raise UserError(
                f'optimizer.schedule.decay={decay:.12g} {unit} ends the decay before the warm-up '
                f'of {warmup:.12g}: it counts from the start of the run, 0 means its end'
            )
    warmup, start, end = warmup / per_step, start / per_step, end / per_step
    warmup_length = warmup or 1.0
    # A warm-up as long as the run leaves nothing to decay over.
    decay_length = (end - start) or 1.0

    def rate(step):
        warming = jnp.minimum(after(step, 0.0) / warmup_length, 1.0) if warmup else 1.0
        if name == 'slanted':  # Howard and Ruder 2018, equation 3; its ratio is 1 / final
            warming = final + (1.0 - final) * warming
        # What is left is counted back from the end: near it, 1 - progress would lose its digits.
        left = jnp.clip(-after(step, end) / decay_length, 0.0, 1.0)
        if name == 'constant':
            height = jnp.ones_like(left)
        elif name == 'cosine':
            height = final + (1.0 - final) * jnp.sin(0.5 * jnp.pi * left) ** 2
        else:
            height = final + (1.0 - final) * left
        if name == 'bert':  # not both at once, as the released code has it
            return peak * jnp.where(after(step, warmup) < 0, warming, height)
        return peak * warming * height

    return rate


def _final_decay(warmup, decay, run, unit):
    if not decay:
        raise UserError(
            'optimizer.schedule.decay=0 leaves wsd without its final decay: give its length, '
            f'for instance {run / 10:.12g} {unit} (a tenth of the run)'
        )
    if warmup + decay > run:
        raise UserError(
            f'optimizer.schedule.warmup={warmup:.12g} and decay={decay:.12g} {unit} together are '
            f'longer than the run of {run:.12g} {unit}: lower one of them, or raise steps'
        )
    return run - decay, run


def _clock(stretches, steps):
    """How a run counts: by what its steps hold, in steps like the last ones.

    Args:
        stretches: list of (step, units a step from there on). steps: of the run.

    Returns:
        (after, run, unit): after(step, border) is how far a step is behind a border, both in steps
        like the last; run: units in all steps; unit: units of such a step.
    """
    unit = stretches[-1][1]
    if len(stretches) == 1:
        return _after, steps * unit, unit
    begins, sizes = zip(*stretches, strict=True)
    bases = [0]  # units before each stretch
    for begin, end, size in zip(begins, [*begins[1:], steps], sizes, strict=True):
        bases.append(bases[-1] + (end - begin) * size)

    def after(step, border):
        result = None
        for begin, base, size in zip(begins, bases, sizes, strict=False):
            here = _after(step, begin + (border * unit - base) / size) * (size / unit)
            result = here if result is None else jnp.where(step < begin, result, here)
        return result

    return after, bases[-1], unit


def _after(step, border: float):
    """Steps from a border to `step`, negative before it, float32.

    Whole steps are subtracted as integers, so that the difference is exact however late it is.
    """
    step = jnp.asarray(step)
    if border >= 2**31:
        return step.astype(jnp.float32) - border
    whole = math.floor(border)
    return (step - whole).astype(jnp.float32) - (border - whole)


def require_known(what: str, name, known) -> str:
    """`name` itself, if it is one of `known`.

    Raises:
        UserError: it is not; says the nearest one where there is one, and all.
    """
    if name in known:
        return name
    nearest = difflib.get_close_matches(str(name), known, n=1)
    hint = f'did you mean {nearest[0]!r}? ' if nearest else ''
    raise UserError(f'{what} {name!r} is unknown: {hint}There are {", ".join(known)}')


def require_number(what: str, number) -> float:
    """`number` as a float.

    Raises:
        UserError: it is negative or not a finite number.
    """
    number = float(number)
    if not 0 <= number < math.inf:
        raise UserError(f'{what}={number:g} must be a number that is not negative')
    return number
