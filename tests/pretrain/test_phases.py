import pytest

from configs import bert, gpt
from configs.recipe import recipe
from pretrain import assembly, phases
from pretrain.errors import UserError


def config(**changes):
    made = recipe()
    made.steps, made.batch_size = 100, 4
    made.update(changes)
    return made


def test_a_run_without_phases_is_one():
    (only,) = phases.plan(config())
    assert only == phases.Phase(0, 100, 4, None, 0)
    assert [only.position(step) for step in (0, 1, 100)] == [0, 4, 400]


def test_windows_are_counted_through_all_phases():
    """Steps of 8, 8, ..., 6, ..., 4 windows: each step goes on where the one before it ended."""
    plan = phases.plan(config(phases=((10, 8, 16), (5, 6, 32))))
    sizes = [8] * 10 + [6] * 5 + [4] * 85
    ends = [(p.begin, p.end, p.length) for p in plan]
    assert ends == [(0, 10, 16), (10, 15, 32), (15, 100, None)]
    for step in range(100):
        phase = next(p for p in plan if p.begin <= step < p.end)
        assert phase.position(step) == sum(sizes[:step])
        assert phase.position(step + 1) - phase.position(step) == phase.batch_size == sizes[step]


def test_berts_run_is_nine_tenths_short():
    """Devlin et al. 2019, appendix A.2: 90 % of 1M steps at 128, the rest at 512."""
    made = bert.get_config('base')
    short, long = phases.plan(made)
    assert (short.end, long.end) == (900_000, 1_000_000)
    assert phases.objective_of(made, short).length == 128
    assert phases.objective_of(made, long).length == 512
    assert made.objective.length == 512  # the config itself stays as it was
    assert short.batch_size == long.batch_size == 256


@pytest.mark.parametrize(
    ('changes', 'says'),
    [
        ({'phases': ((100, 4, 16),)}, 'set steps to more than 100'),
        ({'phases': (100, 4, 16)}, 'each is'),
        ({'phases': ((10, 4),)}, 'each is'),
        ({'phases': ((10, 0, 16),)}, 'above 0'),
        ({'phases': ((10, 4, 16.5),)}, 'whole numbers'),
    ],
)
def test_phases_that_are_none(changes, says):
    with pytest.raises(UserError, match=says):
        phases.plan(config(**changes))


def test_a_schedule_in_tokens_counts_those_of_every_phase(monkeypatch, vocabulary):
    """GPT-3's growing batches (Brown et al. 2020, appendix B), in small."""
    made = gpt.get_config('gpt3_125m,smoke')
    made.phases = ((10, 2, 32), (20, 4, 32))
    made.steps, made.batch_size = 50, 8
    given = []
    monkeypatch.setattr(assembly, 'make_optimizer', lambda config, *rest: given.extend(rest))
    for phase in phases.plan(made):
        given.clear()
        assembly.make_learner(made, vocabulary, phase)
        assert given == [50, [(0, 2 * 33), (10, 4 * 33), (30, 8 * 33)]]


def test_an_objective_without_a_length_is_refused():
    made = config(phases=((10, 4, 16),))
    with pytest.raises(UserError, match="'causal_lm' has none"):
        phases.objective_of(made, phases.plan(made)[0])
