"""Tiny models learn separable tasks, the same bits every time; results as they are stored."""

import json
import random

import jax
import numpy as np
import pytest

from pretrain import meshes
from pretrain.errors import UserError
from pretrain.transfer import experiment, glue, superglue
from pretrain.transfer.task import Example

SETTINGS = {'task': 'sst2', 'seed': 0}


def same_bits(a, b):
    a, b = jax.tree.leaves(a), jax.tree.leaves(b)
    return len(a) == len(b) and all(
        np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in zip(a, b)
    )


def test_an_encoder_learns_what_one_word_decides_with_the_same_bits_every_time(sst2, sst2_data):
    made = sst2('encoder')
    first, again, other = made.run(0), made.run(0), made.run(1)
    for outcome in (first, other):
        assert outcome.scores['dev']['accuracy'] >= 0.95
        # The test split has no labels here; its sentences take turns, as the readers' order was.
        assert 'test' not in outcome.scores
        assert outcome.predictions['test'] == ['negative', 'positive'] * 4
    assert same_bits(first.params, again.params)
    assert first.predictions == again.predictions
    assert not same_bits(first.params['head'], other.params['head'])
    assert not same_bits(first.params['trunk'], other.params['trunk'])
    # Dev answers nothing but questions: with all its labels wrong the same model is made.
    data = sst2_data()
    swap = {'negative': 'positive', 'positive': 'negative'}
    data.splits['dev'] = [e._replace(label=swap[e.label]) for e in data.splits['dev']]
    wrong = sst2('encoder', data).run(0)
    assert same_bits(first.params, wrong.params)
    assert wrong.scores['dev']['accuracy'] == pytest.approx(1 - first.scores['dev']['accuracy'])
    assert wrong.facts['steps'] == first.facts['steps'] == 6 * 10


def test_a_decoder_learns_it_from_its_last_token(sst2):
    outcome = sst2('decoder').run(0)
    assert outcome.scores['dev']['accuracy'] >= 0.95
    assert outcome.predictions['test'] == ['negative', 'positive'] * 4


def test_an_encoder_and_decoder_learn_to_write_it(sst2):
    outcome = sst2('both').run(0)
    assert not outcome.params.get('head')
    assert outcome.scores['dev']['accuracy'] >= 0.95
    assert outcome.scores['dev']['accuracy by rank'] >= 0.95
    assert outcome.predictions['test'] == ['negative', 'positive'] * 4


@pytest.mark.parametrize('kind', ['decoder', 'both'])
def test_a_number_is_learned(kind, tiny, quick, toy, one_device):
    rng = random.Random(5)
    examples = [
        Example(
            i, {'sentence1': toy.sentence(rng, i % 6, 3), 'sentence2': toy.sentence(rng, None, 2)},
            float(i % 6),
        )
        for i in range(96)
    ]  # fmt: skip
    data = experiment.Data({'train': examples[:72], 'dev': examples[72:]}, {}, '')
    config = quick('stsb', transfer__epochs=16, transfer__pooling='mean' * (kind == 'encoder'))
    made = experiment.Experiment(
        tiny(kind), glue.TASKS['stsb'], data, config, one_device, show=False
    )
    outcome = made.run(0)
    gold = np.array([e.label for e in data.splits['dev']])
    assert np.corrcoef(gold, outcome.predictions['dev'])[0, 1] > 0.9
    assert outcome.scores['dev']['pearson'] > 0.9
    assert all(0 <= number <= 5 for number in outcome.predictions['dev'])


def test_diagnostic_and_mismatched_sets_are_answered_by_the_trained_model(
    tiny, quick, toy, one_device
):
    """The labels of dev_mismatched are all wrong, so its score is 0 where dev's is 1."""
    rng, labels = random.Random(2), glue.NLI

    def rows(count, turn=0, known=True):
        return [
            Example(
                10 + i, {'premise': toy.sentence(rng, i % 3), 'hypothesis': toy.sentence(rng)},
                labels[(i + turn) % 3] if known else None,
            )
            for i in range(count)
        ]  # fmt: skip

    splits = {'train': rows(96), 'dev': rows(12), 'dev_mismatched': rows(9, 1)}
    splits['test_mismatched'] = rows(6, known=False)
    unlabelled = glue.TASKS['ax'], rows(9, known=False)
    data = experiment.Data(splits, {'ax': unlabelled, 'again': (glue.TASKS['ax'], rows(9))}, '')
    config = quick('mnli', transfer__epochs=16, transfer__pooling='mean')
    outcome = experiment.Experiment(
        tiny('encoder'), glue.TASKS['mnli'], data, config, one_device, show=False
    ).run(0)
    assert outcome.predictions['dev'] == [*labels] * 4
    assert outcome.predictions['test_mismatched'] == [*labels] * 2
    assert outcome.predictions['ax'] == [*labels] * 3
    assert outcome.scores == {
        'dev': {'accuracy': 1.0, 'score': 1.0},
        'dev_mismatched': {'accuracy': 0.0, 'score': 0.0},
        'again': {'matthews': pytest.approx(1.0), 'score': pytest.approx(1.0)},
    }


@pytest.mark.parametrize(
    ('mesh', 'settings'),
    [
        ('data=2', {'transfer__dropout': 0.3, 'transfer__epochs': 1}),
        ('fsdp=2,tensor=2', {'transfer__unfreeze': True, 'transfer__epochs': 2}),
    ],
)
def test_several_devices_compute_what_one_computes(mesh, settings, sst2, sst2_data):
    """The last batch is not full, and what is frozen lies on all devices as well."""
    settings = settings | {'optimizer__learning_rate': 1e-3}
    data = sst2_data(train=21)
    one = sst2('encoder', data, **settings).run(0)
    count = 2 * mesh.count('=')
    mesh = meshes.make_mesh(mesh, jax.devices()[:count])
    many = sst2('encoder', data, mesh, **settings).run(0)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), one.params, many.params
    )
    assert one.scores == many.scores
    assert one.predictions == many.predictions
    assert one.facts['last_loss'] == pytest.approx(many.facts['last_loss'], rel=1e-4)


def test_what_a_seed_starts_from(sst2, tiny_runs):
    from pretrain.huggingface import run

    made = sst2('encoder')
    (first, report), (again, _), (other, _) = made.start(0), made.start(0), made.start(1)
    assert same_bits(first, again)
    assert same_bits(first['trunk'], other['trunk'])
    assert not same_bits(first['head'], other['head'])
    stored = run.read_array(tiny_runs['encoder'], 'model/encoder/layers/attention/query/kernel', 0)
    kernel = np.asarray(first['trunk']['encoder']['layers']['attention']['query']['kernel'])
    assert kernel.tobytes() == stored.tobytes()
    assert 'head/bias' in report.left
    scratch, nothing = made.start(0, experiment.SCRATCH)
    assert nothing is None
    assert jax.tree.map(np.shape, scratch) == jax.tree.map(np.shape, first)
    drawn = np.asarray(scratch['trunk']['encoder']['layers']['attention']['query']['kernel'])
    assert np.abs(drawn - kernel).max() > 0.01
    assert same_bits(scratch, made.start(0, experiment.SCRATCH)[0])
    assert not same_bits(scratch['trunk'], made.start(1, experiment.SCRATCH)[0]['trunk'])


def test_a_part_of_the_rows_is_the_same_for_all_and_in_their_order(sst2):
    rows = list(range(100))
    assert experiment.part_of(rows, 0) == experiment.part_of(rows, 100) == rows
    assert experiment.part_of(rows, 1000) == rows
    part = experiment.part_of(rows, 30)
    assert part == sorted(part) == experiment.part_of(rows, 30)
    assert len(set(part)) == 30
    assert part != rows[:30]
    assert len(sst2('encoder', transfer__train_rows=10).rows) == 10


def test_what_cannot_be_trained_is_said(sst2, sst2_data, tiny, quick, one_device):
    data = sst2_data()
    del data.splits['train']
    with pytest.raises(UserError, match='SST-2 has no train split'):
        sst2('encoder', data)
    for kind, cast, says in (
        ('encoder', 'text', 'transfer.cast=text needs an encoder and a decoder'),
        ('both', 'head', 'transfer.cast=head needs one stack'),
        ('encoder', 'choices', 'transfer.cast=choices needs a decoder'),
        ('encoder', 'heads', "transfer.cast='heads' is none of head, text, choices"),
    ):
        with pytest.raises(UserError, match=says):
            sst2(kind, transfer__cast=cast)
    wrong = Example(0, {'text': 'ba'}, 'False', spans=(('text', 0, 2), ('text', 0, 2)))
    with pytest.raises(UserError, match='WSC: none of 1 train examples is one to train on in this'):
        experiment.Experiment(
            tiny('both'), superglue.TASKS['wsc'], experiment.Data({'train': [wrong]}, {}, ''),
            quick(), one_device, show=False,
        )  # fmt: skip
    with pytest.raises(UserError, match=r"transfer\.pooling='firs' is none of first, last"):
        sst2('encoder', transfer__pooling='firs')


@pytest.mark.parametrize('kind', ['decoder', 'both'])
def test_scored_choices_train_nothing_and_need_no_train_split(kind, sst2, sst2_data):
    data = sst2_data(dev=4, test=2)
    made = sst2(kind, data, transfer__cast='choices', transfer__shots=2)
    outcome = made.run(0)
    assert outcome.params is None
    assert 'steps' not in outcome.facts
    assert len(outcome.predictions['dev']) == 4
    assert set(outcome.predictions['dev']) <= {'negative', 'positive'}
    assert outcome.predictions == made.run(0).predictions
    del data.splits['train']
    plain = sst2(kind, data, transfer__cast='choices')
    assert len(plain.run(0).predictions['dev']) == 4


def outcome_of(data, score=0.5, **facts):
    """An Outcome as if trained: predictions are those of a model that always says positive."""
    made = {s: ['positive'] * len(e) for s, e in data.splits.items() if s != 'train'}
    return experiment.Outcome({'dev': {'accuracy': score, 'score': score}}, made, facts, None)


def test_a_stored_result_comes_back(sst2, sst2_data, tmp_path):
    data = sst2_data(dev=2, test=1)
    data.splits['dev'][0].fields['sentence'] = 'naïve\u2028line'
    made = sst2('decoder', data, transfer__cast='choices')
    assert experiment.read(tmp_path / 'none', SETTINGS) is None
    made.write(tmp_path / 'a' / 'b', outcome_of(data, 0.25, steps=7), SETTINGS)
    facts = experiment.read(tmp_path / 'a' / 'b', SETTINGS)
    assert facts['scores'] == {'dev': {'accuracy': 0.25, 'score': 0.25}}
    assert facts['steps'] == 7
    assert experiment.read_predictions(tmp_path / 'a' / 'b', 'dev') == ['positive'] * 2
    assert [json.loads(x) for x in (tmp_path / 'a/b/dev.jsonl').read_text().splitlines()] == [
        {'index': 48, 'prediction': 'positive', 'label': 'negative'},
        {'index': 49, 'prediction': 'positive', 'label': 'positive'},
    ]
    assert experiment.read_lines(tmp_path / 'a/b', 'test')[0]['label'] is None
    assert {p.name for p in (tmp_path / 'a/b').iterdir()} == {
        'result.json', 'dev.jsonl', 'test.jsonl',
    }  # fmt: skip


def test_a_result_is_there_only_when_all_of_it_is(sst2, sst2_data, tmp_path):
    """A kill between the files, here an error in the last of them, leaves no result."""
    data = sst2_data(dev=2, test=1)
    made = sst2('decoder', data, transfer__cast='choices')
    broken = outcome_of(data)
    broken.predictions['test'] = [object()]
    with pytest.raises(TypeError):
        made.write(tmp_path, broken, SETTINGS)
    assert experiment.read(tmp_path, SETTINGS) is None
    assert not (tmp_path / 'test.jsonl').exists()


def test_results_with_other_settings_or_damaged_are_refused(sst2, sst2_data, tmp_path):
    data = sst2_data(dev=2, test=0)
    made = sst2('decoder', data, transfer__cast='choices')
    made.write(tmp_path, outcome_of(data), SETTINGS)
    path = tmp_path / 'result.json'
    for other, says in (
        ({'task': 'sst2', 'seed': 1}, 'was made with seed=0, not 1'),
        ({'task': 'sst2', 'seed': 0, 'transfer.epochs': 2}, 'transfer.epochs=None, not 2'),
        ({'task': 'sst2'}, 'seed=0, not None'),
    ):
        with pytest.raises(UserError, match=says):
            experiment.read(tmp_path, other)
    good = path.read_text()
    for damage in (
        good[:40], '', '[]', '3', '{}', '{"settings": 1}', '{"settings": []}', '\x00',
        '{"settings": {}}', '{"settings": {}, "scores": []}', '{"settings": {}, "scores": {}}',
    ):  # fmt: skip
        path.write_text(damage)
        with pytest.raises(UserError, match='is no result: remove it'):
            experiment.read(tmp_path, SETTINGS)
    path.write_bytes(b'\xff\xfe')
    with pytest.raises(UserError, match='is no result: remove it'):
        experiment.read(tmp_path, SETTINGS)
    (tmp_path / 'dev.jsonl').write_text('{"index": 0, "predi')
    with pytest.raises(UserError, match=r'dev\.jsonl.* is missing or damaged: remove result\.json'):
        experiment.read_predictions(tmp_path, 'dev')
    (tmp_path / 'dev.jsonl').unlink()
    with pytest.raises(UserError, match=r'dev\.jsonl.* is missing or damaged'):
        experiment.read_predictions(tmp_path, 'dev')


def test_settings_name_all_that_a_result_depends_on(tiny, quick, sst2_data):
    from configs import own as own_task

    task, data, config = glue.TASKS['sst2'], sst2_data(), quick()

    def settings(**changes):
        given = {'config': config, 'source': tiny('encoder'), 'data': data, 'task': task}
        given |= {'seed': 0, 'kind': 'pretrained'} | changes
        return experiment.settings_of(**given)

    whole = settings()
    assert whole == json.loads(json.dumps(whole)) == settings()
    assert {'transfer.epochs', 'optimizer.schedule.warmup', 'optimizer.learning_rate'} < set(whole)
    for changes in (
        {'seed': 1}, {'kind': 'scratch'}, {'data': data._replace(digest='other')},
        {'source': tiny('decoder')}, {'task': glue.TASKS['cola']},
        {'config': quick(transfer__dropout=0.25)}, {'config': quick(optimizer__b1=0.8)},
    ):  # fmt: skip
        assert settings(**changes) != whole, changes
    # The metrics of a task of one's own are in its config alone.
    own = own_task.get_config()
    before = settings(config=own)
    own.own.metrics = ('f1',)
    assert settings(config=own) != before
