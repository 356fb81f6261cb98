"""A fine-tuned model as a run of its own, from which another task can start (MNLI, then RTE)."""

import shutil
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from pretrain import commandline, saved_run
from pretrain.errors import UserError
from pretrain.huggingface import run

DESCRIBED = ('benchmark', 'name', 'kind', 'labels', 'low', 'high')  # of a Task, in its config


def answers_alike(before, task):
    """Whether the outputs of a model mean what a task needs: the same labels, or the same range.

    Args:
        before: what `write` put into the config of the model, a dict; None: it has no such head.
        task: Task.
    """
    if before is None or before.get('kind') != task.kind:
        return False
    if task.kind == 'number':
        return (before['low'], before['high']) == (task.low, task.high)
    return tuple(before['labels']) == task.labels


def clear(folder):
    """Removes a model that a call wrote before it was cut off, or whose result was removed.

    What a killed call left unfinished beside it goes as well: the caller holds the folder's lock.

    Raises:
        UserError: there is something else.
    """
    folder = Path(folder)
    for unfinished in folder.parent.glob(f'.{folder.name}.unfinished-*'):
        shutil.rmtree(unfinished, ignore_errors=True)
    path = folder / 'config.json'
    if path.is_file() and 'task' in commandline.read_config(path):
        shutil.rmtree(folder)
    elif folder.exists():
        raise UserError(f'{str(folder)!r} is there and no model of a task: remove it')


def write(folder, source, task, params):
    """Writes the run.

    Args:
        folder: of the run; must not exist, or be empty.
        source: surgery.Source that it was fine-tuned from. task: Task.
        params: {'trunk': ..., 'head': ...}.

    Raises:
        UserError: the folder cannot be written.
    """
    config = ConfigDict(source.config.to_dict())
    config.task = {name: getattr(task, name) for name in DESCRIBED}
    config.init_from = source.folder
    arrays = jax.tree.map(np.asarray, params)
    models = {source.model: arrays['trunk']}
    if arrays.get('head'):  # text to text has none
        models[saved_run.TASK_HEAD] = arrays['head']
    with run.new_folder(folder) as unfinished:
        run.write(unfinished, config, source.tokenizer, models)
