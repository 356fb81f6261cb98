"""BERT (Devlin et al. 2019): masked LM and next sentence, and a small run for two CPU cores.

    python -m pretrain.train --config=configs/bert.py:tiny --workdir=runs/bert-tiny

| variant | hardware | expected time | score |
|---|---|---|---|
| tiny | 2 CPU cores | see docs/curves | see docs/curves |
| smoke | 2 CPU cores | seconds | none worth the name |
| base, large | 16, 64 TPU chips (published) | 4 days (published) | GLUE 79.6, 82.1 (published) |
| modern | 8 GPUs | not measured | none published for this recipe |

Any of them with `,smoke` behind it runs in seconds. base and large follow the paper's appendix A.2
and the released code: 1M steps of 256 windows, nine tenths of them at length 128, the rest at 512;
Adam without bias correction, its rate falling as if from step 0. The corpus is what
`data.source` names (the paper: Wikipedia and BooksCorpus); `data.vocabulary_size` pieces and 100
sentinels make the paper's 30,522 rows. `--config.objective.whole_words=true` is the later
whole-word masking, `--config.objective.order=true` ALBERT's sentence order in place of the next
sentence.

`modern` is an encoder like ModernBERT (Warner et al. 2024): rotary positions, a gated feed-forward
layer, pre-norm, no biases, two thirds of the layers local; masked LM alone at a rate of 30 %.
"""

from configs import objectives
from configs.recipe import paper_scale, recipe, select, tiny_run


def get_config(variant='tiny'):
    """The config of a variant: a name of the table above, with or without `,smoke`."""
    variants = {
        'tiny': tiny,
        'base': lambda: paper(layers=12, width=768, heads=12),
        'large': lambda: paper(layers=24, width=1024, heads=16),
        'modern': modern,
    }
    return select(variant, variants)


def bert(layers, width, heads, length):
    """A BERT of any size: post-norm, learned positions, two segments, a transformed tied head."""
    config = recipe()
    config.data.update(cut='document', separator=False)
    config.objective = objectives.next_sentence(length)
    config.model.update(
        encoder_layers=layers,
        width=width,
        heads=heads,
        max_positions=length,
        norm_epsilon=1e-12,
        norm_placement='post',
        final_norm=False,
        embedding_norm=True,
        segment_types=2,
        logit_transform=True,
        logit_bias=True,
        initializer='truncated_normal',
    )
    return config


def tiny():
    """Four layers of 192 on the embedded excerpt of Wikipedia."""
    config = bert(layers=4, width=192, heads=3, length=128)
    tiny_run(config, steps=600, every=200)
    return config


def paper(layers, width, heads):
    """A published size."""
    config = bert(layers, width, heads, length=512)
    paper_scale(config)
    config.data.vocabulary_size = 30_422
    config.model.update(vocabulary=30_522, dropout=0.1, attention_dropout=0.1)
    config.steps = 1_000_000
    config.phases = ((900_000, 256, 128),)
    config.batch_size = 256
    config.optimizer.update(
        learning_rate=1e-4, epsilon=1e-6, bias_correction=False, weight_decay=0.01
    )
    config.optimizer.schedule.update(name='bert', warmup=10_000.0, final=0.0)
    return config


def modern():
    """ModernBERT's base size, with this project's optimizer settings for its kind."""
    config = recipe()
    paper_scale(config)
    config.data.update(separator=False, vocabulary_size=50_268)
    config.objective = objectives.masked_lm(1024)
    config.objective.update(rate=0.3, mask_share=0.8, random_share=0.1)
    config.model.update(
        vocabulary=50_368,
        encoder_layers=22,
        width=768,
        heads=12,
        feedforward_width=1152,
        norm_bias=False,
        biases=False,
        first_norm=False,
        embedding_norm=True,
        positions='rotary',
        rotary_theta=160_000.0,
        rotary_theta_local=10_000.0,
        attention_window=128,
        global_every=3,
        activation='gelu_erf',
        gated=True,
        logit_transform=True,
        logit_bias=True,
        initializer='truncated_normal',
        residual_scale=True,
    )
    config.steps = 500_000
    config.batch_size = 1024
    config.optimizer.update(learning_rate=8e-4, b2=0.98, epsilon=1e-6, weight_decay=1e-5)
    config.optimizer.schedule.update(name='wsd', warmup=3000.0, decay=50_000.0, final=0.0)
    return config
