"""GLUE (Wang et al. 2019): fine-tunes a checkpoint on one of its tasks, or on all.

    python -m pretrain.finetune --config=configs/glue.py:sst2 --checkpoint=runs/bert-tiny \\
        --data_dir=DATA --workdir=runs/bert-tiny-sst2
    python -m pretrain.evaluate --benchmark=glue --checkpoint=runs/bert-tiny --data_dir=DATA \\
        --workdir=runs/bert-tiny-glue --seeds=5

DATA holds the official files (SST-2/train.tsv, ...). The variants are the tasks: cola, sst2, mrpc,
qqp, stsb, mnli (with the diagnostic set), qnli, rte, wnli. A setting of a paper goes behind it:
`configs/glue.py:mrpc,electra`, or alone, for all tasks: `configs/glue.py:electra`. Settings:
electra, gpt, t5, roberta, ulmfit, frozen, elmo (configs/transfer.py).

Hardware: 2 CPU cores for small models (docs/benchmarks.md has their speed, measured), one GPU
for those of the papers' sizes (not measured).
"""

from configs.transfer import variant

TASKS = ('cola', 'sst2', 'mrpc', 'qqp', 'stsb', 'mnli', 'qnli', 'rte', 'wnli')


def get_config(name=''):
    """The config of a task, or of all tasks, with or without a paper's setting."""
    return variant('glue', TASKS, name)
