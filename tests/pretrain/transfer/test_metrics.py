"""Metrics against scikit-learn, scipy and cases by hand, degenerate ones included."""

import math
import warnings

import numpy as np
import pytest
import scipy.stats

from pretrain.errors import UserError
from pretrain.transfer import metrics
from pretrain.transfer.task import Example, Task


def make_task(labels=('no', 'yes'), names=('accuracy',), kind='classes'):
    return Task('made', 'Made', 'own', kind, labels, ('text',), names, read=lambda *_: [])


def make_examples(gold, groups=None):
    groups = groups or [None] * len(gold)
    return [
        Example(row, {}, label, group=group)
        for row, (label, group) in enumerate(zip(gold, groups, strict=True))
    ]


def measure(name, gold, predictions, labels=('no', 'yes'), groups=None):
    return metrics.METRICS[name](make_task(labels), make_examples(gold, groups), predictions)


def flipped(gold, predictions, labels):
    """Predictions outside the labels made wrong ones: the label after the right one."""
    return [
        made if made in labels else labels[(labels.index(right) + 1) % len(labels)]
        for right, made in zip(gold, predictions, strict=True)
    ]


def classified(labels):
    """Pairs of gold labels and predictions: random ones and degenerate ones."""
    generator = np.random.default_rng(len(labels))
    first, last = labels[0], labels[-1]
    for rows in (1, 2, 3, 10, 300):
        yield [str(x) for x in generator.choice(labels, rows)], list(labels[:1]) * rows
        for said in (labels, (*labels, 'else', '')):
            gold, made = generator.choice(labels, rows), generator.choice(said, rows)
            yield [str(x) for x in gold], [str(x) for x in made]
    yield [first] * 5, [first] * 5  # no positives at all
    yield [last] * 5, [last] * 5
    yield [first] * 5, [last] * 5
    yield [first, last] * 3, [last] * 6  # constant predictions
    yield [first] * 6, [first, last] * 3
    yield [last, first, last], ['else', 'else', 'else']
    yield [last], [last]
    yield [first], ['']


@pytest.mark.parametrize('labels', [('no', 'yes'), ('entailment', 'contradiction', 'neutral')])
def test_classes_against_scikit_learn(labels):
    reference = pytest.importorskip('sklearn.metrics')
    cases = 0
    for gold, predictions in classified(labels):
        made = flipped(gold, predictions, labels)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            expected = {
                'accuracy': reference.accuracy_score(gold, predictions),
                'matthews': reference.matthews_corrcoef(gold, made),
                'macro_f1': reference.f1_score(
                    gold, made, labels=labels, average='macro', zero_division=0
                ),
                'f1': reference.f1_score(
                    gold, made, labels=labels[-1:], average='macro', zero_division=0
                ),
            }
        expected['f1a'] = expected['f1']
        for name, value in expected.items():
            found = measure(name, gold, predictions, labels)
            assert found == pytest.approx(value, abs=1e-12), (name, gold, predictions)
            assert type(found) is float
        cases += 1
    assert cases == 23


def test_f1_by_hand():
    gold = ['yes', 'yes', 'yes', 'no', 'no']
    # 2 found, 1 missed, 1 false: precision 2/3, recall 2/3.
    assert measure('f1', gold, ['yes', 'yes', 'no', 'yes', 'no']) == pytest.approx(2 / 3)
    # The last label is the positive one, not the first in the alphabet or in the data.
    assert measure('f1', ['b', 'b', 'a'], ['b', 'b', 'b'], labels=('b', 'a')) == 0
    assert measure('f1', ['no', 'no'], ['no', 'no']) == 0
    # Words that are no label: of 'no' they count as 'yes', so precision falls to 1/2.
    assert measure('f1', ['yes', 'no'], ['yes', 'maybe']) == pytest.approx(2 / 3)


def test_matthews_by_hand():
    # tp 3, tn 2, fp 1, fn 2: (3*2 - 1*2) / sqrt(4 * 5 * 3 * 4)
    gold = ['yes'] * 5 + ['no'] * 3
    predictions = ['yes', 'yes', 'yes', 'no', 'no', 'yes', 'no', 'no']
    assert measure('matthews', gold, predictions) == pytest.approx(4 / math.sqrt(240))
    assert measure('matthews', gold, ['yes'] * 8) == 0
    assert measure('matthews', ['yes'] * 8, predictions) == 0
    assert measure('matthews', ['yes', 'no'], ['no', 'yes']) == pytest.approx(-1)


def test_matthews_of_many_rows_does_not_overflow():
    gold = ['yes', 'no'] * 200_000
    assert measure('matthews', gold, gold) == pytest.approx(1)


def test_macro_f1_counts_absent_classes():
    labels = ('a', 'b', 'c')
    assert measure('macro_f1', ['a', 'b'], ['a', 'b'], labels) == pytest.approx(2 / 3)


def numbers():
    """Pairs of gold numbers and predictions that are not constant."""
    generator = np.random.default_rng(0)
    for rows in (2, 3, 10, 300):
        gold = generator.uniform(0, 5, rows)
        yield gold, gold + generator.normal(size=rows)
        if rows > 2:
            # Ties on both sides.
            yield np.arange(rows) % 3, np.round(generator.uniform(0, 1, rows) + np.arange(rows) / 9)
    yield np.array([0.0, 2.5, 5.0]), np.array([3.0, 3.0, 3.0000001])
    yield np.array([0.0, 2.5, 5.0, 5.0]), np.array([-1.0, -1.0, 4.2, -1.0])
    yield np.arange(4.0), -np.arange(4.0)
    yield np.arange(4.0), np.arange(4.0) * 1e200


@pytest.mark.parametrize(
    ('name', 'reference'),
    [('pearson', scipy.stats.pearsonr), ('spearman', scipy.stats.spearmanr)],
)
def test_correlations_against_scipy(name, reference):
    for gold, predictions in numbers():
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            # scipy's own squares overflow at 1e200; the correlation does not depend on the unit.
            expected = reference(gold, predictions / max(1, np.abs(predictions).max())).statistic
        found = measure(name, gold.tolist(), predictions.tolist(), labels=())
        assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize('name', ['pearson', 'spearman'])
def test_correlation_that_is_not_defined_is_zero(name):
    gold = [0.0, 1.5, 5.0]
    for predictions in ([0.1] * 3, [0.0] * 3, [-1.0] * 3, [1.0, math.nan, 2.0], [1, math.inf, 2]):
        assert measure(name, gold, predictions, labels=()) == 0
    assert measure(name, [2.2] * 3, gold, labels=()) == 0
    assert measure(name, [2.0], [2.0], labels=()) == 0
    # 0.1 cannot be written in binary: the mean of a hundred differs from each of them.
    assert measure(name, [float(x) for x in range(100)], [0.1] * 100, labels=()) == 0


def test_spearman_ties_take_the_mean_rank():
    # Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: covariance 4.5, variances 4.5 and 5.
    found = measure('spearman', [1.0, 2.0, 3.0, 4.0], [10.0, 20.0, 20.0, 90.0], labels=())
    assert found == pytest.approx(4.5 / math.sqrt(4.5 * 5))


def test_multirc_toy_of_two_questions():
    gold = ['1', '0', '0', '1', '1']
    predictions = ['1', '0', '0', '1', '0']
    groups = [(0, 0), (0, 0), (0, 0), (0, 1), (0, 1)]
    labels = ('0', '1')
    assert measure('exact_groups', gold, predictions, labels, groups) == 0.5
    assert measure('f1a', gold, predictions, labels, groups) == pytest.approx(4 / 5)
    # A group that does not stand together, and words that are no label.
    mixed = [(0, 0), (0, 1), (0, 0), (0, 1), (0, 0)]
    assert measure('exact_groups', gold, predictions, labels, mixed) == 0.5
    assert measure('exact_groups', gold, [*predictions[:3], '?', '1'], labels, groups) == 0.5
    # Questions of the same number in two passages are two questions.
    passages = [(0, 0), (0, 0), (1, 0), (1, 0), (1, 0)]
    assert measure('exact_groups', gold, predictions, labels, passages) == 0.5
    assert measure('exact_groups', gold, predictions, labels) == 0.8


def test_gender_parity():
    gold = ['yes'] * 8
    groups = [0, 0, 1, 1, 2, 2, 3, 3]
    predictions = ['no', 'no', 'yes', 'no', 'yes', 'yes', '?', '?']
    assert measure('gender_parity', gold, predictions, groups=groups) == 0.5
    assert measure('gender_parity', gold, predictions) == 0
    # Without labels too, and not counting a sentence without its partner.
    assert measure('gender_parity', [None] * 3, ['no', 'no', 'yes'], groups=[0, 0, 1]) == 1


def test_record():
    task = make_task((), ('token_f1', 'token_exact'), 'entity')
    examples = [
        Example(0, {}, answers=('The U.S.', 'United States of America')),
        Example(1, {}, answers=('Ann',)),
        Example(1, {}, answers=('Ann',)),  # the same query again does not count
        Example(2, {}, answers=('Bob Dylan',)),
    ]
    made = metrics.score(task, examples, ['us', '', 'Ann', 'Dylan'])
    assert made['token_exact'] == pytest.approx(1 / 3)
    assert made['token_f1'] == pytest.approx((1 + 0 + 2 / 3) / 3)
    assert made['score'] == pytest.approx((1 / 3 + 5 / 9) / 2)


def test_score_is_the_mean_of_the_metrics():
    task = make_task((), ('pearson', 'spearman'), 'number')
    gold, predictions = [0.0, 1.0, 2.0, 5.0], [0.0, 1.0, 4.0, 3.0]
    made = metrics.score(task, make_examples(gold), predictions)
    assert list(made) == ['pearson', 'spearman', 'score']
    assert made['spearman'] == pytest.approx(0.8)
    assert made['score'] == pytest.approx((made['pearson'] + made['spearman']) / 2)


def test_glue_score():
    results = {
        'cola': {'matthews': 0.1, 'score': 9.0},
        'sst2': {'accuracy': 0.2},
        'mrpc': {'f1': 0.2, 'accuracy': 0.4},
        'stsb': {'pearson': 0.3, 'spearman': 0.5},
        'mnli': {'accuracy': 0.4, 'accuracy_mismatched': 0.6},
        'qnli': {'accuracy': 0.6},
        'qqp': {'f1': 0.6, 'accuracy': 0.8},
        'rte': {'accuracy': 0.8},
        'wnli': {'accuracy': 0.9},
        'ax': {'matthews': 0.0},
    }
    score, missing = metrics.benchmark_score('glue', results)
    assert score == pytest.approx(np.mean([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]))
    assert missing == []
    del results['wnli'], results['cola'], results['mnli']['accuracy_mismatched']
    score, missing = metrics.benchmark_score('glue', results)
    assert score == pytest.approx(np.mean([0.2, 0.3, 0.4, 0.4, 0.6, 0.7, 0.8]))
    assert missing == ['cola', 'mnli accuracy_mismatched', 'wnli']


def test_superglue_score():
    results = {
        'boolq': {'accuracy': 0.1},
        'cb': {'accuracy': 0.1, 'macro_f1': 0.3},
        'copa': {'accuracy': 0.3},
        'multirc': {'f1a': 0.5, 'exact_groups': 0.3},
        'record': {'token_f1': 0.7, 'token_exact': 0.3},
        'rte': {'accuracy': 0.6},
        'wic': {'accuracy': 0.7},
        'wsc': {'accuracy': 0.8},
        'axb': {'matthews': 0.0},
        'axg': {'accuracy': 0.0, 'gender_parity': 0.0},
    }
    score, missing = metrics.benchmark_score('superglue', results)
    assert score == pytest.approx(0.45)
    assert missing == []
    assert metrics.benchmark_score('superglue', {})[0] is None
    assert len(metrics.benchmark_score('superglue', {})[1]) == 8
    with pytest.raises(UserError, match='squad'):
        metrics.benchmark_score('squad', {})


def test_what_cannot_be_scored():
    with pytest.raises(UserError, match='no examples'):
        measure('accuracy', [], [])
    with pytest.raises(UserError, match='example 1 has no label'):
        measure('accuracy', ['no', None], ['no', 'no'])
    with pytest.raises(UserError, match=r"'maybe'; the labels are no, yes"):
        measure('f1', ['maybe'], ['no'])
    with pytest.raises(UserError, match='query 0 has no answers'):
        measure('token_f1', [None], ['no'])
    with pytest.raises(ValueError, match='2 examples, 1 predictions'):
        measure('accuracy', ['no', 'no'], ['no'])
