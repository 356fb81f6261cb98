"""DistilBERT (Sanh et al. 2019): a student of half the depth learns from a trained BERT.

    python -m pretrain.train --config=configs/bert.py:tiny --workdir=runs/bert-tiny
    python -m pretrain.train --config=configs/distilbert.py:tiny --workdir=runs/distilbert-tiny

| variant | hardware | expected time | score |
|---|---|---|---|
| tiny | 2 CPU cores | see docs/curves | see docs/curves |
| smoke | 2 CPU cores | seconds, a random teacher | none worth the name |
| base | 8 V100 of 16 GB (published) | 90 hours (published) | GLUE macro 77.0 (published) |
| gpt2 | 8 GPUs | not measured | see the DistilGPT2 card |

Any of them with `,smoke` behind it runs in seconds. The teacher is the run that
`objective.teacher` names. base follows the paper and its released training command: T = 2, weights
5, 2, 1; the student starts from the teacher's layers 0, 2, 4, 7, 9, 11, has no segment embeddings
and no pooler; Adam with b2 = 0.98, no weight decay, clip 5; batches of 2,000 sequences (8 processes
x 5 x 50 parts). Its number of steps stands for 3 epochs over Wikipedia and BooksCorpus (4.3 billion
tokens, an estimate).
"""

from configs import objectives
from configs.bert import bert
from configs.gpt import gpt
from configs.recipe import paper_scale, select, tiny_run


def get_config(variant='tiny'):
    """The config of a variant: a name of the table above, with or without `,smoke`."""
    return select(variant, {'tiny': tiny, 'base': base, 'gpt2': gpt2})


def distilbert(layers, width, heads, length):
    """A student of any size: BERT without segments, on single sequences."""
    config = bert(layers, width, heads, length)
    config.model.segment_types = 0
    config.data.cut = 'stream'
    config.objective = objectives.distillation(objectives.masked_lm(length))
    # The teacher's own fields, where it is drawn at random.
    config.teacher = {
        'encoder_layers': 2 * layers,
        'segment_types': 2,
        'width': width,
        'heads': heads,
        'feedforward_width': 4 * width,
    }
    return config


def tiny():
    """Two layers, started from layers 0 and 3 of bert.py:tiny."""
    config = distilbert(layers=2, width=192, heads=3, length=128)
    config.objective.update(teacher='runs/bert-tiny', layers=(0, 3))
    tiny_run(config, steps=300, every=100, learning_rate=2e-3, b2=0.98, weight_decay=0.0)
    return config


def base():
    """The published size."""
    config = distilbert(layers=6, width=768, heads=12, length=512)
    paper_scale(config)
    config.objective.update(
        teacher='runs/bert-base',
        teacher_config='configs/bert.py:base',
        layers=(0, 2, 4, 7, 9, 11),
        smoothing=0.7,
    )
    config.data.vocabulary_size = 30_422
    config.model.update(vocabulary=30_522, dropout=0.1, attention_dropout=0.1)
    config.steps = 12_600
    config.batch_size = 2000
    config.accumulation = 50
    config.optimizer.update(learning_rate=5e-4, b2=0.98, epsilon=1e-6, clip=5.0)
    config.optimizer.schedule.update(name='linear', warmup=630.0, final=0.0)
    return config


def gpt2():
    """DistilGPT2: six layers from GPT-2's twelve, the causal loss beside the soft one."""
    config = gpt(layers=6, width=768, heads=12, length=1024)
    paper_scale(config)
    config.objective = objectives.distillation(objectives.causal_lm(1024))
    config.objective.update(
        teacher='runs/gpt2-124m',
        teacher_config='configs/gpt.py:gpt2_124m',
        layers=(0, 2, 4, 7, 9, 11),
    )
    config.teacher = {'decoder_layers': 12}
    config.model.update(vocabulary=50_257, dropout=0.1, attention_dropout=0.1)
    config.data.vocabulary_size = 50_157
    config.steps = 50_000
    config.batch_size = 512
    config.accumulation = 16
    config.optimizer.update(
        learning_rate=2.5e-4, b2=0.98, epsilon=1e-6, weight_decay=0.0, clip=5.0
    )
    config.optimizer.schedule.update(name='linear', warmup=2500.0, final=0.0)
    return config
