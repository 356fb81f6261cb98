import pytest

from pretrain.errors import UserError
from pretrain.transfer import glue, metrics

CHOSEN = ('entailment', 'neutral', 'contradiction')
MNLI = (
    'index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\t'
    'sentence1_parse\tsentence2_parse\tsentence1\tsentence2'
)
MNLI_ROW = '{}\t31193\t31193n\tgovernment\t( a )\t( b )\t(ROOT a)\t(ROOT b)\t{}\t{}'
STSB = 'index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2'
STSB_ROW = '{}\tmain-captions\tMSRvid\t2012test\t0001\tnone\tnone\t{}\t{}'
QQP = 'id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n'
FULL = (
    'Lexical Semantics\tPredicate-Argument Structure\tLogic\tKnowledge\tDomain\t'
    'Premise\tHypothesis\tLabel\r\n'
)
# Task and split: the file as GLUE has it, and (fields, label) of its rows.
OFFICIAL = {
    ('cola', 'train'): (
        'CoLA/train.tsv',
        'gj04\t1\t\t"Our friends won\'t buy this.\ngj04\t0\t*\tThem saw\u2028we.\n',
        [
            ({'sentence': '"Our friends won\'t buy this.'}, 'acceptable'),
            ({'sentence': 'Them saw\u2028we.'}, 'unacceptable'),
        ],
    ),
    ('cola', 'test'): (
        'CoLA/test.tsv',
        'index\tsentence\n0\tBill whistled past.\n1\tThe car honked.\n',
        [
            ({'sentence': 'Bill whistled past.'}, None),
            ({'sentence': 'The car honked.'}, None),
        ],
    ),
    ('sst2', 'train'): (
        'SST-2/train.tsv',
        'sentence\tlabel\nhide new secretions \t0\nthat loves its characters \t1\n',
        [
            ({'sentence': 'hide new secretions'}, 'negative'),
            ({'sentence': 'that loves its characters'}, 'positive'),
        ],
    ),
    ('sst2', 'test'): (
        'SST-2/test.tsv',
        'index\tsentence\n0\tuneasy mishmash .\n',
        [({'sentence': 'uneasy mishmash .'}, None)],
    ),
    ('mrpc', 'dev'): (
        'MRPC/dev.tsv',
        '\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n1\t13\t15\tHe "said\tShe.\r\n',
        [({'sentence1': 'He "said', 'sentence2': 'She.'}, 'equivalent')],
    ),
    ('mrpc', 'test'): (
        'MRPC/test.tsv',
        '\ufeffindex\t#1 ID\t#2 ID\t#1 String\t#2 String\n0\t10\t11\tA\tB\n',
        [({'sentence1': 'A', 'sentence2': 'B'}, None)],
    ),
    ('stsb', 'train'): (
        'STS-B/train.tsv',
        f'{STSB}\tscore\n{STSB_ROW.format(0, "A plane.", "An air plane.")}\t4.750\n',
        [({'sentence1': 'A plane.', 'sentence2': 'An air plane.'}, 4.75)],
    ),
    ('stsb', 'test'): (
        'STS-B/test.tsv',
        f'{STSB}\n{STSB_ROW.format(0, "A.", "B.")}\n',
        [({'sentence1': 'A.', 'sentence2': 'B.'}, None)],
    ),
    ('qqp', 'train'): (
        'QQP/train.tsv',
        QQP + '1\t2\t3\tWhy?\tWhat "for?\t1\n4\t5\t6\tWho?\t\t0\n',
        [
            ({'question1': 'Why?', 'question2': 'What "for?'}, 'duplicate'),
            ({'question1': 'Who?', 'question2': ''}, 'not_duplicate'),
        ],
    ),
    ('qqp', 'test'): (
        'QQP/test.tsv',
        'id\tquestion1\tquestion2\n0\tWhy?\tHow?\n1\tA?\tB?\n',
        [
            ({'question1': 'Why?', 'question2': 'How?'}, None),
            ({'question1': 'A?', 'question2': 'B?'}, None),
        ],
    ),
    ('mnli', 'train'): (
        'MNLI/train.tsv',
        f'{MNLI}\tlabel1\tgold_label\n{MNLI_ROW.format(0, "P", "H")}\tentailment\tneutral\n',
        [({'premise': 'P', 'hypothesis': 'H'}, 'neutral')],
    ),
    ('mnli', 'dev'): (
        'MNLI/dev_matched.tsv',
        f'{MNLI}\tlabel1\tlabel2\tlabel3\tlabel4\tlabel5\tgold_label\n'
        + MNLI_ROW.format(0, 'P', 'H')
        + '\tneutral\tentailment\tneutral\tneutral\tneutral\tentailment\n',
        [({'premise': 'P', 'hypothesis': 'H'}, 'entailment')],
    ),
    ('mnli', 'dev_mismatched'): (
        'MNLI/dev_mismatched.tsv',
        f'{MNLI}\tlabel1\tlabel2\tlabel3\tlabel4\tlabel5\tgold_label\n'
        + MNLI_ROW.format(0, 'P', 'H')
        + '\tneutral\tneutral\tneutral\tneutral\tneutral\tcontradiction\n',
        [({'premise': 'P', 'hypothesis': 'H'}, 'contradiction')],
    ),
    ('mnli', 'test'): (
        'MNLI/test_matched.tsv',
        f'{MNLI}\n{MNLI_ROW.format(0, "P", "H")}\n',
        [({'premise': 'P', 'hypothesis': 'H'}, None)],
    ),
    ('mnli', 'test_mismatched'): (
        'MNLI/test_mismatched.tsv',
        f'{MNLI}\n{MNLI_ROW.format(0, "P2", "H2")}\n',
        [({'premise': 'P2', 'hypothesis': 'H2'}, None)],
    ),
    ('qnli', 'dev'): (
        'QNLI/dev.tsv',
        'index\tquestion\tsentence\tlabel\n0\tWhat?\tThat.\tentailment\n'
        '1\tWho?\tIt.\tnot_entailment\n',
        [
            ({'question': 'What?', 'sentence': 'That.'}, 'entailment'),
            ({'question': 'Who?', 'sentence': 'It.'}, 'not_entailment'),
        ],
    ),
    ('rte', 'train'): (
        'RTE/train.tsv',
        'index\tsentence1\tsentence2\tlabel\n0\tA.\tB.\tnot_entailment\n',
        [({'sentence1': 'A.', 'sentence2': 'B.'}, 'not_entailment')],
    ),
    ('wnli', 'train'): (
        'WNLI/train.tsv',
        'index\tsentence1\tsentence2\tlabel\n0\tA.\tB.\t1\n1\tC.\tD.\t0\n',
        [
            ({'sentence1': 'A.', 'sentence2': 'B.'}, 'entailment'),
            ({'sentence1': 'C.', 'sentence2': 'D.'}, 'not_entailment'),
        ],
    ),
    ('ax', 'test'): (
        'AX/diagnostic-full.tsv',
        FULL + '\t\tNegation\t\tArtificial\tThe cat.\tNo cat.\tcontradiction\r\n',
        [({'premise': 'The cat.', 'hypothesis': 'No cat.'}, 'contradiction')],
    ),
}


def put(folder, name, text):
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text.encode())
    return path


def fault(name, folder, split):
    with pytest.raises(UserError) as caught:
        glue.TASKS[name].read(folder, split)
    assert '\n' not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize('case', OFFICIAL)
def test_official_files(tmp_path, case):
    name, text, wanted = OFFICIAL[case]
    put(tmp_path, name, text)
    task, split = case
    examples = glue.TASKS[task].read(tmp_path, split)
    assert [(e.fields, e.label) for e in examples] == wanted
    assert [e.index for e in examples] == list(range(len(wanted)))
    assert all(set(glue.TASKS[task].texts) == set(e.fields) for e in examples)


def test_tasks_stand_in_the_order_of_the_leaderboard():
    names = ['cola', 'sst2', 'mrpc', 'stsb', 'qqp', 'mnli', 'qnli', 'rte', 'wnli', 'ax']
    assert list(glue.TASKS) == names
    for name, task in glue.TASKS.items():
        assert (task.name, task.benchmark) == (name, 'glue')
        assert set(task.metrics) <= set(metrics.METRICS)
        assert set(task.spellings) in (set(), set(task.labels))
    positive = {name: glue.TASKS[name].labels[-1] for name in ('mrpc', 'qqp')}
    assert positive == {'mrpc': 'equivalent', 'qqp': 'duplicate'}
    assert glue.TASKS['mnli'].labels == CHOSEN
    assert glue.TASKS['ax'].predicted_by == 'mnli'


def test_a_diagnostic_set_without_labels(tmp_path):
    put(tmp_path, 'diagnostic/diagnostic.tsv', 'index\tsentence1\tsentence2\n0\tA\tB\n1\tC\tD\n')
    examples = glue.TASKS['ax'].read(tmp_path, 'test')
    assert [(e.index, e.label) for e in examples] == [(0, None), (1, None)]


def test_mrpc_from_the_files_of_microsoft(tmp_path):
    head = '\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n'
    rows = ['1\t1\t2\ta\tb', '0\t3\t4\tc\td', '1\t5\t6\te\tf']
    put(tmp_path, 'MRPC/msr_paraphrase_train.txt', head + '\r\n'.join(rows) + '\r\n')
    put(tmp_path, 'MRPC/msr_paraphrase_test.txt', head + '1\t7\t8\tg\th\r\n')
    put(tmp_path, 'MRPC/dev_ids.tsv', '3\t4\r\n')
    task = glue.TASKS['mrpc']
    train, dev, test = (task.read(tmp_path, split) for split in task.splits)
    assert [(e.fields['sentence1'], e.label) for e in train] == [
        ('a', 'equivalent'),
        ('e', 'equivalent'),
    ]
    assert [(e.fields, e.label) for e in dev] == [
        ({'sentence1': 'c', 'sentence2': 'd'}, 'not_equivalent')
    ]
    assert [(e.index, e.label) for e in test] == [(0, None)]
    put(tmp_path, 'MRPC/dev_ids.tsv', '3\t4\n9\t9\n')
    assert "dev_ids.tsv, line 2: the pair '9 9' is not in" in fault('mrpc', tmp_path, 'dev')


def test_broken_rows_of_qqp_are_dropped_and_counted(tmp_path, capsys):
    rows = '1\t2\t3\tWhy?\tHow?\t1\n4\t5\t6\tWhat is\nthis?\tIt?\t0\n7\t8\t9\tA?\tB?\t0\n'
    path = put(tmp_path, 'QQP/dev.tsv', QQP + rows)
    examples = glue.TASKS['qqp'].read(tmp_path, 'dev')
    assert [e.fields['question1'] for e in examples] == ['Why?', 'A?']
    said = capsys.readouterr().err
    assert said == f'{path}: 2 rows with a wrong number of columns left out\n'


def test_a_test_row_of_qqp_is_never_dropped(tmp_path):
    path = put(tmp_path, 'QQP/test.tsv', 'id\tquestion1\tquestion2\n0\tA?\tB?\n1\tC?\n')
    assert f'{path}, line 3: too few columns' in fault('qqp', tmp_path, 'test')


def test_undecided_rows_of_mnli_are_left_out(tmp_path, capsys):
    rows = [MNLI_ROW.format(n, 'P', f'H{n}') + f'\tx\t{g}' for n, g in enumerate(['-', 'neutral'])]
    put(tmp_path, 'MNLI/train.tsv', '\n'.join([f'{MNLI}\tlabel1\tgold_label', *rows]))
    (example,) = glue.TASKS['mnli'].read(tmp_path, 'train')
    assert (example.index, example.fields['hypothesis']) == (1, 'H1')
    assert '1 row on whose label the annotators did not agree left out' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('task', 'name', 'text', 'said'),
    [
        ('sst2', 'SST-2/train.tsv', 'sentence\tlabel\na\t0\nb\t2\n', "line 3: the label '2'"),
        ('sst2', 'SST-2/train.tsv', 'sentence\tlable\na\t0\n', "no column 'label': there are 'la"),
        ('sst2', 'SST-2/train.tsv', 'sentence\tlabel\na\tb\t0\n', 'line 2: too many columns'),
        ('sst2', 'SST-2/train.tsv', 'sentence\tlabel\na\t-\n', "line 2: the label '-'"),
        ('cola', 'CoLA/train.tsv', 'x\t1\t\ta\nx\tmaybe\t\tb\n', "line 2: the label 'maybe'"),
        ('cola', 'CoLA/train.tsv', 'sentence\tlabel\n', 'line 1: too few columns, 2'),
        ('mnli', 'MNLI/train.tsv', f'{MNLI}\n', "no column 'gold_label'"),
        (
            'stsb',
            'STS-B/train.tsv',
            f'{STSB}\tscore\n{STSB_ROW.format(0, "A", "B")}\thigh\n',
            "line 2: the score 'high' is no number",
        ),
        (
            'stsb',
            'STS-B/train.tsv',
            f'{STSB}\tscore\n{STSB_ROW.format(0, "A", "B")}\t7\n',
            "line 2: the score '7' is not between 0 and 5",
        ),
    ],
)
def test_bad_files(tmp_path, task, name, text, said):
    path = put(tmp_path, name, text)
    message = fault(task, tmp_path, 'train')
    assert str(path) in message
    assert said in message
