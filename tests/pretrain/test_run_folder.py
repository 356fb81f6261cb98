"""What a run's folder must be before a run may begin or go on in it."""

import contextlib
import json
import os
from types import SimpleNamespace

import pytest

from configs import gpt
from pretrain import commandline, run_folder
from pretrain.data import tokenizer
from pretrain.errors import UserError


@pytest.fixture
def config():
    return gpt.get_config('tiny,smoke')


@pytest.fixture(scope='module')
def tokens():
    return tokenizer.train(['the river and the hill of the old city'] * 20, 280)


@pytest.fixture
def run(tmp_path, config, tokens):
    """The folder of a run that has begun."""
    folder = tmp_path / 'runs' / 'run'
    for _ in range(2):  # a run that goes on writes them again
        run_folder.write(folder, config, tokens)
    return folder


@contextlib.contextmanager
def unprivileged():
    """Root may write anywhere; another user may not."""
    if os.geteuid() != 0:
        yield
        return
    os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


def test_write_and_read_back(run, config, tokens):
    assert sorted(p.name for p in run.iterdir()) == ['config.json', 'tokenizer.model']
    assert commandline.read_run_config(run).to_dict() == config.to_dict()
    assert json.loads((run / 'config.json').read_text())['model']['width'] == 32
    assert tokenizer.load(run / 'tokenizer.model').digest == tokens.digest


def test_the_same_config_goes_on(run, config):
    run_folder.check_config(run, config, accept_changes=False)


def test_a_new_folder_is_fine_and_not_made_yet(tmp_path, config):
    run_folder.check_config(tmp_path / 'a' / 'b', config, accept_changes=False)
    run_folder.check_config(tmp_path, config, accept_changes=False)
    assert list(tmp_path.iterdir()) == []


def test_free_keys_may_change(run, config):
    """Where a run runs and how often it reports does not decide what it computes."""
    config.name = 'other'
    config.mesh = 'fsdp=-1'
    config.init_from = 'runs/other'
    config.checkpoint.update(every=7, keep=9)
    config.eval.update(every=7, windows=9)
    config.log.every = 7
    config.sample.update(prompt='x', tokens=1)
    config.data.cache = 'elsewhere'
    run_folder.check_config(run, config, accept_changes=False)


@pytest.mark.parametrize(
    ('key', 'value', 'says'),
    [
        ('steps', 21, 'steps was 20, is 21'),
        ('seed', 1, 'seed was 0, is 1'),
        ('batch_size', 16, 'batch_size was 8, is 16'),
        ('accumulation', 2, 'accumulation was 1, is 2'),
        ('model.width', 64, 'model.width was 32, is 64'),
        ('objective.length', 16, 'objective.length was 32, is 16'),
        ('data.source', 'text:x', "data.source was 'wikipedia:excerpt', is 'text:x'"),
        ('optimizer.schedule.warmup', 3.0, 'optimizer.schedule.warmup was 2.0, is 3.0'),
    ],
)
def test_all_else_is_refused_and_named(run, config, key, value, says):
    config.update_from_flattened_dict({key: value, 'log.every': 77})
    with pytest.raises(UserError, match=r'holds a run of another config \(') as error:
        run_folder.check_config(run, config, accept_changes=False)
    assert f'({says}): give another --workdir, or --accept_changes' in str(error.value)
    run_folder.check_config(run, config, accept_changes=True)


def test_several_changes_and_keys_that_only_one_config_has(run, config):
    config.seed = 3
    config.objective.new = True
    del config.model['gated']
    with pytest.raises(UserError) as error:
        run_folder.check_config(run, config, accept_changes=False)
    changes = 'model.gated was False, is None; objective.new was None, is True; seed was 0, is 3'
    assert f'({changes})' in str(error.value)


def test_a_run_of_before_there_were_mixtures_goes_on(run, config):
    path = run / 'config.json'
    facts = json.loads(path.read_text())
    names = 'mixture mixing temperature cap filters data_dir workers prefetch'
    for name in names.split():
        del facts['data'][name]
    path.write_text(json.dumps(facts))
    run_folder.check_config(run, config, accept_changes=False)
    config.data.filters = ('c4',)
    with pytest.raises(UserError, match=r"data.filters was \(\), is \('c4',\)"):
        run_folder.check_config(run, config, accept_changes=False)


def test_a_damaged_config_is_named(run, config):
    (run / 'config.json').write_text('{"steps": ')
    with pytest.raises(UserError, match=r"config.json' is no config"):
        run_folder.check_config(run, config, accept_changes=False)


def test_a_file_in_the_way(tmp_path, config, tokens):
    (tmp_path / 'file').write_text('')
    (tmp_path / 'file').chmod(0o755)  # it may be written and, like a folder, be executed
    for workdir in (tmp_path / 'file', tmp_path / 'file' / 'run'):
        with pytest.raises(UserError, match=r'file.* cannot be written: give another folder'):
            run_folder.check_config(workdir, config, accept_changes=True)
        # The folder can also be lost after the check.
        with pytest.raises(UserError, match=r"--workdir: cannot write '.*file"):
            run_folder.write(workdir, config, tokens)


@pytest.mark.parametrize('mode', [0o555, 0o000])
@pytest.mark.parametrize('inside', ['.', 'run', 'a/b'])
def test_a_folder_that_may_not_be_written(tmp_path, config, mode, inside):
    locked = tmp_path / 'locked'
    locked.mkdir()
    locked.chmod(mode)
    try:
        with unprivileged(), pytest.raises(UserError, match=r'locked.* cannot be written'):
            run_folder.check_config(locked / inside, config, accept_changes=True)
    finally:
        locked.chmod(0o755)


def test_tokenizer(run, tokens, tmp_path):
    def corpus(tokens):
        return SimpleNamespace(tokenizer=tokens, source='text:book')

    run_folder.check_own_tokenizer(run, corpus(tokens))
    run_folder.check_own_tokenizer(tmp_path / 'no run', corpus(tokens))
    run_folder.check_other_tokenizer(run, tokens)
    other = tokenizer.train(['the ripe and the chill of the cold vine'] * 20, 280)
    with pytest.raises(UserError, match=r'text:book, or its tokenizer, has changed'):
        run_folder.check_own_tokenizer(run, corpus(other))
    path = run / 'tokenizer.model'
    with pytest.raises(UserError, match=f'set data.tokenizer={path}'):
        run_folder.check_other_tokenizer(run, other)
    path.write_bytes(b'nonsense')
    with pytest.raises(UserError, match='is no SentencePiece model'):
        run_folder.check_own_tokenizer(run, corpus(tokens))
    with pytest.raises(UserError, match='cannot read the tokenizer'):
        run_folder.check_other_tokenizer(tmp_path / 'no run', tokens)


def test_the_runs_own_tokenizer_stands_for_one_whose_file_is_gone(run, config, tokens, tmp_path):
    data = config.data.copy_and_resolve_references()
    run_folder.write(run, config, tokens)
    for given, found in (
        ('', ''),
        (str(tmp_path / 'gone.model'), str(run / 'tokenizer.model')),
        (str(run / 'config.json'), str(run / 'config.json')),
    ):
        data.tokenizer = given
        assert run_folder.with_own_tokenizer(run, data).tokenizer == found
        assert data.tokenizer == given
    assert run_folder.with_own_tokenizer(tmp_path / 'new', data).tokenizer == data.tokenizer


def test_has_checkpoints(tmp_path):
    assert not run_folder.has_checkpoints(tmp_path)
    (tmp_path / 'checkpoints').mkdir()
    assert not run_folder.has_checkpoints(tmp_path)
    (tmp_path / 'checkpoints' / '7.orbax-checkpoint-tmp').mkdir()  # left by a kill
    assert not run_folder.has_checkpoints(tmp_path)
    (tmp_path / 'checkpoints' / '20').mkdir()
    assert run_folder.has_checkpoints(tmp_path)
