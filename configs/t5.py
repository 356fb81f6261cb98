"""T5 1.0 and 1.1 (Raffel et al. 2020): span corruption, and a small run for two CPU cores.

    python -m pretrain.train --config=configs/t5.py:tiny --workdir=runs/t5-tiny

| variant | hardware | expected time | score |
|---|---|---|---|
| tiny | 2 CPU cores | see docs/curves | see docs/curves |
| smoke | 2 CPU cores | seconds | none worth the name |
| small, base, large, 3b, 11b | a TPU slice to a pod | not measured | paper, table 14 |
| v1_1_small, ... _base, _large, _xl, _xxl | a TPU slice to a pod | not measured | none published |

Any of them with `,smoke` behind it runs in seconds. 1.0 has the settings of the paper's baseline
(section 3.1: 2^19 steps of 128 x 512 tokens), 1.1 those of the final models without their
supervised mixture (section 3.7: 1M steps of 2,048 x 512), no dropout, GEGLU and untied logits.
Adafactor's rate is 1 / sqrt(max(step, 10,000)), relative to the size of each parameter.

The objective's parts are keys: `--config.objective.noise=iid
--config.objective.inputs=mask_or_random --config.objective.targets=full` is the paper's BERT-style
objective, for example; section 3.3's others are listed in objectives/span_corruption.py.
"""

from configs import objectives
from configs.recipe import paper_scale, recipe, select, tiny_run

V1_0 = {  # width, layers a stack, feed-forward width, heads, head width, mesh
    'small': (512, 6, 2048, 8, 64, 'data=-1'),
    'base': (768, 12, 3072, 12, 64, 'data=-1'),
    'large': (1024, 24, 4096, 16, 64, 'data=-1'),
    '3b': (1024, 24, 16384, 32, 128, 'fsdp=-1'),
    '11b': (1024, 24, 65536, 128, 128, 'fsdp=-1'),
}
V1_1 = {
    'v1_1_small': (512, 8, 1024, 6, 64, 'data=-1'),
    'v1_1_base': (768, 12, 2048, 12, 64, 'data=-1'),
    'v1_1_large': (1024, 24, 2816, 16, 64, 'data=-1'),
    'v1_1_xl': (2048, 24, 5120, 32, 64, 'fsdp=-1'),
    'v1_1_xxl': (4096, 24, 10240, 64, 64, 'fsdp=-1'),
}


def get_config(variant='tiny'):
    """The config of a variant: a name of the table above, with or without `,smoke`."""
    variants = {'tiny': tiny}
    variants |= {name: lambda size=size: paper(False, *size) for name, size in V1_0.items()}
    variants |= {name: lambda size=size: paper(True, *size) for name, size in V1_1.items()}
    return select(variant, variants)


def t5(v1_1, width, layers, feedforward_width, heads, head_width, inputs_length):
    """A T5 of any size: RMS norms, relative positions, no biases, unscaled attention."""
    config = recipe()
    config.data.separator = False
    config.objective = objectives.span_corruption(inputs_length)
    config.model.update(
        encoder_layers=layers,
        decoder_layers=layers,
        width=width,
        heads=heads,
        head_width=head_width,
        feedforward_width=feedforward_width,
        norm='rms',
        norm_epsilon=1e-6,
        biases=False,
        positions='relative',
        activation='gelu' if v1_1 else 'relu',
        gated=v1_1,
        scale_attention=False,
        tied=not v1_1,
        scale_logits=not v1_1,
        initializer='fan_in',
        dropout_inside=True,
        dropout_final=True,
        dropout_broadcast=True,
    )
    return config


def tiny():
    """T5 1.1 with two layers of 192 a stack on the embedded excerpt of Wikipedia."""
    config = t5(True, 192, 2, 512, 3, 64, inputs_length=128)
    tiny_run(config, steps=600, every=200)
    return config


def paper(v1_1, width, layers, feedforward_width, heads, head_width, mesh):
    """A published size."""
    config = t5(v1_1, width, layers, feedforward_width, heads, head_width, inputs_length=512)
    paper_scale(config)
    config.data.vocabulary_size = 32_000
    config.model.vocabulary = 32_128
    if not v1_1:
        config.model.update(dropout=0.1, attention_dropout=0.1)
    config.steps = 1_000_000 if v1_1 else 2**19
    config.batch_size = 2048 if v1_1 else 128
    config.mesh = mesh
    config.optimizer.update(name='adafactor', learning_rate=1.0, clip=0.0)
    config.optimizer.schedule.update(name='rsqrt', warmup=10_000.0)
    return config
