"""The section `objective` of a recipe, for each objective, with its paper's numbers."""

from ml_collections import ConfigDict

# UL2's seven denoisers (Tay et al. 2022, section 3.1): mode, mean span, density, share of the rows.
# The shares of the paper could not be verified; here they are equal. A mean span of 0 is one span,
# the tail of the text (the sequential denoiser S).
DENOISERS = (
    ('R', 3.0, 0.15, 1.0),
    ('R', 8.0, 0.15, 1.0),
    ('S', 0.0, 0.25, 1.0),
    ('X', 3.0, 0.5, 1.0),
    ('X', 8.0, 0.5, 1.0),
    ('X', 64.0, 0.15, 1.0),
    ('X', 64.0, 0.5, 1.0),
)


def causal_lm(length):
    """GPT. What each key does stands in objectives/causal_lm.py, and so for the others."""
    return ConfigDict(
        {'name': 'causal_lm', 'length': length, 'separate_documents': False, 'z_loss': 0.0}
    )


def masked_lm(length):
    """BERT's masked LM on single sequences, 15 % chosen, 80/10/10."""
    return ConfigDict(
        {
            'name': 'masked_lm',
            'length': length,
            'rate': 0.15,
            'mask_share': 0.8,
            'random_share': 0.1,
            'whole_words': False,
            'smoothing': 0.0,
        }
    )


def next_sentence(length):
    """BERT's masked LM on pairs of texts, and whether the second follows the first."""
    section = masked_lm(length)
    section.update(
        name='next_sentence', order=False, short_share=0.1, overhang=16, sentence_coefficient=1.0
    )
    return section


def span_corruption(inputs_length):
    """T5: 15 % in spans of 3 on average."""
    return ConfigDict(
        {
            'name': 'span_corruption',
            'inputs_length': inputs_length,
            'targets_length': 0,
            'noise': 'spans',
            'density': 0.15,
            'mean_span': 3.0,
            'inputs': 'sentinels',
            'targets': 'sentinels',
            'roll': False,
            'layout': 'encoder_decoder',
            'z_loss': 1e-4,
        }
    )


def prefix_lm(length):
    """The end of a text from its beginning, whose length is random."""
    return ConfigDict(
        {'name': 'prefix_lm', 'length': length, 'layout': 'decoder', 'z_loss': 0.0}
    )


def mixture_of_denoisers(window):
    """UL2."""
    return ConfigDict(
        {
            'name': 'mixture_of_denoisers',
            'window': window,
            'inputs_length': 0,
            'targets_length': 0,
            'denoisers': DENOISERS,
            'mode_tokens': True,
            'layout': 'encoder_decoder',
            'z_loss': 1e-4,
        }
    )


def replaced_token(length):
    """ELECTRA: 85 % of the chosen tokens are masked, none is replaced at random."""
    section = masked_lm(length)
    section.update(
        name='replaced_token', mask_share=0.85, random_share=0.0, discriminator_weight=50.0
    )
    return section


def distillation(hard):
    """DistilBERT's loss around another objective, given as its section."""
    section = hard.copy_and_resolve_references()
    section.update(
        name='distillation',
        hard=hard.name,
        teacher='',  # folder of a run; '': drawn at random
        teacher_config='configs/bert.py:tiny',  # that makes such a run, to say so where it lacks
        layers=(),  # of the teacher, that the student starts from; (): a random start
        copy_transform=True,  # also what stands before the logits
        temperature=2.0,
        soft=5.0,
        hard_weight=2.0,
        cosine=1.0,
        mse=0.0,
        projection_width=0,
    )
    return section
