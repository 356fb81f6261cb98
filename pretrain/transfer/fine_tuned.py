"""A fine-tuned model as a run of its own, from which another task can start (MNLI, then RTE)."""

import shutil
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from pretrain import commandline
from pretrain.errors import UserError
from pretrain.huggingface import run
from pretrain.transfer import surgery


def clear(folder):
    """Removes a model that a call wrote before it was cut off, or whose result was removed.

    Raises:
        UserError: there is something else.
    """
    path = Path(folder) / 'config.json'
    if path.is_file() and 'task' in commandline.read_config(path):
        shutil.rmtree(folder)
    elif Path(folder).exists():
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
    config.task = {'benchmark': task.benchmark, 'name': task.name, 'labels': task.labels}
    config.init_from = source.folder
    arrays = jax.tree.map(np.asarray, params)
    models = {source.model: arrays['trunk']}
    if arrays.get('head'):  # text to text has none
        models[surgery.TASK_HEAD] = arrays['head']
    with run.new_folder(folder) as unfinished:
        run.write(unfinished, config, source.tokenizer, models)
