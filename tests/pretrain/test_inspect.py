"""What `python -m pretrain.inspect` says of a run's checkpoints."""

import jax.numpy as jnp
import pytest
from absl.testing import flagsaver

from pretrain import inspect
from pretrain.checkpoints import Checkpoints
from pretrain.errors import UserError


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp('run')
    params = {'embed': {'table': jnp.ones((48, 1024))}, 'scale': jnp.ones((), jnp.bfloat16)}
    state = {'params': params, 'optimizer': (), 'step': jnp.int32(1)}
    config = {'seed': 1, 'model': {'width': 48, 'name': 'gpt'}, 'objective': {}}
    with Checkpoints(folder / 'checkpoints', config, keep=3) as checkpoints:
        for step, loss in ((10, 4.0), (20, 2.5), (30, None), (40, 3.0), (50, 2.75)):
            checkpoints.save(state, step, {}, loss)
    damaged = next((folder / 'checkpoints' / '40').glob('optimizer/d/*'))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    return folder


@pytest.fixture(autouse=True)
def _parsed_flags():
    # Under pytest nothing parses the flags.
    inspect.flags.FLAGS.mark_as_parsed()


def test_names_the_steps_the_config_and_the_parameters(run, capsys):
    inspect.main(['inspect', str(run)])
    text = capsys.readouterr().out
    lines = [line.split() for line in text.splitlines()]
    assert ['20', '2.5000', 'whole,', 'best'] in lines
    assert ['30', '-', 'whole'] in lines
    assert ['50', '2.7500', 'whole,', 'newest'] in lines
    damaged = next(line for line in text.splitlines() if line.split()[:1] == ['40'])
    assert 'damaged (optimizer/d/' in damaged
    assert 'bytes instead of' in damaged
    assert 'config of step 50\n  seed: 1\n  model:\n    width: 48\n    name: "gpt"\n' in text
    assert ['embed/table', '48', 'x', '1024', 'float32', '49,152'] in lines
    assert ['scale', 'scalar', 'bfloat16', '1'] in lines
    assert ['total', '49,153'] in lines


def test_folder_of_checkpoints_step_flag_and_folder_of_one_checkpoint(run, capsys):
    with flagsaver.flagsaver(step=20):
        inspect.main(['inspect', str(run / 'checkpoints')])
    by_flag = capsys.readouterr().out
    inspect.main(['inspect', str(run / 'checkpoints' / '20')])
    assert 'config of step 20\n' in by_flag
    assert capsys.readouterr().out == by_flag


def test_mistakes_are_one_line(run, tmp_path):
    with pytest.raises(UserError, match='no such folder: nowhere'):
        inspect.main(['inspect', 'nowhere'])
    with pytest.raises(UserError, match='no checkpoints in'):
        inspect.main(['inspect', str(tmp_path)])
    with pytest.raises(UserError, match='give one folder'):
        inspect.main(['inspect'])
    with (
        flagsaver.flagsaver(step=40),
        pytest.raises(UserError, match='checkpoint 40 is not whole: choose one of 20, 30, 50'),
    ):
        inspect.main(['inspect', str(run)])


def test_all_damaged_is_said_after_the_list(run, tmp_path, capsys):
    (tmp_path / '7').mkdir()
    with pytest.raises(UserError, match=r'every checkpoint in .* is damaged'):
        inspect.main(['inspect', str(tmp_path)])
    assert capsys.readouterr().out.splitlines()[-1].split() == [
        '7', '-', 'damaged', '(no', 'manifest.json)'
    ]  # fmt: skip
