import pytest
from ml_collections import ConfigDict

from pretrain.errors import UserError
from pretrain.transfer import own

SECTION = {
    'name': 'reviews',
    'train': 'train.tsv',
    'dev': 'dev.tsv',
    'test': '',
    'header': True,
    'text_a': 'review',
    'text_b': '',
    'label': 'stars',
    'labels': ('bad', 'good'),
    'low': 0.0,
    'high': 1.0,
    'metrics': ('accuracy',),
    'length': 64,
}


def make(**changes):
    return own.make(ConfigDict(SECTION | changes))


def fault(call, *args, **kwargs):
    with pytest.raises(UserError) as caught:
        call(*args, **kwargs)
    assert '\n' not in str(caught.value)
    return str(caught.value)


def rows(examples):
    return [(example.index, example.fields, example.label) for example in examples]


def test_a_single_text(tmp_path):
    (tmp_path / 'train.tsv').write_text('id\tstars\treview\n7\tgood\t"Fine \n8\tbad\tPoor\n')
    task = make()
    assert (task.benchmark, task.kind, task.texts, task.length) == (
        'own', 'classes', ('review',), 64
    )  # fmt: skip
    assert task.splits == ('train', 'dev')
    assert rows(task.read(tmp_path, 'train')) == [
        (0, {'review': '"Fine '}, 'good'),
        (1, {'review': 'Poor'}, 'bad'),
    ]


def test_a_pair_in_jsonl_with_a_number(tmp_path):
    (tmp_path / 'sub+x').mkdir()
    (tmp_path / 'sub+x' / 'a.jsonl').write_text(
        '{"q": "A?", "d": "B.", "score": 2.5}\n{"q": "C?", "d": "D.", "score": "1"}\n'
    )
    task = make(
        train='sub+x/a.jsonl', dev='sub+x/a.jsonl', text_a='q', text_b='d', label='score',
        labels=(), low=0.0, high=3.0, metrics=('pearson', 'spearman'),
    )  # fmt: skip
    assert (task.kind, task.low, task.high, task.labels) == ('number', 0.0, 3.0, ())
    assert rows(task.read(tmp_path, 'dev')) == [
        (0, {'q': 'A?', 'd': 'B.'}, 2.5),
        (1, {'q': 'C?', 'd': 'D.'}, 1.0),
    ]


def test_columns_by_number_without_header(tmp_path):
    (tmp_path / 'train.tsv').write_text('1\tx\tFirst.\tSecond.\n0\tx\tThird.\tFourth.\n')
    task = make(header=False, text_a='2', text_b='3', label='0', labels=('0', '1'))
    assert rows(task.read(tmp_path, 'train')) == [
        (0, {'text_a': 'First.', 'text_b': 'Second.'}, '1'),
        (1, {'text_a': 'Third.', 'text_b': 'Fourth.'}, '0'),
    ]


def test_json_labels_may_be_numbers_and_truth_values(tmp_path):
    (tmp_path / 'x.jsonl').write_text('{"review": "a", "stars": 5}\n{"review": "b", "stars": 1}\n')
    task = make(train='x.jsonl', labels=('1', '5'))
    assert [example.label for example in task.read(tmp_path, 'train')] == ['5', '1']
    (tmp_path / 'x.jsonl').write_text('{"review": "a", "stars": true}\n')
    task = make(train='x.jsonl', labels=('false', 'true'))
    assert task.read(tmp_path, 'train')[0].label == 'true'


@pytest.mark.parametrize(
    ('name', 'text', 'label'),
    [
        ('t.tsv', 'review\na\n', None),
        ('t.tsv', 'review\tstars\na\tgood\n', 'good'),
        ('t.jsonl', '{"review": "a"}', None),
        ('t.jsonl', '{"review": "a", "stars": "bad"}', 'bad'),
        ('t.tsv', 'review\tstars\na\t\n', None),
        ('t.jsonl', '{"review": "a", "stars": null}', None),
    ],
)
def test_a_test_split_need_not_have_labels(tmp_path, name, text, label):
    (tmp_path / name).write_text(text)
    task = make(test=name)
    assert task.splits == ('train', 'dev', 'test')
    assert rows(task.read(tmp_path, 'test')) == [(0, {'review': 'a'}, label)]


@pytest.mark.parametrize(
    ('changes', 'said'),
    [
        ({'name': '../x'}, "own.name='../x' names a folder of results: letters, digits and"),
        ({'name': '/tmp/x'}, "own.name='/tmp/x'"),
        ({'name': '.x'}, "own.name='.x'"),
        ({'train': ''}, 'own.train is empty: name its .tsv or .jsonl file'),
        ({'text_a': ''}, 'own.text_a is empty'),
        ({'label': ''}, 'own.label is empty'),
        ({'dev': 'dev.csv'}, "own.dev: 'dev.csv' is no .tsv or .jsonl file"),
        ({'labels': (0, 1)}, 'own.labels (0, 1) are not all strings'),
        ({'labels': ('good',)}, "own.labels ('good',) must be two different strings or more"),
        ({'labels': ('a', 'a')}, 'must be two different strings'),
        ({'metrics': ()}, 'own.metrics is empty: choose from accuracy, f1'),
        ({'metrics': ('acuracy',)}, "own.metrics: 'acuracy' is unknown; for classes choose from "),
        ({'metrics': ('pearson',)}, "'pearson' belongs to another kind of task; for classes"),
        ({'labels': ()}, "'accuracy' belongs to another kind of task; for a number (own.labels is"),
        ({'labels': ('a', 'b', 'c'), 'metrics': ('f1',)}, "choose 'macro_f1'"),
        ({'labels': (), 'metrics': ('pearson',), 'low': 1.0}, 'own.low 1 must be below own.high 1'),
        ({'text_b': 'review'}, 'must be different columns'),
        ({'header': False}, 'columns of a file without header are numbers from 0'),
        ({'length': 0}, 'own.length 0 is no number of tokens'),
    ],
)
def test_bad_settings(changes, said):
    assert said in fault(make, **changes)


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        ('reveiw\tstars\na\tgood\n', "line 1: there is no column 'review': there are 'reveiw', "),
        ('review\tstar\na\tgood\n', "line 1: there is no column 'stars': there are 'star', "),
        ('review\tstars\na\tGood\n', 'line 2: the label \'Good\' is not one of "bad", "good"'),
        ('review\tstars\na\n', 'line 2: too few columns'),
        ('review\tstars\n', 'the train split is empty'),
    ],
)
def test_bad_files(tmp_path, text, said):
    (tmp_path / 'train.tsv').write_text(text)
    assert said in fault(make().read, tmp_path, 'train')


def test_missing_files(tmp_path):
    message = fault(make().read, tmp_path, 'train')
    assert f'there is no train.tsv in {tmp_path}' in message
    assert 'is not there' in fault(make().read, tmp_path / 'no', 'train')
