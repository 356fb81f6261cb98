"""A fine-tuned model is a run: another task takes its trunk over, and its head if it fits."""

import dataclasses

import jax
import numpy as np
import pytest

from pretrain import commandline
from pretrain.errors import UserError
from pretrain.transfer import experiment, fine_tuned, glue, superglue, surgery
from pretrain.transfer.task import Example


@pytest.fixture
def start(tiny, quick, one_device):
    """start(task, source) -> (Experiment, its parameters of seed 0, the surgery's Report)."""

    def start(task, source, **changes):
        fields = dict.fromkeys(task.texts, 'ba kep') | {'sentence1': 'ba', 'sentence2': 'kep'}
        label = task.labels[0] if task.labels else 1.0
        data = experiment.Data({'train': [Example(0, fields, label)]}, {}, '')
        made = experiment.Experiment(source, task, data, quick(**changes), one_device, show=False)
        return made, *made.start(0)

    return start


def opened(folder):
    return surgery.open_source(folder, commandline.read_run_config(folder))


def moved_by_one(params):
    """As if trained: every parameter another than in the checkpoint."""
    return jax.tree.map(lambda x: np.asarray(x) + 1, params)


def test_another_task_with_as_many_labels_takes_the_head_over(start, tiny, tmp_path):
    """MNLI, then CB."""
    made, params, _ = start(glue.TASKS['mnli'], tiny('encoder'))
    fine_tuned.write(tmp_path / 'model', tiny('encoder'), made.task, moved_by_one(params))
    source = opened(tmp_path / 'model')
    assert source.task == {
        'benchmark': 'glue', 'name': 'mnli', 'kind': 'classes', 'low': 0.0, 'high': 5.0,
        'labels': ('entailment', 'neutral', 'contradiction'),
    }  # fmt: skip
    _, again, report = start(superglue.TASKS['cb'], source)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a + 1, b), params, again)
    assert report.drawn == report.mismatched == []
    assert {'output/bias', 'output/kernel'} < set(report.used)


def test_a_head_of_another_number_of_labels_is_drawn_anew_and_said(start, tiny, tmp_path):
    """MNLI, then RTE."""
    made, params, _ = start(glue.TASKS['mnli'], tiny('encoder'))
    fine_tuned.write(tmp_path / 'model', tiny('encoder'), made.task, moved_by_one(params))
    next_one, again, report = start(glue.TASKS['rte'], opened(tmp_path / 'model'))
    fits = lambda p: {'trunk': p['trunk'], 'pooler': p['head']['pooler']}  # noqa: E731
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a + 1, b), fits(params), fits(again))
    _, fresh, _ = start(glue.TASKS['rte'], tiny('encoder'))
    jax.tree.map(np.testing.assert_array_equal, fresh['head']['output'], again['head']['output'])
    assert again['head']['output']['kernel'].shape == (32, 2)
    assert report.mismatched == ['output/bias', 'output/kernel']
    said = next_one.banner()
    assert 'drawn anew for their shape: output/bias, output/kernel' in said
    assert 'RTE: train 1' in said
    # And once more: a run made of a fine-tuned run is one, too.
    fine_tuned.write(tmp_path / 'third', next_one.source, next_one.task, again)
    third = opened(tmp_path / 'third')
    assert third.task['name'] == 'rte'
    assert third.config.init_from == str(tmp_path / 'model')
    _, _, report = start(glue.TASKS['rte'], third)
    assert report.drawn == report.mismatched == []


@pytest.mark.parametrize(
    ('before', 'after', 'changes', 'kept'),
    [
        ('copa', 'stsb', {}, False),  # one output each
        ('record', 'rte', {}, False),  # two
        ('rte', 'rte', {'labels': ('yes', 'no')}, False),
        ('stsb', 'stsb', {'high': 1.0}, False),
        ('stsb', 'stsb', {'name': 'other'}, True),
    ],
)
def test_an_output_for_other_answers_is_drawn_anew_whatever_its_shape(
    start, tiny, tmp_path, before, after, changes, kept
):
    tasks = superglue.TASKS | glue.TASKS
    _, fresh, _ = start(tasks[after], tiny('encoder'))
    params = moved_by_one(fresh)
    fine_tuned.write(tmp_path / 'model', tiny('encoder'), tasks[before], params)
    task = dataclasses.replace(tasks[after], **changes)
    _, again, report = start(task, opened(tmp_path / 'model'))
    same = jax.tree.map(np.array_equal, again['head']['output'], params['head']['output'])
    assert all(jax.tree.leaves(same)) == kept
    assert ('output/kernel' in report.drawn) == (not kept)
    assert 'pooler/kernel' in report.used


def test_text_to_text_has_no_head_and_is_taken_over_whole(start, tiny, tmp_path):
    made, params, _ = start(glue.TASKS['mnli'], tiny('both'))
    fine_tuned.write(tmp_path / 'model', tiny('both'), made.task, moved_by_one(params))
    _, again, report = start(glue.TASKS['rte'], opened(tmp_path / 'model'))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a + 1, b), params, again)
    assert report.drawn == report.left == []


def test_a_decoders_run_scores_choices_as_well(start, tiny, quick, one_device, tmp_path):
    """Its table is tied to the logits, so nothing of them was lost with the task's head."""
    made, params, _ = start(glue.TASKS['sst2'], tiny('decoder'))
    fine_tuned.write(tmp_path / 'model', tiny('decoder'), made.task, params)
    source = opened(tmp_path / 'model')
    _, again, _ = start(glue.TASKS['rte'], source)
    jax.tree.map(np.testing.assert_array_equal, params['trunk'], again['trunk'])
    data = experiment.Data({'dev': [Example(0, {'sentence': 'ba'}, 'positive')]}, {}, '')
    config = quick(transfer__cast='choices')
    outcomes = [
        experiment.Experiment(s, glue.TASKS['sst2'], data, config, one_device, show=False).run(0)
        for s in (source, tiny('decoder'))
    ]
    assert outcomes[0].predictions == outcomes[1].predictions
    assert outcomes[0].facts['answers'] == outcomes[1].facts['answers']


def test_only_a_model_of_a_task_is_cleared_away(start, tiny, tiny_runs, tmp_path):
    fine_tuned.clear(tmp_path / 'none')
    made, params, _ = start(glue.TASKS['sst2'], tiny('encoder'))
    folder = tmp_path / 'model'
    fine_tuned.write(folder, tiny('encoder'), made.task, params)
    with pytest.raises(UserError, match='is there already'):
        fine_tuned.write(folder, tiny('encoder'), made.task, params)
    fine_tuned.clear(folder)
    assert not folder.exists()
    folder.mkdir()
    (folder / 'notes.txt').write_text('mine')
    for other in (folder, tiny_runs['encoder']):
        with pytest.raises(UserError, match='is there and no model of a task'):
            fine_tuned.clear(other)
    assert (folder / 'notes.txt').exists()
    assert (tiny_runs['encoder'] / 'config.json').exists()
