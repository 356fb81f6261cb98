"""SQuAD's files, made here in the nesting of the official ones."""

import json

import pytest

from pretrain.errors import UserError
from pretrain.transfer import squad

CONTEXT = 'The Normans were in Normandy. They came from Denmark, Iceland and Norway.'


def answer(text, start=None):
    return {'text': text, 'answer_start': CONTEXT.index(text) if start is None else start}


def entry(key, *answers, **more):
    return {'question': f'Which is {key}?', 'id': key, 'answers': list(answers)} | more


def old(*entries):
    paragraphs = [{'context': CONTEXT, 'qas': list(entries)}]
    return {'data': [{'title': 'Normans', 'paragraphs': paragraphs}], 'version': '1.1'}


def new(*entries):
    return old(*({'is_impossible': False} | e for e in entries)) | {'version': 'v2.0'}


GOOD = entry('a', answer('Normandy'), answer('in Normandy'))
NONE = entry(
    'b', plausible_answers=[{'text': 'Normandy', 'answer_start': 20}], is_impossible=True
)  # fmt: skip


def write(folder, facts, name='train-v1.1.json'):
    path = folder / name
    path.write_text(facts if isinstance(facts, str) else json.dumps(facts), 'utf-8')
    return path


def test_both_versions_are_read(tmp_path):
    facts = old(GOOD)
    qa = {'question': 'Où?', 'id': 'c', 'answers': [{'text': '日本', 'answer_start': 2}]}
    paragraphs = [{'context': 'É 日本.', 'qas': []}, {'context': 'É 日本.', 'qas': [qa]}]
    facts['data'].append({'title': 'x', 'paragraphs': paragraphs})
    first, second = squad.read(write(tmp_path, facts), '1.1')
    assert first == squad.Question(
        'a', 'Which is a?', CONTEXT, (('Normandy', 20), ('in Normandy', 17)), False
    )
    assert second == ('c', 'Où?', 'É 日本.', (('日本', 2),), False)
    first, second = squad.read(write(tmp_path, new(GOOD, NONE)), '2.0')
    assert first.answers[0] == ('Normandy', 20)
    assert not first.impossible
    assert (second.answers, second.impossible) == ((), True)


def test_files_are_found_by_their_names(tmp_path):
    assert squad.find(tmp_path, '1.1') == {}
    part = write(tmp_path, '', 'train-v1.1-60-articles.json')
    dev, other = write(tmp_path, '', 'dev-v1.1.json'), write(tmp_path, '', 'dev-v2.0.json')
    assert squad.find(tmp_path, '1.1') == {'train': part, 'dev': dev}
    assert squad.find(tmp_path, '2.0') == {'dev': other}
    write(tmp_path, '', 'train-v1.1-b.json')
    with pytest.raises(UserError, match=r'holds 2 files for train-v1.* \(train-v1.1-60-art'):
        squad.find(tmp_path, '1.1')
    whole = write(tmp_path, '', 'train-v1.1.json')
    assert squad.find(str(tmp_path), '1.1')['train'] == whole
    with pytest.raises(UserError, match=r"no version '3'.*1.1, 2.0"):
        squad.find(tmp_path, '3')


@pytest.mark.parametrize(
    ('bad', 'why'),
    [
        (answer('Normandy', 21), "at answer_start=21 stands 'ormandy.', not 'Normandy'"),
        (answer('Norway.', 700), 'answer_start=700 lies outside the context of 73 characters'),
        (answer('Norway.', -7), 'answer_start=-7 lies outside'),
        (answer('  ', 3), "its answer is '  '"),
    ],
)
def test_answers_that_do_not_stand_where_the_file_says(tmp_path, bad, why):
    path = write(tmp_path, new(GOOD, NONE, entry('bad', bad), entry('c', answer('Denmark'))))
    questions = squad.read(path)
    assert len(questions) == 4
    kept, skipped = squad.aligned(questions, path)
    assert [q.id for q in kept] == ['a', 'b', 'c']
    assert skipped == ['bad']
    with pytest.raises(UserError, match=f"train-v1.1.json': question 'bad': .*{why}"):
        squad.aligned(questions, path, skip_misaligned=False)
    path = write(tmp_path, new(GOOD, NONE, entry('bad', bad), entry('worse', bad)))
    with pytest.raises(UserError, match=f"do not match .* in 2 of 3 questions; .*'bad', .*{why}"):
        squad.read(path)


@pytest.mark.parametrize(
    ('facts', 'why'),
    [
        ('', 'is empty'),
        (' \n', 'is empty'),
        ('{\n"data": [\n}', 'line 3 does not parse: Expecting value'),
        ('{"a": 1}\n{"a": 2}\n', 'line 2 does not parse: Extra data'),
        ([1], 'is no file of SQuAD'),
        ({'version': '1.1'}, 'is no file of SQuAD.*another benchmark'),
        ({'data': [{'story': 'x', 'questions': []}]}, 'is no file of SQuAD'),  # CoQA's
        ({'data': []}, 'holds no question'),
        ({'data': [{'paragraphs': 3}]}, 'article 1: paragraphs=3 must be a list'),
        ({'data': [{'paragraphs': ['x']}]}, "article 1, paragraph 1 holds 'x' where"),
        ({'data': [{'paragraphs': [{'qas': []}]}]}, "article 1, paragraph 1 has no 'context'"),
        (old({'question': 'x', 'answers': []}), "paragraph 1, question 1 has no 'id'"),
        (old(entry(7, answer('Norway'))), 'question 1: id=7 must be a text'),
        (old(GOOD, {'id': 'x', 'question': 'y'}), "question 'x' has no 'answers'"),
        (old({'id': 'x', 'answers': [answer('Norway')]}), "question 'x' has no 'question'"),
        (old(entry('x', {'text': 'Norway'})), "question 'x' has no 'answer_start'"),
        (old(entry('x', answer('Norway', '66'))), "'x': answer_start='66' must be a whole number"),
        (old(entry('x', answer('Norway', True))), "'x': answer_start=True must be"),
        (old(entry('x')), "question 'x' has no answer, yet its is_impossible is not true"),
        (new(GOOD, NONE), "question 'b' has no answer: only SQuAD 2.0 has such"),
        (old(GOOD | {'is_impossible': 'no'}), "question 'a': is_impossible='no' must be"),
        (old(GOOD, GOOD), "question 'a' stands there twice"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path, facts, why):
    with pytest.raises(UserError, match=why) as caught:
        squad.read(write(tmp_path, facts), '1.1')
    assert 'train-v1.1.json' in str(caught.value)
    assert '\n' not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match='No such file'):
        squad.read(tmp_path / 'none.json')
    (tmp_path / 'x.json').write_bytes(b'{"data": "\xff"}')
    with pytest.raises(UserError, match=r'no UTF-8 text \(byte 10\)'):
        squad.read(tmp_path / 'x.json')
    (tmp_path / 'x.json').write_text('{"data": ' + 5000 * '1' + '}')
    with pytest.raises(UserError, match=r'x\.json.* does not parse'):
        squad.read(tmp_path / 'x.json')
    with pytest.raises(UserError, match=r"--data_dir: '.*none' is not there"):
        squad.find(tmp_path / 'none', '1.1')


def test_half_a_surrogate_pair_is_replaced_and_moves_nothing(tmp_path):
    facts = json.loads(json.dumps(old(GOOD)).replace('Normans', 'Norman\\ud83d'))
    (question,) = squad.read(write(tmp_path, facts))
    assert question.context == CONTEXT.replace('Normans', 'Norman\ufffd')
    assert squad.misplaced(question) == ''
