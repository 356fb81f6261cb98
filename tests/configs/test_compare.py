"""One architecture: what differs between the objectives, and what must not."""

import pytest

from configs import compare
from pretrain import assembly

NAMES = (
    'causal_lm', 'prefix_lm', 'masked_lm', 'next_sentence', 'span_corruption',
    'mixture_of_denoisers', 'replaced_token', 'distillation',
)  # fmt: skip
FREE = ('encoder_layers', 'decoder_layers', 'embedding_width')  # which stack, and ELECTRA's tables


def test_nothing_but_the_objective_differs():
    first = compare.get_config('causal_lm').to_dict()
    for name in NAMES:
        config = compare.get_config(name).to_dict()
        assert config['objective']['name'] == name
        for key in ('steps', 'batch_size', 'optimizer', 'seed', 'eval', 'accumulation'):
            assert config[key] == first[key], key
        own, theirs = config['model'], first['model']
        assert {k for k in own if own[k] != theirs[k]} <= set(FREE)
        assert own['encoder_layers'] + own['decoder_layers'] == 4
        assert config['data'] | {'cut': '', 'separator': ''} == first['data'] | {
            'cut': '', 'separator': '',
        }  # fmt: skip


def test_all_have_the_same_parameters_but_for_heads(count):
    sizes = {name: count(compare.get_config(name)) for name in NAMES}
    one = sizes['causal_lm']['model']
    for name in ('prefix_lm', 'masked_lm', 'span_corruption', 'mixture_of_denoisers'):
        assert sizes[name] == {'model': one}
    width = compare.get_config('next_sentence').model.width
    # A pooler without bias and two classes with one; nothing but the head differs.
    assert sizes['next_sentence']['model'] - one == width * width + 2 * width + 2
    assert sizes['distillation']['student'] == one
    assert sizes['replaced_token']['discriminator'] == pytest.approx(one, rel=0.03)


@pytest.mark.parametrize('name', NAMES)
def test_rows_are_of_about_the_same_length(name, vocabulary):
    learner = assembly.make_learner(compare.get_config(name), vocabulary(8320))
    assert 125 <= learner.objective.window_length() <= 142


def test_the_objective_is_a_flag(vocabulary):
    """`objective.name` alone goes from one to another where both need the same keys."""
    config = compare.get_config('next_sentence')
    config.objective.name = 'masked_lm'
    assert assembly.make_learner(config, vocabulary(8320)).objective.models == {'model': {}}
