"""SNLI (Bowman et al. 2015): fine-tunes a checkpoint on it.

    python -m pretrain.finetune --config=configs/snli.py --checkpoint=runs/bert-tiny \\
        --data_dir=DATA --workdir=runs/bert-tiny-snli

DATA holds snli_1.0_train.jsonl and the others, or the folder SNLI with them. 550,000 pairs: a GPU's
hour for a base model (not measured). The settings of configs/glue.py are variants of this as well.
"""

from configs.transfer import variant


def get_config(name=''):
    """The config, with or without a paper's setting."""
    return variant('snli', ('snli',), name or 'snli')
