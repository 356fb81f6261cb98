"""The command as its users call it: runs, kills, resumes, refusals."""

import json
import math
import os
import shutil
import signal
import time

import pytest

from pretrain import restoration, run_log


def rows(workdir):
    """Rows of metrics.jsonl without the fields that tell the time."""
    return [
        {k: v for k, v in row.items() if k not in run_log.TIME_FIELDS}
        for row in run_log.read_rows(workdir)
    ]


def wait_for_step(process, workdir, step):
    """Returns when the run has logged the step, or has ended."""
    while process.poll() is None:
        logged = run_log.read_rows(workdir)
        if logged and logged[-1]['step'] >= step:
            return
        time.sleep(0.02)


def test_a_run_leaves_what_it_promises(trained):
    workdir, out = trained
    for name in ('config.json', 'metrics.jsonl', 'tokenizer.model', 'loss.png', 'checkpoints/20'):
        assert (workdir / name).exists(), name
    assert list(workdir.glob('events.out.tfevents*'))
    assert (workdir / 'loss.png').read_bytes().startswith(b'\x89PNG')
    logged = run_log.read_rows(workdir)
    assert [row['step'] for row in logged] == list(range(1, 21))
    assert logged[-1]['loss'] < logged[0]['loss'] - 0.1
    assert abs(logged[0]['loss'] - math.log(512)) < 0.1  # a table of 512 rows, nearly uniform
    assert [r['step'] for r in logged if 'validation_loss' in r] == [10, 20]
    assert logged[-1]['validation_bits_per_byte'] > 0
    assert 'unigram' in out
    assert 'A sample' in out
    config = json.loads((workdir / 'config.json').read_text())
    assert config['data']['vocabulary_size'] == 400


def test_a_finished_run_is_not_run_again(trained, call, small, bits):
    workdir, _ = trained
    before = bits(workdir), rows(workdir)
    done = call('train', *small, f'--workdir={workdir}')
    assert done.returncode == 0, done.stderr
    assert 'resumed from step 20' in done.stdout
    assert (bits(workdir), rows(workdir)) == before


LONG = ['--config.steps=40', '--config.checkpoint.every=5', '--config.log.every=2',
        '--config.model.dropout=0.1', '--config.sample.tokens=0']  # fmt: skip


def test_killed_and_resumed_is_bit_for_bit_the_undisturbed_run(
    call, start, small, bits, tmp_path
):
    twin, killed = tmp_path / 'twin', tmp_path / 'killed'
    done = call('train', *small, *LONG, f'--workdir={twin}')
    assert done.returncode == 0, done.stderr
    process = start('train', *small, *LONG, f'--workdir={killed}')
    wait_for_step(process, killed, 25)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert 0 < restoration.newest_whole(killed) < 40
    done = call('train', *small, *LONG, f'--workdir={killed}')
    assert done.returncode == 0, done.stderr
    assert 'resumed from step' in done.stdout
    assert bits(killed) == bits(twin)
    assert bits(twin)[0] == 40
    assert rows(killed) == rows(twin)
    assert [row['step'] for row in rows(twin)] == sorted({10, *range(2, 41, 2)})


def test_sigterm_saves_and_the_same_command_goes_on(start, call, small, tmp_path):
    workdir = tmp_path / 'run'
    flags = [*small, f'--workdir={workdir}', '--config.steps=2000',
             '--config.checkpoint.every=2000',
             '--config.eval.every=2000']  # fmt: skip
    process = start('train', *flags)
    wait_for_step(process, workdir, 5)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, err
    step = restoration.newest_whole(workdir)
    assert f'stopped after step {step} of 2000, saved' in out
    assert rows(workdir)[-1]['step'] == step
    process = start('train', *flags)
    wait_for_step(process, workdir, step + 1)
    process.kill()
    assert f'resumed from step {step}' in process.communicate()[0]


def test_a_loss_that_is_not_finite_stops_the_run(call, small, tmp_path):
    workdir = tmp_path / 'run'
    done = call(
        'train', *small, f'--workdir={workdir}', '--config.optimizer.learning_rate=1e30',
        '--config.optimizer.clip=0.0', '--config.checkpoint.every=1', '--config.log.every=1',
    )  # fmt: skip
    assert done.returncode == 1
    assert 'Traceback' not in done.stderr
    (path,) = workdir.glob('not-finite-*.json')
    dump = json.loads(path.read_text())
    assert len(dump['windows_of_run']) == len(dump['windows_of_corpus']) == 8
    assert dump['windows_of_run'][0] == (dump['step'] - 1) * 8
    assert str(path) in done.stderr
    # What was saved before it, if anything, goes on well with a lower rate.
    assert dump['step'] - 1 in (0, *restoration.whole_steps(workdir))
    again = call('train', *small, f'--workdir={workdir}', '--accept_changes',
                 '--config.sample.tokens=0')  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert all(math.isfinite(row['loss']) for row in run_log.read_rows(workdir)[-5:])


def test_init_from_starts_with_the_parameters_of_another_run(call, small, trained, tmp_path):
    source, _ = trained
    flags = [*small, f'--config.init_from={source}', '--config.steps=2', '--config.sample.tokens=0']
    done = call('train', *flags, f'--workdir={tmp_path / "run"}')
    assert done.returncode == 0, done.stderr
    assert f'parameters of {source}' in done.stdout
    logged = run_log.read_rows(tmp_path / 'run')
    ended = run_log.read_rows(source)[-1]
    # The training loss before the first update is about that of the run it comes from.
    assert abs(logged[0]['loss'] - ended['validation_loss']) < 0.15


def test_what_is_wrong_is_said_in_one_line(refused, small, trained, tmp_path, text_folder):
    workdir, _ = trained
    fresh = f'--workdir={tmp_path / "new"}'
    empty, binary = tmp_path / 'empty', tmp_path / 'binary.txt'
    empty.mkdir()
    binary.write_bytes(b'abc\x00def' * 100)
    in_the_way = tmp_path / 'file'
    in_the_way.write_text('x')
    other = tmp_path / 'other'
    other.mkdir()
    (other / 'config.json').write_text((workdir / 'config.json').read_text())
    (other / 'tokenizer.model').write_bytes((workdir / 'tokenizer.model').read_bytes()[:-7])
    cases = [
        ([fresh, '--config.data.source=text:/no/such/place'], '/no/such/place'),
        ([fresh, f'--config.data.source=text:{empty}'], str(empty)),
        ([fresh, f'--config.data.source=text:{binary}'], 'byte 3'),
        ([fresh, f'--config.data.source=wikipedia:{binary}'], 'binary.txt'),
        ([fresh, '--config.data.vocabulary_size=100000'], 'set data.vocabulary_size to'),
        ([fresh, '--config.objective.length=90000', '--config.model.max_positions=90000'],
         'window of 90001 tokens is longer than the train split'),
        ([fresh, '--config.mesh=data=3'], 'data=3'),
        ([fresh, '--config.mesh=fast=2'], "unknown axis 'fast'"),
        ([fresh, '--config.batch_size=0'], 'batch_size=0'),
        ([fresh, '--config.batch_size=9', '--config.accumulation=2'], 'batch_size=10'),
        ([fresh, '--config.modle.width=3'], 'did you mean --config.model.width'),
        ([fresh, '--config.steps=many'], 'steps'),
        ([fresh, '--config.model.norm=lyer'], "did you mean 'layer'"),
        ([fresh, '--config.objective.name=casual_lm'], "did you mean 'causal_lm'"),
        ([fresh, '--config.optimizer.name=adam'], "did you mean 'adamw'"),
        ([fresh, '--config.objective.length=4096'], 'model.max_positions=128'),
        ([f'--workdir={in_the_way}/run'], 'cannot be written'),
        ([f'--workdir={workdir}', '--config.seed=5', '--config.model.width=64'],
         'model.width was 32, is 64; seed was 0, is 5'),
        ([f'--workdir={other}'], 'is no SentencePiece model'),
        ([fresh, '--config.init_from=/no/run'], '/no/run'),
        ([fresh, '--config.seed=-1'], 'seed=-1'),
        (['--workdir='], '--workdir is empty'),
        ([fresh, '--config.model.dropout=2.0'], 'model.dropout=2.0'),
        ([fresh, '--config.eval.windows=-1'], 'eval.windows=-1'),
        ([fresh, '--config.checkpoint.keep=0'], 'checkpoint.keep=0'),
        ([fresh, '--config.model.kv_heads=-1'], 'model.kv_heads=-1'),
        ([fresh, 'word'], "unknown argument 'word'"),
        ([fresh, '--flag=3'], 'flag'),
        ([], 'workdir'),
    ]  # fmt: skip
    refused('train', [([*small, *flags], says) for flags, says in cases])
    assert not (tmp_path / 'new').exists()


def test_a_refused_change_leaves_the_run_as_it_was(call, small, trained):
    workdir, _ = trained
    before = (workdir / 'config.json').read_bytes()
    flags = [*small, f'--workdir={workdir}', '--accept_changes', '--config.model.width=64']
    done = call('train', *flags)
    assert done.returncode == 2
    assert 'Traceback' not in done.stderr
    assert (workdir / 'config.json').read_bytes() == before


def test_a_corpus_that_has_changed_is_refused(call, text_folder, trained, tmp_path):
    """With a tokenizer that is given, so that only the text tells."""
    tokens = trained[0] / 'tokenizer.model'
    folder = tmp_path / 'text'
    shutil.copytree(text_folder, folder)
    flags = [
        '--config=configs/gpt.py:smoke', f'--config.data.source=text:{folder}',
        f'--config.data.cache={tmp_path / "cache"}', f'--config.data.tokenizer={tokens}',
        f'--workdir={tmp_path / "run"}', '--config.sample.tokens=0',
    ]  # fmt: skip
    assert call('train', *flags).returncode == 0
    (folder / 'z.txt').write_text('One more text, that was not there before. ' * 9)
    done = call('train', *flags)
    assert done.returncode == 2
    assert 'is not what' in done.stderr


def test_a_second_run_in_the_same_folder_is_refused(call, start, small, tmp_path):
    flags = [*small, f'--workdir={tmp_path}', '--config.steps=5000']
    first = start('train', *flags)
    wait_for_step(first, tmp_path, 1)
    second = call('train', *flags)
    first.kill()
    first.communicate()
    assert second.returncode == 2
    assert 'another process is training in' in second.stderr


def test_a_tokenizer_that_is_not_the_corpus_is_refused(call, small, trained, tmp_path):
    workdir, _ = trained
    copy = tmp_path / 'run'
    copy.mkdir()
    for name in ('config.json', 'tokenizer.model'):
        (copy / name).write_bytes((workdir / name).read_bytes())
    other = [f for f in small if 'vocabulary' not in f] + ['--config.data.vocabulary_size=390']
    done = call('train', *other, f'--workdir={copy}', '--accept_changes')
    assert done.returncode == 2
    assert 'or its tokenizer, has changed since the run' in done.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write anywhere')
def test_a_folder_without_rights(call, small, tmp_path):
    locked = tmp_path / 'locked'
    locked.mkdir(mode=0o500)
    done = call('train', *small, f'--workdir={locked / "run"}')
    assert done.returncode == 2
    assert 'cannot be written' in done.stderr
