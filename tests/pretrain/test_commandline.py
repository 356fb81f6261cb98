"""Flags, and mistakes in them: one line on stderr that begins with 'error: ', exit code 2."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pretrain import commandline
from pretrain.errors import UserError

ROOT = Path(__file__).parents[2]
COMMAND = '''"""A command that prints what it was given."""
import json
from absl import flags
from pretrain import commandline
from pretrain.errors import UserError

CONFIG = commandline.define_config()
flags.DEFINE_string('checkpoint', None, 'Folder of a run.')
FAIL = flags.DEFINE_string('fail', '', 'An exception to raise.')

def main(argv):
    if FAIL.value:
        raise eval(FAIL.value)
    print(json.dumps([CONFIG.value and CONFIG.value.to_dict(), argv[1:]]))

commandline.run(main, flags_of_saved_config='checkpoint')
'''
CONFIG = """
from ml_collections import ConfigDict

def get_config(variant='small'):
    if variant not in ('small', 'large'):
        raise ValueError(f'unknown variant {variant!r}; there are small and large')
    sizes = {'width': 8 if variant == 'small' else 64, 'biases': True, 'rate': 0.5}
    return ConfigDict({'steps': 10, 'name': variant, 'model': sizes})
"""
SAVED = {'steps': 77, 'name': 'saved', 'model': {'width': 4, 'biases': True, 'rate': 0.25}}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A command, configs good and bad, and the folder of a run."""
    folder = tmp_path_factory.mktemp('commands')
    (folder / 'command.py').write_text(COMMAND)
    (folder / 'sizes.py').write_text(CONFIG)
    (folder / 'broken.py').write_text('def get_config(\n')
    (folder / 'empty.py').write_text('')
    (folder / 'divides.py').write_text('x = 1\nx / 0\n')
    (folder / 'imports.py').write_text('import no_such_module\n')
    (folder / 'half.json').write_text('{"steps": 7')
    (folder / 'list.json').write_text('[7]')
    (folder / 'run').mkdir()
    (folder / 'run' / 'config.json').write_text(json.dumps(SAVED))
    return folder


@pytest.fixture
def call(folder, fork):
    return lambda *argv: fork('command.py', [argv], folder)[0]


@pytest.fixture
def given(call):
    """The config and the arguments that a command is given."""

    def given(*argv):
        done = call(*argv)
        assert (done.returncode, done.stderr) == (0, '')
        return json.loads(done.stdout)

    return given


def assert_one_line(done, says):
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith('error: ')
    assert says in line
    assert done.stdout == ''


def test_variants_and_keys(given):
    config, rest = given(
        '--config=sizes.py:large', '--config.steps=5', '--noconfig.model.biases', 'word',
        '--config.model.rate', '0.125',
    )  # fmt: skip
    sizes = {'width': 64, 'biases': False, 'rate': 0.125}
    assert config == {'steps': 5, 'name': 'large', 'model': sizes}
    assert rest == ['word']


def test_a_config_without_variant(given):
    assert given('--config', 'sizes.py')[0]['name'] == 'small'


def test_no_config_at_all(given):
    assert given() == [None, []]


@pytest.mark.parametrize('config', [['--config=sizes.py:large'], ['--config', 'sizes.py:large']])
def test_keys_may_stand_before_the_config(given, config):
    config, _ = given('--config.steps=5', *config, '--config.model.width=3')
    assert (config['steps'], config['name'], config['model']['width']) == (5, 'large', 3)


def test_json(given):
    assert given('--config=run/config.json')[0] == SAVED
    assert given('--config=run/config.json', '--config.model.width=5')[0]['model']['width'] == 5


def test_the_config_of_a_saved_run(given):
    assert given('--checkpoint=run')[0] == SAVED
    assert given('--config.steps=9', '--checkpoint', 'run')[0] == SAVED | {'steps': 9}
    # A config that is given goes before.
    assert given('--checkpoint=run', '--config=sizes.py')[0]['steps'] == 10


@pytest.mark.parametrize(
    ('argv', 'says'),
    [
        ('--config=sizes.py --config.stepz=5',
         'unknown config key --config.stepz: did you mean --config.steps?'),
        ('--config=sizes.py --config.model.widht 5', 'did you mean --config.model.width?'),
        ('--config=sizes.py --noconfig.model.biasses', 'did you mean --config.model.biases?'),
        ('--checkpoint=run --config.model.rates=5', 'did you mean --config.model.rate?'),
        ('--config=sizes.py --config.qqqq=5', 'unknown config key --config.qqqq'),
        ('--config=sizes.py --config.steps=many', "'many'"),
        ('--config=sizes.py --config.steps=1.5', "'1.5'"),
        ('--config=sizes.py --config.model.rate=fast', "'fast'"),
        ('--config=sizes.py --config.model.biases=maybe', "'maybe'"),
        ('--config=sizes.py --config.model=3', '--config.model=3'),
        ('--config=sizes.py --config.steps', 'Missing value for flag --config.steps'),
        ('--config.steps=5', '--config is missing'),
        ('--noconfig.model.biases', '--config is missing'),
        ('--config', 'Missing value for flag --config'),
        ('--config=nowhere.py:small', "there is no file 'nowhere.py'"),
        ('--config=run', "there is no file 'run'"),
        ('--config=', "there is no file ''"),
        ('--config=sizes.py:smal', "unknown variant 'smal'; there are small and large"),
        ('--config=broken.py', 'broken.py, line 1'),
        ('--config=empty.py', 'get_config'),
        ('--config=divides.py', 'ZeroDivisionError: division by zero (divides.py, line 2)'),
        ('--config=sizes.py --fail=CONFIG.value.eval', "the config has no key 'eval', which"),
        ('--config=imports.py', 'no_such_module'),
        ('--config=run/nowhere.json', "cannot read 'run/nowhere.json': No such file"),
        ('--config=half.json', "'half.json' is no config"),
        ('--config=list.json', "'list.json' is no config: it holds no JSON object"),
        ('--checkpoint=nowhere', "--checkpoint: there is no folder 'nowhere'"),
        ('--checkpoint=.', "'.' holds no run (no config.json)"),
        ('--config=sizes.py --confg.steps=3', "Unknown command line flag 'confg.steps'"),
    ],
)  # fmt: skip
def test_mistakes(call, argv, says):
    assert_one_line(call(*argv.split()), says)


@pytest.mark.parametrize(
    ('error', 'says'),
    [
        ('UserError("two\\n  lines")', 'error: two lines\n'),
        ('OSError(28, "No space left on device", "x.bin")', 'write x.bin: No space left'),
        ('OSError(30, "Read-only file system")', 'cannot read or write a file: Read-only file'),
    ],
)
def test_mistakes_that_show_while_a_command_runs(call, error, says):
    done = call(f'--fail={error}')
    assert_one_line(done, '')
    assert says in done.stderr


def test_interrupts_are_one_line_and_our_own_faults_are_not_hidden(call):
    done = call('--fail=KeyboardInterrupt()')
    assert (done.returncode, done.stderr) == (130, 'interrupted\n')
    for fault in ('OSError(2, "No such file")', 'KeyError("x")'):
        done = call(f'--fail={fault}')
        assert done.returncode == 1
        assert 'Traceback' in done.stderr


@pytest.mark.parametrize('flag', ['--help', '--helpshort'])
def test_help(call, flag):
    done = call('--config.wrong=1', flag)
    assert 'A command that prints what it was given.' in done.stdout
    for flag in ('--config: FILE.py:VARIANT', '--checkpoint: Folder of a run.', '--fail: '):
        assert flag in done.stdout
    assert done.stderr == ''


def test_the_training_command(environment, tmp_path):
    done = subprocess.run(
        [sys.executable, '-m', 'pretrain.train', '--config=configs/gpt.py:gpt2_124',
         f'--workdir={tmp_path}/run'],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert_one_line(done, "unknown variant 'gpt2_124'; did you mean 'gpt2_124m'?")
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
    ('command', 'flag'),
    [('convert', 'to_huggingface'), ('evaluate', 'benchmark'), ('generate', 'prompt'),
     ('look', 'windows'), ('prepare', 'out'), ('train', 'workdir')],
)  # fmt: skip
def test_a_command_finds_all_that_it_imports(start, command, flag):
    """In a Python of its own, where no other command's imports are at hand."""
    out, err = start(command, '--help').communicate(timeout=300)
    assert f'--{flag}: ' in out
    assert err == ''


def test_read_config(folder):
    config = commandline.read_config(folder / 'run' / 'config.json')
    assert config.model.rate == 0.25
    assert commandline.read_run_config(folder / 'run') == config
    with pytest.raises(UserError, match=r'cannot read .*: Is a directory'):
        commandline.read_config(folder)
    (folder / 'latin.json').write_bytes(b'{"name": "caf\xe9"}')
    with pytest.raises(UserError, match='is no config'):
        commandline.read_config(folder / 'latin.json')


def test_tuples_survive_a_saved_config(tmp_path):
    tree = {'phases': ((10, 8, 16),), 'objective': {'layers': (0, 3), 'none': ()}}
    (tmp_path / 'config.json').write_text(json.dumps(tree))
    assert commandline.read_config(tmp_path / 'config.json').to_dict() == tree


def test_flatten():
    tree = {'a': {'b': 1, 'c': {'d': 'x'}}, 'e': None, 'f': {}}
    assert commandline.flatten(tree) == {'a.b': 1, 'a.c.d': 'x', 'e': None, 'f': {}}
