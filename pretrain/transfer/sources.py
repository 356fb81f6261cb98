"""From a config and a folder to a task and its examples."""

import hashlib
import json

from pretrain.errors import UserError
from pretrain.transfer import (
    glue,
    hidden_text,
    own,
    readers,
    snli,
    squad_task,
    superglue,
    tensorflow_datasets,
)
from pretrain.transfer.experiment import Data, Experiment

TASKS = {'glue': glue.TASKS, 'superglue': superglue.TASKS, 'snli': snli.TASKS}


def open_task(config, data_dir):
    """The Task that a config names, and its Data.

    Args:
        config: of a transfer. data_dir: folder of the files.

    Raises:
        UserError: there is no such task, or its files are missing or wrong.
    """
    field = config.transfer.hide
    if config.benchmark == 'squad':
        if field:
            raise UserError(f'transfer.hide={field!r}: SQuAD needs both texts: leave it empty')
        return squad_task.open_task(config, data_dir)
    task, data = _open(config, data_dir)
    if field:
        splits, related = hidden_text.hide(task, data.splits, data.related, field)
        data = Data(splits, related, digest(splits, related))
    return task, data


def _open(config, data_dir):
    if config.benchmark == 'own':
        task = own.make(config.own)
        splits = {split: task.read(data_dir, split) for split in task.splits}
        return task, Data(splits, {}, digest(splits, {}))
    tasks = TASKS.get(config.benchmark)
    if tasks is None:
        raise UserError(
            f'benchmark={config.benchmark!r} is none of {", ".join([*TASKS, "squad", "own"])}'
        )
    if config.task not in tasks:
        raise UserError(f'task={config.task!r} is none of {", ".join(tasks)}')
    return tasks[config.task], load(config.benchmark, tasks[config.task], data_dir)


def load(benchmark, task, data_dir):
    """The Data of a task of a benchmark, with the diagnostic sets that its model answers.

    Raises:
        UserError: a file is missing or wrong.
    """
    tasks = TASKS[benchmark]
    present = available(data_dir, tasks)
    # What a task cannot do without is read even where it is not: the reader says what is missing.
    wanted = dict.fromkeys(('train', 'dev', *present.get(task.name, ())))
    splits = {split: read(task, data_dir, split) for split in wanted if split in task.splits}
    related = {
        name: (other, read(other, data_dir, split))
        for name, other in tasks.items()
        if other.predicted_by == task.name
        for split in present.get(name, ())
    }
    return Data(splits, related, digest(splits, related))


def available(data_dir, tasks):
    """{name: splits present} of tasks of one benchmark, in a folder or from tensorflow-datasets."""
    folder = _prepared(data_dir)
    if folder is None:
        return readers.available(data_dir, tasks)
    return tensorflow_datasets.available(folder, tasks)


def read(task, data_dir, split):
    """The examples of a split.

    Args:
        task: Task. data_dir: folder of official files, or `tfds:FOLDER` of what tensorflow-datasets
            has prepared. split: one of the task's.
    """
    folder = _prepared(data_dir)
    if folder is None:
        return task.read(data_dir, split)
    return tensorflow_datasets.read(task, split, folder)


def _prepared(data_dir):
    """The folder of a data_dir `tfds:FOLDER`; None for a plain folder."""
    name, colon, folder = str(data_dir).partition(':')
    return folder if colon and name == 'tfds' else None


def digest(splits, related):
    """sha256 of all examples, by which a stored result names its data."""
    content = [sorted(splits.items()), [(n, e) for n, (_, e) in sorted(related.items())]]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def open_experiment(source, task, data, config, mesh, show=True):
    """The Experiment of a task. Arguments as of experiment.Experiment."""
    kind = squad_task.SquadExperiment if task.benchmark == 'squad' else Experiment
    return kind(source, task, data, config, mesh, show)
