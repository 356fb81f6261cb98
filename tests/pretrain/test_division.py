"""What a mesh cannot split, by arithmetic on the sizes of real configs."""

import jax
import pytest

from configs import gpt, t5
from pretrain import assembly, division, meshes
from pretrain.data import tokenizer
from pretrain.errors import UserError


def learner(config):
    vocabulary = tokenizer.stand_in(config.data.vocabulary_size)
    return assembly.make_learner(config, vocabulary)


def gpt_of(length, heads):
    config = gpt.get_config('tiny')
    config.objective.length = length
    config.model.heads = heads
    return learner(config)


def whole(made, mesh):
    mesh = meshes.make_mesh(mesh)
    return division.left_whole(mesh, [made], assembly.abstract_state(made, mesh))


def test_a_length_and_heads_that_do_not_divide_are_named():
    made = gpt_of(length=30, heads=6)  # 6 heads of 32: their 192 columns divide by 4, they do not
    assert whole(made, 'tensor=4,sequence=2') == {
        '6 heads of model': '6 does not divide by tensor=4'
    }
    assert whole(made, 'tensor=2,sequence=4') == {
        'inputs of 30 tokens': '30 does not divide by sequence=4'
    }
    assert whole(made, 'fsdp=2,tensor=2,sequence=2') == {}


def test_one_of_two_lengths():
    made = learner(t5.get_config('tiny'))
    targets = assembly.batch_shapes(made.objective).decoder_inputs.tokens_BxL.shape[1]
    assert targets % 4  # else this shows nothing
    found = whole(made, 'data=2,sequence=4')
    assert found == {f'targets of {targets} tokens': f'{targets} does not divide by sequence=4'}
    division.check(meshes.make_mesh('data=2,sequence=4'), made)  # the encoder is split


@pytest.mark.parametrize(
    ('length', 'mesh', 'says'),
    [
        (30, 'data=2,sequence=4', 'sequence=4 splits nothing.* 30 tokens: set sequence=2'),
        (31, 'data=4,sequence=2', 'sequence=2 splits nothing.* 31 tokens: set sequence=1'),
    ],
)
def test_an_axis_that_splits_nothing_is_refused(length, mesh, says):
    with pytest.raises(UserError, match=says):
        division.check(meshes.make_mesh(mesh), gpt_of(length, heads=3))


def test_a_tensor_axis_that_splits_nothing_is_refused():
    config = gpt.get_config('tiny')
    config.model.update(heads=3, width=192, feedforward_width=384)
    config.model.vocabulary = 7 * 2000
    made = learner(config)
    mesh = meshes.make_mesh('tensor=7', jax.devices()[:7])
    division.check(mesh, made)  # the vocabulary divides
    config.model.vocabulary += 1
    with pytest.raises(UserError, match=r'3 heads of model, 384 hidden .*: set tensor=1'):
        division.check(mesh, learner(config))
