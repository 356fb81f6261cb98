"""SQuAD from made files to answers: marked, written out, and continued by a decoder."""

import json
import random

import pytest

from configs import squad as configs_of_squad
from pretrain.errors import UserError
from pretrain.transfer import benchmark, experiment, report, sources, squad_task


@pytest.fixture
def squad_files(toy, tmp_path):
    """squad_files('2.0', count) -> folder; the answer is the word that the question names.

    Of 2.0 every third question names a word that the paragraph does not hold.
    """

    def squad_files(version, count=24, train=True):
        rng, articles = random.Random(1), []
        for i in range(count):
            sign = i % 4
            context = toy.sentence(rng, sign, 6)
            word = toy.signs[sign]
            impossible = version == '2.0' and i % 3 == 0
            asked = toy.signs[4 + i % 2] if impossible else word
            answers = [{'text': word, 'answer_start': context.index(word)}]
            qa = {'id': f'q{i}', 'question': asked, 'answers': [] if impossible else answers}
            if version == '2.0':
                qa['is_impossible'] = impossible
                if impossible:
                    qa['plausible_answers'] = answers
            articles.append({'title': 't', 'paragraphs': [{'context': context, 'qas': [qa]}]})
        for split in ('train', 'dev') if train else ('dev',):
            path = tmp_path / f'{split}-v{version}.json'
            path.write_text(json.dumps({'version': version, 'data': articles}))
        return tmp_path

    return squad_files


@pytest.fixture
def opened(tiny, quick, one_device):
    """opened(folder, version, kind, **changes) -> (Experiment, Task, Data, config)."""

    def opened(folder, version, kind='encoder', **changes):
        config = quick(config=configs_of_squad.get_config(f'v{version}'))
        with config.unlocked():
            config.transfer.update(epochs=24, length=48)
            config.squad.update(stride=8, question_length=8, answer_length=4)
            for key, value in changes.items():
                config.transfer[key] = value
        task, data = sources.open_task(config, folder)
        made = sources.open_experiment(tiny(kind), task, data, config, one_device, show=False)
        return made, task, data, config

    return opened


def gold(data):
    return {q.id: q.answers[0][0] if q.answers else '' for q in data.splits['dev']}


def test_the_span_head_learns_to_mark_answers_and_writes_them(
    tiny, one_device, opened, squad_files, tmp_path
):
    made, task, data, config = opened(squad_files('1.1'), '1.1')
    assert type(made) is squad_task.SquadExperiment
    out = tmp_path / 'out'
    result = benchmark.run_task(
        tiny('encoder'), task, data, config, one_device, out, 1, 0, lambda line: None
    )
    scores = result.runs['pretrained'][0]['scores']['dev']
    assert scores['exact'] >= 0.9
    assert scores['score'] == scores['f1'] >= scores['exact']
    assert scores['total'] == 24
    assert result.majority == {}
    sent = benchmark.write_submission('squad', [result], {}, out)
    predictions = json.loads((out / 'submission/predictions.json').read_text())
    wanted = gold(data)
    assert predictions.keys() == wanted.keys()
    right = sum(predictions[key] == wanted[key] for key in wanted)
    assert right / 24 == pytest.approx(scores['exact'])
    assert sent.path == out / 'submission/predictions.json'
    assert not (out / 'submission/null_odds.json').exists()
    text = report.markdown(report.summarise('squad', [result], {}))
    assert f'| SQuAD 1.1 | EM | {100 * scores["exact"]:.1f} |' in text
    line = experiment.read_lines(out / task.name / 'pretrained/seed-0', 'dev')[0]
    assert line['candidates'][0]['text'] == line['prediction']
    assert sum(c['probability'] for c in line['candidates']) <= 1 + 1e-6


def test_questions_without_an_answer_are_learned_too(
    tiny, one_device, opened, squad_files, tmp_path
):
    _, task, data, config = opened(squad_files('2.0'), '2.0', epochs=40)
    out = tmp_path / 'out'
    result = benchmark.run_task(
        tiny('encoder'), task, data, config, one_device, out, 1, 0, lambda line: None
    )
    scores = result.runs['pretrained'][0]['scores']['dev']
    assert (scores['total'], scores['HasAns_total'], scores['NoAns_total']) == (24, 16, 8)
    assert scores['exact'] >= 0.85
    assert scores['best_exact'] >= scores['exact']
    benchmark.write_submission('squad', [result], {}, out)
    predictions, odds = (
        json.loads((out / 'submission' / f'{name}.json').read_text())
        for name in ('predictions', 'null_odds')
    )
    wanted = gold(data)
    assert predictions.keys() == odds.keys() == wanted.keys()
    # No answer is what the odds say, and the scores are those of what is sent in.
    assert all((predictions[key] == '') == (odds[key] > 0) for key in odds)
    right = [predictions[key] == wanted[key] for key in wanted]
    assert sum(right) / 24 == pytest.approx(scores['exact'])
    none = [predictions[key] == '' for key in wanted if not wanted[key]]
    assert sum(none) / 8 == pytest.approx(scores['NoAns_exact'])
    lines = report.markdown(report.summarise('squad', [result], {}))
    assert '| SQuAD 2.0 | EM where there is none |' in lines


def test_a_raised_threshold_answers_more_and_changes_no_search_for_the_best(opened, squad_files):
    made, _, data, config = opened(squad_files('2.0', 6), '2.0', epochs=1)
    params, _ = made.start(0)
    counts, best = [], []
    words = {q.id: q.context.split()[0] for q in data.splits['dev']}
    for threshold in (-1e9, 1e9):
        with config.unlocked():
            config.squad.threshold = threshold
        predictions, _ = made.cast.answer(params, data.splits['dev'])
        counts.append(sum(a.text != '' for a in predictions))
        # A span that is right, so that emptying it would show in the search.
        predictions = [
            a._replace(text=a.text and gold(data)[q.id], span=gold(data)[q.id] or words[q.id])
            for a, q in zip(predictions, data.splits['dev'])
        ]
        scores = made._score(made.task, data.splits['dev'], predictions)
        best.append([scores[f'best_{name}'] for name in ('exact', 'f1')])
        if threshold < 0:  # 'no answer' to all: right where there is none, of 6 questions two
            assert (scores['exact'], scores['NoAns_exact'], scores['HasAns_f1']) == (
                pytest.approx(1 / 3), 1.0, 0.0,
            )  # fmt: skip
        else:
            assert scores['NoAns_exact'] == 0.0
    assert counts == [0, 6]
    assert best[0] == best[1]
    assert best[0][0] >= 2 / 3


def test_an_encoder_and_decoder_learn_to_write_the_answer(opened, squad_files):
    made, _, data, _ = opened(squad_files('1.1', 16), '1.1', 'both', epochs=30, answer_tokens=4)
    outcome = made.run(0)
    assert outcome.scores['dev']['exact'] >= 0.9
    wanted = gold(data)
    told = {q.id: a.text for q, a in zip(data.splits['dev'], outcome.predictions['dev'])}
    assert sum(told[key] == wanted[key] for key in wanted) / 16 >= 0.9
    assert all(answer.null_odds is None for answer in outcome.predictions['dev'])


@pytest.mark.parametrize('shots', [0, 2])
def test_a_decoder_goes_on_behind_the_question(shots, opened, squad_files):
    folder = squad_files('1.1', 3)
    made, _, _, _ = opened(folder, '1.1', 'decoder', cast='choices', shots=shots, answer_tokens=4)
    outcome = made.run(0)
    assert outcome.params is None
    told = [answer.text for answer in outcome.predictions['dev']]
    assert len(told) == 3
    assert all('\n' not in text and text == text.strip() for text in told)
    assert [a.text for a in made.run(0).predictions['dev']] == told
    assert set(outcome.scores['dev']) >= {'exact', 'f1', 'score'}


@pytest.mark.parametrize('room', range(1, 14))
def test_the_end_of_a_text_fits_however_it_is_cut(room, tiny):
    """Characters that the tokenizer spells in bytes, and so many a cut falls inside one."""
    tokens = tiny('decoder').tokenizer
    text = 'ba 日本 kep 語 dul'
    assert len(tokens.encode(text)) == 14
    cut = squad_task._last_tokens(tokens, text, room)
    assert len(tokens.encode(cut)) <= room
    assert len(tokens.encode(cut)) > room - 4  # a character is three bytes
    assert text.endswith(cut.lstrip('\ufffd '))
    assert squad_task._last_tokens(tokens, text, 100) == text


def test_what_is_wrong_is_said(opened, squad_files, tmp_path):
    with pytest.raises(UserError, match=r'has no train-v1\.1\.json: is it the folder of'):
        opened(tmp_path, '1.1')
    folder = squad_files('1.1', 6, train=False)
    with pytest.raises(UserError, match=r'has no train-v1\.1\.json'):
        opened(folder, '1.1')
    squad_files('1.1', 6)
    with pytest.raises(UserError, match=r'has no train-v2\.0\.json'):
        opened(folder, '2.0')
    path = folder / 'train-v1.1.json'
    facts = json.loads(path.read_text())
    first = facts['data'][0]['paragraphs'][0]['qas'][0]['answers'][0]
    first['answer_start'] += 1
    path.write_text(json.dumps(facts))
    _, _, data, _ = opened(folder, '1.1')
    assert len(data.splits['train']) == 5
    assert len(data.splits['dev']) == 6
    for article in facts['data']:
        article['paragraphs'][0]['qas'][0]['answers'][0]['answer_start'] = 1
    path.write_text(json.dumps(facts))
    with pytest.raises(UserError, match=r'offsets do not match the text in \d of 6 questions'):
        opened(folder, '1.1')
    path.write_text('{"data": [\n}')
    with pytest.raises(UserError, match='line 2 does not parse'):
        opened(folder, '1.1')
    squad_files('1.1', 6)
    with pytest.raises(UserError, match='7 shots of 6 training questions'):
        opened(folder, '1.1', 'decoder', cast='choices', shots=7)[0].run(0)
    with pytest.raises(UserError, match=r'transfer\.cast=text needs an encoder and a decoder'):
        opened(folder, '1.1', cast='text')
    with pytest.raises(UserError, match=r'transfer\.cast=choices needs a decoder'):
        opened(folder, '1.1', cast='choices')


def test_the_digest_is_of_the_questions(opened, squad_files):
    folder = squad_files('1.1', 6)
    first = opened(folder, '1.1')[2].digest
    assert opened(folder, '1.1')[2].digest == first
    path = folder / 'dev-v1.1.json'
    path.write_text(path.read_text().replace('"q3"', '"q33"'))
    assert opened(folder, '1.1')[2].digest != first
