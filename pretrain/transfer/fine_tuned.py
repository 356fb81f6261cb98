"""A fine-tuned model as a run of its own, from which another task can start (MNLI, then RTE)."""

import jax
import numpy as np
from ml_collections import ConfigDict

from pretrain.huggingface import run
from pretrain.transfer import surgery


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
