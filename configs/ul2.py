"""UL2 (Tay et al. 2022): a mixture of denoisers, and a small run for two CPU cores.

    python -m pretrain.train --config=configs/ul2.py:tiny --workdir=runs/ul2-tiny

| variant | hardware | expected time | score |
|---|---|---|---|
| tiny | 2 CPU cores | see docs/curves | see docs/curves |
| smoke | 2 CPU cores | seconds | none worth the name |
| base | a TPU slice | not measured | paper, section 4 |
| 20b | a pod | not measured | paper, section 5 |

Any of them with `,smoke` behind it runs in seconds. The model is T5 1.1 with SwiGLU; base is the
size of the paper's ablations (128 x 512 tokens, 500,000 steps), 20b the released model's (1,024 x
512, 2M steps). `--config.objective.layout=decoder --config.model.encoder_layers=0` trains a decoder
alone on the same mixture.
"""

from configs import objectives
from configs.recipe import paper_scale, select, tiny_run
from configs.t5 import t5


def get_config(variant='tiny'):
    """The config of a variant: a name of the table above, with or without `,smoke`."""
    return select(variant, {'tiny': tiny, 'base': base, '20b': ul2_20b})


def ul2(width, layers, feedforward_width, heads, head_width, window):
    """A UL2 of any size."""
    config = t5(True, width, layers, feedforward_width, heads, head_width, window)
    config.objective = objectives.mixture_of_denoisers(window)
    config.model.activation = 'silu'
    return config


def tiny():
    """Two layers of 192 a stack on the embedded excerpt of Wikipedia."""
    config = ul2(192, 2, 512, 3, 64, window=128)
    tiny_run(config, steps=400, every=100)
    return config


def base():
    """The size of the paper's ablations."""
    config = ul2(768, 12, 2048, 12, 64, window=512)
    paper_scale(config)
    config.data.vocabulary_size = 32_000
    config.model.vocabulary = 32_128
    config.steps = 500_000
    config.batch_size = 128
    config.optimizer.update(name='adafactor', learning_rate=1.0, clip=0.0)
    config.optimizer.schedule.update(name='rsqrt', warmup=10_000.0)
    return config


def ul2_20b():
    """The released model: 32 layers a stack, width 4096, 16 heads of 256."""
    config = base()
    config.model.update(
        encoder_layers=32, decoder_layers=32, width=4096, heads=16, head_width=256,
        feedforward_width=16384,
    )  # fmt: skip
    config.steps = 2_000_000
    config.batch_size = 1024
    config.mesh = 'fsdp=-1'
    return config
