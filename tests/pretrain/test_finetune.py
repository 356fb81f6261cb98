"""The command: a task fine-tuned, the next one from its model, and what is wrong in one line."""

import json
import shutil

import pytest

from pretrain import run_folder

NLI = ('entailment', 'neutral', 'contradiction')
PAIR = ('sentence1', 'sentence2')
QUICK = ['--config.transfer.epochs=1', '--config.transfer.batch_size=8']
MNLI_FILES = ('dev_matched', 'dev_mismatched', 'test_matched', 'test_mismatched')


@pytest.fixture
def glue(toy, tmp_path):
    """SST-2, RTE, and MNLI with AX."""
    folder = tmp_path / 'glue'
    toy.glue(folder, 'SST-2', ['sentence'], [0, 1], {'train': 16, 'dev': 8, 'test': 6})
    toy.glue(folder, 'RTE', PAIR, ['entailment', 'not_entailment'], {'train': 8, 'dev': 4})
    toy.glue(folder, 'MNLI', PAIR, NLI, {'train': 12} | dict.fromkeys(MNLI_FILES, 6))
    rows = [{'index': i, 'sentence1': 'ba kep', 'sentence2': 'dul'} for i in range(5)]
    toy.tsv(folder / 'AX' / 'AX.tsv', rows)
    return folder


def test_one_task_and_the_next_from_its_model(call_many, glue, tiny_runs, tmp_path):
    first, second, third = (tmp_path / name for name in ('mnli', 'rte', 'killed'))
    mnli = ['--config=configs/glue.py:mnli', f'--data_dir={glue}', *QUICK]
    rte = ['--config=configs/glue.py:rte', f'--data_dir={glue}', *QUICK]
    run = f'--checkpoint={tiny_runs["encoder"]}'
    # As a call leaves it that was cut off between the model and the result: of another task, here.
    third.mkdir()
    shutil.copytree(tiny_runs['encoder'], third / 'model')
    config = json.loads((third / 'model' / 'config.json').read_text())
    stale = config | {'task': {'name': 'stale'}}
    (third / 'model' / 'config.json').write_text(json.dumps(stale))
    results = call_many('finetune', [
        [run, *mnli, f'--workdir={first}'],
        [run, *mnli, f'--workdir={first}'],
        [run, *mnli, f'--workdir={first}', '--config.transfer.epochs=2'],
        [f'--checkpoint={first}/model', *rte, f'--workdir={second}', '--nosave'],
        [run, *rte, f'--workdir={third}'],
        [run, *rte, f'--workdir={first}/model'],
    ])  # fmt: skip
    for code, _, err in [*results[:2], *results[3:5]]:
        assert code == 0, err
    (_, out, _), (_, again, _), (refused, _, why), (_, _, _), (_, _, _), (inside, _, err) = results

    facts = json.loads((first / 'result.json').read_text())
    assert facts['task'] == 'mnli'
    assert set(facts['scores']) == {'dev', 'dev_mismatched'}
    assert facts['steps'] == 2
    lines = {
        path.stem: [json.loads(line) for line in path.read_text().splitlines()]
        for path in first.glob('*.jsonl')
    }
    assert {name: len(rows) for name, rows in lines.items()} == dict.fromkeys(
        ('dev', 'dev_mismatched', 'test', 'test_mismatched'), 6
    ) | {'ax': 5}
    right = sum(row['prediction'] == row['label'] for row in lines['dev'])
    assert facts['scores']['dev']['accuracy'] == pytest.approx(right / 6)
    assert f'MNLI dev: accuracy {right / 6:.4f}' in out
    assert 'MNLI: train 12, dev 6, dev_mismatched 6' in out
    assert json.loads((first / 'config.json').read_text())['task'] == 'mnli'

    assert 'train 12' not in again  # nothing was trained, and the same is said
    assert again.splitlines() == out.splitlines()[-len(again.splitlines()) :]
    assert refused == 2
    assert 'was made with transfer.epochs=1, not 2' in why

    surgery = json.loads((second / 'result.json').read_text())['surgery']
    assert 'drawn anew for their shape: output/bias, output/kernel' in surgery
    assert not (second / 'model').exists()
    before = (second / 'dev.jsonl').read_bytes()
    ((code, _, said),) = call_many(
        'finetune', [[f'--checkpoint={first}/model', *rte, f'--workdir={second}']]
    )
    assert code == 0, said  # the model is asked for now
    assert (second / 'model' / 'config.json').exists()
    assert (second / 'dev.jsonl').read_bytes() == before
    # Its head is of the task: what needs the objective's says so.
    tuned = f'--checkpoint={second}/model'
    for command, *flags in (
        ('generate', '--prompt=ba'), ('convert', f'--to_huggingface={tmp_path}/hf'), ('evaluate',),
    ):  # fmt: skip
        own_config = 'checkpoint' if command == 'evaluate' else None
        ((code, _, said),) = call_many(command, [[tuned, *flags]], own_config)
        assert code == 2, said
        assert 'has the head of a task in place of its own' in said
    assert json.loads((third / 'model' / 'config.json').read_text())['task']['name'] == 'rte'
    assert inside == 2
    assert 'holds a run: give another folder' in err
    assert json.loads((first / 'model' / 'config.json').read_text())['task']['name'] == 'mnli'


def wic(sentence, start, end):
    facts = {'word': 'kep', 'sentence1': sentence, 'sentence2': 'ba kep', 'idx': 0, 'label': True}
    return facts | {'start1': start, 'end1': end, 'start2': 3, 'end2': 6, 'version': 1.1}


def test_what_is_wrong_is_said_in_one_line(refused, glue, toy, tiny_runs, text_folder, tmp_path):
    def copy(name, file, before, after):
        folder = tmp_path / name
        shutil.copytree(glue, folder)
        path = folder / file
        assert before in path.read_text()
        path.write_text(path.read_text().replace(before, after, 1))
        return folder

    label = copy('label', 'SST-2/dev.tsv', '\t1\n', '\t7\n')
    column = copy('column', 'SST-2/train.tsv', 'sentence', 'sentense')
    empty = copy('empty', 'SST-2/test.tsv', 'index', 'index')
    (empty / 'SST-2/test.tsv').write_text('index\tsentence\n')
    superglue = tmp_path / 'superglue'
    pair = {'premise': 'ba', 'hypothesis': 'kep', 'label': 'entailment'}
    copa = {'premise': 'ba', 'choice1': 'a', 'choice2': 'b', 'question': 'cause', 'label': 0}
    for name in ('train', 'val'):
        toy.jsonl(superglue / 'RTE' / f'{name}.jsonl', [pair | {'idx': i} for i in range(3)])
        toy.jsonl(superglue / 'COPA' / f'{name}.jsonl', [copa | {'idx': i} for i in range(3)])
        toy.jsonl(superglue / 'WiC' / f'{name}.jsonl', [wic('kepba ba', 0, 3)])
    with (superglue / 'RTE' / 'val.jsonl').open('a') as file:
        file.write('{"premise": "ba\n')
    squad = tmp_path / 'squad'
    squad.mkdir()
    answer = [{'text': 'kep', 'answer_start': 2}]
    qas = [{'id': 'x', 'question': 'ba', 'answers': answer}]
    for split in ('train', 'dev'):
        facts = {'data': [{'title': '', 'paragraphs': [{'context': 'ba kep', 'qas': qas}]}]}
        (squad / f'{split}-v1.1.json').write_text(json.dumps(facts))
    in_use, made = tmp_path / 'in_use', tmp_path / 'made'
    made.mkdir()
    (made / 'model').mkdir()
    (made / 'model' / 'mine.txt').write_text('')
    held = run_folder.lock(in_use)
    results, taken = tmp_path / 'results', tmp_path / 'taken'
    (results / 'model').mkdir(parents=True)
    (results / 'config.json').write_text('{"transfer": {}}')
    (taken / 'dev.jsonl').mkdir(parents=True)

    out = tmp_path / 'out'
    run = f'--checkpoint={tiny_runs["encoder"]}'
    decoder, both = (f'--checkpoint={tiny_runs[kind]}' for kind in ('decoder', 'both'))
    data, work = f'--data_dir={glue}', f'--workdir={out}'
    sst2 = ['--config=configs/glue.py:sst2', data, work]
    of = lambda name, folder: [f'--config=configs/{name}', f'--data_dir={folder}', run, work]  # noqa: E731
    cases = [
        ([run, *sst2[:2]], 'workdir'),
        (sst2, 'checkpoint'),
        ([run, data, work], '--config is no config of a task'),
        ([run, *sst2, 'more'], "unknown argument 'more'"),
        (of('bert.py:smoke', glue), '--config is no config of a task'),
        (of('glue.py', glue), '--config names no task: for example configs/glue.py:TASK'),
        (of('glue.py:sst', glue), "unknown variant 'sst'; did you mean 'sst2'?"),
        (of('glue.py:sst2,mrpc', glue), 'names two tasks'),
        (of('squad.py:v3', squad), "unknown variant 'v3'"),
        ([run, *sst2, '--config.task=sst'], "task='sst' is none of cola, sst2"),
        ([run, *sst2, '--config.transfer.epoch=3'], 'did you mean --config.transfer.epochs?'),
        (of('glue.py:sst2', tmp_path / 'no'), 'is not there'),
        (of('glue.py:sst2', superglue), 'looks like SuperGLUE'),
        (of('superglue.py:rte', glue), 'looks like GLUE'),
        (of('squad.py', glue), 'has no train-v1.1.json'),
        (of('squad.py', tmp_path / 'no'), 'is not there'),
        (of('glue.py:cola', glue), 'there is no CoLA/train.tsv'),
        (of('glue.py:sst2', label), f'{label}/SST-2/dev.tsv, line 3:'),
        (of('glue.py:sst2', column), "line 1: there is no column 'sentence'"),
        (of('glue.py:sst2', empty), 'the test split is empty'),
        (of('superglue.py:rte', superglue), f'{superglue}/RTE/val.jsonl, line 4 does not parse'),
        (of('superglue.py:wic', superglue), 'WiC/train.jsonl, line 1: start1 0, end1 3 do not'),
        (of('squad.py', squad), 'offsets do not match the text in 1 of 1 questions'),
        (
            [*of('superglue.py:copa', superglue), '--config.transfer.batch_size=3'],
            'transfer.batch_size=3 does not hold whole units of 2 rows',
        ),
        (['--checkpoint=/no/run', *sst2], "there is no folder '/no/run'"),
        ([f'--checkpoint={glue}', *sst2], 'holds no run'),
        ([f'--checkpoint={results}', *sst2], f"results of a task: its model is '{results}/model'"),
        ([run, *sst2[:2], f'--workdir={taken}'], "taken/dev.jsonl' is a folder and should be a"),
        ([run, *sst2[:2], f'--workdir={"x" * 300}'], 'File name too long'),
        ([run, *sst2, '--step=7'], 'no checkpoint of step 7'),
        ([run, *sst2[:2], f'--workdir={in_use}'], 'another process'),
        ([run, *sst2[:2], '--workdir=/proc/no'], '--workdir: cannot write'),
        ([run, *sst2[:2], f'--workdir={tiny_runs["encoder"]}'], 'holds a run: give another'),
        ([run, *sst2[:2], f'--workdir={made}'], 'is there and no model of a task: remove it'),
        ([run, *sst2, '--config.transfer.cast=text'], 'transfer.cast=text needs an encoder and a'),
        ([run, *sst2, '--config.transfer.cast=choices'], 'transfer.cast=choices needs a decoder'),
        ([both, *sst2, '--config.transfer.cast=head'], 'transfer.cast=head needs one stack'),
        ([decoder, *of('superglue.py:copa', superglue)[:2], work,
          '--config.transfer.cast=choices', '--config.transfer.shots=9'], '9'),
        ([run, *sst2, '--config.mesh=data=7'], 'data=7'),
    ]  # fmt: skip
    wrong = {
        'transfer.cast=heads': "transfer.cast='heads' is none of head, text, choices",
        'transfer.pooling=firs': "transfer.pooling='firs' is none of first, last, mean, concat",
        'transfer.epochs=0': 'transfer.epochs=0 must be at least 1',
        'transfer.length=3': 'rows of 3 tokens hold no text',
        'transfer.lm_coefficient=0.5': 'transfer.lm_coefficient needs a decoder',
        'optimizer.name=adam': "optimizer.name 'adam' is unknown: did you mean 'adamw'?",
    }
    cases += [([run, *sst2, f'--config.{flag}'], says) for flag, says in wrong.items()]
    try:
        refused('finetune', cases)
    finally:
        held.close()
    assert not out.exists() or [p.name for p in out.iterdir()] == ['.lock']
    assert [p.name for p in (made / 'model').iterdir()] == ['mine.txt']
    assert {p.name for p in tiny_runs['encoder'].iterdir()} == {
        'config.json', 'tokenizer.model', 'checkpoints',
    }  # fmt: skip
