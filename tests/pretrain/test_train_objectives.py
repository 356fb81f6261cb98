"""The command on objectives that need more than one phase or one model."""

import json
import shutil

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from pretrain import restoration, run_log


def rows(workdir):
    """Rows of metrics.jsonl without the fields that tell the time."""
    return [
        {k: v for k, v in row.items() if k not in run_log.TIME_FIELDS}
        for row in run_log.read_rows(workdir)
    ]


def arrays(workdir, step):
    """The bytes of all arrays of a checkpoint, through orbax, whatever its files look like."""
    leaves = []
    for item in ('params', 'optimizer'):
        with ocp.PyTreeCheckpointer() as reader:
            folder = workdir / 'checkpoints' / str(step) / item
            metadata = reader.metadata(folder).item_metadata.tree
            arguments = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), metadata)
            tree = reader.restore(folder, restore_args=arguments)
        leaves += [np.asarray(x).tobytes() for x in jax.tree.leaves(tree)]
    return leaves


def flags(small, config, workdir, *more):
    """The shared text and corpus, under another config."""
    kept = [flag for flag in small if not flag.startswith('--config=')]
    return [f'--config={config}', *kept, f'--workdir={workdir}', *more]


def cut_back(workdir, to, step):
    """A copy of a run as if it had been killed after the checkpoint of a step."""
    shutil.copytree(workdir, to)
    for later in restoration.steps_in(to / 'checkpoints'):
        if later > step:
            shutil.rmtree(to / 'checkpoints' / str(later))
    return to


@pytest.fixture(scope='module')
def bert(call, small, tmp_path_factory):
    """A run of two phases, length 16 for 10 steps and 32 for 10."""
    workdir = tmp_path_factory.mktemp('runs') / 'bert'
    argv = flags(small, 'configs/bert.py:base,smoke', workdir, '--config.checkpoint.every=5',
                 '--config.checkpoint.keep=9', '--config.seed=3')  # fmt: skip
    done = call('train', *argv)
    assert done.returncode == 0, done.stderr
    return workdir, argv, done.stdout


def test_two_phases_and_what_they_print(bert):
    workdir, _, out = bert
    assert 'next_sentence, steps 1 to 10: 8 of' in out
    assert 'next_sentence, steps 11 to 20: 8 of' in out
    assert out.count('example 1') == 2  # one for each phase
    assert '<CLS>' in out
    assert '<MASK> -> ' in out
    assert 'label     ' in out
    logged = rows(workdir)
    # Windows of 16 - 3 + 16 and of 32 - 3 + 16 tokens.
    assert [row['tokens'] for row in logged if row['step'] in (10, 11, 20)] == [
        8 * 10 * 29, 8 * (10 * 29 + 45), 8 * 10 * (29 + 45),
    ]  # fmt: skip
    for name in ('cross_entropy', 'next_sentence', 'accuracy', 'next_sentence_accuracy'):
        assert f'validation_{name}' in logged[-1]
    assert 'next-sentence accuracy' in out


def test_a_run_resumes_inside_a_phase_and_goes_on_into_the_next(bert, call, tmp_path):
    workdir, argv, _ = bert
    step = 5
    copy = cut_back(workdir, tmp_path / 'copy', step)
    done = call('train', *[a for a in argv if '--workdir' not in a], f'--workdir={copy}')
    assert done.returncode == 0, done.stderr
    assert f'resumed from step {step}' in done.stdout
    assert rows(copy) == rows(workdir)
    assert arrays(copy, 20) == arrays(workdir, 20)


@pytest.fixture(scope='module')
def student(call, small, bert, tmp_path_factory):
    """A student of the run above, which has segments and pairs that it has not."""
    workdir = tmp_path_factory.mktemp('runs') / 'student'
    argv = flags(small, 'configs/distilbert.py:smoke', workdir, '--config.checkpoint.every=10',
                 '--config.checkpoint.keep=9', f'--config.objective.teacher={bert[0]}',
                 '--config.objective.layers=(0, 1)')  # fmt: skip
    done = call('train', *argv)
    assert done.returncode == 0, done.stderr
    return workdir, argv, done.stdout


def test_a_student_learns_from_a_run(student):
    workdir, _, out = student
    assert 'layers (0, 1) of the teacher' in out
    assert 'teacher ' in out
    assert '(not trained)' in out
    logged = rows(workdir)
    assert 0 < logged[-1]['validation_agreement'] <= 1
    stored = restoration.stored_shapes(workdir / 'checkpoints' / '20')
    assert all(name.startswith('student/') for name in stored)  # the teacher is not saved again


def test_a_student_goes_on_with_the_same_teacher_only(student, bert, call, tmp_path):
    workdir, argv, _ = student
    copy = cut_back(workdir, tmp_path / 'copy', 10)
    argv = [a for a in argv if '--workdir' not in a] + [f'--workdir={copy}']
    done = call('train', *argv)
    assert done.returncode == 0, done.stderr
    assert rows(copy) == rows(workdir)
    assert arrays(copy, 20) == arrays(workdir, 20)

    # Another run has taken the teacher's place, with the same tokenizer and step.
    copy = cut_back(workdir, tmp_path / 'other', 10)
    config = json.loads((copy / 'config.json').read_text())
    folder = shutil.copytree(bert[0], tmp_path / 'teacher')
    for step in (15, 20):
        shutil.rmtree(folder / 'checkpoints' / str(step))
    shutil.copytree(folder / 'checkpoints' / '10', folder / 'checkpoints' / '20')
    config['objective']['teacher'] = str(folder)
    (copy / 'config.json').write_text(json.dumps(config))
    argv = [a for a in argv if '--workdir' not in a and 'objective.teacher' not in a]
    done = call('train', *argv, f'--workdir={copy}', f'--config.objective.teacher={folder}')
    assert done.returncode == 2
    assert 'are not those that this run has learned from' in done.stderr
    assert 'Traceback' not in done.stderr


def test_a_student_stands_without_its_teacher(student, bert, call, call_many, tmp_path):
    """It can teach; evaluation and resuming say what they lack."""
    workdir, argv, _ = student
    copy = shutil.copytree(workdir, tmp_path / 'student')
    config = json.loads((copy / 'config.json').read_text())
    config['objective']['teacher'] = str(tmp_path / 'gone')
    (copy / 'config.json').write_text(json.dumps(config))
    fresh = tmp_path / 'new'
    kept = [a for a in argv if '--workdir' not in a and 'objective.teacher' not in a]
    taught = call('train', *kept, f'--workdir={fresh}', f'--config.objective.teacher={copy}',
                  '--config.steps=2', '--config.optimizer.schedule.warmup=1.0')  # fmt: skip
    assert taught.returncode == 0, taught.stderr
    ((code, _, err),) = call_many(
        'evaluate', [[f'--checkpoint={copy}', f'--config={copy}/config.json']]
    )
    assert code == 2
    assert f'{tmp_path}/gone' in err
    assert '--config=configs/bert.py:tiny' in err


def test_texts_are_continued_by_models_that_learned_it_and_others_fill_masks(bert, call_many):
    ((code, _, err),) = call_many('generate', [[f'--checkpoint={bert[0]}', '--prompt=x']])
    assert code == 2
    assert "the prompt 'x' has no mask: write [MASK]" in err


def test_mistakes_are_found_before_the_text_is_read(call, small, tmp_path):
    kept = [flag for flag in small if 'data.cache' not in flag and '--config=' not in flag]
    done = call(
        'train', '--config=configs/bert.py:smoke', *kept, f'--config.data.cache={tmp_path}/cache',
        f'--workdir={tmp_path}/run', '--config.objective.rate=2.0',
    )  # fmt: skip
    assert done.returncode == 2
    assert 'rate=2' in done.stderr
    assert not list(tmp_path.glob('cache/*-*'))  # compiled programs may lie there


def test_a_student_is_evaluated_with_its_teacher(student, call):
    workdir, _, _ = student
    done = call('evaluate', f'--checkpoint={workdir}')
    assert done.returncode == 0, done.stderr
    last = rows(workdir)[-1]
    for name in ('soft', 'agreement', 'cross_entropy'):
        (line,) = [x for x in done.stdout.splitlines() if x.split()[:1] == [name]]
        assert float(line.split()[1]) == pytest.approx(last[f'validation_{name}'], abs=6e-5)


def test_what_is_wrong_is_said_in_one_line(call_many, small, student, tmp_path):
    fresh = tmp_path / 'new'
    bert, t5 = 'configs/bert.py:smoke', 'configs/t5.py:smoke'
    cases = [
        (flags(small, bert, fresh, '--config.data.cut=stream'), 'set data.cut=document'),
        (flags(small, bert, fresh, '--config.objective.rate=1.5'), 'rate=1.5'),
        (flags(small, bert, fresh, '--config.objective.length=3'), 'length=3'),
        (flags(small, bert, fresh, '--config.objective.length=200'), 'max_positions=128'),
        (flags(small, bert, fresh, '--config.objective.name=span_corruption'),
         'configs/compare.py:span_corruption'),
        (flags(small, bert, fresh, '--config.phases=((30,8,16),)'), 'set steps to more than 30'),
        (flags(small, t5, fresh, '--config.objective.density=1.5'), 'density=1.5'),
        (flags(small, t5, fresh, '--config.objective.mean_span=0.5'), 'mean_span=0.5'),
        (flags(small, t5, fresh, '--config.objective.noise=span'), "did you mean 'spans'"),
        (flags(small, t5, fresh, '--config.objective.inputs_length=2'), 'inputs_length=2'),
        (flags(small, t5, fresh, '--config.model.decoder_layers=0'),
         'needs an encoder and a decoder'),
        (flags(small, t5, fresh, '--config.objective.inputs_length=4000',
               '--config.objective.mean_span=1.0'), 'the tokenizer has 100'),
        (flags(small, 'configs/distilbert.py:smoke', fresh, '--config.objective.layers=(0,9)'),
         'no layer 9'),
        (flags(small, 'configs/distilbert.py:smoke', fresh,
               f'--config.objective.teacher={student[0]}', '--config.data.vocabulary_size=420'),
         'has another vocabulary'),
        (flags(small, 'configs/distilbert.py:tiny', fresh), '--config=configs/bert.py:tiny'),
        (flags(small, 'configs/gpt.py:smoke', fresh, '--config.model.encoder_layers=2'),
         'needs a decoder alone'),
        (flags(small, bert, fresh, '--config.objective.name=causal_lm'),
         'needs a key objective.separate_documents'),
        (flags(small, 'configs/gpt.py:smoke', fresh, '--config.objective.z_loss=nan'),
         'z_loss=nan must be a number'),
        (flags(small, bert, fresh, '--config.objective.sentence_coefficient=inf'),
         'sentence_coefficient=inf must be a number'),
        (flags(small, 'configs/ul2.py:smoke', fresh,
               '--config.objective.denoisers=(("R","a",0.15,1.0),)'), "denoisers='a'"),
        (flags(small, 'configs/distilbert.py:smoke', fresh, '--config.objective.layers=(0.5,1)'),
         'are numbers of layers'),
        (flags(small, 'configs/distilbert.py:smoke', fresh,
               f'--config.objective.teacher={student[0]}', '--config.objective.layers=(0,1)',
               '--config.model.max_positions=64'), 'give both the same sizes'),
        (flags(small, 'configs/electra.py:smoke', fresh, '--config.generator.width=0'),
         'generator.width=0'),
        (flags(small, 'configs/electra.py:smoke', fresh, '--config.objective.length=200'),
         ' model.max_positions=128'),
    ]  # fmt: skip
    for (argv, says), (code, _, err) in zip(cases, call_many('train', [c[0] for c in cases])):
        last = err.strip().splitlines()[-1] if err.strip() else ''
        assert code == 2, (argv, err)
        assert last.startswith('error: '), (argv, err)
        assert says in last, (argv, last)
        assert 'Traceback' not in err
    assert not fresh.exists()
