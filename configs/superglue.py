"""SuperGLUE (Wang et al. 2019): fine-tunes a checkpoint on one of its tasks, or on all.

    python -m pretrain.finetune --config=configs/superglue.py:boolq --checkpoint=runs/bert-tiny \\
        --data_dir=DATA --workdir=runs/bert-tiny-boolq
    python -m pretrain.evaluate --benchmark=superglue --checkpoint=runs/bert-tiny --data_dir=DATA \\
        --workdir=runs/bert-tiny-superglue --seeds=5

DATA holds the official files (BoolQ/train.jsonl, ...). The variants are the tasks: boolq, cb, copa,
multirc, record, rte (with both diagnostic sets), wic, wsc, and the settings of configs/glue.py.

Hardware: 2 CPU cores for small models (docs/benchmarks.md has their speed, measured), one GPU
for those of the papers' sizes (not measured).
"""

from configs.transfer import variant

TASKS = ('boolq', 'cb', 'copa', 'multirc', 'record', 'rte', 'wic', 'wsc')


def get_config(name=''):
    """The config of a task, or of all tasks, with or without a paper's setting."""
    return variant('superglue', TASKS, name)
