import json

import pytest

from pretrain.errors import UserError
from pretrain.transfer import metrics, superglue

TASKS = superglue.TASKS
WSC = {
    'text': 'Mark told Pete many lies about himself, which Pete included in his book. He lied.',
    'target': {'span2_index': 13, 'span1_index': 0, 'span1_text': 'Mark', 'span2_text': 'He'},
    'idx': 0,
    'label': False,
}
WIC = {
    'word': 'place',
    'sentence1': 'Do you want to come over to my place later?',
    'sentence2': 'He placed it.',
    'idx': 3,
    'label': True,
    'start1': 31,
    'start2': 3,
    'end1': 36,
    'end2': 9,
    'version': 1.1,
}
MULTIRC = {
    'idx': 7,
    'version': 1.1,
    'passage': {
        'text': '<b>Sent 1: </b>Tom &amp; Ann met.<br><b>Sent 2: </b>It was 3 < 4 late.<br>',
        'questions': [
            {
                'question': 'Who <i>met</i>?',
                'answers': [
                    {'text': 'Tom', 'idx': 0, 'label': 1},
                    {'text': 'A dog', 'idx': 1, 'label': 0},
                ],
                'idx': 4,
            },
            {'question': 'When?', 'answers': [{'text': 'Late', 'idx': 2, 'label': 1}], 'idx': 5},
        ],
    },
}
ARTICLE = 'Ann Lee met Bob.\n@highlight\nAnn Lee spoke\n@highlight\nBob left'
RECORD = {
    'source': 'Daily mail',
    'passage': {
        'text': ARTICLE,
        'entities': [
            {'start': 0, 'end': 6},
            {'start': 12, 'end': 14},
            {'start': 28, 'end': 34},
        ],
    },
    'qas': [
        {
            'query': '@placeholder spoke to Bob',
            'answers': [
                {'start': 0, 'end': 6, 'text': 'Ann Lee'},
                {'start': 28, 'end': 34, 'text': 'Ann Lee'},
            ],
            'idx': 10,
        },
        {
            'query': 'She left @placeholder',
            'answers': [{'start': 12, 'end': 14, 'text': 'Bob'}],
            'idx': 11,
        },
    ],
    'idx': 2,
}
COPA = {
    'premise': 'My body cast a shadow.',
    'choice1': 'The sun was rising.',
    'choice2': 'The grass was cut.',
    'question': 'cause',
    'label': 1,
    'idx': 5,
}


def put(folder, name, *rows):
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
    return path


def changed(row, **fields):
    """A copy of a row; a dotted name, written a__b, changes a field of a field; None drops it."""
    row = json.loads(json.dumps(row))
    for name, value in fields.items():
        *above, last = name.split('__')
        inner = row
        for key in above:
            inner = inner[int(key) if key.isdigit() else key]
        inner[last] = value
        if value is None:
            del inner[last]
    return row


def fault(name, folder, split):
    with pytest.raises(UserError) as caught:
        TASKS[name].read(folder, split)
    assert '\n' not in str(caught.value)
    return str(caught.value)


def test_tasks_stand_in_the_order_of_the_leaderboard():
    names = ['boolq', 'cb', 'copa', 'multirc', 'record', 'rte', 'wic', 'wsc', 'axb', 'axg']
    assert list(TASKS) == names
    for name, task in TASKS.items():
        assert (task.name, task.benchmark, task.file) == (name, 'superglue', f'{task.title}.jsonl')
        assert set(task.metrics) <= set(metrics.METRICS)
        assert set(task.submitted) in (set(), set(task.labels))
    for name in ('boolq', 'multirc', 'wic', 'wsc'):
        assert TASKS[name].labels == ('False', 'True')
    assert {name for name, task in TASKS.items() if task.predicted_by == 'rte'} == {'axb', 'axg'}


def test_submissions_are_spelt_as_the_server_wants():
    assert TASKS['boolq'].submitted == TASKS['wic'].submitted == {'False': 'false', 'True': 'true'}
    assert TASKS['wsc'].submitted == {'False': 'False', 'True': 'True'}
    for name in ('multirc', 'copa'):
        assert list(map(repr, TASKS[name].submitted.values())) == ['0', '1']


def test_boolq(tmp_path):
    row = {'question': 'is it', 'passage': 'It -- \u2028 is.', 'idx': 0, 'label': True}
    put(tmp_path, 'BoolQ/train.jsonl', row, changed(row, idx=1, label=False))
    put(tmp_path, 'BoolQ/test.jsonl', changed(row, label=None))
    first, second = TASKS['boolq'].read(tmp_path, 'train')
    assert first.fields == {'passage': 'It -- \u2028 is.', 'question': 'is it'}
    assert (first.index, first.label, second.index, second.label) == (0, 'True', 1, 'False')
    assert TASKS['boolq'].read(tmp_path, 'test')[0].label is None


@pytest.mark.parametrize('label', ['entailment', 'contradiction', 'neutral'])
def test_cb(tmp_path, label):
    row = {'premise': 'It was.', 'hypothesis': 'it was', 'label': label, 'idx': 8}
    put(tmp_path, 'CB/val.jsonl', row)
    (example,) = TASKS['cb'].read(tmp_path, 'dev')
    assert example == (8, {'premise': 'It was.', 'hypothesis': 'it was'}, label, None, (), (), ())


def test_copa(tmp_path):
    put(tmp_path, 'COPA/train.jsonl', COPA)
    (example,) = TASKS['copa'].read(tmp_path, 'train')
    assert example.choices == ('The sun was rising.', 'The grass was cut.')
    assert (example.index, example.label) == (5, 'choice2')
    assert set(example.fields) == {'premise', 'question', 'choice1', 'choice2'}
    put(tmp_path, 'COPA/train.jsonl', changed(COPA, question='why'))
    assert "line 1: field 'question' is 'why'" in fault('copa', tmp_path, 'train')


def test_multirc(tmp_path):
    put(tmp_path, 'MultiRC/val.jsonl', MULTIRC)
    examples = TASKS['multirc'].read(tmp_path, 'dev')
    assert [(e.index, e.group, e.label) for e in examples] == [
        ((7, 4, 0), (7, 4), 'True'),
        ((7, 4, 1), (7, 4), 'False'),
        ((7, 5, 2), (7, 5), 'True'),
    ]
    assert examples[1].fields == {
        'question': 'Who met?',
        'answer': 'A dog',
        'paragraph': 'Sent 1: Tom &amp; Ann met. Sent 2: It was 3 < 4 late.',
    }
    bare = json.loads(json.dumps(MULTIRC).replace(', "label": 1', '').replace(', "label": 0', ''))
    put(tmp_path, 'MultiRC/test.jsonl', bare)
    assert [e.label for e in TASKS['multirc'].read(tmp_path, 'test')] == [None] * 3


def test_record(tmp_path):
    put(tmp_path, 'ReCoRD/train.jsonl', RECORD)
    first, second = TASKS['record'].read(tmp_path, 'train')
    assert first.choices == second.choices == ('Ann Lee', 'Bob')
    assert (first.index, first.label, first.answers) == (10, 'Ann Lee', ('Ann Lee',))
    assert (second.index, second.label, second.answers) == (11, 'Bob', ('Bob',))
    assert first.fields == {
        'query': '@placeholder spoke to Bob',
        'passage': 'Ann Lee met Bob. Ann Lee spoke. Bob left',
    }
    bare = changed(RECORD, qas__0__answers=None, qas__1__answers=None)
    put(tmp_path, 'ReCoRD/test.jsonl', bare)
    assert [e.label for e in TASKS['record'].read(tmp_path, 'test')] == [None, None]


def test_marks_of_record_that_are_most_of_them_one_off(tmp_path):
    of_entities, of_answers = changed(RECORD), changed(RECORD)
    for entity in of_entities['passage']['entities']:
        entity.update(start=entity['start'] + 1, end=entity['end'] + 1)
    for qa in of_entities['qas']:
        qa['answers'] = [{'text': 'Bob'}]  # some distributions tell no place
    del of_answers['passage']['entities'][1:]
    for told in (told for qa in of_answers['qas'] for told in qa['answers']):
        told.update(start=told['start'] + 1, end=told['end'] + 1)
    for row, said in (
        (of_entities, "passage.entities[0].start and end mark 'nn Lee ', which cuts a word"),
        (of_answers, "at qas[0].answers[0].start 1, end 7 stands 'nn Lee ', not 'Ann Lee'"),
    ):
        path = put(tmp_path, 'ReCoRD/train.jsonl', RECORD, row)
        assert len(TASKS['record'].read(tmp_path, 'train')) == 4  # a few of all marks may be
        put(tmp_path, 'ReCoRD/train.jsonl', row)
        assert fault('record', tmp_path, 'train') == f'{path}, line 1: {said}' + (
            ' of the text' if row is of_entities else ''
        )


def test_rte(tmp_path):
    row = {'premise': 'A.', 'hypothesis': 'B.', 'label': 'not_entailment', 'idx': 4}
    put(tmp_path, 'RTE/train.jsonl', row)
    (example,) = TASKS['rte'].read(tmp_path, 'train')
    assert (example.index, example.label) == (4, 'not_entailment')


def test_wic(tmp_path):
    put(tmp_path, 'WiC/train.jsonl', WIC)
    (example,) = TASKS['wic'].read(tmp_path, 'train')
    marked = [example.fields[span.field][span.start : span.end] for span in example.spans]
    assert marked == ['place', 'placed']
    assert [span.field for span in example.spans] == ['sentence1', 'sentence2']
    assert (example.index, example.label, example.fields['word']) == (3, 'True', 'place')


@pytest.mark.parametrize(
    ('sentence', 'start', 'end'),
    [
        ("A 'B' grade doesn't suffice.", 12, 16),  # does
        ("I've got a house.", 1, 4),  # 've
        ('We all went home.', 7, 11),  # of go
    ],
)
def test_official_spans_of_wic_that_are_not_whole_words(tmp_path, sentence, start, end):
    put(tmp_path, 'WiC/val.jsonl', changed(WIC, sentence2=sentence, start2=start, end2=end))
    (example,) = TASKS['wic'].read(tmp_path, 'dev')
    assert example.spans[1] == ('sentence2', start, end)


@pytest.mark.parametrize(
    ('fields', 'said'),
    [
        ({'end1': 99}, 'start1 31, end1 99 are outside sentence1, which has 43 characters'),
        ({'start2': 9}, 'start2 9, end2 9 are outside'),
        ({'start2': -3}, 'start2 -3, end2 9 are outside'),
        ({'start1': 30}, "do not match sentence1: they mark ' place'"),
        ({'start1': 32}, "they mark 'lace'"),
        ({'end1': 34}, "they mark 'pla'"),
        ({'end1': '3x'}, "field 'end1' is '3x', not a whole number"),
    ],
)
def test_offsets_of_wic_that_do_not_match(tmp_path, fields, said):
    path = put(tmp_path, 'WiC/train.jsonl', WIC, changed(WIC, **fields))
    message = fault('wic', tmp_path, 'train')
    assert message.startswith(f'{path}, line 2: ')
    assert said in message


def test_marks_of_wic_that_are_most_of_them_no_form_of_the_word(tmp_path):
    other = changed(WIC, word='run')
    path = put(tmp_path, 'WiC/train.jsonl', WIC, other)
    assert len(TASKS['wic'].read(tmp_path, 'train')) == 2  # half of them may be
    put(tmp_path, 'WiC/train.jsonl', WIC, other, other)
    message = fault('wic', tmp_path, 'train')
    assert message.startswith(f'{path}, line 2: start1 and end1 mark ')
    assert "mark 'place', no form of 'run'; 4 of 6 marks" in message


def test_wsc(tmp_path):
    put(tmp_path, 'WSC/train.jsonl', WSC, changed(WSC, label=True, target__span1_text='mark'))
    first, second = TASKS['wsc'].read(tmp_path, 'train')
    assert first.fields == {'text': WSC['text'], 'span1_text': 'Mark', 'span2_text': 'He'}
    assert [WSC['text'][s.start : s.end] for s in first.spans] == ['Mark', 'He']
    assert first.spans[1] == ('text', 73, 75)
    assert (first.label, second.label) == ('False', 'True')
    assert second.spans == first.spans


@pytest.mark.parametrize(
    ('fields', 'said'),
    [
        ({'target__span2_index': 60}, 'target.span2_index 60 is outside the text, which has 15'),
        ({'target__span1_text': ''}, "or span1_text '' is empty"),
        ({'target__span2_index': 1}, "span2_index 1 does not match span2_text 'He': the word ther"),
        ({'target__span1_text': 'Zoe'}, "does not match span1_text 'Zoe': the word there is 'Mark"),
        ({'target__span1_index': None}, "no field 'target.span1_index': there are 'span2_index'"),
        ({'label': 'False'}, "the label 'False' is not one of false, true"),
        ({'target': 3}, "field 'target' is 3, not an object"),
    ],
)
def test_bad_spans_of_wsc(tmp_path, fields, said):
    put(tmp_path, 'WSC/val.jsonl', WSC, changed(WSC, **fields))
    message = fault('wsc', tmp_path, 'dev')
    assert 'val.jsonl, line 2: ' in message
    assert said in message


def test_a_few_rows_of_a_large_file_may_disagree(tmp_path):
    odd = changed(WSC, target__span1_text='Zoe Black')
    put(tmp_path, 'WSC/train.jsonl', odd, *[WSC] * 19)
    example = TASKS['wsc'].read(tmp_path, 'train')[0]
    span = example.spans[0]
    assert example.fields['text'][span.start : span.end] == 'Mark told'  # as many words


@pytest.mark.parametrize('index', [11, '11'])
def test_axb(tmp_path, index):
    row = {'idx': index, 'label': 'entailment', 'sentence1': 'A.', 'sentence2': 'B.', 'logic': 'x'}
    put(tmp_path, 'AX-b/AX-b.jsonl', row, changed(row, label=None, idx=12))
    first, second = TASKS['axb'].read(tmp_path, 'test')
    assert first == (11, {'premise': 'A.', 'hypothesis': 'B.'}, 'entailment', None, (), (), ())
    assert second.label is None


def winogender(hypothesis, idx, pair, label='entailment'):
    return {
        'hypothesis': hypothesis,
        'idx': idx,
        'label': label,
        'pair_id': pair,
        'premise': 'She.',
    }


def test_axg_pairs_by_their_id(tmp_path):
    rows = [winogender('A', 0, 5), winogender('B', 1, 6), winogender('A', 2, 5)]
    put(tmp_path, 'AX-g/AX-g.jsonl', *rows, winogender('B', 3, 6))
    assert [e.group for e in TASKS['axg'].read(tmp_path, 'test')] == [5, 6, 5, 6]


def test_axg_pairs_of_neighbours_where_every_row_has_its_own_id(tmp_path):
    rows = [winogender(h, i, 100 + 2 * i) for i, h in enumerate('AABB')]
    put(tmp_path, 'AX-g/AX-g.jsonl', *rows)
    assert [e.group for e in TASKS['axg'].read(tmp_path, 'test')] == [0, 0, 1, 1]
    two = [changed(row, pair_id=None) for row in rows[:2]]
    put(tmp_path, 'AX-g/AX-g.jsonl', *two)  # and where they have none
    assert [e.group for e in TASKS['axg'].read(tmp_path, 'test')] == [0, 0]
    put(tmp_path, 'AX-g/AX-g.jsonl', *rows[:3])
    assert 'line 3: a pair is two rows with one pair_id' in fault('axg', tmp_path, 'test')
    put(tmp_path, 'AX-g/AX-g.jsonl', rows[1], rows[2])
    assert 'no partner' in fault('axg', tmp_path, 'test')


@pytest.mark.parametrize(
    ('name', 'row', 'said'),
    [
        ('BoolQ', {'question': 'q', 'passage': 'p', 'idx': 0, 'label': 1}, 'the label 1 is not on'),
        ('BoolQ', {'question': 'q', 'passage': 'p', 'idx': 0}, "no field 'label': there are "),
        ('BoolQ', {'question': 'q', 'pasage': 'p', 'idx': 0}, "'passage': there are 'pasage'"),
        ('CB', {'premise': 3, 'hypothesis': 'h', 'idx': 0}, "field 'premise' is 3, not a text"),
        ('CB', {'premise': 'p', 'hypothesis': 'h', 'idx': 0, 'label': 'no'}, "label 'no' is not"),
        ('RTE', {'premise': 'p', 'hypothesis': 'h', 'label': 'entailment'}, "no field 'idx'"),
        ('COPA', changed(COPA, label=True), 'the label True is not one of 0, 1'),
        ('COPA', changed(COPA, label=2), 'the label 2 is not one of 0, 1'),
        ('MultiRC', changed(MULTIRC, passage__questions=5), "'passage.questions' is 5, not a list"),
        (
            'MultiRC',
            changed(MULTIRC, passage__questions__1__answers__0__label=3),
            'the label 3 is not one of 0, 1',
        ),
        (
            'MultiRC',
            changed(MULTIRC, passage__questions__1__answers__0__idx=None),
            "no field 'passage.questions[1].answers[0].idx'",
        ),
        (
            'ReCoRD',
            changed(RECORD, passage__entities__1__end=len(ARTICLE)),
            'passage.entities[1].start 12, end 61 are outside the text, which has 61 characters',
        ),
        ('ReCoRD', changed(RECORD, passage__entities=[]), "'passage.entities' is empty"),
        ('ReCoRD', changed(RECORD, qas__0__query='Who?'), "query 'Who?' holds no @placeholder"),
        ('ReCoRD', changed(RECORD, qas__1__answers=[]), 'field qas[1].answers is empty'),
    ],
)
def test_bad_rows(tmp_path, name, row, said):
    path = put(tmp_path, f'{name}/train.jsonl', row)
    message = fault(name.lower(), tmp_path, 'train')
    assert message.startswith(f'{path}, line 1: ')
    assert said in message
