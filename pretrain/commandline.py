"""How the commands read their flags, and how they say what is wrong: one line, exit code 2."""

import difflib
import errno
import functools
import json
import os
import signal
import sys
import traceback

import jax
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags
from ml_collections.config_dict import config_dict

from pretrain import heartbeats, storage
from pretrain.errors import UserError

DISK_ERRORS = (
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO, errno.EACCES, errno.EPERM,
    errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG,
)  # fmt: skip
# What a config file, or a key that it does not have, can raise.
CONFIG_ERRORS = (
    AttributeError, KeyError, TypeError, ValueError, OSError, ImportError, SyntaxError
)  # fmt: skip
KEY_FLAGS = ('--config.', '-config.', '--noconfig.', '-noconfig.')

# Flags defined by a function below belong to the command that calls it, so --help shows them.
flags.disclaim_key_flags()


def define_config(default=None):
    """Defines --config=FILE.py:VARIANT and --config.any.key=value.

    A JSON file, such as the config.json of a run, is read as well.

    Args:
        default: config used when the flag is not given; None: it must be given.

    Returns:
        absl's FlagHolder; `.value` is a locked ConfigDict.
    """
    return config_flags.DEFINE_config_file(
        'config', default, 'FILE.py:VARIANT, or the config.json of a run.', lock_config=True
    )


def run(main, flags_of_saved_config=None, default_config=None):
    """Runs a command: parses flags, calls main(argv), turns mistakes into one line.

    Args:
        main: function of the arguments that are left.
        flags_of_saved_config: name of the flag that names a run (`checkpoint`): without --config
            the run's own config is what --config.key=value changes.
        default_config: function that is given a function from a flag's name to its value (None:
            not given) and returns the config file to take without --config; None: none.
    """
    with heartbeats.ending():
        try:
            app.run(
                functools.partial(_main, main),
                flags_parser=functools.partial(
                    _parse, run_flag=flags_of_saved_config, default=default_config
                ),
            )
        except UserError as error:
            _exit(error)


def fail(message):
    """Prints one line and exits with code 2."""
    print(f'error: {message}', file=sys.stderr)
    sys.exit(2)


def _main(main, argv):
    try:
        return main(argv)
    except UserError as error:
        _exit(error)
    except AttributeError as error:
        at = traceback.extract_tb(error.__traceback__)[-1]
        if at.filename != config_dict.__file__:
            raise
        key = _one_line(error).strip('"')
        fail(
            f'the config has no key {key}, which this command needs: is it one for '
            'another command? those of training start from recipe() in configs/recipe.py'
        )
    except jax.errors.JaxRuntimeError as error:
        if 'RESOURCE_EXHAUSTED' not in str(error):
            raise
        fail(
            f'the device has not enough memory ({_one_line(error)}): lower batch_size or '
            'objective.length, raise accumulation, or set model.remat=full'
        )
    except BrokenPipeError:  # the reader of our output, `head` say, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        fail(f'cannot read or write {error.filename or "a file"}: {error.strerror}')
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


def _exit(error):
    fail(' '.join(str(error).split()))


def _parse(argv, run_flag, default):
    if any(a in ('--help', '-h', '--helpshort', '--helpfull') for a in argv):
        return flags.FLAGS(argv)
    # config_flags reads sys.argv.
    argv = sys.argv = _with_default_config(list(argv), run_flag, default)
    try:
        rest = flags.FLAGS(argv)
    except flags.Error as error:
        fail(_one_line(error))
    except CONFIG_ERRORS as error:
        fail(_unknown_key(argv) or f'--config: {_one_line(error)}')
    except Exception as error:  # a mistake in the config file
        at = traceback.extract_tb(error.__traceback__)[-1]
        said = f'{type(error).__name__}: {_one_line(error)}'
        fail(f'--config: {said} ({at.filename}, line {at.lineno})')
    if not flags.FLAGS['verbosity'].present:
        logging.set_verbosity(logging.WARNING)  # libraries chat at absl's default level
    if len(rest) > 1 and rest[1].startswith('-'):
        fail(f'unknown argument {rest[1]!r}')
    return rest


def _with_default_config(argv, run_flag, default):
    """Puts --config first, and a JSON file in a form that config_flags can read."""
    path = _value(argv, 'config')
    if path is None and default:
        path = default(functools.partial(_value, argv))
    if path is None and run_flag:
        run = _value(argv, run_flag)
        if run is not None:
            try:
                read_run_config(run)
            except UserError as error:
                _exit(error)
            path = os.path.join(run, 'config.json')
    if path is None:
        if 'config' not in flags.FLAGS or not _keys(argv):
            return argv
        fail('--config is missing: for example --config=configs/gpt.py:tiny')
    if path.endswith('.json'):
        path = f'{__file__}:{path}'
    elif not os.path.isfile(path.split(':')[0]):
        fail(f'--config: there is no file {path.split(":")[0]!r}')
    kept = [a for i, a in enumerate(argv) if not _is_config(argv, i)]
    return [kept[0], f'--config={path}', *kept[1:]]


def _value(argv, name):
    for i, a in enumerate(argv):
        if a.startswith((f'--{name}=', f'-{name}=')):
            return a.split('=', 1)[1]
        if a in (f'--{name}', f'-{name}') and i + 1 < len(argv):
            return argv[i + 1]
    return None


def _is_config(argv, i):
    bare = ('--config', '-config')
    return (
        argv[i].startswith(('--config=', '-config='))
        or argv[i] in bare
        or (i > 0 and argv[i - 1] in bare)
    )


def _keys(argv):
    return any(a.startswith(KEY_FLAGS) for a in argv)


def _unknown_key(argv):
    """Names the first --config.KEY that the config does not have, with the nearest; or None."""
    flags_of_keys = [a.lstrip('-').removeprefix('no') for a in argv if a.startswith(KEY_FLAGS)]
    keys = [a.split('=')[0] for a in flags_of_keys]
    try:
        sys.argv = [a for a in argv if not a.startswith(KEY_FLAGS)]
        flags.FLAGS(sys.argv)
        known = list(flatten({'config': flags.FLAGS.config.to_dict()}))
    except Exception:  # the config itself is at fault, and the first error says so
        return None
    for key in keys:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f'did you mean --{near[0]}?' if near else 'see configs/recipe.py'
            return f'unknown config key --{key}: {hint}'
    return None


def flatten(tree, prefix=''):
    """{'a': {'b': 1}} -> {'a.b': 1}."""
    flat = {}
    for key, value in tree.items():
        inner = flatten(value, f'{prefix}{key}.') if isinstance(value, dict) else {}
        flat |= inner or {prefix + key: value}
    return flat


def _one_line(error):
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    head, of_config_file, _ = text.partition('Error whilst parsing config file:')
    if of_config_file:  # a whole traceback follows, which ends in 'ValueError: what is wrong'
        return head + (lines[-1].partition(': ')[2] or lines[-1])
    return lines[0] if lines else type(error).__name__


def get_config(path):
    """Reads a config.json; config_flags calls this when the file of --config is this module."""
    return read_config(path)


def _with_tuples(tree):
    """JSON has no tuples, and configs no lists: what was a tuple becomes one again."""
    if isinstance(tree, dict):
        return {key: _with_tuples(value) for key, value in tree.items()}
    return tuple(map(_with_tuples, tree)) if isinstance(tree, list) else tree


def read_run_config(folder):
    """The config of a run, from its folder.

    Raises:
        UserError: there is no such folder, or no run in it.
    """
    folder = storage.place(folder)
    with storage.errors(folder, 'read'):
        if not folder.is_dir():
            raise UserError(f'--checkpoint: there is no folder {str(folder)!r}')
    path = folder / 'config.json'
    if not path.exists():
        raise UserError(f'--checkpoint: {str(folder)!r} holds no run (no config.json)')
    config = read_config(path)
    model = folder / 'model'
    if 'transfer' in config and model.is_dir():
        raise UserError(
            f'--checkpoint: {str(folder)!r} holds results of a task: its model is {str(model)!r}'
        )
    return config


def read_config(path):
    """The ConfigDict that a config.json holds.

    Raises:
        UserError: there is no such file, or it is no JSON object.
    """
    try:
        tree = json.loads(storage.place(path).read_text())
        if not isinstance(tree, dict):
            raise ValueError('it holds no JSON object')
        return ConfigDict(_with_tuples(tree))
    except OSError as error:
        raise UserError(f'cannot read {str(path)!r}: {error.strerror}') from None
    except ValueError as error:
        raise UserError(f'{str(path)!r} is no config: {error}') from None
