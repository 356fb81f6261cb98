"""What a training step moves, by how much and when, seen from outside: the parameters."""

import itertools

import jax
import numpy as np
import pytest
from flax import traverse_util

from configs import transfer as settings_of_papers
from pretrain import meshes
from pretrain.errors import UserError
from pretrain.transfer import casts, experiment, finetuning, glue, superglue
from pretrain.transfer.task import Example


def flat(tree):
    arrays = traverse_util.flatten_dict(tree, sep='/')
    return {path: np.asarray(arrays[path]) for path in sorted(arrays)}


def of_group(params):
    """The arrays of each group of a tiny encoder of two layers, from the top; layers apart."""
    made = {'head': [], 'upper': [], 'lower': [], 'embeddings': []}
    for path, x in flat(params).items():
        if path.startswith('head/'):
            made['head'].append(x)
        elif '/layers/' in path:
            made['lower'].append(x[0])
            made['upper'].append(x[1])
        else:
            assert 'embedding' in path, path
            made['embeddings'].append(x)
    assert all(made.values())
    return made


def moved(before, after):
    """The names of the groups of which anything is not the same bit for bit."""
    before, after = of_group(before), of_group(after)
    return {
        name
        for name in before
        if any(a.tobytes() != b.tobytes() for a, b in zip(before[name], after[name]))
    }


@pytest.fixture
def watched(monkeypatch):
    """List that fills with the parameters at the beginning of each phase."""
    seen = []
    split = finetuning.layer_rates.split

    def watching(params, groups):
        seen.append(jax.tree.map(np.array, params))
        return split(params, groups)

    monkeypatch.setattr(finetuning.layer_rates, 'split', watching)
    return seen


def test_how_many_groups_each_epoch_trains():
    assert finetuning.phases(3, 0, False, 6) == [6, 6, 6]
    assert finetuning.phases(2, 1, False, 6) == [1, 1]
    assert finetuning.phases(2, 9, False, 6) == [6, 6]
    assert finetuning.phases(5, 0, True, 4) == [1, 2, 3, 4, 4]
    assert finetuning.phases(3, 0, True, 9) == [1, 2, 9]
    assert finetuning.phases(4, 2, True, 9) == [1, 2, 2, 2]
    assert finetuning.phases(1, 0, True, 5) == [5]


def test_unfreezing_moves_one_group_more_each_epoch_and_the_schedule_goes_on(
    sst2, sst2_data, watched
):
    """A batch an epoch: with the moments new, Adam's first step is the rate, on every weight."""
    made = sst2(
        'encoder', sst2_data(train=8), transfer__unfreeze=True, transfer__epochs=4,
        transfer__warmup=0.5, optimizer__learning_rate=0.01, optimizer__weight_decay=0.0,
    )  # fmt: skip
    ended = made.run(0).params
    stages = [*watched, ended]
    assert len(stages) == 5
    groups = ['head', 'upper', 'lower', 'embeddings']
    for epoch in range(4):
        if epoch == 0:  # the first step of the warm-up has a rate of 0
            assert moved(stages[0], stages[1]) == set()
        else:
            assert moved(stages[epoch], stages[epoch + 1]) == set(groups[: epoch + 1])
    rates = [
        np.abs(flat(b)['head/output/kernel'] - flat(a)['head/output/kernel']).max()
        for a, b in itertools.pairwise(stages)
    ]
    # 0 to the peak in half of the steps, then down to 0 behind the last one.
    np.testing.assert_allclose(rates, [0.0, 0.005, 0.01, 0.005], rtol=1e-3)


def test_one_group_trains_the_head_alone_and_two_the_upper_layer_too(sst2, sst2_data):
    data = sst2_data(train=16)
    for groups, names in ((1, {'head'}), (2, {'head', 'upper'})):
        made = sst2('encoder', data, transfer__groups=groups, transfer__epochs=2)
        start, _ = made.start(0)
        assert moved(start, made.run(0).params) == names


def test_lower_layers_move_less_by_the_decay(sst2, sst2_data):
    """One step of Adam without decay moves every weight by its rate, unless its gradient is 0."""
    made = sst2(
        'encoder', sst2_data(train=8), transfer__layer_decay=0.5, transfer__epochs=1,
        transfer__warmup=0.0, optimizer__learning_rate=0.01, optimizer__weight_decay=0.0,
    )  # fmt: skip
    start, _ = made.start(0)
    before, after = of_group(start), of_group(made.run(0).params)
    steps = [
        max(float(np.abs(b - a).max()) for a, b in zip(before[name], after[name]))
        for name in before
    ]
    np.testing.assert_allclose(steps, [0.01, 0.005, 0.0025, 0.00125], rtol=2e-3)


@pytest.fixture(scope='module')
def rates(quick):
    """rates(steps, **changes): the learning rate of each step, of a peak of 1."""

    def rates(steps, *apply, **changes):
        config = quick(**changes)
        for change in apply:
            change(config)
        config.optimizer.update(learning_rate=1.0)
        return finetuning.learning_rates(config, steps).tolist()

    return rates


def test_the_warm_up_is_a_share_of_the_steps(rates):
    known = [0, 0.5, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]
    np.testing.assert_allclose(rates(10, transfer__warmup=0.2), known, rtol=1e-4, atol=1e-6)
    known = [1 - step / 9 for step in range(9)]  # a tenth of nine steps is none
    np.testing.assert_allclose(rates(9, transfer__warmup=0.1), known, rtol=1e-4)


def test_ulmfits_schedule_is_the_papers(rates):
    """Howard and Ruder 2018, equation 3: cut_frac 0.1, ratio 32."""
    total, cut_frac, ratio = 40, 0.1, 32
    cut = int(total * cut_frac)
    known = []
    for t in range(total):
        p = t / cut if t < cut else 1 - (t - cut) / (cut * (1 / cut_frac - 1))
        known.append((1 + p * (ratio - 1)) / ratio)
    made = rates(total, settings_of_papers.SETTINGS['ulmfit'])
    np.testing.assert_allclose(made, known, rtol=1e-4)


def test_ulmfit_learns_by_its_own_setting(sst2):
    """All of it at once: rates, schedule, unfreezing, concat pooling, a hidden layer."""
    made = sst2(
        'encoder', transfer__unfreeze=True, transfer__layer_decay=1 / 2.6, transfer__epochs=12,
        transfer__pooling='concat', transfer__hidden_width=50, optimizer__learning_rate=0.02,
        optimizer__schedule={'name': 'slanted', 'final': 1 / 32},
    )  # fmt: skip
    outcome = made.run(0)
    assert outcome.params['head']['hidden']['kernel'].shape == (3 * 32, 50)
    assert outcome.scores['dev']['accuracy'] >= 0.9


def copa_examples(toy, count):
    return [
        Example(
            i,
            {'premise': toy.signs[i % 2], 'question': 'cause', 'choice1': 'ba', 'choice2': 'kep'},
            f'choice{1 + i % 2}', choices=('ba', 'kep'),
        )
        for i in range(count)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ('name', 'changes'),
    [
        ('sst2', {}),
        ('sst2', {'transfer__mix_layers': True, 'transfer__pooling': 'mean'}),
        ('copa', {}),
    ],
)
def test_features_that_are_computed_once_are_those_of_every_step(
    name, changes, tiny, quick, toy, sst2_data, one_device
):
    task = {'sst2': glue.TASKS, 'copa': superglue.TASKS}[name][name]
    data = sst2_data(train=11, dev=2, test=0)
    if name == 'copa':
        examples = copa_examples(toy, 7)
        data = experiment.Data({'train': examples[:5], 'dev': examples[5:]}, {}, '')
    config = quick(transfer__groups=1, transfer__epochs=2, transfer__eval_batch_size=4, **changes)
    made = experiment.Experiment(tiny('encoder'), task, data, config, one_device, show=False)
    start, _ = made.start(0)
    kept = made.trainer.train(start, made.rows, 0).params
    bare = finetuning.Trainer(
        made.cast._replace(keeps_features=False), config, made.source.tokenizer, one_device
    )
    again = bare.train(start, made.rows, 0).params
    assert moved(start, kept) == moved(start, again) == {'head'}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), kept, again)


def test_rows_that_fill_the_last_batch_up_do_not_count(sst2, sst2_data):
    data = sst2_data(train=5, dev=2, test=0)
    ends = [
        sst2(
            'encoder', data, transfer__batch_size=size, transfer__epochs=2,
            optimizer__learning_rate=1e-3,
        ).run(0)
        for size in (5, 8)
    ]  # fmt: skip
    assert ends[0].facts['steps'] == ends[1].facts['steps'] == 2
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        ends[0].params, ends[1].params,
    )  # fmt: skip


def test_the_start_is_left_as_it_was_and_steps_are_counted(sst2, sst2_data):
    """Seeds share what was read of the checkpoint, though a step gives its arguments away."""
    made = sst2('encoder', sst2_data(train=20), transfer__epochs=3)
    start, _ = made.start(0)
    before = jax.tree.map(np.array, start)
    told = []

    class Bar:
        def update(self, steps):
            told.append(steps)

        def close(self):
            told.append('closed')

    def progress(steps):
        told.append(f'of {steps}')
        return Bar()

    done = made.trainer.train(start, made.rows, 0, progress)
    assert told == ['of 9', *[1] * 9, 'closed']
    assert done.steps == 9
    assert done.rate > 0
    jax.tree.map(np.testing.assert_array_equal, before, jax.tree.map(np.array, start))
    # [CLS], four words, [SEP] in rows of 8; the last batch has half of its rows.
    assert done.padding == pytest.approx(1 - 3 * 20 * 6 / (9 * 8 * 8))


def test_what_cannot_be_trained_is_said(sst2, sst2_data, tiny, quick, toy, one_device):
    with pytest.raises(UserError, match=r'the loss of seed 3 is not finite in epoch 1: lower'):
        sst2(
            'encoder', sst2_data(train=16), transfer__warmup=0.0, optimizer__learning_rate=1e38,
            transfer__epochs=1,
        ).run(3)  # fmt: skip
    cast = casts.make_cast(tiny('encoder'), superglue.TASKS['copa'], quick().transfer)
    for size in (1, 7):
        config = quick(transfer__batch_size=size)
        with pytest.raises(UserError, match=rf'transfer.batch_size={size} does not hold whole'):
            finetuning.Trainer(cast, config, tiny('encoder').tokenizer, one_device)
    made = sst2('both', sst2_data(train=16), transfer__groups=1)
    params, _ = made.start(0)
    trunk = {name: part for name, part in params['trunk'].items() if name != 'head'}  # as if tied
    with pytest.raises(UserError, match=r'transfer\.groups=1 trains nothing: this model has no'):
        made.trainer.train({'trunk': trunk, 'head': {}}, made.rows, 0)
    mesh = meshes.make_mesh('data=3', jax.devices()[:3])
    with pytest.raises(UserError, match='3'):
        sst2('encoder', mesh=mesh)
