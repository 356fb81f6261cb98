"""GLUE as tensorflow-datasets has prepared it in array_record files, read without TensorFlow.

SuperGLUE is not read from there: that library needs TensorFlow for it.
"""

import importlib
from pathlib import Path

import numpy as np

from pretrain.errors import UserError
from pretrain.transfer.task import Example

SPLITS = {'train': 'train', 'dev': 'validation', 'test': 'test'}
MNLI_SPLITS = {
    'train': 'train',
    'dev': 'validation_matched',
    'dev_mismatched': 'validation_mismatched',
    'test': 'test_matched',
    'test_mismatched': 'test_mismatched',
}


def read(task, split, data_dir):
    """The examples of a split of a GLUE task, the same as from the official files.

    Labels go through the names of the library's ClassLabel, never through its numbers.

    Args:
        task: Task of GLUE. split: one of its splits. data_dir: where the library has put it.

    Returns:
        List of Example, in the order of the official file.

    Raises:
        UserError: the library is missing, the task is not prepared, or not in array_record.
    """
    if task.benchmark != 'glue':
        raise UserError(
            f'tensorflow-datasets gives {task.title} only with TensorFlow: '
            'fetch the official files and give their folder as --data_dir'
        )
    if split not in task.splits:
        raise UserError(f'there is no split {split!r}: choose from {", ".join(task.splits)}')
    library = _library()
    builder = library.builder(f'glue/{task.name}', data_dir=str(Path(data_dir).expanduser()))
    if not Path(builder.data_path).is_dir():
        raise UserError(
            f'tensorflow-datasets has not prepared glue/{task.name} in {data_dir}: run python -c '
            '"import tensorflow_datasets as t, tensorflow_datasets.text; '
            f"t.builder('glue/{task.name}', data_dir='{data_dir}', file_format='array_record')"
            '.download_and_prepare()"'
        )
    file_format = builder.info.file_format.value
    if file_format != 'array_record':
        raise UserError(
            f'{builder.data_path} is in the format {file_format}, which only TensorFlow reads: '
            "prepare it in another folder with file_format='array_record'"
        )
    name = (MNLI_SPLITS if task.name == 'mnli' else SPLITS)[split]
    label = builder.info.features['label']
    source = builder.as_data_source(name)
    examples = [_example(source[i], task, label) for i in range(len(source))]
    return sorted(examples, key=lambda example: example.index)  # it shuffles what it writes


def available(data_dir, tasks):
    """{name: tuple of splits} of those of the tasks that the library has prepared.

    Raises:
        UserError: none is.
    """
    folder = Path(data_dir).expanduser()
    found = {
        name: tuple(split for split in task.splits if split in (*SPLITS, *MNLI_SPLITS))
        for name, task in tasks.items()
        if (folder / 'glue' / name).is_dir() and task.benchmark == 'glue'
    }
    if not found:
        listed = ', '.join(f'glue/{name}' for name in tasks)
        raise UserError(f'--data_dir=tfds:{data_dir} holds none of {listed} that it has prepared')
    return found


def _example(row, task, label):
    fields = {name: _text(row[name]).strip(' ') for name in task.texts}
    number = np.asarray(row['label'])
    if number < 0:  # of test splits
        decided = None
    elif task.kind == 'number':  # a float32: the shortest decimal that stands for it
        decided = float(str(np.float32(number)))
    else:
        decided = label.int2str(int(number))
    return Example(int(row['idx']), fields, decided)


def _text(value):
    return value.decode('utf-8') if isinstance(value, bytes) else str(value)


def _library():
    """tensorflow_datasets, with the registrations of its text datasets."""
    try:
        library = importlib.import_module('tensorflow_datasets')
        importlib.import_module('tensorflow_datasets.text')  # registers glue
        importlib.import_module('importlib_resources')  # it needs this, and does not say so
    except ImportError as error:
        raise UserError(
            f'tensorflow-datasets cannot be imported ({error}): '
            "pip install -e '.[tfds]', or give a folder of official files"
        ) from None
    return library
