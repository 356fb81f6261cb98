"""Which results are made, kept, made again, chosen and sent in."""

import dataclasses
import json
import typing

import pytest

from pretrain.errors import UserError
from pretrain.transfer import benchmark, experiment, glue, sources, submission, superglue
from pretrain.transfer.experiment import PRETRAINED, SCRATCH, Data
from pretrain.transfer.task import Example

NLI = ('entailment', 'neutral', 'contradiction')
PAIR = ('sentence1', 'sentence2')


def examples(labels, **fields):
    return [Example(i, {'sentence': 'ba'} | fields, label) for i, label in enumerate(labels)]


@pytest.fixture
def stub(monkeypatch):
    """Experiments whose scores a function says: stub.score(config, task, seed, kind).

    `stub.ran` lists what was trained.
    """

    class Stub(experiment.Experiment):
        ran: typing.ClassVar = []
        score = staticmethod(lambda config, task, seed, kind: seed / 10)

        def __init__(self, source, task, data, config, mesh, show=True):
            self.task, self.data, self.config = task, data, config

        def run(self, seed, kind=PRETRAINED):
            Stub.ran.append((self.task.name, kind, seed))
            score = Stub.score(self.config, self.task, seed, kind)
            scores = {'dev': {'accuracy': score, 'score': score}}
            made = {s: [self.task.labels[seed % 2]] * len(e) for s, e in self.data.splits.items()}
            made |= {n: [t.labels[seed % 2]] * len(e) for n, (t, e) in self.data.related.items()}
            return experiment.Outcome(scores, made, {'seed': seed}, None)

    Stub.ran.clear()
    monkeypatch.setattr(sources, 'open_experiment', Stub)
    return Stub


@pytest.fixture
def run_task(tiny, quick, one_device, tmp_path):
    """run_task(task, data, seeds, scratch seeds, grid=None, **changes) -> TaskResult."""

    def run_task(task, data, seeds, scratch=0, grid=None, kind='encoder', **changes):
        config = quick(**changes)
        return benchmark.run_task(
            tiny(kind), task, data, config, one_device, tmp_path / 'work', seeds, scratch,
            said.append, grid,
        )  # fmt: skip

    said = run_task.said = []
    return run_task


SST2 = glue.TASKS['sst2']
DATA = Data(
    {'train': examples(['positive'] * 3), 'dev': examples(['positive', 'negative'])}, {}, 'digest'
)


def stamps(folder):
    return {p: p.stat().st_mtime_ns for p in folder.rglob('*') if p.is_file()}


def test_a_rerun_fills_gaps_and_nothing_else(stub, run_task, tmp_path):
    first = run_task(SST2, DATA, 3, 2)
    ran = [(PRETRAINED, 0), (PRETRAINED, 1), (PRETRAINED, 2), (SCRATCH, 0), (SCRATCH, 1)]
    assert stub.ran == [('sst2', kind, seed) for kind, seed in ran]
    assert len(run_task.said) == 5
    assert [r['scores']['dev']['score'] for r in first.runs[PRETRAINED]] == [0.0, 0.1, 0.2]
    before = stamps(tmp_path / 'work')
    stub.ran.clear()
    again = run_task(SST2, DATA, 3, 2)
    assert stub.ran == []
    assert again.runs == first.runs
    assert stamps(tmp_path / 'work') == before
    gone = tmp_path / 'work/sst2/pretrained/seed-1/result.json'
    gone.unlink()
    assert run_task(SST2, DATA, 3, 2).runs == first.runs
    assert stub.ran == [('sst2', PRETRAINED, 1)]
    after = stamps(tmp_path / 'work')
    assert after.keys() == before.keys()
    assert {p.parent for p in after if after[p] != before[p]} == {gone.parent}
    stub.ran.clear()
    assert len(run_task(SST2, DATA, 5, 2).runs[PRETRAINED]) == 5
    assert stub.ran == [('sst2', PRETRAINED, 3), ('sst2', PRETRAINED, 4)]
    stub.ran.clear()
    assert SCRATCH not in run_task(SST2, DATA, 1).runs


def test_other_settings_data_or_damage_are_refused(stub, run_task, tmp_path):
    run_task(SST2, DATA, 1)
    stub.ran.clear()
    with pytest.raises(UserError, match=r'seed-0/result\.json.* with transfer\.epochs=10, not 2'):
        run_task(SST2, DATA, 1, transfer__epochs=2)
    with pytest.raises(UserError, match="was made with data='digest', not 'other'"):
        run_task(SST2, DATA._replace(digest='other'), 1)
    with pytest.raises(UserError, match='was made with checkpoint='):
        run_task(SST2, DATA, 1, kind='decoder')
    path = tmp_path / 'work/sst2/pretrained/seed-0/result.json'
    path.write_text(path.read_text()[:50])
    with pytest.raises(UserError, match='is no result: remove it'):
        run_task(SST2, DATA, 1)
    assert stub.ran == []


def test_what_is_done_is_kept_when_a_later_seed_fails(stub, run_task):
    def fails_at_two(config, task, seed, kind):
        if seed == 2:
            raise UserError('the loss is not finite')
        return 0.5

    stub.score = staticmethod(fails_at_two)
    with pytest.raises(UserError, match='not finite'):
        run_task(SST2, DATA, 4)
    stub.score = staticmethod(lambda *args: 0.5)
    stub.ran.clear()
    run_task(SST2, DATA, 4)
    assert stub.ran == [('sst2', PRETRAINED, 2), ('sst2', PRETRAINED, 3)]


def test_a_grid_keeps_the_point_with_the_best_mean_on_dev(stub, run_task, tmp_path):
    """The point with the best single seed is another one."""
    scores = {(2, 1e-3): (0.9, 0.1), (2, 1e-4): (0.6, 0.6)}
    scores |= {(3, 1e-3): (0.5, 0.6), (3, 1e-4): (0, 0)}
    stub.score = staticmethod(
        lambda c, t, seed, kind: scores[c.transfer.epochs, c.optimizer.learning_rate][seed]
    )
    grid = {'transfer.epochs': (2, 3), 'optimizer.learning_rate': (1e-3, 1e-4)}
    made = run_task(SST2, DATA, 2, 1, grid)
    assert made.setting == {'transfer.epochs': 2, 'optimizer.learning_rate': 1e-4}
    assert made.tried == 4
    assert [r['scores']['dev']['score'] for r in made.runs[PRETRAINED]] == [0.6, 0.6]
    assert len(stub.ran) == 4 * 2 + 1
    [scratch] = made.runs[SCRATCH]
    assert scratch['settings']['transfer.epochs'] == 2
    assert scratch['settings']['optimizer.learning_rate'] == 1e-4
    folders = {p.parent.name for p in (tmp_path / 'work/sst2/pretrained').glob('*/seed-0')}
    assert folders == {f'epochs={e},learning_rate={r}' for e in (2, 3) for r in (0.001, 0.0001)}
    stub.ran.clear()
    assert run_task(SST2, DATA, 2, 1, grid) == made
    assert stub.ran == []


def test_grids_reach_every_key_and_no_other(quick):
    config = quick()
    made = benchmark.with_point(
        config, {'optimizer.schedule.warmup': 5.0, 'seed': 3, 'transfer.epochs': 7}
    )
    assert (made.optimizer.schedule.warmup, made.seed, made.transfer.epochs) == (5.0, 3, 7)
    assert config.transfer.epochs == 10
    for point in ({'transfer.epoch': 1}, {'transfr.epochs': 1}, {'transfer.epochs': 'many'}):
        with pytest.raises(UserError, match='does not suit the config') as raised:
            benchmark.with_point(config, point)
        assert '\n' not in str(raised.value)
    assert benchmark.points_of(None) == [{}]
    assert benchmark.points_of({'a.b': (1, 2), 'c': 3}) == [{'a.b': 1, 'c': 3}, {'a.b': 2, 'c': 3}]


def test_scored_choices_without_shots_draw_nothing_so_one_seed_is_all(stub, run_task):
    run_task(SST2, DATA, 3, kind='decoder', transfer__cast='choices')
    assert stub.ran == [('sst2', PRETRAINED, 0)]
    stub.ran.clear()
    data = DATA._replace(digest='with shots')
    task = dataclasses.replace(SST2, name='other')
    run_task(task, data, 2, kind='decoder', transfer__cast='choices', transfer__shots=1)
    assert len(stub.ran) == 2


def test_a_real_rerun_has_the_bits_of_the_first(run_task, sst2_data, tmp_path):
    """Killed after the first seed: the second is the same whoever came before it."""
    data = sst2_data(train=24, dev=12, test=4)
    both = run_task(SST2, data, 2, transfer__epochs=2)
    path = tmp_path / 'work/sst2/pretrained/seed-1/result.json'
    before = json.loads(path.read_text())
    assert before['steps'] == 6
    path.unlink()
    again = run_task(SST2, data, 2, transfer__epochs=2).runs[PRETRAINED][1]
    timings = ('steps_per_second', 'answering_seconds')
    assert {k: v for k, v in again.items() if k not in timings} == {
        k: v for k, v in before.items() if k not in timings
    }
    assert both.runs[PRETRAINED][0]['last_loss'] != before['last_loss']


def test_majority_by_hand():
    data = Data({
        'train': examples(['negative', 'positive', 'negative']),
        'dev': examples(['positive', 'positive', 'negative', 'positive']),
    }, {}, '')  # fmt: skip
    assert benchmark.majority(SST2, data) == {'accuracy': 0.25, 'score': 0.25}

    # F1 of 'equivalent' when always said: precision 1/4, recall 1.
    data = Data({
        'train': examples(['equivalent', 'equivalent', 'not_equivalent']),
        'dev': examples(['equivalent', *['not_equivalent'] * 3]),
    }, {}, '')  # fmt: skip
    assert benchmark.majority(glue.TASKS['mrpc'], data) == pytest.approx(
        {'f1': 0.4, 'accuracy': 0.25, 'score': 0.325}
    )

    mnli = {
        'train': examples(['neutral', 'entailment', 'neutral']),
        'dev': examples(['neutral', 'entailment']),
        'dev_mismatched': examples(['entailment', 'neutral', 'contradiction', 'contradiction']),
    }
    assert benchmark.majority(glue.TASKS['mnli'], Data(mnli, {}, '')) == {
        'accuracy': 0.5, 'score': 0.5, 'accuracy_mismatched': 0.25,
    }  # fmt: skip

    numbers = Data({'train': examples([1.0, 4.0]), 'dev': examples([0.0, 5.0])}, {}, '')
    assert benchmark.majority(glue.TASKS['stsb'], numbers) == {
        'pearson': 0.0, 'spearman': 0.0, 'score': 0.0,
    }  # fmt: skip

    entities = [
        Example(i, {}, 'Kep', choices=('Ba', 'Kep'), answers=answers)
        for i, answers in enumerate([('Kep',), ('Ba', 'Kep')])
    ]
    found = benchmark.majority(
        superglue.TASKS['record'], Data({'train': entities, 'dev': entities}, {}, '')
    )
    assert found == {'token_f1': 0.5, 'token_exact': 0.5, 'score': 0.5}
    for splits in ({'dev': numbers.splits['dev']}, {'train': numbers.splits['train']}):
        assert benchmark.majority(glue.TASKS['stsb'], Data(splits, {}, '')) == {}


def result(score, **splits):
    dev = {'accuracy': score, 'score': score}
    return {'scores': {'dev': dev} | splits}


def test_the_seed_in_the_middle_answers_the_test():
    assert benchmark.median_seed([result(0.3)]) == 0
    assert benchmark.median_seed([result(x) for x in (0.9, 0.1, 0.5)]) == 2
    assert benchmark.median_seed([result(x) for x in (0.9, 0.1, 0.5, 0.6)]) == 2  # the lower one
    # Of MNLI both dev sets count.
    pairs = [(0.9, 0.1), (0.6, 0.6), (0.55, 0.8)]
    results = [result(a, dev_mismatched={'accuracy': b, 'score': b}) for a, b in pairs]
    assert benchmark.dev_scores(results[0]) == pytest.approx(
        {'accuracy': 0.9, 'score': 0.5, 'accuracy_mismatched': 0.1}
    )
    assert results[0]['scores']['dev']['score'] == 0.9
    assert benchmark.median_seed(results) == 1


def test_the_submission_holds_the_answers_of_that_seed_to_every_test_set(stub, run_task, tmp_path):
    """MNLI has two test sets and its model answers AX as well."""
    pairs = {'premise': 'ba', 'hypothesis': 'kep'}
    rows = lambda n, labels=(None,): [  # noqa: E731
        Example(i, pairs, labels[i % len(labels)]) for i in range(n)
    ]
    splits = {
        'train': rows(3, NLI), 'dev': rows(3, NLI), 'dev_mismatched': rows(3, NLI),
        'test': rows(4), 'test_mismatched': rows(5),
    }  # fmt: skip
    data = Data(splits, {'ax': (glue.TASKS['ax'], rows(6))}, '')
    seeds = [0.9, 0.5, 0.1]
    stub.score = staticmethod(lambda config, task, seed, kind: seeds[seed])
    made = run_task(glue.TASKS['mnli'], data, 3)
    sst2 = Data(DATA.splits | {'test': examples([None] * 2)}, {}, 'digest')
    other = run_task(SST2, sst2, 1)
    sent = benchmark.write_submission(
        'glue', [made, other], {'mnli': data, 'sst2': sst2}, tmp_path / 'work'
    )
    files = submission.read_back(sent.path)
    # The stub of seed 1, the median, says the second label; seed 0 the first.
    assert {name: (len(rows), {said for _, said in rows}) for name, rows in files.items()} == {
        'MNLI-m.tsv': (4, {'neutral'}), 'MNLI-mm.tsv': (5, {'neutral'}), 'AX.tsv': (6, {'neutral'}),
        'SST-2.tsv': (2, {'0'}),
    }  # fmt: skip
    assert any('CoLA.tsv' in remark for remark in sent.remarks)
    assert benchmark.write_submission('snli', [other], {'sst2': sst2}, tmp_path).path is None
    (tmp_path / 'work/sst2/pretrained/seed-0/test.jsonl').unlink()
    with pytest.raises(UserError, match=r'test\.jsonl.* is missing or damaged'):
        benchmark.write_submission('glue', [other], {'sst2': sst2}, tmp_path / 'work')


def test_what_can_be_run_and_why_not_the_rest(toy, quick, tmp_path):
    config = quick('')
    toy.glue(tmp_path, 'SST-2', ['sentence'], [0, 1], {'train': 4, 'dev': 2, 'test': 2})
    toy.glue(tmp_path, 'RTE', PAIR, NLI[:1], {'train': 2})
    toy.glue(tmp_path, 'WNLI', PAIR, [0], {'test': 2})
    toy.tsv(tmp_path / 'AX' / 'AX.tsv', [{'index': 0, 'sentence1': 'a', 'sentence2': 'b'}])
    found, missing = benchmark.chosen_tasks(config, tmp_path)
    assert found == ['sst2']
    assert missing['rte'] == 'no dev split'
    assert missing['wnli'] == missing['cola'] == 'no train and no dev split'
    assert missing['ax'] == 'the model of mnli answers it, which is not run'
    assert len(missing) == 9
    assert benchmark.chosen_tasks(config, tmp_path, ['sst2'])[1].keys() == {'rte', 'wnli', 'ax'}
    for names, says in (
        (['sst'], "--tasks: 'sst' is none of cola, sst2"),
        (['ax'], "--tasks: 'ax' is none of"),
        (['rte'], 'no train and dev files of rte'),
    ):
        with pytest.raises(UserError, match=says):
            benchmark.chosen_tasks(config, tmp_path, names)
    assert benchmark.chosen_tasks(quick('sst2'), tmp_path)[0] == ['sst2']
    with pytest.raises(UserError, match='no train and dev files of rte'):
        benchmark.chosen_tasks(quick('rte'), tmp_path)


def test_squad_is_one_task(quick, tmp_path):
    from configs import squad

    config = quick(config=squad.get_config('v2.0'))
    assert benchmark.chosen_tasks(config, tmp_path) == (['squad_v2.0'], {})
    assert benchmark.chosen_tasks(config, tmp_path, ['squad_v2.0'])[0] == ['squad_v2.0']
    with pytest.raises(UserError, match=r'--tasks: there is squad_v2\.0 alone'):
        benchmark.chosen_tasks(config, tmp_path, ['squad_v1.1'])


def test_scores_of_seeds_are_told_as_they_are_made(stub, run_task):
    run_task(SST2, DATA, 2)
    assert run_task.said == [
        'SST-2 pretrained  seed 0: accuracy 0.0000, score 0.0000',
        'SST-2 pretrained  seed 1: accuracy 0.1000, score 0.1000',
    ]
