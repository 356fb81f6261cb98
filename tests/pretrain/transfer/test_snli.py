import json

import pytest

from pretrain.errors import UserError
from pretrain.transfer import snli

TASK = snli.TASKS['snli']
ROW = {
    'annotator_labels': ['neutral'],
    'captionID': '3416050480.jpg#4',
    'gold_label': 'neutral',
    'pairID': '3416050480.jpg#4r1n',
    'sentence1': 'A person on a horse.',
    'sentence1_binary_parse': '( A )',
    'sentence1_parse': '(ROOT A)',
    'sentence2': 'A person trains a horse.',
    'sentence2_binary_parse': '( A )',
    'sentence2_parse': '(ROOT A)',
}
TEXT = (
    'gold_label\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\tsentence2_parse\t'
    'sentence1\tsentence2\tcaptionID\tpairID\tlabel1\tlabel2\tlabel3\tlabel4\tlabel5\n'
)
GLUE = (
    'index\tcaptionID\tpairID\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\t'
    'sentence2_parse\tsentence1\tsentence2\tlabel1\tgold_label\n'
)
BETWEEN = '( A )\t( B )\t(ROOT A)\t(ROOT B)'
WANTED = [
    ({'premise': 'A.', 'hypothesis': 'B.'}, 'entailment'),
    ({'premise': 'C.', 'hypothesis': 'D.'}, 'contradiction'),
]


def pairs(examples):
    return [(example.fields, example.label) for example in examples]


def jsonl():
    rows = [('A.', 'B.', 'entailment'), ('x', 'y', '-'), ('C.', 'D.', 'contradiction')]
    return ''.join(
        json.dumps(ROW | {'sentence1': a, 'sentence2': b, 'gold_label': label}) + '\n'
        for a, b, label in rows
    )


def text():
    return TEXT + (
        f'entailment\t{BETWEEN}\tA.\tB.\tc\tp\tentailment\t\t\t\t\n'
        f'-\t{BETWEEN}\tx\ty\tc\tp\tneutral\tentailment\tneutral\tentailment\tcontradiction\n'
        f'contradiction\t{BETWEEN}\tC.\tD.\tc\tp\tcontradiction\n'  # its end is cut off
    )


def glue():
    return GLUE + (
        f'0\tc\tp\t{BETWEEN}\tA.\tB.\tentailment\tentailment\n'
        f'1\tc\tp\t{BETWEEN}\tx\ty\tneutral\t-\n'
        f'2\tc\tp\t{BETWEEN}\tC.\tD.\tneutral\tcontradiction\n'
    )


@pytest.mark.parametrize(
    ('name', 'content'),
    [
        ('snli_1.0_dev.jsonl', jsonl),
        ('snli_1.0/snli_1.0_dev.jsonl', jsonl),
        ('SNLI/snli_1.0_dev.jsonl', jsonl),
        ('snli_1.0/snli_1.0_dev.txt', text),
        ('SNLI/dev.tsv', glue),
    ],
)
def test_the_three_formats(tmp_path, name, content):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(content())
    examples = TASK.read(tmp_path, 'dev')
    assert pairs(examples) == WANTED
    assert [example.index for example in examples] == [0, 2]


def test_all_rows_undecided_is_an_empty_split(tmp_path):
    (tmp_path / 'snli_1.0_test.jsonl').write_text(json.dumps(ROW | {'gold_label': '-'}))
    with pytest.raises(UserError, match='the test split is empty'):
        TASK.read(tmp_path, 'test')


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        ({'gold_label': 'maybe'}, "line 1: the label 'maybe' is not one of"),
        ({'sentence1': None}, "line 1: field 'sentence1' is None"),
    ],
)
def test_bad_rows(tmp_path, change, said):
    (tmp_path / 'snli_1.0_train.jsonl').write_text(json.dumps(ROW | change))
    with pytest.raises(UserError, match=said):
        TASK.read(tmp_path, 'train')


def test_nothing_there(tmp_path):
    with pytest.raises(UserError, match='holds no files of SNLI'):
        TASK.read(tmp_path, 'train')
