"""The command: a small GPT-2 in, used as a run, and out again; what is wrong in one line."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import tokenizers

FIXTURES = Path(__file__).parent / 'huggingface' / 'fixtures'


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """A folder as one fetches it: a model of 61 ids with a tokenizer of 61 pieces."""
    folder = tmp_path_factory.mktemp('published') / 'gpt2'
    shutil.copytree(FIXTURES / 'gpt2', folder)
    letters = [*'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ .,\n', 'on', 'er']
    pieces = ['<unk>', '<|endoftext|>', *letters]
    model = tokenizers.models.WordLevel({p: i for i, p in enumerate(pieces)}, unk_token='<unk>')
    file = tokenizers.Tokenizer(model)
    file.pre_tokenizer = tokenizers.pre_tokenizers.Split(
        tokenizers.Regex(r'on|er|[\s\S]'), 'isolated'
    )
    file.decoder = tokenizers.decoders.Fuse()
    file.add_special_tokens(['<|endoftext|>'])
    file.save(str(folder / 'tokenizer.json'))
    assert file.get_vocab_size() <= 61
    return folder


@pytest.fixture(scope='module')
def converted(call, checkpoint, tmp_path_factory):
    """The run's folder made of it."""
    workdir = tmp_path_factory.mktemp('runs') / 'gpt2'
    done = call('convert', f'--from_huggingface={checkpoint}', f'--workdir={workdir}')
    assert done.returncode == 0, done.stderr
    assert 'gpt2, 28 tensors' in done.stdout
    assert [path.name for path in workdir.parent.iterdir()] == ['gpt2']
    return workdir


def test_in_and_out_again_every_tensor_is_the_same(call, converted, checkpoint, tmp_path):
    out = tmp_path / 'out'
    done = call('convert', f'--to_huggingface={out}', f'--checkpoint={converted}')
    assert done.returncode == 0, done.stderr
    before, after = (
        safetensors.numpy.load_file(folder / 'model.safetensors') for folder in (checkpoint, out)
    )
    assert before.keys() == after.keys()
    assert all(before[name].tobytes() == after[name].tobytes() for name in before)
    names = {path.name for path in out.iterdir()}
    assert names == {
        'README.md', 'config.json', 'generation_config.json', 'model.safetensors',
        'tokenizer.json', 'tokenizer_config.json',
    }  # fmt: skip
    assert json.loads((out / 'config.json').read_text())['eos_token_id'] == 1
    assert 'AutoModelForCausalLM' in (out / 'README.md').read_text()


def test_a_converted_run_continues_texts(call, converted):
    flags = [f'--checkpoint={converted}', '--prompt=pero', '--tokens=8', '--temperature=0']
    done = call('generate', *flags)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith('pero')
    assert len(done.stdout.strip()) > 4


def test_a_new_run_trains_on_from_it_and_is_written_with_its_figures(
    call, converted, text_folder, tmp_path
):
    flags = [
        f'--config={converted}/config.json', f'--config.data.source=text:{text_folder}',
        f'--config.data.cache={tmp_path / "cache"}', '--config.steps=2', '--config.batch_size=2',
        '--config.eval.every=2', '--config.eval.windows=2', '--config.sample.tokens=0',
        '--config.data.validation_fraction=0.2', '--config.optimizer.schedule.warmup=1.0',
        '--config.objective.length=16',
    ]  # fmt: skip
    inside = call('train', *flags, f'--workdir={converted}', '--accept_changes')
    assert inside.returncode == 2
    assert 'only weights to start from: give another --workdir' in inside.stderr
    done = call('train', *flags, f'--workdir={tmp_path / "run"}')
    assert done.returncode == 0, done.stderr
    assert f'parameters of {converted}' in done.stdout
    written = call(
        'convert', f'--to_huggingface={tmp_path / "out"}', f'--checkpoint={tmp_path / "run"}'
    )
    assert written.returncode == 0, written.stderr
    card = (tmp_path / 'out' / 'README.md').read_text()
    assert 'Step 2 of 2' in card
    assert '| validation loss |' in card


def damaged(checkpoint, folder, name, change):
    """A copy of the checkpoint in which `change` was done to a file, or the file removed."""
    copy = folder / f'{len(list(folder.iterdir()))}'
    shutil.copytree(checkpoint, copy)
    path = copy / name
    if change is None:
        path.unlink()
    else:
        path.write_bytes(change(path.read_bytes()))
    return copy


def test_what_is_wrong_is_said_in_one_line_and_nothing_is_left(
    refused, checkpoint, converted, tmp_path
):
    copies, made = tmp_path / 'copies', tmp_path / 'made'
    copies.mkdir()
    made.mkdir()
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full' / 'notes.txt').write_text('mine')
    other = damaged(checkpoint, copies, 'config.json', lambda b: b.replace(b'"gpt2"', b'"mamba"'))
    short = damaged(checkpoint, copies, 'model.safetensors', lambda b: b[:2000])
    bare = damaged(checkpoint, copies, 'config.json', None)
    mute = damaged(checkpoint, copies, 'tokenizer.json', None)
    torn = damaged(checkpoint, copies, 'tokenizer.json', lambda b: b[:200])
    split = damaged(checkpoint, copies, 'model.safetensors', None)
    index = {'weight_map': {'a': 'model-00001-of-00002.safetensors'}}
    (split / 'model.safetensors.index.json').write_text(json.dumps(index))
    run = f'--workdir={made}/run'
    out = f'--to_huggingface={made}/out'
    cases = [
        ([], 'give either --from_huggingface=DIR'),
        ([f'--from_huggingface={checkpoint}'], '--workdir is missing'),
        ([out], '--checkpoint is missing'),
        ([f'--from_huggingface={checkpoint}', run, out], 'give either'),
        ([f'--from_huggingface={checkpoint}', run, '--step=3'], '--step does not go with'),
        ([f'--from_huggingface={tmp_path}/no', run], 'there is no folder'),
        ([f'--from_huggingface={bare}', run], 'holds no config.json'),
        ([f'--from_huggingface={other}', run], "'mamba', which is not supported: gpt2, bert"),
        ([f'--from_huggingface={short}', run], 'no whole safetensors file'),
        ([f'--from_huggingface={split}', run], 'model-00001-of-00002.safetensors'),
        ([f'--from_huggingface={mute}', run], 'holds no tokenizer'),
        ([f'--from_huggingface={torn}', run], 'tokenizer.json'),
        ([f'--from_huggingface={checkpoint}', run, '--length=41'], 'max_positions=40'),
        ([f'--from_huggingface={checkpoint}', run, '--length=-1'], '--length=-1'),
        ([f'--from_huggingface={checkpoint}', run, f'--generator={checkpoint}'], 'discriminator'),
        ([f'--from_huggingface={checkpoint}', f'--workdir={tmp_path}/full'], 'is there already'),
        ([f'--from_huggingface={checkpoint}', '--workdir=/proc/no/run'], '/proc/no/run'),
        ([f'--from_huggingface={checkpoint}', f'--workdir={made}/{"x" * 300}'], 'cannot write'),
        ([f'--from_huggingface={tmp_path}/no', f'--workdir={made}/a/b'], 'there is no folder'),
        ([out, '--checkpoint=/no/run'], "there is no folder '/no/run'"),
        ([out, f'--checkpoint={made}'], 'holds no run'),
        ([out, f'--checkpoint={converted}', '--step=7'], 'no checkpoint of step 7'),
        ([f'--to_huggingface={tmp_path}/full', f'--checkpoint={converted}'], 'is there already'),
    ]  # fmt: skip
    refused('convert', cases)
    assert not list(made.iterdir())
    assert [path.name for path in (tmp_path / 'full').iterdir()] == ['notes.txt']
    assert np.all([not path.name.startswith('.') for path in tmp_path.iterdir()])
