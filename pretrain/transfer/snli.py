"""SNLI: natural language inference on captions, as the official files have it.

Bowman et al. 2015 (A large annotated corpus for learning natural language inference). Rows with
the gold label '-', on which the annotators did not agree, are left out. Its test set is public.
"""

import functools

from pretrain.transfer import glue, readers, tables
from pretrain.transfer.task import SPLITS, Example, Task

_COLUMNS = {'premise': 'sentence1', 'hypothesis': 'sentence2'}
_TO_LABEL = functools.partial(tables.class_label, spellings={label: label for label in glue.NLI})


def _parse(path, split):
    """snli_1.0_*.jsonl, the same as .txt, which is a table, or the table that GLUE made of it."""
    if path.suffix != '.jsonl':
        columns = {'train': _COLUMNS}
        return glue.read_split(
            path, split, columns, 'gold_label', _TO_LABEL, undecided=True, short=True
        )
    examples = []
    for row, record in enumerate(tables.read_records(path)):
        label = record.text('gold_label')
        if label != glue.NO_LABEL:
            texts = {field: record.text(name).strip(' ') for field, name in _COLUMNS.items()}
            examples.append(Example(row, texts, _TO_LABEL(record.where, label)))
    return examples


TASKS = {
    'snli': Task(
        name='snli',
        title='SNLI',
        benchmark='snli',
        kind='classes',
        labels=glue.NLI,
        texts=('premise', 'hypothesis'),
        metrics=('accuracy',),
        read=readers.Reader(
            'snli',
            ('', 'SNLI', 'snli_1.0'),
            {
                split: (
                    f'snli_1.0_{split}.jsonl',
                    f'snli_1.0_{split}.txt',
                    f'SNLI/{split}.tsv',
                )
                for split in SPLITS
            },
            _parse,
        ),
    )
}
