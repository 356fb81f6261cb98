"""SQuAD 1.1 and 2.0 (Rajpurkar et al. 2016, 2018): fine-tunes a checkpoint to find answers.

    python -m pretrain.evaluate --benchmark=squad --checkpoint=runs/bert-tiny --data_dir=DATA \\
        --workdir=runs/bert-tiny-squad --config=configs/squad.py:v1.1

DATA holds train-v1.1.json and dev-v1.1.json, or those of v2.0. The settings are those of BERT's
released code for a base model: windows of 384 tokens every 128, batches of 12, a rate of 3e-5,
2 epochs. A setting of another paper goes behind the version: `configs/squad.py:v2.0,electra`. A
GPU's hour for a base model (not measured).
"""

from ml_collections import ConfigDict

from configs.transfer import variant

VERSIONS = ('v1.1', 'v2.0')


def get_config(name=''):
    """The config of a version, 1.1 where none is named, with or without a paper's setting."""
    if not {*name.split(',')} & {*VERSIONS}:
        name = f'v1.1,{name}'
    config = variant('squad', VERSIONS, name, _google)
    version = config.task
    config.task = f'squad_{version}'
    config.squad = ConfigDict(
        {
            'version': version[1:],
            'stride': 128,  # tokens from one window to the next
            'question_length': 64,
            'answer_length': 30,  # tokens
            'best': 20,  # starts, and ends, that are looked at
            'threshold': 0.0,  # of 2.0: no answer where the null score is more than this above
        }
    )
    return config


def _google(config):
    config.transfer.update(epochs=2, batch_size=12, length=384)
    config.optimizer.update(learning_rate=3e-5)
