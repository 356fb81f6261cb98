"""ELECTRA (Clark et al. 2020): replaced-token detection, and a small run for two CPU cores.

    python -m pretrain.train --config=configs/electra.py:tiny --workdir=runs/electra-tiny

| variant | hardware | expected time | score |
|---|---|---|---|
| tiny | 2 CPU cores | see docs/curves | see docs/curves |
| smoke | 2 CPU cores | seconds | none worth the name |
| small | 1 V100 (published) | 4 days (published) | GLUE 79.9 (published, table 1) |
| base, large | TPU slices | not measured | GLUE 85.1, 89.0 (published, dev) |

Any of them with `,smoke` behind it runs in seconds. `model` is the discriminator, `generator` what
the generator has of its own: a quarter (base: a third) of the width, heads and feed-forward width.
Sequences are `[CLS] text [SEP]` from windows of the stream, where the paper has pairs of segments.
"""

from configs import objectives
from configs.bert import bert
from configs.recipe import paper_scale, select, tiny_run


def get_config(variant='tiny'):
    """The config of a variant: a name of the table above, with or without `,smoke`."""
    variants = {
        'tiny': tiny,
        'small': lambda: paper(256, 4, 128, 4, 128, 128, 5e-4, 1_000_000),
        'base': lambda: paper(768, 12, 768, 3, 512, 256, 2e-4, 766_000),
        'large': large,
    }
    return select(variant, variants)


def electra(layers, width, heads, embedding_width, divisor, length):
    """An ELECTRA of any size; the generator's sizes are the discriminator's over `divisor`."""
    config = bert(layers, width, heads, length)
    config.data.cut = 'stream'
    config.objective = objectives.replaced_token(length)
    config.model.update(
        embedding_width=embedding_width,
        head_width=width // heads,
        activation='gelu_erf',  # unlike BERT's code
    )
    config.generator = {
        'width': width // divisor,
        'heads': heads // divisor,
        'feedforward_width': 4 * width // divisor,
    }
    return config


def tiny():
    """Four layers of 192, the generator a third as wide."""
    config = electra(layers=4, width=192, heads=3, embedding_width=192, divisor=3, length=128)
    tiny_run(config, steps=400, every=100)
    return config


def paper(width, heads, embedding_width, divisor, length, batch_size, learning_rate, steps):
    """A published size of twelve layers."""
    config = electra(12, width, heads, embedding_width, divisor, length)
    paper_scale(config)
    config.data.vocabulary_size = 30_422
    config.model.update(
        vocabulary=30_522, max_positions=512, dropout=0.1, attention_dropout=0.1
    )
    config.steps = steps
    config.batch_size = batch_size
    config.optimizer.update(
        learning_rate=learning_rate, epsilon=1e-6, bias_correction=False, weight_decay=0.01
    )
    config.optimizer.schedule.update(name='electra', warmup=10_000.0, final=0.0)
    return config


def large():
    """24 layers of 1024, a quarter of the tokens masked."""
    config = paper(1024, 16, 1024, 4, 512, 2048, 2e-4, 400_000)
    config.model.encoder_layers = 24
    config.objective.rate = 0.25
    return config
