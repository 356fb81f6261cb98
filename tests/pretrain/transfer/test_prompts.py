"""Skeletons to the letter; shots that never are the query."""

import collections

import pytest

from pretrain.errors import UserError
from pretrain.transfer import prompts
from pretrain.transfer.task import Example, Span, Task

ENTAILMENT = ('not_entailment', 'entailment')
THREE = ('contradiction', 'entailment', 'neutral')
CLAIM = {'premise': 'He {ran}. ', 'hypothesis': 'He moved.'}
PAIR = {'sentence1': 'A b.', 'sentence2': 'C d?'}
TRUTH = ('False', 'True')
ASKS_TWO = 'Going by the text, is the claim True or False?\nAnswer:'
ASKS_THREE = (
    'Text: He {ran}.\nClaim: He moved.\n'
    'Going by the text, is the claim True, False or Neither?\nAnswer:'
)


def task(name, labels=(), benchmark='glue', kind='classes', texts=(), **fields):
    read = lambda folder, split: []  # noqa: E731
    return Task(name, name, benchmark, kind, labels, texts, (), read, **fields)


@pytest.mark.parametrize(
    ('benchmark', 'name', 'fields', 'names', 'context', 'choices'),
    [
        ('glue', 'cola', {'sentence': 'A b. '}, ('unacceptable', 'acceptable'),
         'A b.\nIs this a sensible English sentence?\nAnswer:', (' no', ' yes')),
        ('glue', 'sst2', {'sentence': 'so good '}, ('negative', 'positive'),
         'Review: so good\nSentiment:', (' negative', ' positive')),
        ('glue', 'mrpc', PAIR, ('not_equivalent', 'equivalent'),
         'Sentence 1: A b.\nSentence 2: C d?\nDo both sentences mean the same?\nAnswer:',
         (' no', ' yes')),
        ('glue', 'qqp', {'question1': 'X?', 'question2': 'Y?'}, ('not_duplicate', 'duplicate'),
         'Question 1: X?\nQuestion 2: Y?\nDo both questions ask the same?\nAnswer:',
         (' no', ' yes')),
        ('glue', 'mnli', CLAIM, THREE, ASKS_THREE, (' False', ' True', ' Neither')),
        ('glue', 'ax', CLAIM, THREE, ASKS_THREE, (' False', ' True', ' Neither')),
        ('snli', 'snli', CLAIM, THREE, ASKS_THREE, (' False', ' True', ' Neither')),
        ('superglue', 'cb', CLAIM, THREE[::-1], ASKS_THREE, (' Neither', ' True', ' False')),
        ('glue', 'qnli', {'question': 'X?', 'sentence': 'Y.'}, ENTAILMENT,
         'Question: X?\nText: Y.\nDoes the text answer the question?\nAnswer:', (' no', ' yes')),
        ('glue', 'rte', PAIR, ENTAILMENT,
         f'Text: A b.\nClaim: C d?\n{ASKS_TWO}', (' False', ' True')),
        ('glue', 'wnli', PAIR, ENTAILMENT,
         f'Text: A b.\nClaim: C d?\n{ASKS_TWO}', (' False', ' True')),
        ('superglue', 'rte', CLAIM, ENTAILMENT[::-1],
         f'Text: He {{ran}}.\nClaim: He moved.\n{ASKS_TWO}', (' True', ' False')),
        ('superglue', 'axb', CLAIM, ENTAILMENT,
         f'Text: He {{ran}}.\nClaim: He moved.\n{ASKS_TWO}', (' False', ' True')),
        ('superglue', 'axg', CLAIM, ENTAILMENT,
         f'Text: He {{ran}}.\nClaim: He moved.\n{ASKS_TWO}', (' False', ' True')),
        ('superglue', 'boolq', {'passage': 'X is y.', 'question': 'is x y'}, TRUTH,
         'Passage: X is y.\nQuestion: is x y?\nAnswer:', (' no', ' yes')),
        ('superglue', 'multirc',
         {'question': 'Who?', 'answer': 'Me', 'paragraph': 'Sent 1: I did. '}, TRUTH,
         'Passage: Sent 1: I did.\nQuestion: Who?\nCandidate: Me\n'
         'Is the candidate correct?\nAnswer:',
         (' no', ' yes')),
        ('superglue', 'wic', {'word': 'bed', **PAIR}, TRUTH,
         'Sentence 1: A b.\nSentence 2: C d?\n'
         'Does "bed" have the same meaning in both sentences?\nAnswer:', (' no', ' yes')),
        ('own', 'sst2', {'note': 'N{', 'title': ' T', 'body': 'B'}, ('bad', 'very good'),
         'title: T\nbody: B\nnote: N{\nlabel:', (' bad', ' very good')),
    ],
)  # fmt: skip
def test_classes(benchmark, name, fields, names, context, choices):
    made = task(name, names, benchmark, texts=('title', 'body'))
    asked = prompts.prompt(made, Example(0, fields))
    assert asked == (context, choices, names)
    for label, choice in zip(names, choices):
        assert prompts.solved(made, Example(0, fields, label)) == context + choice
    assert prompts.normaliser(made) == 'none'


def test_stsb_is_asked_for_a_number():
    stsb = task('stsb', kind='number')
    asked = prompts.prompt(stsb, Example(0, PAIR))
    assert asked.context == (
        'Sentence 1: A b.\nSentence 2: C d?\n'
        'How alike are they, from 0 (not at all) to 5 (the same)?\nAnswer:'
    )
    assert asked.choices == (' 0', ' 1', ' 2', ' 3', ' 4', ' 5')
    assert asked.values == (0.0, 1.0, 2.0, 3.0, 4.0, 5.0)
    assert prompts.solved(stsb, Example(0, PAIR, 3.6)) == asked.context + ' 4'


@pytest.mark.parametrize(
    ('question', 'context'),
    [('cause', 'My body cast a shadow because'), ('effect', 'My body cast a shadow therefore')],
)
def test_copa_goes_on_from_its_premise(question, context):
    copa = task('copa', ('choice1', 'choice2'), 'superglue', 'choice')
    texts = 'The sun was rising.', 'I was there.'
    fields = {'premise': 'My body cast a shadow.', 'question': question}
    fields |= dict(zip(copa.labels, texts))
    example = Example(0, fields, 'choice1', choices=texts)
    asked = prompts.prompt(copa, example)
    assert asked == (context, (' the sun was rising.', ' I was there.'), copa.labels)
    assert prompts.solved(copa, example) == f'{context} the sun was rising.'
    assert prompts.normaliser(copa) == 'tokens'


def test_record_scores_all_of_the_query_from_the_entity_on():
    record = task('record', (), 'superglue', 'entity')
    fields = {'query': 'Then @placeholder slept, said @placeholder', 'passage': 'It rained. '}
    example = Example(0, fields, 'Bob', choices=('Ann', 'Bob'), answers=('Bob',))
    asked = prompts.prompt(record, example)
    assert asked.context == 'It rained.\nThen'
    assert asked.choices == (' Ann slept, said Ann', ' Bob slept, said Bob')
    assert asked.values == ('Ann', 'Bob')
    assert prompts.solved(record, example) == 'It rained.\nThen Bob slept, said Bob'
    first = example._replace(fields=fields | {'query': '@placeholder slept'})
    asked = prompts.prompt(record, first)
    assert asked[:2] == ('It rained.\n', ('Ann slept', 'Bob slept'))
    with pytest.raises(UserError, match='no @placeholder'):
        prompts.prompt(record, example._replace(fields=fields | {'query': 'Then'}))
    assert prompts.normaliser(record) == 'tokens'


def test_wsc_marks_the_pronoun():
    wsc = task('wsc', TRUTH, 'superglue')
    fields = {'text': 'Ann saw Bob and he ran. ', 'span1_text': 'Bob', 'span2_text': 'he'}
    example = Example(0, fields, spans=(Span('text', 8, 11), Span('text', 16, 18)))
    assert prompts.prompt(wsc, example) == (
        'Text: Ann saw Bob and *he* ran.\nDoes "*he*" refer to "Bob"?\nAnswer:',
        (' no', ' yes'),
        TRUTH,
    )


def examples(count):
    return [Example(i, {'sentence': f'text {i}'}, 'negative') for i in range(count)]


def test_shots_stand_before_the_query_with_blank_lines_between():
    sst2 = task('sst2', ('negative', 'positive'))
    query = prompts.prompt(sst2, Example(0, {'sentence': 'q'}))
    shots = [prompts.solved(sst2, e) for e in examples(2)]
    context = prompts.few_shot(shots, query)
    assert context == (
        'Review: text 0\nSentiment: negative\n\nReview: text 1\nSentiment: negative\n\n'
        'Review: q\nSentiment:'
    )
    assert context[len(context) - len(query.context) :] == query.context
    assert prompts.few_shot([], query) == query.context


def indices(shots):
    return [e.index for e in shots]


def test_shots_follow_from_the_seed_alone_or_from_the_query_too():
    train, query = examples(50), Example(0, {'sentence': 'elsewhere'})
    drawn = lambda *a, **b: indices(prompts.draw_shots(train, 4, *a, **b))  # noqa: E731
    assert drawn(1, query) == drawn(1, query, 7) == drawn(1, Example(3, {'sentence': 'other'}), 9)
    assert drawn(1, query) != drawn(2, query)
    own = {tuple(drawn(1, query, i, per_query=True)) for i in range(20)}
    assert len(own) == 20
    assert drawn(1, query, 3, per_query=True) == drawn(1, query, 3, per_query=True)


def test_shots_are_drawn_evenly_and_without_repeats():
    train, query = examples(10), Example(0, {'sentence': 'elsewhere'})
    counts = collections.Counter()
    for seed in range(1000):
        shots = indices(prompts.draw_shots(train, 3, seed, query))
        assert len(set(shots)) == 3
        counts.update(shots)
    assert min(counts.values()) > 240  # 300 expected, standard deviation 14.5
    assert max(counts.values()) < 360


def test_the_query_and_what_has_no_label_is_never_shown():
    train = [*examples(6), Example(6, {'sentence': 'text 0 '}, 'positive')]
    train[3] = train[3]._replace(label=None)
    query = Example(99, {'sentence': ' text 0'}, 'negative')
    for seed in range(30):
        shots = prompts.draw_shots(train, 4, seed, query)
        assert sorted(indices(shots)) == [1, 2, 4, 5]
        fixed = indices(prompts.draw_shots(train, 4, seed, Example(0, {'sentence': 'other'})))
        assert indices(shots)[:1] == [i for i in fixed if i not in (0, 6)][:1]
    with pytest.raises(UserError, match='5 shots are more than the 4 labelled examples'):
        prompts.draw_shots(train, 5, 0, query)
    with pytest.raises(UserError, match='8 shots are more than the 7 '):
        prompts.draw_shots(train, 8, 0, query)
    assert prompts.draw_shots([], 0, 0, query) == []
