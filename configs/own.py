"""A task of your own, by config alone: sentences or pairs in TSV or JSONL files.

    python -m pretrain.finetune --config=configs/own.py --checkpoint=runs/bert-tiny \\
        --data_dir=DATA --workdir=runs/bert-tiny-reviews \\
        --config.own.name=reviews --config.own.train=train.tsv --config.own.dev=dev.tsv \\
        --config.own.text_a=review --config.own.label=stars --config.own.labels="'bad','good'"

Columns are named by the first line of a TSV file, or by the keys of the JSON objects.
"""

from ml_collections import ConfigDict

from configs.transfer import variant


def get_config(name=''):
    """The config, with or without a paper's setting."""
    config = variant('own', ('own',), name or 'own')
    config.own = ConfigDict(
        {
            'name': 'own',
            'train': 'train.tsv',  # below --data_dir; .tsv or .jsonl
            'dev': 'dev.tsv',
            'test': '',  # '': none
            'header': True,  # of TSV: the first line names the columns; else they are '0', '1', ...
            'text_a': 'sentence',
            'text_b': '',  # '': a single sentence
            'label': 'label',
            'labels': (),  # strings; none: the label is a number from low to high
            'low': 0.0,
            'high': 1.0,
            'metrics': ('accuracy',),
            'length': 128,
        }
    )
    return config
