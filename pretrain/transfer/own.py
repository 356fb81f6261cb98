"""A task of one's own, by config alone: one or two texts and a label in TSV or JSONL files."""

import functools
import json
import re
from pathlib import Path

from pretrain.errors import UserError
from pretrain.transfer import metrics, readers, tables
from pretrain.transfer.task import SPLITS, Example, Task

ENDINGS = ('.tsv', '.txt', '.jsonl')
OF_CLASSES = ('accuracy', 'f1', 'matthews', 'macro_f1')
OF_NUMBERS = ('pearson', 'spearman')


def make(section):
    """The Task that a section of a config describes.

    Args:
        section: has, as attributes: name; train, dev, test: files below the data folder (.tsv or
            .jsonl; test may be ''); text_a, text_b: columns or fields of the texts ('' for a
            single one); label: that of the label; labels: strings, or () for a number from low to
            high; metrics: names; header: whether a .tsv names its columns, which are otherwise
            numbers from 0; length: tokens that a row is cut to.

    Returns:
        A Task of benchmark 'own', whose fields have the names of their columns, or text_a and
        text_b where these have none.

    Raises:
        UserError: one of these cannot be.
    """
    wanted = {name: getattr(section, name, value) for name, value in DEFAULTS.items()}
    for name in ('name', 'train', 'dev', 'text_a', 'label'):
        if not wanted[name]:
            raise UserError(f'own.{name} is empty: {WANTED[name]}')
    files = {split: (wanted[split],) for split in SPLITS if wanted[split]}
    for split, (file,) in files.items():
        if Path(file).suffix.lower() not in ENDINGS:
            raise UserError(f'own.{split}: {file!r} is no .tsv or .jsonl file: convert it to one')
    if not re.fullmatch(r'\w[\w .+-]*', wanted['name']):
        raise UserError(
            f'own.name={wanted["name"]!r} names a folder of results: letters, digits and - _ . + '
            'alone, a letter or a digit first'
        )
    labels = tuple(wanted['labels'])
    _check_labels(labels, wanted)
    _check_metrics(labels, tuple(wanted['metrics']))
    columns = {name: wanted[name] for name in ('text_a', 'text_b', 'label') if wanted[name]}
    if len(set(columns.values())) < len(columns):
        raise UserError(
            f'own: text_a, text_b and label must be different columns, not {columns}: name others'
        )
    if not wanted['header'] and not all(column.isdecimal() for column in columns.values()):
        raise UserError(
            f'own: columns of a file without header are numbers from 0, not {columns}: '
            'write text_a=0, or header=true'
        )
    if wanted['length'] < 1:
        raise UserError(f'own.length {wanted["length"]} is no number of tokens: 128, say')
    texts = tuple(name for name in columns if name != 'label')
    fields = {columns[name] if wanted['header'] else name: columns[name] for name in texts}
    if labels:
        spellings = {label: label for label in labels}
        to_label = functools.partial(tables.class_label, spellings=spellings)
    else:
        to_label = functools.partial(tables.number, low=wanted['low'], high=wanted['high'])
    return Task(
        name=wanted['name'],
        title=wanted['name'],
        benchmark='own',
        kind='classes' if labels else 'number',
        labels=labels,
        texts=tuple(fields),
        metrics=tuple(wanted['metrics']),
        read=readers.Reader(
            'own',
            ('',),
            files,
            functools.partial(
                _parse,
                fields=fields,
                label=columns['label'],
                to_label=to_label,
                header=wanted['header'],
            ),
        ),
        splits=tuple(files),
        length=wanted['length'],
        low=wanted['low'],
        high=wanted['high'],
    )


UNLABELLED = (None, '')  # of a row of a test file
DEFAULTS = {
    'name': 'own',
    'train': '',
    'dev': '',
    'test': '',
    'text_a': '',
    'text_b': '',
    'label': '',
    'labels': (),
    'metrics': ('accuracy',),
    'header': True,
    'length': 128,
    'low': 0.0,
    'high': 1.0,
}
WANTED = {
    'name': 'give the task a name',
    'train': 'name its .tsv or .jsonl file below the data folder',
    'dev': 'name its .tsv or .jsonl file below the data folder',
    'text_a': 'name the column of the text',
    'label': 'name the column of the label',
}


def _check_labels(labels, wanted):
    if not all(isinstance(label, str) for label in labels):
        raise UserError(f'own.labels {labels!r} are not all strings: write them in quotes')
    if len(set(labels)) < len(labels) or len(labels) == 1:
        raise UserError(
            f'own.labels {labels!r} must be two different strings or more, or () for a number'
        )
    if not labels and not wanted['low'] < wanted['high']:
        raise UserError(
            f'own.low {wanted["low"]:g} must be below own.high {wanted["high"]:g}, the range of '
            'the scores; for classes give own.labels'
        )


def _check_metrics(labels, names):
    known = OF_CLASSES if labels else OF_NUMBERS
    if not names:
        raise UserError(f'own.metrics is empty: choose from {", ".join(known)}')
    for name in names:
        if name not in known:
            kind = 'classes' if labels else 'a number (own.labels is empty)'
            hint = 'belongs to another kind of task' if name in metrics.METRICS else 'is unknown'
            raise UserError(
                f'own.metrics: {name!r} {hint}; for {kind} choose from {", ".join(known)}'
            )
    if 'f1' in names and len(labels) > 2:
        raise UserError(
            f"own.metrics: 'f1' is of two labels, and there are {len(labels)}: choose 'macro_f1'"
        )


def _parse(path, split, fields, label, to_label, header):
    """The rows of a file; a test file need not have labels, nor all of its rows."""
    examples = []
    if path.suffix.lower() == '.jsonl':
        for row, record in enumerate(tables.read_records(path)):
            texts = {field: record.text(name) for field, name in fields.items()}
            decided = None
            if split != 'test' or record.values.get(label) not in UNLABELLED:
                decided = to_label(record.where, _spelt(record.get(label), to_label))
            examples.append(Example(row, texts, decided))
        return examples
    columns = dict(fields)
    place = label if header else int(label)
    if not header:
        columns = {field: int(name) for field, name in fields.items()}
    first = (tables.read_lines(path) or [''])[0].split('\t')
    labelled = split != 'test' or (place in first if header else place < len(first))
    if labelled:
        columns |= {None: place}
    for line, row, values in tables.read_table(path, columns, header):
        decided, told = None, values.pop(None, '')
        if split != 'test' or told not in UNLABELLED:
            decided = to_label(f'{path}, line {line}', told)
        examples.append(Example(row, values, decided))
    return examples


def _spelt(value, to_label):
    """JSON's 1 and true as the strings '1' and 'true', as labels are; numbers as they are."""
    if to_label.func is tables.class_label and isinstance(value, bool | int):
        return json.dumps(value)
    return value
