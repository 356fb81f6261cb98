"""One modern architecture under every objective, so that only the objective differs.

    python -m pretrain.train --config=configs/compare.py:masked_lm --workdir=runs/masked_lm

| variant | what is read | what is predicted |
|---|---|---|
| causal_lm | text | each token from those before it |
| prefix_lm | text | the end, from a beginning that is seen whole |
| masked_lm | text with gaps | the tokens in the gaps |
| next_sentence | two texts with gaps | the same, and whether the second follows the first |
| span_corruption | text with gaps, then the spans | the spans |
| mixture_of_denoisers | a mode, text with gaps, then the spans | the spans |
| replaced_token | text with replacements | which tokens are not the original |
| distillation | text with gaps | the gaps, and what a teacher says (a random one by default) |

All train one stack of four layers of 192 with RMSNorm, rotary positions, SwiGLU and query-key norm
on the embedded excerpt, with one optimizer and 16 windows of 126 to 141 tokens a step. Span
corruption and the mixture run on the one stack too (inputs, then targets, bidirectional over the
inputs: rows of 157 and 173 places, where the others have 128), so that the parameters are the same
in all; only heads that an objective cannot do without are added. Steps are equal, compute is nearly
so: places differ as said, and so do the places that meet the vocabulary (19 to 128 a row).

Any of them with `,smoke` behind it runs in seconds. Not measured.
"""

from configs import objectives
from configs.recipe import recipe, select, tiny_run

LENGTH = 128
ENCODERS = ('masked_lm', 'next_sentence', 'replaced_token', 'distillation')


def get_config(variant='causal_lm'):
    """The config of an objective of the table above, with or without `,smoke`."""
    sections = {
        'causal_lm': objectives.causal_lm(LENGTH),
        'prefix_lm': objectives.prefix_lm(LENGTH),
        'masked_lm': objectives.masked_lm(LENGTH),
        'next_sentence': objectives.next_sentence(LENGTH),
        'span_corruption': objectives.span_corruption(LENGTH),
        'mixture_of_denoisers': objectives.mixture_of_denoisers(LENGTH),
        'replaced_token': objectives.replaced_token(LENGTH),
        'distillation': objectives.distillation(objectives.masked_lm(LENGTH)),
    }
    return select(
        variant,
        {name: lambda section=section: compare(section) for name, section in sections.items()},
    )


def compare(section):
    """The architecture and the run, under the objective of a section."""
    config = recipe()
    name = section.name
    config.objective = section
    if 'layout' in section:
        section.layout = 'decoder'
    if 'z_loss' in section:
        section.z_loss = 0.0  # the others have none
    if name == 'next_sentence':
        config.data.cut = 'document'
    if name == 'replaced_token':
        config.generator = {
            'width': 64, 'heads': 1, 'feedforward_width': 192,
            'logit_transform': True,  # maps its width to that of the shared table
        }  # fmt: skip
        config.model.embedding_width = 192
    if name == 'distillation':
        config.teacher = {'encoder_layers': 8}
    config.data.separator = name == 'causal_lm'
    stack = 'encoder_layers' if name in ENCODERS else 'decoder_layers'
    config.model.update(
        width=192,
        heads=3,
        head_width=64,
        feedforward_width=512,
        norm='rms',
        biases=False,
        positions='rotary',
        activation='silu',
        gated=True,
        query_key_norm=True,
        residual_scale=True,
    )
    config.model[stack] = 4
    tiny_run(config, steps=1000, every=250)
    config.log.every = 10
    return config
