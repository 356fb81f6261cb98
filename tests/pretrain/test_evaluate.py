"""The command: text scored as in training, and benchmarks from files to tables, once each."""

import json

import pytest

from pretrain import run_log


def read(call, *flags):
    done = call('evaluate', '--benchmark=text', *flags)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_runs_own_validation_loss_comes_out_again(call, trained, tmp_path):
    workdir, _ = trained
    last = run_log.read_rows(workdir)[-1]
    out = tmp_path / 'scores.json'
    printed = read(call, f'--checkpoint={workdir}', f'--out={out}', '--batch=5')
    scores = json.loads(out.read_text())
    for name in ('loss', 'unigram', 'bits_per_byte', 'accuracy', 'predicted'):
        assert scores[name] == pytest.approx(last[f'validation_{name}'], rel=1e-5), name
    assert f'{scores["bits_per_byte"]:.4f}' in printed
    # Another batch size pads another last batch: the same sums in another order.
    read(call, f'--checkpoint={workdir}', f'--out={out}', '--batch=8')
    assert json.loads(out.read_text())['loss'] == pytest.approx(scores['loss'], rel=1e-6)


def test_any_text_is_scored_whole_with_the_runs_tokenizer(call, trained, text_folder, tmp_path):
    workdir, _ = trained
    text = (text_folder / '0.txt').read_text()
    (tmp_path / 'new.txt').write_text(text)
    out = tmp_path / 'scores.json'
    read(
        call, f'--checkpoint={workdir}', f'--config.data.source=text:{tmp_path / "new.txt"}',
        f'--out={out}',
    )  # fmt: skip
    scores = json.loads(out.read_text())
    from pretrain.data import tokenizer

    ids = tokenizer.load(workdir / 'tokenizer.model').encode(text)
    windows = -(-(len(ids) + 1) // 33)
    assert scores['predicted'] == len(ids) + 1 - windows  # eos counts, a window's first does not
    assert scores['split'] == 'all'
    assert 0 < scores['bits_per_byte'] < 8


def test_a_given_tokenizer_that_is_gone_is_not_asked_for(call, trained, tmp_path):
    """The run's folder holds it."""
    workdir, _ = trained
    gone = f'--config.data.tokenizer={tmp_path / "gone.model"}'
    assert 'loss' in read(call, f'--checkpoint={workdir}', gone)


def test_what_is_wrong_is_said_in_one_line(refused, trained, tmp_path):
    workdir, _ = trained
    run = f'--checkpoint={workdir}'
    cases = [
        ([run, '--benchmark=txt'], '--benchmark=txt'),
        ([run, '--split=test'], '--split=test'),
        ([run, '--config.data.source=text:/none'], '/none'),
        ([run, '--config.data.sourc=text:/none'], 'did you mean --config.data.source'),
        ([run, '--config.mesh=data=7'], 'data=7'),
        (['--checkpoint=/none'], '/none'),
        ([run, '--step=3'], '3'),
    ]
    refused('evaluate', cases, 'checkpoint')


NLI = ('entailment', 'neutral', 'contradiction')
QUICK = ['--config.transfer.epochs=1', '--config.transfer.batch_size=4']


@pytest.fixture(scope='module')
def superglue(toy, tmp_path_factory):
    """All eight tasks and both diagnostic sets, as distributed but for their sizes."""
    import random

    rng, folder = random.Random(0), tmp_path_factory.mktemp('superglue')
    text = lambda i: toy.sentence(rng, i % 2)  # noqa: E731
    yes = lambda i: i % 2 == 1  # noqa: E731

    def multirc(i, label):
        answers = [{'text': text(j), 'idx': 2 * i + j} | label(j, int) for j in range(2)]
        questions = [{'question': text(i), 'answers': answers, 'idx': i}]
        return {'passage': {'text': text(i), 'questions': questions}}

    def record(i, label):
        passage = 'Ba kep Dul ' + text(i)
        places = [{'start': 0, 'end': 1}, {'start': 7, 'end': 9}]
        qa = {'query': '@placeholder kep', 'idx': i}
        if label(i, bool):
            qa['answers'] = [{'start': 7, 'end': 9, 'text': 'Dul'}]
        return {'passage': {'text': passage, 'entities': places}, 'qas': [qa]}

    def wic(i, label):
        return {
            'word': 'kep', 'sentence1': 'ba kep', 'sentence2': 'kep ' + text(i), 'start1': 3,
            'end1': 6, 'start2': 0, 'end2': 3, 'version': 1.1,
        } | label(i, bool)  # fmt: skip

    def wsc(i, label):
        target = {'span1_text': 'kep', 'span1_index': 0, 'span2_text': 'it', 'span2_index': 2}
        return {'text': f'kep ba it {text(i)}', 'target': target} | label(i, bool)

    def nli(labels):
        return lambda i, label: {
            'premise': text(i), 'hypothesis': text(0), **label(i, lambda _: labels[i % len(labels)])
        }  # fmt: skip

    makers = {
        'BoolQ': lambda i, label: {'question': text(i), 'passage': text(0), **label(i, bool)},
        'CB': nli(NLI),
        'COPA': lambda i, label: {
            'premise': text(i), 'choice1': 'ba', 'choice2': 'kep', 'question': 'cause',
            **label(i, int),
        },
        'MultiRC': multirc, 'ReCoRD': record, 'RTE': nli(['entailment', 'not_entailment']),
        'WiC': wic, 'WSC': wsc,
    }  # fmt: skip
    for name, make in makers.items():
        for split, count in (('train', 8), ('val', 4), ('test', 4)):
            label = lambda i, kind, s=split: {} if s == 'test' else {'label': kind(yes(i))}  # noqa: E731
            rows = [make(i, label) | {'idx': i} for i in range(count)]
            toy.jsonl(folder / name / f'{split}.jsonl', rows)
    axb = [
        {'sentence1': text(i), 'sentence2': 'ba', 'idx': i, 'label': 'entailment', 'logic': ''}
        for i in range(6)
    ]
    axg = [
        {'premise': text(i), 'hypothesis': f'kep {i // 2}', 'idx': i, 'pair_id': i // 2,
         'label': 'not_entailment'}
        for i in range(4)
    ]  # fmt: skip
    toy.jsonl(folder / 'AX-b' / 'AX-b.jsonl', axb)
    toy.jsonl(folder / 'AX-g' / 'AX-g.jsonl', axg)
    return folder


def of_benchmark(name, run, data_dir, workdir, *flags):
    return [
        f'--benchmark={name}', f'--checkpoint={run}', f'--data_dir={data_dir}',
        f'--workdir={workdir}', '--seeds=1', '--scratch_seeds=0', *flags,
    ]  # fmt: skip


def test_all_of_superglue_in_one_call_and_nothing_twice(call_many, superglue, tiny_runs, tmp_path):
    from pretrain.transfer import submission

    work, encoder = tmp_path / 'work', tiny_runs['encoder']
    first, whole, again = (
        of_benchmark('superglue', encoder, superglue, work, *QUICK, *more)
        for more in (['--tasks=copa,rte'], [], [])
    )
    results = call_many('evaluate', [first, whole, again])
    for code, _, err in results:
        assert code == 0, err
    titles = {'BoolQ', 'CB', 'COPA', 'MultiRC', 'ReCoRD', 'RTE', 'WiC', 'WSC'}
    made = [
        {line.split(' pretrained')[0] for line in out.splitlines() if ' pretrained ' in line}
        for _, out, _ in results
    ]
    assert made == [{'COPA', 'RTE'}, titles - {'COPA', 'RTE'}, set()]
    assert 'not the score' in results[0][1]
    assert 'boolq: left out, not asked for' in results[0][1]
    table = (work / 'report.md').read_text()
    assert 'not the score' not in table
    assert '| **superglue** | score |' in table
    assert '| axb (by RTE) | Matthews |' in table
    assert '| axg (by RTE) | parity |' in table
    assert table in results[1][1]
    assert table in results[2][1]
    assert (work / 'report.png').stat().st_size > 5000
    files = submission.read_back(work / 'submission' / 'superglue.zip')
    counts = dict.fromkeys([f'{title}.jsonl' for title in titles], 4)
    counts |= {'AX-b.jsonl': 6, 'AX-g.jsonl': 4}
    assert {name: len(rows) for name, rows in files.items()} == counts
    assert {row['label'] for row in files['ReCoRD.jsonl']} <= {'Ba', 'Dul'}
    assert all(row['label'] in ('true', 'false') for row in files['WiC.jsonl'])
    # What stands in the table is what was stored of the answers.
    for task in ('cb', 'boolq'):
        folder = work / task / 'pretrained' / 'seed-0'
        rows = [json.loads(line) for line in (folder / 'dev.jsonl').read_text().splitlines()]
        right = sum(row['prediction'] == row['label'] for row in rows) / 4
        stored = json.loads((folder / 'result.json').read_text())
        assert stored['scores']['dev']['accuracy'] == right
    facts = json.loads((work / 'report.json').read_text())
    assert len(facts['tasks']) == 8
    assert facts['checkpoint'] == str(encoder)


def test_a_decoder_answers_all_of_superglue_untrained(call_many, superglue, tiny_runs, tmp_path):
    choices = '--config.transfer.cast=choices'
    zero, two = tmp_path / 'zero', tmp_path / 'two'
    results = call_many('evaluate', [
        of_benchmark('superglue', tiny_runs['decoder'], superglue, zero, choices),
        of_benchmark(
            'superglue', tiny_runs['decoder'], superglue, two, choices,
            '--config.transfer.shots=2', '--tasks=copa,cb,wic',
        ),
    ])  # fmt: skip
    for code, _, err in results:
        assert code == 0, err
    facts = json.loads((zero / 'report.json').read_text())
    assert len(facts['tasks']) == 8
    assert (zero / 'submission' / 'superglue.zip').exists()
    stored = json.loads((zero / 'cb/pretrained/seed-0/result.json').read_text())
    assert 'steps' not in stored
    assert stored['answers']['dev']['shots'] == 0
    stored = json.loads((two / 'cb/pretrained/seed-0/result.json').read_text())
    assert stored['answers']['dev']['shots'] == 2


def test_glue_with_seeds_from_scratch_a_killed_call_and_a_bad_file(
    call_many, toy, tiny_runs, tmp_path
):
    folder, work = tmp_path / 'glue', tmp_path / 'work'
    run = tiny_runs['encoder']
    toy.glue(folder, 'SST-2', ['sentence'], [0, 1], {'train': 16, 'dev': 8, 'test': 4})
    toy.glue(folder, 'RTE', ['sentence1', 'sentence2'], ['entailment'], {'train': 8})
    calls = [
        of_benchmark('glue', run, folder, work, *QUICK, '--seeds=2', '--scratch_seeds=-1'),
        of_benchmark('glue', run, folder, work, *QUICK, '--seeds=3', '--scratch_seeds=2'),
        of_benchmark('glue', run, folder, work, '--config.transfer.epochs=2', '--seeds=2'),
    ]
    bad = tmp_path / 'bad'
    toy.glue(bad, 'SST-2', ['sentence'], [0, 1], {'train': 16, 'dev': 8, 'test': 4})
    toy.glue(bad, 'RTE', ['sentence1', 'sentence2'], ['entailment', 'maybe'],
             {'train': 4, 'dev': 4})  # fmt: skip
    calls += [of_benchmark('glue', run, bad, tmp_path / 'none', *QUICK)]
    first, more, other, broken = call_many('evaluate', calls)
    for code, _, err in (first, more):
        assert code == 0, err
    made = lambda out: [x.split(':')[0] for x in out.splitlines() if 'SST-2 ' in x and 'seed' in x]  # noqa: E731
    assert [' '.join(line.split()) for line in made(first[1])] == [
        f'SST-2 {kind} seed {seed}' for kind in ('pretrained', 'scratch') for seed in (0, 1)
    ]
    assert [' '.join(line.split()) for line in made(more[1])] == ['SST-2 pretrained seed 2']
    assert 'rte: left out, no dev split' in first[1]
    table = (work / 'report.md').read_text()
    assert '| this checkpoint | from scratch | majority class |' in table
    assert '(3) |' in table
    assert '| 50.0 |' in table  # the majority class
    assert 'rte (no dev split)' in table
    assert 'no test predictions for CoLA.tsv' in more[1]
    assert other[0] == 2
    assert f'{work}/sst2/pretrained/seed-0/result.json' in other[2]
    assert 'was made with transfer.batch_size=4, not 16' in other[2]
    # Nothing was trained where the file of a later task is wrong.
    assert broken[0] == 2
    assert f"{bad}/RTE/train.tsv, line 3: the label 'maybe' is" in broken[2]
    assert not (tmp_path / 'none').exists()


def test_a_task_of_ones_own_with_a_labelled_test_split(call_many, toy, tiny_runs, tmp_path):
    data, work = tmp_path / 'data', tmp_path / 'work'
    for split, count in (('train', 16), ('dev', 8), ('test', 6)):
        rows = [
            {'review': toy.signs[i % 2], 'stars': ('bad', 'good')[i % 2]} for i in range(count)
        ]
        toy.tsv(data / f'{split}.tsv', rows)
    call = of_benchmark(
        'own', tiny_runs['encoder'], data, work, *QUICK, '--config.own.name=reviews',
        '--config.own.test=test.tsv', '--config.own.text_a=review', '--config.own.label=stars',
        "--config.own.labels=('bad', 'good')", '--seeds=2', '--scratch_seeds=1',
    )  # fmt: skip
    (done,) = call_many('evaluate', [call])
    assert done[0] == 0, done[2]
    table = (work / 'report.md').read_text()
    assert '| reviews | acc. |' in table
    assert '| reviews, test | acc. |' in table
    facts = json.loads((work / 'report.json').read_text())['tasks']['reviews']
    stored = [json.loads(path.read_text()) for path in work.glob('reviews/*/*/result.json')]
    assert len(stored) == 3
    found = facts['test']['accuracy']
    assert len(found['pretrained']['values']) == 2
    lines = (work / 'reviews/scratch/seed-0/test.jsonl').read_text().splitlines()
    right = [row['prediction'] == row['label'] for row in map(json.loads, lines)]
    assert found['scratch']['values'] == [sum(right) / 6]


def test_squad_in_one_call(call_many, toy, tiny_runs, tmp_path):
    data = tmp_path / 'squad'
    data.mkdir()
    articles = [
        {'title': '', 'paragraphs': [{'context': 'ba kep dul', 'qas': [{
            'id': f'q{i}', 'question': toy.signs[i], 'is_impossible': i == 2,
            'answers': [] if i == 2 else [{'text': 'kep', 'answer_start': 3}],
        }]}]}
        for i in range(3)
    ]  # fmt: skip
    for split in ('train', 'dev'):
        (data / f'{split}-v2.0.json').write_text(json.dumps({'data': articles}))
    config = '--config=configs/squad.py:v2.0'
    call = of_benchmark('squad', tiny_runs['encoder'], data, tmp_path / 'work')
    short = ['--config.transfer.length=48', '--config.squad.question_length=8']
    done, default, wrong = call_many('evaluate', [
        [*call, config, *short], call, [*call, config, '--tasks=squad_v1.1'],
    ])  # fmt: skip
    assert done[0] == 0, done[2]
    assert '| SQuAD 2.0 | EM |' in done[1]
    predictions = json.loads((tmp_path / 'work/submission/predictions.json').read_text())
    odds = json.loads((tmp_path / 'work/submission/null_odds.json').read_text())
    assert predictions.keys() == odds.keys() == {'q0', 'q1', 'q2'}
    assert default[0] == wrong[0] == 2  # configs/squad.py is of 1.1
    assert 'has no train-v1.1.json' in default[2]
    assert '--tasks: there is squad_v2.0 alone' in wrong[2]


def test_what_is_wrong_with_a_benchmark_is_said_in_one_line(
    refused, superglue, tiny_runs, tmp_path
):
    from pretrain import run_folder

    out, in_use = tmp_path / 'out', tmp_path / 'in_use'
    held = run_folder.lock(in_use)
    taken = tmp_path / 'taken'
    taken.mkdir()
    (taken / 'copa').write_text('')
    run, data, work = (
        f'--checkpoint={tiny_runs["encoder"]}', f'--data_dir={superglue}', f'--workdir={out}',
    )  # fmt: skip
    own = [run, '--benchmark=superglue', data, work]
    copa = ['--tasks=copa', *QUICK]
    cases = [
        ([run, '--benchmark=superglue', work], '--data_dir is missing: --benchmark=superglue'),
        ([run, '--benchmark=superglue', data], '--workdir is missing'),
        ([*own, '--seeds=0'], '--seeds=0 must be at least 1'),
        ([*own, '--scratch_seeds=-2'], '--scratch_seeds=-2'),
        ([*own, '--grid=berd'], '--grid=berd is none of bert, roberta, small_bert'),
        ([*own, '--config=configs/glue.py'], '--config is no config of superglue'),
        ([*own, '--config=configs/bert.py:smoke'], '--config is no config of superglue'),
        ([*own, '--config=configs/none.py'], "there is no file 'configs/none.py'"),
        ([*own, '--tasks=cpoa'], "--tasks: 'cpoa' is none of boolq, cb, copa"),
        ([*own, '--tasks=axb'], "--tasks: 'axb' is none of"),
        ([run, '--benchmark=glue', data, work], 'looks like SuperGLUE'),
        ([run, '--benchmark=superglue', '--data_dir=/no/where', work], 'is not there'),
        ([run, '--benchmark=snli', data, work], 'looks like SuperGLUE'),
        ([*own, '--config.transfer.epochs=0'], 'transfer.epochs=0 must be at least 1'),
        ([*own, '--config.transfer.cast=write'], "transfer.cast='write' is none of"),
        ([*own, '--config.transfer.cast=text'], 'transfer.cast=text needs an encoder and a'),
        ([*own, '--tasks=copa', '--config.transfer.batch_size=5'], 'does not hold whole units'),
        (['--checkpoint=/none', *own[1:]], "there is no folder '/none'"),
        ([f'--checkpoint={superglue}', *own[1:]], 'holds no run'),
        ([run, '--benchmark=superglue', data, f'--workdir={in_use}', *copa], 'another process'),
        ([*own, 'more'], "unknown argument 'more'"),
        ([*own[:3], f'--workdir={tiny_runs["encoder"]}'], 'holds a run: give another folder'),
        ([*own, '--config.seed=3'], 'config.seed=3 has no part here: the seeds are 0 to'),
        ([*own[:3], f'--workdir={taken}', *copa], "taken/copa' is a file and should be a folder"),
    ]  # fmt: skip
    try:
        refused('evaluate', cases, 'checkpoint')
    finally:
        held.close()
    assert not out.exists() or [p.name for p in out.iterdir()] == ['.lock']
