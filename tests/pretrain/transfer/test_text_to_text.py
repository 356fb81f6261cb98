"""Strings to the letter, as T5's released preprocessing makes them."""

import numpy as np
import pytest

from pretrain.transfer.task import Example, Span, Task
from pretrain.transfer.text_to_text import (
    inputs,
    labels,
    parse,
    same_noun,
    squad_inputs,
    squad_text,
    target,
    targets,
    trains_on,
)  # fmt: skip

ENTAILMENT = ('not_entailment', 'entailment')
THREE = ('contradiction', 'neutral', 'entailment')
CLAIM = {'premise': 'He ran.', 'hypothesis': 'He moved. '}
PAIR = {'sentence1': 'A b.', 'sentence2': 'C d?'}
TRUTH = ('False', 'True')


def task(name, labels=(), benchmark='glue', kind='classes', **fields):
    return Task(name, name, benchmark, kind, labels, (), (), lambda folder, split: [], **fields)


def wsc(text, noun, pronoun, label=None):
    start = text.index(f' {pronoun}') + 1
    spans = Span('text', text.index(noun), 0), Span('text', start, start + len(pronoun))
    fields = {'text': text, 'span1_text': noun, 'span2_text': pronoun}
    return Example(0, fields, label, spans=spans)


@pytest.mark.parametrize(
    ('benchmark', 'name', 'fields', 'names', 'read'),
    [
        ('glue', 'cola', {'sentence': 'A b.'}, ('unacceptable', 'acceptable'),
         'cola sentence: A b.'),
        ('glue', 'sst2', {'sentence': 'so good '}, ('negative', 'positive'),
         'sst2 sentence: so good '),
        ('glue', 'mrpc', PAIR, ('not_equivalent', 'equivalent'),
         'mrpc sentence1: A b. sentence2: C d?'),
        ('glue', 'qqp', {'question2': 'Y?', 'question1': 'X?'}, ('not_duplicate', 'duplicate'),
         'qqp question1: X? question2: Y?'),
        ('glue', 'mnli', CLAIM, THREE, 'mnli hypothesis: He moved.  premise: He ran.'),
        ('glue', 'ax', CLAIM, THREE, 'mnli hypothesis: He moved.  premise: He ran.'),
        ('snli', 'snli', CLAIM, THREE, 'snli hypothesis: He moved.  premise: He ran.'),
        ('glue', 'qnli', {'question': 'X?', 'sentence': 'Y.'}, ENTAILMENT,
         'qnli question: X? sentence: Y.'),
        ('glue', 'rte', PAIR, ENTAILMENT, 'rte sentence1: A b. sentence2: C d?'),
        ('glue', 'wnli', PAIR, ENTAILMENT, 'wnli sentence1: A b. sentence2: C d?'),
        ('superglue', 'rte', CLAIM, ENTAILMENT, 'rte hypothesis: He moved.  premise: He ran.'),
        ('superglue', 'axb', CLAIM, ENTAILMENT, 'rte hypothesis: He moved.  premise: He ran.'),
        ('superglue', 'axg', CLAIM, ENTAILMENT, 'rte hypothesis: He moved.  premise: He ran.'),
        ('superglue', 'cb', CLAIM, THREE, 'cb hypothesis: He moved.  premise: He ran.'),
        ('superglue', 'boolq', {'question': 'is x y', 'passage': 'X is y.'}, TRUTH,
         'boolq passage: X is y. question: is x y'),
        ('superglue', 'multirc',
         {'answer': 'Me', 'paragraph': 'Sent 1: I did.', 'question': 'Who?'}, TRUTH,
         'multirc question: Who? answer: Me paragraph: Sent 1: I did.'),
        ('superglue', 'wic', {'word': 'bed', **PAIR}, TRUTH,
         'wic sentence1: A b. sentence2: C d? word: bed'),
        ('own', 'multirc', {'title': 'T', 'body': 'B'}, ('x', 'y'),
         'multirc body: B title: T'),
        ('own', 'ax', {'text': 'T'}, ('x', 'y'), 'ax text: T'),
    ],
)  # fmt: skip
def test_classes(benchmark, name, fields, names, read):
    made = task(name, names, benchmark)
    for label in names:
        example = Example(0, fields, label)
        assert inputs(made, example) == read
        assert target(made, example) == label
        assert trains_on(made, example)
        assert labels(made, example) == names
        assert parse(made, example, f' {label}') == label
    unknown = Example(0, fields)
    assert inputs(made, unknown) == read
    assert targets(made, unknown) == ('<unk>',)
    assert not trains_on(made, unknown)
    assert parse(made, unknown, f'{names[0]} x') == ''


def test_copa():
    fields = {'premise': 'P.', 'question': 'cause', 'choice2': 'Two.', 'choice1': 'One.'}
    copa = task('copa', ('choice1', 'choice2'), 'superglue', 'choice')
    example = Example(0, fields, 'choice2', choices=('One.', 'Two.'))
    read = 'copa choice1: One. choice2: Two. premise: P. question: cause'
    assert inputs(copa, example) == read
    assert target(copa, example) == 'choice2'
    assert labels(copa, example) == ('choice1', 'choice2')
    assert parse(copa, example, 'choice1') == 'choice1'
    assert parse(copa, example, 'One.') == ''


STSB = task('stsb', kind='number')


@pytest.mark.parametrize(
    ('score', 'text'),
    [
        (0.0, '0.0'), (5.0, '5.0'), (3.8, '3.8'), (3.25, '3.2'), (2.5, '2.4'), (1.5, '1.6'),
        (0.1, '0.0'), (0.3, '0.4'), (4.9, '4.8'), (2.3, '2.4'), (4.75, '4.8'),
    ],
)  # fmt: skip
def test_stsb_tells_fifths_and_rounds_halves_to_the_even_one(score, text):
    example = Example(0, PAIR, score)
    assert inputs(STSB, example) == 'stsb sentence1: A b. sentence2: C d?'
    assert target(STSB, example) == text


def test_stsb_has_26_strings_each_of_which_is_read_back():
    fifths = [f'{i // 5}.{i % 5 * 2}' for i in range(26)]
    assert labels(STSB, Example(0, PAIR)) == tuple(fifths)
    for text in fifths:
        assert parse(STSB, None, text) == float(text)
        assert target(STSB, Example(0, PAIR, float(text))) == text
    # All scores of the data have at most three decimals; T5's formula in float32.
    for thousandths in range(5001):
        score = thousandths / 1000
        known = f'{np.round(np.float32(score) * np.float32(5)) / np.float32(5):.1f}'
        assert target(STSB, Example(0, PAIR, score)) == known


@pytest.mark.parametrize('text', ['', 'much', '3.4 3.4', 'nan', '-inf', '1,5'])
def test_what_is_no_number_is_minus_one(text):
    assert parse(STSB, None, text) == -1.0


def test_numbers_of_a_task_of_ones_own_have_26_levels_too():
    own = task('heat', benchmark='own', kind='number', low=-1.0, high=1.0)
    said = labels(own, None)
    assert len(set(said)) == 26
    assert (said[0], said[1], said[-1]) == ('-1.00', '-0.92', '1.00')
    assert target(own, Example(0, {}, 7.0)) == '1.00'
    assert parse(own, None, 'warm') == -2.0


WSC = task('wsc', TRUTH, 'superglue')


def test_wsc_marks_the_pronoun_and_tells_the_noun():
    text = 'Mitchell asked Tom if he could lend some money.'
    right, wrong = wsc(text, 'Tom', 'he', 'True'), wsc(text, 'Mitchell', 'he', 'False')
    read = 'wsc: Mitchell asked Tom if *he* could lend some money.'
    assert inputs(WSC, right) == inputs(WSC, wrong) == read
    assert targets(WSC, right) == ('Tom',)
    assert targets(WSC, wrong) == ('Mitchell',)
    assert target(WSC, wsc(text, 'Tom', 'he')) == 'Tom'
    trained = [trains_on(WSC, e) for e in (right, wrong, wsc(text, 'Tom', 'he'))]
    assert trained == [True, False, False]
    assert labels(WSC, right) is None
    assert [parse(WSC, e, 'Tom') for e in (right, wrong)] == ['True', 'False']


def test_wsc_pronoun_stands_between_spaces():
    """The one text of the data with a mark behind the pronoun, as T5 writes it by hand."""
    example = wsc('John laughed out. "Good for him," he said.', 'John', 'him')
    read = 'wsc: John laughed out. "Good for *him* ," he said.'
    assert inputs(WSC, example) == read


@pytest.mark.parametrize(
    ('told', 'noun', 'same'),
    [
        ('the fuzzy bunny', 'bunny', True),
        ('Bunny', 'The fuzzy bunny', True),
        ('fuzzy cat', 'fuzzy bunny', False),
        ('Bob', "Bob's hat", False),
        ("Bob's hat", "his Bob's hat", True),
        ('the', 'the bunny', False),
        ('', 'bunny', False),
        ('my sister ', 'sister', True),
        ('sister.', 'sister', False),
    ],
)
def test_same_noun(told, noun, same):
    assert same_noun(told, noun) is same


def test_record_has_a_row_an_answer():
    record = task('record', (), 'superglue', 'entity')
    fields = {'query': 'Then @placeholder slept', 'passage': 'It rained. Bob ran "home"'}
    example = Example(0, fields, 'Bob', choices=('Ann', 'Bob', 'Bobby'), answers=('Bob', 'Bobby'))
    assert inputs(record, example) == (
        'record query: Then @placeholder slept entities: Ann, Bob, Bobby passage: '
        'It rained. Bob ran "home"'
    )
    assert targets(record, example) == ('Bob', 'Bobby')
    assert target(record, example) == 'Bob'
    assert labels(record, example) == ('Ann', 'Bob', 'Bobby')
    assert parse(record, example, ' Bobby ') == 'Bobby'
    unknown = example._replace(label=None, answers=())
    assert targets(record, unknown) == ('<unk>',)
    assert not trains_on(record, unknown)


def test_squad_has_spaces_around_punctuation():
    read = squad_inputs('Who won?', 'The "Café"-team won (3:2)\nin\t1999_x.')
    assert read == 'question: Who won ? context: The " Caf é " - team won ( 3 : 2 ) in 1999_x .'
    assert squad_text("$5's worth") == "$ 5 ' s worth"
