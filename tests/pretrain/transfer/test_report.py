"""The table against numbers worked out by hand."""

import json

import pytest

from pretrain.transfer import benchmark, glue, published, report, snli, sources, superglue
from pretrain.transfer.experiment import PRETRAINED, SCRATCH


def seeds(*scores, names=('accuracy',), **other):
    """Stored results, one a seed: the same value for all metrics unless a tuple gives each."""
    made = []
    for i, score in enumerate(scores):
        values = dict(zip(names, score if isinstance(score, tuple) else (score,) * len(names)))
        values['score'] = sum(values.values()) / len(values)
        scores_of = {'dev': values} | {k: v[i] for k, v in other.items()}
        made.append({'scores': scores_of, 'steps_per_second': 2.0 + i})
    return made


def task_result(task, pretrained, scratch=None, majority=None, setting=None, tried=1):
    runs = {PRETRAINED: pretrained} | ({SCRATCH: scratch} if scratch else {})
    return benchmark.TaskResult(task, majority or {}, runs, setting or {}, tried)


@pytest.fixture
def facts():
    """SST-2 with four seeds, two from scratch; MRPC with two metrics; one more task is missing."""
    sst2 = task_result(
        glue.TASKS['sst2'], seeds(0.9, 0.8, 0.7, 0.84), seeds(0.5, 0.6),
        {'accuracy': 0.51, 'score': 0.51},
    )  # fmt: skip
    mrpc = task_result(
        glue.TASKS['mrpc'], seeds((0.8, 0.6), (0.9, 0.7), (0.7, 0.8), names=('f1', 'accuracy')),
        seeds((0.6, 0.4), names=('f1', 'accuracy')),
        {'f1': 0.81, 'accuracy': 0.68, 'score': 0.745},
    )  # fmt: skip
    return report.summarise('glue', [sst2, mrpc], {'rte': 'no dev split'})


def test_medians_and_deviations_by_hand(facts):
    found = facts['tasks']['sst2']['metrics']['accuracy']
    assert found[PRETRAINED]['median'] == pytest.approx(0.82)  # (0.80 + 0.84) / 2
    # mean 0.81; squares 0.0081 + 0.0001 + 0.0121 + 0.0009 = 0.0212, over 3
    assert found[PRETRAINED]['deviation'] == pytest.approx((0.0212 / 3) ** 0.5)
    assert found[PRETRAINED]['values'] == [0.9, 0.8, 0.7, 0.84]
    assert found[SCRATCH]['deviation'] == pytest.approx(0.1 / 2**0.5)
    assert found['majority']['median'] == 0.51
    assert facts['tasks']['sst2']['steps_per_second'] == 3.5
    mrpc = facts['tasks']['mrpc']['metrics']
    assert mrpc['f1'][PRETRAINED]['median'] == pytest.approx(0.8)
    assert mrpc['accuracy'][PRETRAINED]['median'] == pytest.approx(0.7)
    assert mrpc['score'][PRETRAINED]['median'] == pytest.approx(0.75)  # of 0.7, 0.8, 0.75
    assert mrpc['f1'][SCRATCH]['deviation'] == 0.0


def test_the_score_is_the_mean_of_tasks_of_the_means_of_metrics(facts):
    assert facts['score'][PRETRAINED] == pytest.approx((0.82 + (0.8 + 0.7) / 2) / 2)
    assert facts['score'][SCRATCH] == pytest.approx((0.55 + 0.5) / 2)
    assert facts['score']['majority'] == pytest.approx((0.51 + 0.745) / 2)
    assert sorted(facts['missing']) == ['cola', 'mnli', 'qnli', 'qqp', 'rte', 'stsb', 'wnli']
    text = report.markdown(facts)
    assert 'mean of what is there, not the score' in text
    assert 'rte (no dev split)' in text
    assert all(name in text for name in facts['missing'])


def rows_of(text):
    """{(first cell, second cell): other cells} of the table."""
    lines = [x for x in text.splitlines() if x.startswith('|')]
    width = lines[0].count('|')
    assert all(x.count('|') == width for x in lines)
    cells = [[c.strip() for c in x.strip('|').split('|')] for x in lines]
    assert cells[1] == ['---'] * (width - 1)
    made = {tuple(c[:2]): c[2:] for c in cells}
    assert len(made) == len(cells)
    return made


def test_the_table_line_by_line(facts):
    rows = rows_of(report.markdown(facts))
    models = ['BiLSTM + ELMo (test)', 'GPT (test)', 'BERT base (test)', 'BERT large (test)']
    assert rows['task', 'metric'] == [
        'this checkpoint', 'from scratch', 'majority class', *models,
    ]  # fmt: skip
    assert rows['SST-2', 'acc.'] == [
        '82.0 ± 8.4 (4)', '55.0 ± 7.1 (2)', '51.0', '90.4', '91.3', '93.5', '94.9',
    ]  # fmt: skip
    assert rows['MRPC', 'F1'] == [
        '80.0 ± 10.0 (3)', '60.0', '81.0', '84.9', '82.3', '88.9', '89.3',
    ]  # fmt: skip
    assert rows['MRPC', 'acc.'][:3] == ['70.0 ± 10.0 (3)', '40.0', '68.0']
    assert rows['MRPC', 'mean of 2'][:3] == ['75.0 ± 5.0 (3)', '50.0', '74.5']
    last = rows['**glue**', 'mean of what is there, not the score']
    assert last == ['78.5', '52.5', '62.8', '71.0', '75.1', '79.6', '82.1']
    assert len(rows) == 7
    assert 'Devlin et al. 2019, table 1' in report.markdown(facts)


def test_with_all_tasks_there_it_is_the_score():
    names = {
        'mrpc': ('f1', 'accuracy'), 'qqp': ('f1', 'accuracy'), 'stsb': ('pearson', 'spearman'),
        'cola': ('matthews',),
    }  # fmt: skip
    results = [
        task_result(task, seeds(0.5, 0.7, names=names.get(name, task.metrics)))
        for name, task in glue.TASKS.items()
        if name not in ('ax', 'mnli')
    ]
    halves = {'dev_mismatched': [{'accuracy': 0.2, 'score': 0.2}, {'accuracy': 0.4, 'score': 0.4}]}
    mnli = task_result(glue.TASKS['mnli'], seeds(0.5, 0.7, **halves))
    without = report.summarise('glue', results, {})
    assert without['missing'] == ['mnli']
    whole = report.summarise('glue', [*results, mnli], {})
    assert whole['missing'] == []
    # Eight tasks at the median 0.6, MNLI (0.6 + 0.3) / 2.
    assert whole['score'] == {PRETRAINED: pytest.approx((8 * 0.6 + 0.45) / 9)}
    rows = rows_of(report.markdown(whole))
    assert rows['**glue**', 'score'][0] == '58.3'
    assert rows['MNLI', 'acc. mismatched'][0] == '30.0 ± 14.1 (2)'
    assert 'Missing' not in report.markdown(whole)
    # MNLI without its mismatched set is named, too.
    half = report.summarise('glue', [*results, task_result(glue.TASKS['mnli'], seeds(0.5))], {})
    assert half['missing'] == ['mnli accuracy_mismatched']
    assert 'not the score' in report.markdown(half)


def test_diagnostic_sets_have_lines_and_no_part_in_the_score():
    axb = [{'matthews': 0.1, 'score': 0.1}, {'matthews': 0.3, 'score': 0.3}]
    rte = task_result(superglue.TASKS['rte'], seeds(0.6, 0.8, axb=axb))
    facts = report.summarise('superglue', [rte], {})
    assert facts['score'][PRETRAINED] == pytest.approx(0.7)
    rows = rows_of(report.markdown(facts))
    assert rows['axb (by RTE)', 'Matthews'][:2] == ['20.0 ± 14.1 (2)', '']
    assert 'from scratch' not in rows['task', 'metric']


def test_a_labelled_test_split_has_lines_of_its_own_and_papers_stand_beside_them():
    tests = [{'accuracy': x, 'score': x} for x in (0.7, 0.75, 0.65)]
    made = task_result(snli.TASKS['snli'], seeds(0.8, 0.82, 0.81, test=tests), seeds(0.4))
    facts = report.summarise('snli', [made], {})
    assert facts['tasks']['snli']['test'] == {}  # from scratch has none: it was made without
    made.runs[SCRATCH][0]['scores']['test'] = {'accuracy': 0.45, 'score': 0.45}
    rows = rows_of(report.markdown(report.summarise('snli', [made], {})))
    assert rows['SNLI', 'acc.'] == ['81.0 ± 1.0 (3)', '40.0', '', '', '']
    assert rows['SNLI, test', 'acc.'] == ['70.0 ± 5.0 (3)', '45.0', '', '88.7', '89.9']
    assert len(rows) == 4
    notes = report.markdown(facts)
    assert 'GPT: Radford et al. 2018, table 2, test.  \n' in notes


def test_what_is_answered_by_rank_of_a_diagnostic_set_is_named_as_elsewhere():
    names = ('matthews', 'score', 'matthews by rank', 'score by rank')
    rte = task_result(superglue.TASKS['rte'], seeds(0.6, axb=[dict.fromkeys(names, 0.2)]))
    rows = rows_of(report.markdown(report.summarise('superglue', [rte], {})))
    shown = [metric for name, metric in rows if name == 'axb (by RTE)']
    assert shown == ['Matthews', 'Matthews by rank']


def test_a_grid_says_of_how_many_it_is_the_best():
    setting = {'transfer.epochs': 2, 'optimizer.learning_rate': 1e-4}
    made = task_result(glue.TASKS['sst2'], seeds(0.5), setting=setting, tried=24)
    text = report.markdown(report.summarise('glue', [made], {}))
    assert (
        'SST-2: the best of 24 settings on dev: transfer.epochs 2, optimizer.learning_rate 0.0001.'
    ) in text
    plain = task_result(glue.TASKS['sst2'], seeds(0.5))
    assert 'the best of' not in report.markdown(report.summarise('glue', [plain], {}))


def test_a_hidden_text_is_said():
    made = task_result(glue.TASKS['mrpc'], seeds(0.5))
    text = report.markdown(report.summarise('glue', [made], {}, 'sentence1'))
    assert 'The sentence1 was hidden, in training as on dev.' in text
    assert 'hidden' not in report.markdown(report.summarise('glue', [made], {}))


def test_text_to_text_has_lines_by_rank():
    names = ('accuracy', 'accuracy by rank')
    made = seeds((0.25, 0.75), names=names)
    made[0]['scores']['dev'] = {
        'accuracy': 0.25, 'score': 0.25, 'accuracy by rank': 0.75, 'score by rank': 0.75,
    }  # fmt: skip
    facts = report.summarise('glue', [task_result(glue.TASKS['sst2'], made)], {})
    assert facts['score'][PRETRAINED] == 0.25
    rows = rows_of(report.markdown(facts))
    assert rows['SST-2', 'acc.'][0] == '25.0'
    assert rows['SST-2', 'acc. by rank'][0] == '75.0'
    assert rows['SST-2', 'acc. by rank'][2:] == ['', '', '', '']


@pytest.mark.parametrize('name', ['snli', 'squad'])
def test_benchmarks_without_a_score_have_none(name):
    facts = report.summarise(name, [task_result(glue.TASKS['sst2'], seeds(0.5))], {})
    assert facts['score'] == {}
    assert facts['missing'] == []
    text = report.markdown(facts)
    assert 'not the score' not in text
    assert f'**{name}**' not in text


def test_files_are_written_whole(facts, tmp_path):
    text = report.write(facts | {'checkpoint': 'runs/x'}, tmp_path)
    assert (tmp_path / 'report.md').read_text() == text == report.markdown(facts)
    stored = json.loads((tmp_path / 'report.json').read_text())
    assert stored['checkpoint'] == 'runs/x'
    assert stored['tasks']['sst2']['metrics']['accuracy'][PRETRAINED]['values'] == [
        0.9, 0.8, 0.7, 0.84,
    ]  # fmt: skip
    assert report.markdown(stored) == text
    assert (tmp_path / 'report.png').read_bytes().startswith(b'\x89PNG')
    assert sorted(p.name for p in tmp_path.iterdir()) == ['report.json', 'report.md', 'report.png']


def test_published_rows_name_known_tasks_and_metrics_and_their_source():
    known = {
        name: {task: {*made.metrics, 'accuracy_mismatched'} for task, made in tasks.items()}
        for name, tasks in sources.TASKS.items()
    }
    known['squad'] = {f'squad_v{version}': {'exact', 'f1'} for version in ('1.1', '2.0')}
    assert set(published.PUBLISHED) == set(known)
    for name, rows in published.PUBLISHED.items():
        for row in rows:
            assert row.source
            assert row.split in ('dev', 'test')
            for task, scores in row.scores.items():
                assert set(scores) <= known[name][task], (row.model, task)
                assert all(-100 <= value <= 100 for value in scores.values())


@pytest.mark.parametrize('name', ['glue', 'superglue'])
def test_published_means_are_those_of_their_scores(name):
    """What was copied wrong from a table shows here."""
    for row in published.PUBLISHED[name]:
        tasks = []
        for task, scores in row.scores.items():
            values = list(scores.values())
            # BERT's table counts MNLI's two sets as two and leaves WNLI out.
            tasks += values if task == 'mnli' else [sum(values) / len(values)]
        assert sum(tasks) / len(tasks) == pytest.approx(row.average, abs=0.06), row.model
