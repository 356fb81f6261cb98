"""Submission files, byte for byte, of small tasks made here."""

import json
import zipfile

import numpy as np
import pytest

from pretrain.errors import UserError
from pretrain.transfer import glue, submission
from pretrain.transfer.task import Example, Task

GLUE = [
    *('CoLA.tsv', 'SST-2.tsv', 'MRPC.tsv', 'STS-B.tsv', 'MNLI-m.tsv', 'MNLI-mm.tsv', 'QNLI.tsv'),
    *('QQP.tsv', 'RTE.tsv', 'WNLI.tsv', 'AX.tsv'),
]
SUPERGLUE = [
    *('BoolQ.jsonl', 'CB.jsonl', 'COPA.jsonl', 'MultiRC.jsonl', 'ReCoRD.jsonl', 'RTE.jsonl'),
    *('WiC.jsonl', 'WSC.jsonl', 'AX-b.jsonl', 'AX-g.jsonl'),
]
NLI = ('contradiction', 'entailment', 'neutral')
RTE = ('not_entailment', 'entailment')


def make_task(file, labels=('no', 'yes'), kind='classes', **fields):
    name = file.split('.')[0]
    return Task(name, name, 'made', kind, labels, (), (), lambda *_: [], file=file, **fields)


def predicted(task, predictions, indices=None):
    indices = range(len(predictions)) if indices is None else indices
    return task, [Example(index, {}) for index in indices], predictions


def all_of_glue():
    spelt = {'no': '0', 'yes': '1'}
    made = {
        file: predicted(make_task(file, spellings=spelt), ['yes', 'no'])
        for file in ('CoLA.tsv', 'SST-2.tsv', 'MRPC.tsv', 'QQP.tsv', 'WNLI.tsv')
    }
    for file in ('RTE.tsv', 'QNLI.tsv'):
        made[file] = predicted(make_task(file, RTE), ['entailment', 'not_entailment'])
    number = make_task('STS-B.tsv', (), 'number')
    values = [2.34567, -0.0, -1.0, 7.0, np.float32(1.0005), 5]
    made['stsb'] = predicted(number, values)
    mnli = make_task('MNLI-m.tsv', NLI)
    made['mnli_mismatched'] = predicted(mnli, ['neutral'])
    made['mnli'] = predicted(mnli, ['contradiction', 'entailment'])
    made['ax'] = predicted(make_task('AX.tsv', NLI), ['entailment'])
    return made


def contents(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}


def test_glue_byte_for_byte(tmp_path):
    written = submission.write(tmp_path / 'out', 'glue', all_of_glue())
    assert written.path == tmp_path / 'out' / 'glue.zip'
    binary = 'index\tprediction\n0\t1\n1\t0\n'
    entailment = 'index\tprediction\n0\tentailment\n1\tnot_entailment\n'
    found = contents(written.path)
    assert list(found) == GLUE
    assert found == {
        'CoLA.tsv': binary,
        'SST-2.tsv': binary,
        'MRPC.tsv': binary,
        'STS-B.tsv': (
            'index\tprediction\n0\t2.346\n1\t0.000\n2\t0.000\n3\t5.000\n4\t1.000\n5\t5.000\n'
        ),
        'MNLI-m.tsv': 'index\tprediction\n0\tcontradiction\n1\tentailment\n',
        'MNLI-mm.tsv': 'index\tprediction\n0\tneutral\n',
        'QNLI.tsv': entailment,
        'QQP.tsv': binary,
        'RTE.tsv': entailment,
        'WNLI.tsv': binary,
        'AX.tsv': 'index\tprediction\n0\tentailment\n',
    }
    for name, text in found.items():
        assert (tmp_path / 'out' / name).read_bytes() == text.encode()
    assert sorted(path.name for path in written.path.parent.iterdir()) == sorted(
        [*GLUE, 'glue.zip']
    )


def all_of_superglue():
    true = ('False', 'True')
    lower = {'False': 'false', 'True': 'true'}
    made = {
        'boolq': predicted(make_task('BoolQ.jsonl', true, submitted=lower), ['True', 'False']),
        'wic': predicted(make_task('WiC.jsonl', true, submitted=lower), ['False']),
        'wsc': predicted(make_task('WSC.jsonl', true), ['True', 'False']),
        'cb': predicted(make_task('CB.jsonl', NLI), ['neutral']),
        'record': predicted(
            make_task('ReCoRD.jsonl', (), 'entity'), ['Zoë "Z" Ek', 'U.S.'], indices=[7, 3]
        ),
    }
    choice = make_task(
        'COPA.jsonl', ('choice1', 'choice2'), 'choice', submitted={'choice1': 0, 'choice2': 1}
    )
    made['copa'] = predicted(choice, ['choice2', 'choice1'])
    multirc = make_task('MultiRC.jsonl', submitted={'no': 0, 'yes': 1})
    made['multirc'] = predicted(
        multirc,
        ['yes', 'no', 'no', 'yes'],
        indices=[(10, 4, 8), (2, 0, 0), (2, 1, 3), (2, 1, 2)],
    )
    for file in ('RTE.jsonl', 'AX-b.jsonl', 'AX-g.jsonl'):
        made[file] = predicted(make_task(file, RTE), ['entailment', 'not_entailment'])
    return made


def test_superglue_byte_for_byte(tmp_path):
    written = submission.write(tmp_path, 'superglue', all_of_superglue())
    entailment = '{"idx": 0, "label": "entailment"}\n{"idx": 1, "label": "not_entailment"}\n'
    found = contents(written.path)
    assert list(found) == SUPERGLUE
    assert found == {
        'BoolQ.jsonl': '{"idx": 0, "label": "true"}\n{"idx": 1, "label": "false"}\n',
        'CB.jsonl': '{"idx": 0, "label": "neutral"}\n',
        'COPA.jsonl': '{"idx": 0, "label": 1}\n{"idx": 1, "label": 0}\n',
        'MultiRC.jsonl': (
            '{"idx": 2, "passage": {"questions": ['
            '{"idx": 0, "answers": [{"idx": 0, "label": 0}]}, '
            '{"idx": 1, "answers": [{"idx": 2, "label": 1}, {"idx": 3, "label": 0}]}]}}\n'
            '{"idx": 10, "passage": {"questions": ['
            '{"idx": 4, "answers": [{"idx": 8, "label": 1}]}]}}\n'
        ),
        'ReCoRD.jsonl': (
            '{"idx": 3, "label": "U.S."}\n{"idx": 7, "label": "Zo\\u00eb \\"Z\\" Ek"}\n'
        ),
        'RTE.jsonl': entailment,
        'WiC.jsonl': '{"idx": 0, "label": "false"}\n',
        'WSC.jsonl': '{"idx": 0, "label": "True"}\n{"idx": 1, "label": "False"}\n',
        'AX-b.jsonl': entailment,
        'AX-g.jsonl': entailment,
    }
    for name, text in found.items():
        assert (tmp_path / name).read_bytes() == text.encode()


def test_read_back(tmp_path):
    glue = submission.read_back(submission.write(tmp_path, 'glue', all_of_glue()).path)
    assert list(glue) == GLUE
    assert glue['MRPC.tsv'] == [(0, '1'), (1, '0')]
    assert len(glue['STS-B.tsv']) == 6
    read = submission.read_back(submission.write(tmp_path, 'superglue', all_of_superglue()).path)
    assert list(read) == SUPERGLUE
    assert read['ReCoRD.jsonl'][1] == {'idx': 7, 'label': 'Zoë "Z" Ek'}
    assert [line['idx'] for line in read['MultiRC.jsonl']] == [2, 10]
    with zipfile.ZipFile(tmp_path / 'bad.zip', 'w') as archive:
        archive.writestr('RTE.tsv', '0\tentailment\n')
    with pytest.raises(UserError, match=r'RTE\.tsv begins with'):
        submission.read_back(tmp_path / 'bad.zip')


def test_same_bytes_whatever_the_order_and_the_time(tmp_path, monkeypatch):
    first = submission.write(tmp_path / 'a', 'glue', all_of_glue()).path.read_bytes()
    # An archive made with a clock differs: this one does not ask for it.
    monkeypatch.setattr('time.time', lambda: 2e9)
    made = dict(reversed(all_of_glue().items()))
    for name, (task, examples, predictions) in made.items():
        made[name] = (task, examples[::-1], predictions[::-1])
    assert submission.write(tmp_path / 'b', 'glue', made).path.read_bytes() == first
    with zipfile.ZipFile(tmp_path / 'b' / 'glue.zip') as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_what_a_server_would_not_like_is_said(tmp_path):
    rte = make_task('RTE.tsv', RTE)
    stsb = make_task('STS-B.tsv', (), 'number')
    made = {
        'rte': predicted(rte, ['entailment', 'yes', '', 'entailment'] + ['entailment'] * 2996),
        'stsb': predicted(stsb, [float('nan'), 1.0]),
        'wnli': predicted(make_task('WNLI.tsv'), ['yes'] * 146, indices=range(1, 147)),
        'sst2': predicted(make_task('SST-2.tsv'), []),
    }
    written = submission.write(tmp_path, 'glue', made)
    assert written.remarks == [
        'STS-B.tsv: 1 predictions were no answer; 0.0 stands instead',
        'STS-B.tsv: 2 rows, where the test set has 1379 from 0 on',
        "RTE.tsv: 2 predictions were no answer; 'not_entailment' stands instead",
        'WNLI.tsv: 146 rows, where the test set has 146 from 0 on',
        'no test predictions for CoLA.tsv, SST-2.tsv, MRPC.tsv, MNLI-m.tsv, MNLI-mm.tsv, QNLI.tsv, '
        'QQP.tsv, AX.tsv: the server wants every file',
    ]
    read = submission.read_back(written.path)
    assert list(read) == ['STS-B.tsv', 'RTE.tsv', 'WNLI.tsv']
    assert read['RTE.tsv'][1:4] == [(1, RTE[0]), (2, RTE[0]), (3, RTE[1])]
    assert len(read['RTE.tsv']) == 3000
    assert read['STS-B.tsv'] == [(0, '0.000'), (1, '1.000')]


def test_what_an_earlier_call_left_goes(tmp_path):
    for name in ('WNLI.tsv', 'glue.zip', 'notes.txt'):
        (tmp_path / name).write_text('old')
    rte = glue.TASKS['rte']
    examples = [Example(i, {}) for i in range(2)]
    submission.write(tmp_path, 'glue', {'rte': (rte, examples, ['entailment'] * 2)})
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ['RTE.tsv', 'glue.zip', 'notes.txt']
    assert list(submission.read_back(tmp_path / 'glue.zip')) == ['RTE.tsv']
    submission.write(tmp_path, 'glue', {})
    assert [path.name for path in tmp_path.iterdir()] == ['notes.txt']


def test_nothing_to_submit(tmp_path):
    written = submission.write(tmp_path / 'out', 'superglue', {})
    assert written.path is None
    assert len(written.remarks) == 1
    assert not (tmp_path / 'out').exists()


def test_what_cannot_be_submitted(tmp_path):
    rte = predicted(make_task('RTE.tsv', RTE), ['entailment'])
    with pytest.raises(UserError, match="no server takes 'snli'"):
        submission.write(tmp_path, 'snli', {})
    with pytest.raises(UserError, match=r"'rte' would be 'RTE\.tsv' of superglue"):
        submission.write(tmp_path, 'superglue', {'rte': rte})
    with pytest.raises(UserError, match=r"'again' would be 'RTE\.tsv'"):
        submission.write(tmp_path, 'glue', {'rte': rte, 'again': rte})
    with pytest.raises(UserError, match="'snli' would be 'no file'"):
        submission.write(tmp_path, 'glue', {'snli': predicted(make_task(''), ['yes'])})
    with pytest.raises(UserError, match='row 4 is predicted twice'):
        twice = predicted(make_task('WNLI.tsv'), ['yes', 'no'], indices=[4, 4])
        submission.write(tmp_path, 'glue', {'wnli': twice})
    with pytest.raises(ValueError, match='1 examples, 2 predictions'):
        submission.write(tmp_path, 'glue', {'rte': (rte[0], rte[1], ['entailment'] * 2)})
    assert list(tmp_path.iterdir()) == []


def test_squad(tmp_path):
    paths = submission.write_squad(tmp_path, {'b': 'Zoë', 'a': ''}, {'b': -1.5, 'a': 2.0})
    assert [path.name for path in paths] == ['predictions.json', 'null_odds.json']
    assert paths[0].read_bytes() == b'{\n"a": "",\n"b": "Zo\\u00eb"\n}\n'
    assert json.loads(paths[1].read_text()) == {'a': 2.0, 'b': -1.5}
    (tmp_path / 'null_odds.json').unlink()
    assert submission.write_squad(tmp_path, {'a': ''}) == [tmp_path / 'predictions.json']
    assert not (tmp_path / 'null_odds.json').exists()
