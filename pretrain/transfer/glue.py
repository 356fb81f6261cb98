"""GLUE: nine tasks and the diagnostic set, as the official files have them.

Wang et al. 2019 (GLUE: A Multi-Task Benchmark and Analysis Platform). Test splits have no labels;
their rows are numbered from 0, and by these numbers the server knows them.
"""

import functools
import sys

from pretrain.errors import UserError
from pretrain.transfer import readers, tables
from pretrain.transfer.task import Example, Task

NLI = ('entailment', 'neutral', 'contradiction')
NO_LABEL = '-'  # the annotators did not agree


def read_split(
    path, split, columns, label, to_label, drop_broken=False, undecided=False, short=False
):
    """The examples of a TSV file.

    Args:
        path, split: of the file.
        columns: {split: {field: column}}, with 'train' for every split that it does not name;
            a column is a name of the header, several of which one is there, or a number.
        label: column of the label, as `columns` has it in train; None: the split has none.
        to_label: (where, text) -> label.
        drop_broken: leaves out rows with a wrong number of columns, and says how many.
        undecided: leaves out rows whose label is NO_LABEL, and says how many.
        short: see tables.read_table.
    """
    fields = columns.get(split, columns['train'])
    wanted = fields if label is None else fields | {'': label}
    broken = [] if drop_broken else None
    header = not any(isinstance(column, int) for column in wanted.values())
    examples, without = [], 0
    for line, row, values in tables.read_table(path, wanted, header, broken, short):
        texts = {field: values[field].strip(' ') for field in fields}
        if label is None:
            examples.append(Example(row, texts))
        elif undecided and values[''] == NO_LABEL:
            without += 1
        else:
            examples.append(Example(row, texts, to_label(f'{path}, line {line}', values[''])))
    _say(path, len(broken or ()), 'with a wrong number of columns')
    _say(path, without, 'on whose label the annotators did not agree')
    return examples


def _say(path, rows, why):
    if rows:
        print(f'{path}: {rows} row{"s" * (rows != 1)} {why} left out', file=sys.stderr)


def make(name, title, labels, texts, metrics, columns, label='label', **rest):
    """A Task of GLUE.

    Args:
        columns: see read_split. label: column of the label in train and dev.
        rest: further fields of Task, and `folders`, `files` (see readers.Reader), `low`, `high`
            of a score, `drop_broken`, `labelled`: splits whose labels are read where they are.
    """
    folders = rest.pop('folders', (title,))
    files = rest.pop('files', {split: (f'{split}.tsv',) for split in ('train', 'dev', 'test')})
    drop_broken = rest.pop('drop_broken', False)
    spellings = rest.setdefault('spellings', {})
    if labels:
        spelt = {text: spellings.get(text, text) for text in labels}
        to_label = functools.partial(tables.class_label, spellings=spelt)
    else:
        to_label = functools.partial(tables.number, low=rest['low'], high=rest['high'])

    def parse(path, split):
        known = not split.startswith('test')
        if path.name.lower().startswith('msr_paraphrase'):
            return _read_msr(path, split, columns, label, to_label)
        if split == 'test' and name == 'ax':
            first = (tables.read_lines(path) or [''])[0].lower()
            known = 'label' in first.split('\t')
        drop = drop_broken and known  # a test row is known by its number
        column = label if known else None
        return read_split(path, split, columns, column, to_label, drop, labels == NLI)

    return Task(
        name=name,
        title=title,
        benchmark='glue',
        kind='classes' if labels else 'number',
        labels=labels,
        texts=texts,
        metrics=metrics,
        read=readers.Reader('glue', folders, files, parse),
        splits=tuple(files),
        **{'file': f'{title}.tsv'} | rest,
    )


def _read_msr(path, split, columns, label, to_label):
    """MRPC from the files of Microsoft: dev is the pairs of train that dev_ids.tsv names."""
    if split == 'test':
        return read_split(path, 'train', columns, None, to_label)
    ids = columns['train'] | {'first': '#1 ID', 'second': '#2 ID'}
    examples = read_split(path, 'train', {'train': ids}, label, to_label)
    dev_path = next(p for p in path.parent.iterdir() if p.name.lower() in DEV_IDS)
    named = {
        tuple(line.split()): number
        for number, line in enumerate(tables.read_lines(dev_path), 1)
        if line.strip()
    }
    dev, train = [], []
    for example in examples:
        *texts, first, second = example.fields.items()
        kept = example._replace(fields=dict(texts))
        pair = (first[1], second[1])
        (dev if named.pop(pair, None) else train).append(kept)
    if named:
        pair, number = next(iter(named.items()))
        raise UserError(
            f'{dev_path}, line {number}: the pair {" ".join(pair)!r} is not in {path.name}: '
            'every line holds the two ids of a pair, divided by a tab'
        )
    return dev if split == 'dev' else train


DEV_IDS = ('dev_ids.tsv', 'mrpc_dev_ids.tsv')
_MSR = 'msr_paraphrase_train.txt'
_SENTENCES = {'train': {'sentence1': 'sentence1', 'sentence2': 'sentence2'}}
_ZERO_ONE = ('0', '1')


def _zero_one(*labels):
    return {'labels': labels, 'spellings': dict(zip(labels, _ZERO_ONE))}


def _with_test(train, test):
    return {'train': train, 'test': test}


_ALL = (
    make(
        'cola',
        'CoLA',
        texts=('sentence',),
        metrics=('matthews',),
        columns=_with_test({'sentence': 3}, {'sentence': 'sentence'}),
        label=1,
        **_zero_one('unacceptable', 'acceptable'),
    ),
    make(
        'sst2',
        'SST-2',
        texts=('sentence',),
        metrics=('accuracy',),
        columns={'train': {'sentence': 'sentence'}},
        folders=('SST-2', 'SST'),
        **_zero_one('negative', 'positive'),
    ),
    make(
        'mrpc',
        'MRPC',
        texts=('sentence1', 'sentence2'),
        metrics=('f1', 'accuracy'),
        columns={'train': {'sentence1': '#1 String', 'sentence2': '#2 String'}},
        label='Quality',
        files={
            'train': ('train.tsv', *((_MSR, ids) for ids in DEV_IDS)),
            'dev': ('dev.tsv', *((_MSR, ids) for ids in DEV_IDS)),
            'test': ('test.tsv', 'msr_paraphrase_test.txt'),
        },
        **_zero_one('not_equivalent', 'equivalent'),
    ),
    make(
        'stsb',
        'STS-B',
        labels=(),
        texts=('sentence1', 'sentence2'),
        metrics=('pearson', 'spearman'),
        columns=_SENTENCES,
        label='score',
        low=0.0,
        high=5.0,
        folders=('STS-B', 'STS'),
    ),
    make(
        'qqp',
        'QQP',
        texts=('question1', 'question2'),
        metrics=('f1', 'accuracy'),
        columns={'train': {'question1': 'question1', 'question2': 'question2'}},
        label='is_duplicate',
        drop_broken=True,
        **_zero_one('not_duplicate', 'duplicate'),
    ),
    make(
        'mnli',
        'MNLI',
        labels=NLI,
        texts=('premise', 'hypothesis'),
        metrics=('accuracy',),
        columns={'train': {'premise': 'sentence1', 'hypothesis': 'sentence2'}},
        label='gold_label',
        folders=('MNLI', 'MultiNLI'),
        files={
            'train': ('train.tsv',),
            'dev': ('dev_matched.tsv',),
            'dev_mismatched': ('dev_mismatched.tsv',),
            'test': ('test_matched.tsv',),
            'test_mismatched': ('test_mismatched.tsv',),
        },
        file='MNLI-m.tsv',
    ),
    make(
        'qnli',
        'QNLI',
        labels=('entailment', 'not_entailment'),
        texts=('question', 'sentence'),
        metrics=('accuracy',),
        columns={'train': {'question': 'question', 'sentence': 'sentence'}},
        folders=('QNLI', 'QNLIv2'),
    ),
    make(
        'rte',
        'RTE',
        labels=('entailment', 'not_entailment'),
        texts=('sentence1', 'sentence2'),
        metrics=('accuracy',),
        columns=_SENTENCES,
    ),
    make(
        'wnli',
        'WNLI',
        texts=('sentence1', 'sentence2'),
        metrics=('accuracy',),
        columns=_SENTENCES,
        **_zero_one('not_entailment', 'entailment'),
    ),
    make(
        'ax',
        'AX',
        labels=NLI,
        texts=('premise', 'hypothesis'),
        metrics=('matthews',),
        columns={
            'train': {
                'premise': ('sentence1', 'Premise'),
                'hypothesis': ('sentence2', 'Hypothesis'),
            }
        },
        label=('Label', 'label'),
        folders=('AX', 'diagnostic', 'diagnostics', ''),
        files={'test': ('AX.tsv', 'diagnostic.tsv', 'diagnostic-full.tsv')},
        predicted_by='mnli',
    ),
)
TASKS = {task.name: task for task in _ALL}
