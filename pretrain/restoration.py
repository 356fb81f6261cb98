"""Reading checkpoints: which step is whole, its config, its arrays on any mesh.

`restore_params`, `read_config`, `whole_steps` and `newest_whole` are what the commands call, by way
of `pretrain.checkpoints`; the rest serves the training run and `pretrain.inspect`.
"""

import json
import logging
import os
import re
import sys
from pathlib import Path

import absl.logging
import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import traverse_util
from jax.experimental import multihost_utils

from pretrain import manifest, storage
from pretrain.errors import UserError

# The other processes wait this long while process 0 reads a whole checkpoint from the disk.
_VERIFY_TIMEOUT_MS = 3 * 3600 * 1000
# Of a model: what another task, or weights from elsewhere, may lack.
_HEADS = re.compile(r'[^/]+/(head|pooler|classifier|scores|projection)/')
FINISHED = 'commit_success.txt'  # written by orbax, on gs://
_NOTHING, _ALL_DAMAGED = -1, -2
# What the commands read: a damaged optimizer does not spoil the parameters.
_ITEMS_OF_COMMANDS = ('params', 'config')


def _chosen_by_level(record: logging.LogRecord) -> bool:
    """Drops orbax's own log lines unless `--verbosity=1`: what fails is raised as well."""
    from_orbax = f'orbax{os.sep}checkpoint' in record.pathname
    return not from_orbax or absl.logging.get_verbosity() >= absl.logging.DEBUG


logging.getLogger('absl').addFilter(_chosen_by_level)


def newest_whole(directory: str | Path) -> int:
    """The newest step whose parameters and config are whole.

    Args:
      directory: a run's folder, its folder of checkpoints, or the folder of one checkpoint.

    Raises:
      UserError: there is no such folder, no checkpoint in it, or none is whole.
    """
    return _located(directory, None)[1]


def whole_steps(directory: str | Path) -> list[int]:
    """The steps, in rising order, whose files all agree with their sha256; [] without any."""
    folder, _ = find(directory)
    return [step for step in steps_in(folder) if manifest.fault(folder / str(step)) is None]


def restore_start(directory: str | Path, abstract_params):
    """The parameters that a new run starts from; heads that the checkpoint has not are left out.

    Args:
      directory, abstract_params: as of `restore_params`.

    Returns:
      {path: parameter}, and the paths of the heads that are to be drawn anew.

    Raises:
      UserError: as `restore_params`.
    """
    folder, step = _located(directory, None)
    stored = stored_shapes(folder / str(step))
    wanted = traverse_util.flatten_dict(abstract_params, sep='/')
    new = [path for path in wanted if path not in stored and _HEADS.match(path)]
    kept = {path: leaf for path, leaf in wanted.items() if path not in new}
    kept = traverse_util.unflatten_dict(kept, sep='/')
    found = read_arrays(folder / str(step), 'params', kept, same_dtype=False)
    return traverse_util.flatten_dict(found, sep='/'), new


def restore_params(directory: str | Path, abstract_params, step: int | None = None):
    """Restores the parameters alone, onto any mesh.

    Args:
      directory: a run's folder, its folder of checkpoints, or the folder of one checkpoint.
      abstract_params: ShapeDtypeStructs; where one has no sharding, the first device is taken. A
        dtype other than the saved one is cast to.
      step: which checkpoint; None takes the newest whose parameters and config are whole.

    Returns:
      The parameters, in the structure of `abstract_params`.

    Raises:
      UserError: there is none, it is damaged, or it does not fit `abstract_params`.
    """
    folder, step = _located(directory, step)
    return read_arrays(folder / str(step), 'params', abstract_params, same_dtype=False)


def read_config(directory: str | Path, step: int | None = None) -> dict:
    """The resolved config that a checkpoint was saved with. Arguments as of `restore_params`."""
    folder, step = _located(directory, step)
    return read_json(folder / str(step), 'config')


def read_progress(directory: str | Path, step: int | None = None) -> dict:
    """What a checkpoint was saved with as progress. Arguments as of `restore_params`."""
    folder, step = _located(directory, step)
    return read_json(folder / str(step), 'progress')


def find(directory: str | Path) -> tuple[Path, int | None]:
    """The folder of checkpoints that `directory` means, and the step where it means one.

    Args:
      directory: a run's folder, its folder of checkpoints, or the folder of one checkpoint.

    Raises:
      UserError: there is no such folder.
    """
    path = storage.place(directory)
    with storage.errors(path, 'read'):
        if not path.is_dir():
            raise UserError(f'no such folder: {directory}')
    if not storage.is_remote(path):
        path = path.absolute()
    if path.name.isdecimal() and (path / manifest.NAME).is_file():
        return path.parent, int(path.name)
    return (path / 'checkpoints' if (path / 'checkpoints').is_dir() else path), None


def steps_in(folder: Path) -> list[int]:
    """Every step in a folder of checkpoints, whole or damaged, in rising order."""
    unfinished = unfinished_in(folder)
    return sorted(int(path.name) for path in _numbered(folder) if path not in unfinished)


def unfinished_in(folder: Path) -> list[Path]:
    """The steps that a save was interrupted in, where these have no other name: on gs://."""
    if not storage.is_remote(folder):
        return []
    marks = FINISHED, manifest.NAME  # copied there from a disk, a step has only the second
    return [p for p in _numbered(folder) if not any((p / name).exists() for name in marks)]


def _numbered(folder: Path) -> list[Path]:
    if storage.is_remote(folder) and not folder.is_dir():  # a folder there is what lies in it
        return []
    return [path for path in folder.iterdir() if path.name.isdecimal()]


def agreed_newest_whole(folder: Path, items=None) -> tuple[int | None, list[int]]:
    """The newest whole step, the same in every process; damaged newer ones are named on stderr.

    Args:
      folder: a folder of checkpoints.
      items: the items that must be whole; None for all.

    Returns:
      (step, damaged steps after it): step is None where there is no checkpoint; the damaged ones
      are known to process 0 only.

    Raises:
      UserError: there are checkpoints and all are damaged.
    """
    faults = {}
    code = _NOTHING
    if jax.process_index() == 0:
        for step in reversed(steps_in(folder)):
            fault = manifest.fault(folder / str(step), items)
            if fault is None:
                code = step
                break
            faults[step] = fault
        else:
            code = _ALL_DAMAGED if faults else _NOTHING
        use = f'using {code}' if code >= 0 else 'none before it is whole'
        for step, fault in faults.items():
            print(f'checkpoint {step} is damaged ({fault}): {use}', file=sys.stderr)
    code = from_process_0(code)
    if code == _ALL_DAMAGED:
        raise UserError(
            f'every checkpoint in {folder} is damaged: bring back a copy of one, '
            'or remove that folder to start from step 0'
        )
    return (None if code == _NOTHING else code), list(faults)


def from_process_0(number: int) -> int:
    """The number that process 0 has, in every process."""
    if jax.process_count() == 1:
        return number
    # A collective gives up within seconds or minutes; reading a large checkpoint may take longer.
    ocp.multihost.get_barrier_sync_fn()(key='verified', timeout_ms=_VERIFY_TIMEOUT_MS)
    return int(multihost_utils.broadcast_one_to_all(np.int32(number)))


def read_json(folder: Path, item: str) -> dict:
    """The JSON item 'config' or 'progress' of the checkpoint in `folder`."""
    return json.loads((folder / item / 'metadata').read_text(encoding='utf-8'))


def read_validation_loss(folder: Path) -> float | None:
    """The validation loss that the checkpoint in `folder` was saved with; None without one."""
    path = folder / 'metrics' / 'metrics'
    if not path.is_file():
        return None
    return json.loads(path.read_text(encoding='utf-8'))['validation_loss']


def read_arrays(folder: Path, item: str, abstract, same_dtype: bool):
    """Restores the item 'params' or 'optimizer' of the checkpoint in `folder`.

    Args:
      folder: the folder of one checkpoint.
      item: the item's name.
      abstract: ShapeDtypeStructs; where one has no sharding, the first device is taken.
      same_dtype: whether a dtype other than the saved one is refused; else it is cast to.

    Raises:
      UserError: names or shapes differ from the saved ones.
    """
    if not (folder / item).is_dir():
        raise UserError(
            f'{str(folder)!r} holds no {item}, only weights to start from: give another --workdir, '
            f'and --config.init_from={folder.parent.parent}'
        )
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=getattr(leaf, 'sharding', None) or here
        ),
        abstract,
    )
    _refuse_misfit(folder, item, abstract, same_dtype)
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
        return reader.restore(folder / item, args=ocp.args.StandardRestore(abstract))


def stored_shapes(folder: Path, item: str = 'params') -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and dtypes of an item's arrays by path ('embed/table'), without reading the arrays."""
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
        tree = reader.metadata(folder / item).item_metadata.tree
    return {
        name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in _by_path(tree).items()
    }


def _located(directory, step) -> tuple[Path, int]:
    folder, meant = find(directory)
    step = meant if step is None else step
    if step is None:
        step, _ = agreed_newest_whole(folder, _ITEMS_OF_COMMANDS)
        if step is None:
            raise UserError(
                f'no checkpoints in {directory}: give the folder of a run that saved one'
            )
        return folder, step
    if step not in steps_in(folder):
        listed = ', '.join(map(str, steps_in(folder))) or 'none'
        raise UserError(f'no checkpoint of step {step} in {directory}: there are {listed}')
    fault = manifest.fault(folder / str(step), _ITEMS_OF_COMMANDS)
    if fault:
        raise UserError(f'checkpoint {step} in {directory} is damaged ({fault}): choose another')
    return folder, step


def _by_path(tree) -> dict:
    return {
        jax.tree_util.keystr(path, simple=True, separator='/'): leaf
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    }


def _refuse_misfit(folder: Path, item: str, abstract, same_dtype: bool) -> None:
    stored = stored_shapes(folder, item)
    wanted = _by_path(abstract)
    start = f'{item} of checkpoint {folder} differ from what this config makes: '
    mend = '; use its own config (python -m pretrain.inspect shows it)'
    for verb, names in (
        ('the checkpoint lacks', sorted(wanted.keys() - stored.keys())),
        ('the checkpoint has besides', sorted(stored.keys() - wanted.keys())),
    ):
        if names:
            more = f' and {len(names) - 3} more' if len(names) > 3 else ''
            raise UserError(f'{start}{verb} {", ".join(names[:3])}{more}{mend}')
    for name, leaf in wanted.items():
        if stored[name].shape != leaf.shape:
            raise UserError(
                f'{start}{name} is {stored[name].shape} in the checkpoint '
                f'and {leaf.shape} here{mend}'
            )
        if same_dtype and stored[name].dtype != leaf.dtype:
            raise UserError(
                f'{start}{name} is {stored[name].dtype} in the checkpoint '
                f'and {leaf.dtype} here{mend}'
            )
