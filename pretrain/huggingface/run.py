"""A run's folder made from weights that were trained elsewhere, and its parameters one by one.

The folder holds what a run's folder holds, but for an optimizer: a new run starts from it by
`init_from`. It is made beside its place and takes its name when it is whole.
"""

import atexit
import contextlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import type_handlers

from pretrain import manifest, restoration, run_folder, storage
from pretrain.errors import UserError

STEP = 0


class _OneByOne(type_handlers.NumpyHandler):
    """Writes arrays one after the other, from where they lie.

    The library's handler copies all of them first and holds the compressed forms of all at once,
    which makes three copies of the weights. (Should a release of it call this method no more, only
    memory suffers.)
    """

    async def _background_serialize(self, values, infos, args=None):
        for value, info, arg in zip(values, infos, args):
            await super()._background_serialize([value], [info], [arg])


@contextlib.contextmanager
def new_folder(path):
    """A folder that is filled elsewhere and appears under its name whole, or not at all.

    Args:
        path: where it shall be; must not exist, or be empty.

    Yields:
        The path to fill.

    Raises:
        UserError: there is something already, or the place cannot be written.
    """
    path = Path(os.path.abspath(storage.local(path, 'the new folder')))
    parent = path.parent
    unfinished = parent / f'.{path.name}.unfinished-{os.getpid()}'
    try:
        empty = path.is_dir() and not path.is_symlink() and not any(path.iterdir())
        if path.is_symlink() or (path.exists() and not empty):
            raise UserError(f'{str(path)!r} is there already: give another folder, or remove it')
        made = [p for p in (parent, *parent.parents) if not p.exists()]
    except OSError as error:
        raise UserError(f'cannot write {str(path)!r}: {error.strerror}') from None

    def clear():
        shutil.rmtree(unfinished, ignore_errors=True)
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()

    # Once more at the very end: threads that still write may bring back what was removed.
    atexit.register(clear)
    try:
        unfinished.mkdir(parents=True)
        yield unfinished
        if empty:
            path.rmdir()
        os.rename(unfinished, path)
        atexit.unregister(clear)
    except OSError as error:
        file = str(error.filename or unfinished)
        if not file.startswith(str(parent)):
            raise UserError(f'cannot read {file!r}: {error.strerror}') from None
        raise UserError(f'cannot write {str(path)!r}: {error.strerror or error}') from None
    finally:
        clear()


def write(folder, config, tokens, params):
    """Fills a run's folder.

    Args:
        folder: an empty one. config: ConfigDict. tokens: its tokenizer.
        params: {model name: tree of numpy arrays}.
    """
    run_folder.write(folder, config, tokens)
    step = folder / 'checkpoints' / str(STEP)
    registry = type_handlers.create_type_handler_registry(
        (np.ndarray, _OneByOne(deepcopy_host_arrays=False))
    )
    handler = ocp.PyTreeCheckpointHandler(type_handler_registry=registry, use_ocdbt=False)
    with ocp.Checkpointer(handler) as writer:
        writer.save(step / 'params', args=ocp.args.PyTreeSave(params))
    progress = {'step': STEP, 'seconds': 0.0, 'corpus': None, 'tokenizer': tokens.digest}
    for item, value in (('progress', progress | {'teacher': None}), ('config', config.to_dict())):
        (step / item).mkdir()
        (step / item / 'metadata').write_text(json.dumps(value))
    manifest.write(step)


def read_array(folder, path, step=None):
    """One parameter of a run, as a numpy array.

    Args:
        folder: of the run. path: 'model/decoder/final_norm/scale'. step: of its checkpoint.
    """
    checkpoints, _ = restoration.find(folder)
    *parents, leaf = path.split('/')
    item, args = {leaf: 0}, {leaf: ocp.RestoreArgs(restore_type=np.ndarray)}
    for name in reversed(parents):
        item, args = {name: item}, {name: args}
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        tree = reader.restore(
            checkpoints / str(step) / 'params',
            args=ocp.args.PyTreeRestore(item=item, restore_args=args, partial_restore=True),
        )
    for name in path.split('/'):
        tree = tree[name]
    return tree
