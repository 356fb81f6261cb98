"""Texts compared as SQuAD does, and its report against cases by hand and a search of our own."""

import collections
import re
import string

import numpy as np
import pytest

from pretrain.errors import UserError
from pretrain.transfer import answers


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('The  U.S.', 'us'),
        ('the', ''),
        ('', ''),
        (' \n\t', ''),
        ('...', ''),
        ('A man, an Ass and the THE theatre', 'man ass and theatre'),
        # Punctuation goes before articles, so a hyphen makes one word and an apostrophe too.
        ("well-known\tO'Brien a.", 'wellknown obrien'),
        ('a-b', 'ab'),
        # Only ASCII punctuation goes; other letters and signs stay.
        ('«Über» – the café\u00a0€5', '«über» – café €5'),
        ('the–end', '–end'),
    ],
)
def test_normalise(text, expected):
    assert answers.normalise(text) == expected


def test_exact_match():
    assert answers.exact_match('The  U.S.', 'us') == 1
    assert answers.exact_match('the U.S.A.', 'us') == 0
    assert answers.exact_match('a', '') == 1


@pytest.mark.parametrize(
    ('prediction', 'answer', 'first', 'second'),
    [
        ('the big cat', 'big black cat', 4 / 5, 4 / 5),
        ('cat cat dog', 'cat', 1 / 2, 1 / 2),
        ('cat', 'dog', 0, 0),
        ('cat', 'cat', 1, 1),
        ('', '', 0, 1),
        ('the', '', 0, 1),
        ('cat', '', 0, 0),
        ('', 'cat', 0, 0),
        ('an', 'cat', 0, 0),
    ],
)
def test_f1_of_both_versions(prediction, answer, first, second):
    assert answers.f1(prediction, answer) == pytest.approx(first)
    assert answers.f1_with_empty(prediction, answer) == pytest.approx(second)


def test_best_over():
    assert answers.best_over(['dog', 'a cat'], 'Cat', answers.exact_match) == 1
    assert answers.best_over(['dog'], 'Cat', answers.exact_match) == 0


def test_report_of_the_first_version():
    gold = {'a': ['Denver Broncos', 'The Broncos'], 'b': ['1989'], 'c': ['x y'], 'd': ['the']}
    report = answers.evaluate(gold, {'a': 'broncos', 'b': 'in 1989', 'd': '', 'other': 'x'})
    # 'c' is not predicted, and wrong. 'd': nothing is left of either text: exact, but F1 is 0.
    assert report == {
        'exact': pytest.approx(50),
        'f1': pytest.approx(100 * (1 + 2 / 3 + 0 + 0) / 4),
        'total': 4,
        'missing': 1,
    }


GOLD = {'a': ['red cat'], 'b': [], 'c': ['dog', 'the'], 'd': [], 'e': ['sun'], 'f': []}
PREDICTIONS = {'a': 'red', 'b': '', 'c': '', 'd': 'word', 'e': 'sun'}


def test_report_of_the_second_version():
    # 'c': an answer that normalises to nothing is none, so '' is wrong. 'f' is not predicted.
    assert answers.evaluate(GOLD, PREDICTIONS) == {
        'exact': pytest.approx(100 * 2 / 6),
        'f1': pytest.approx(100 * (2 / 3 + 2) / 6),
        'total': 6,
        'missing': 1,
        'HasAns_exact': pytest.approx(100 / 3),
        'HasAns_f1': pytest.approx(100 * (2 / 3 + 1) / 3),
        'HasAns_total': 3,
        'NoAns_exact': pytest.approx(100 / 3),
        'NoAns_f1': pytest.approx(100 / 3),
        'NoAns_total': 3,
    }
    assert 'HasAns_total' not in answers.evaluate({'b': []}, PREDICTIONS)


def test_questions_without_answers_by_threshold():
    gold = {'a': ['cat'], 'b': ['dog'], 'c': [], 'd': []}
    predictions = {'a': 'cat', 'b': 'dog', 'c': 'x', 'd': 'y'}
    scores = {'a': -3.0, 'b': 2.0, 'c': 0.5, 'd': 3.0}
    report = answers.evaluate(gold, predictions, scores)
    # At the script's 1.0, b and d count as without an answer: a and d are right.
    assert (report['exact'], report['HasAns_exact'], report['NoAns_exact']) == (50, 50, 50)
    # At -3 a, c and d are right; from 0.5 on c is wrong; from 2 on b is right: 75 again, not first.
    assert (report['best_exact'], report['best_exact_thresh']) == (75, -3)
    assert (report['best_f1'], report['best_f1_thresh']) == (75, -3)
    assert answers.evaluate(gold, predictions, scores, 0.0)['exact'] == 75
    assert answers.evaluate(gold, predictions, scores, 0.5)['exact'] == 50
    assert answers.evaluate(gold, predictions, scores, float('inf'))['exact'] == 50
    with pytest.raises(UserError, match="1 predictions have no null score, the first 'd'"):
        answers.evaluate(gold, predictions, {'a': 0, 'b': 0, 'c': 0})


def test_threshold_stays_zero_where_none_is_better():
    report = answers.evaluate({'a': [], 'b': ['x']}, {'a': '', 'b': 'y'}, {'a': 5.0, 'b': 4.0})
    assert (report['best_exact'], report['best_exact_thresh']) == (50, 0.0)


def simple_f1(prediction, answer):
    def words(text):
        kept = ''.join(sign for sign in text.lower() if sign not in string.punctuation)
        return [word for word in re.split(r'\s+', kept) if word not in ('', 'a', 'an', 'the')]

    left, shared = words(answer), 0
    for word in words(prediction):
        if word in left:
            left.remove(word)
            shared += 1
    if not words(prediction) or not words(answer):
        return float(words(prediction) == words(answer))
    precision, recall = shared / len(words(prediction)), shared / len(words(answer))
    return 2 * precision * recall / (precision + recall) if shared else 0.0


def test_report_against_trying_every_threshold():
    generator = np.random.default_rng(0)
    words = np.array(['the', 'Cat', 'dog.', 'sun', 'a'])

    def text(shortest):
        return ' '.join(['moon'] * shortest + list(generator.choice(words, generator.integers(4))))

    seen = collections.Counter()
    for _ in range(40):
        names = [f'q{number}' for number in range(generator.integers(1, 12))]
        gold = {
            name: [text(1) for _ in range(2)] if generator.random() < 0.6 else [] for name in names
        }
        predictions = {name: text(1) if generator.random() < 0.7 else '' for name in names}
        scores = dict(zip(names, generator.normal(size=len(names)).tolist()))

        def total(measure, threshold, gold=gold, predictions=predictions, scores=scores):
            values = []
            for name in gold:
                made = '' if scores[name] > threshold else predictions[name]
                values.append(max(measure(made, answer) for answer in gold[name] or ['']))
            return 100 * np.mean(values)

        report = answers.evaluate(gold, predictions, scores, null_threshold=0.3)
        for name, measure in (('exact', answers.exact_match), ('f1', simple_f1)):
            assert report[name] == pytest.approx(total(measure, 0.3))
            values = [total(measure, threshold) for threshold in (-1e9, *scores.values())]
            assert report[f'best_{name}'] == pytest.approx(max(values))
            if max(values) > values[0] + 1e-9:
                best = report[f'best_{name}_thresh']
                assert total(measure, best) == pytest.approx(max(values))
                seen[name] += 1
    assert min(seen['exact'], seen['f1']) > 5


def test_no_questions():
    with pytest.raises(UserError, match='no questions'):
        answers.evaluate({}, {})
