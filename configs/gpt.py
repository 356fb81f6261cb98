"""GPT-2 and GPT-3 (Radford et al. 2019; Brown et al. 2020), and a small run for two CPU cores.

    python -m pretrain.train --config=configs/gpt.py:tiny --workdir=runs/gpt-tiny

| variant | hardware | expected time | validation loss |
|---|---|---|---|
| tiny | 2 CPU cores | see README | see README |
| smoke | 2 CPU cores | seconds | none worth the name |
| modern | 2 CPU cores | as tiny | not measured |
| gpt2_124m ... gpt2_1558m | 8 GPUs or a TPU slice | not measured | none published for this text |
| gpt3_125m ... gpt3_175b | pods | not measured | see the paper, figure 3.1 |

Any of them with `,smoke` behind it runs in seconds. The papers' sizes have the papers' embedding
table whatever the tokenizer; a corpus that is large enough fills it, for example

    --config.data.source=wikipedia:enwiki-latest-pages-articles.xml.bz2 \\
    --config.data.vocabulary_size=50157

(100 sentinels more make GPT-2's 50,257; the embedded excerpt has text for 27,844 pieces at most).

GPT-2's learning rates and number of steps are not published: those of the GPT-3 model of the
nearest size and 300,000 steps stand in for them. GPT-3's table 2.1 contradicts itself for XL (24
heads of 128 are not 2048) and 13B (a width of 5140 is not 40 x 128): 16 heads and 5120 are used.
Its band width and which layers are local are not published: every second layer sees 256 tokens.
Its batch ramp is left out: the batch is full from the first step.
"""

from configs import objectives
from configs.recipe import paper_scale, recipe, select

GPT2 = {  # layers, width, heads, learning rate
    'gpt2_124m': (12, 768, 12, 6e-4),
    'gpt2_355m': (24, 1024, 16, 3e-4),
    'gpt2_774m': (36, 1280, 20, 2.5e-4),
    'gpt2_1558m': (48, 1600, 25, 2e-4),
}
GPT3 = {  # layers, width, heads, batch in windows of 2048, learning rate, mesh
    'gpt3_125m': (12, 768, 12, 256, 6e-4, 'data=-1'),
    'gpt3_350m': (24, 1024, 16, 256, 3e-4, 'data=-1'),
    'gpt3_760m': (24, 1536, 16, 256, 2.5e-4, 'data=-1'),
    'gpt3_1_3b': (24, 2048, 16, 512, 2e-4, 'data=-1'),
    'gpt3_2_7b': (32, 2560, 32, 512, 1.6e-4, 'fsdp=-1'),
    'gpt3_6_7b': (32, 4096, 32, 1024, 1.2e-4, 'fsdp=-1'),
    'gpt3_13b': (40, 5120, 40, 1024, 1e-4, 'fsdp=-1'),
    'gpt3_175b': (96, 12288, 96, 1600, 0.6e-4, 'fsdp=-1,tensor=8'),
}


def get_config(variant='tiny'):
    """The config of a variant: a name of the table above, with or without `,smoke`."""
    variants = {'tiny': tiny, 'modern': modern}
    variants |= {name: lambda size=size: gpt2(*size) for name, size in GPT2.items()}
    variants |= {name: lambda size=size: gpt3(*size) for name, size in GPT3.items()}
    return select(variant, variants)


def gpt(layers, width, heads, length):
    """A GPT-2 of any size: pre-norm, learned positions, tied logits, residual layers scaled."""
    config = recipe()
    config.objective = objectives.causal_lm(length)
    config.model.update(
        decoder_layers=layers,
        width=width,
        heads=heads,
        max_positions=length,
        position_stddev=0.01,
        residual_scale=True,
    )
    config.optimizer.update(b1=0.9, b2=0.95, weight_decay=0.1, clip=1.0)
    return config


def tiny():
    """Four layers of 192 on the embedded excerpt of Wikipedia, for less than an epoch.

    With Muon: at equal steps AdamW (rates 2e-3 and 4e-3) ended 0.28 nats and more behind it
    (500 steps, one run each, 2026-11-22).
    """
    config = gpt(layers=4, width=192, heads=3, length=128)
    config.steps = 400
    config.batch_size = 8
    config.optimizer.name = 'muon'
    config.optimizer.learning_rate = 4e-3
    config.optimizer.schedule.warmup = 40.0
    config.checkpoint.every = 200
    config.eval.every = 100
    config.eval.windows = 0
    config.log.every = 5
    return config


def modern():
    """The tiny run with RMSNorm, rotary positions, SwiGLU, grouped queries and query-key norm."""
    config = tiny()
    config.model.update(
        norm='rms',
        biases=False,
        positions='rotary',
        activation='silu',
        gated=True,
        feedforward_width=512,  # 8/3 of the width: three matrices as large as two of 4 x
        kv_heads=1,
        query_key_norm=True,
    )
    return config


def gpt2(layers, width, heads, learning_rate):
    """A published size of GPT-2: 512 windows of 1024 tokens a step."""
    config = gpt(layers, width, heads, length=1024)
    paper_scale(config)
    config.steps = 300_000
    config.batch_size = 512
    config.accumulation = 16
    config.model.vocabulary = 50257
    config.optimizer.learning_rate = learning_rate
    config.optimizer.schedule.warmup = 2000.0
    return config


def gpt3(layers, width, heads, batch, learning_rate, mesh):
    """A size of GPT-3: 300 billion tokens, alternating full and local layers."""
    config = gpt2(layers, width, heads, learning_rate)
    length = 2048
    config.objective.length = config.model.max_positions = length
    config.model.vocabulary = 50304  # divisible, for tensor parallelism
    config.model.update(attention_window=256, global_every=2, remat='full')
    config.batch_size = batch
    config.accumulation = 1
    config.steps = 300_000_000_000 // (batch * length)
    config.mesh = mesh
    config.optimizer.schedule.update(unit='tokens', warmup=375e6, decay=260e9, final=0.1)
    return config
