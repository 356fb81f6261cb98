"""A student and its teacher: what is taken over, and what is refused, in one line."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import distilbert
from pretrain import assembly, teacher, train_step
from pretrain.errors import UserError


def config(**changes):
    made = distilbert.get_config('smoke')
    for key, value in changes.items():
        section, name = key.split('__')
        made[section][name] = value
    return made


@pytest.fixture(scope='module')
def pair(vocabulary):
    """(config, parameters of both models as drawn)."""
    made = config()
    return made, jax.jit(lambda: train_step.draw_params(assembly.make_learner(made, vocabulary)))()


def test_a_student_starts_from_the_named_layers(pair):
    made, params = pair
    student = teacher.start_student(made.objective, params['student'], params['teacher'])
    taught = params['teacher']
    assert made.objective.layers == (0, 3)
    jax.tree.map(
        lambda new, old: np.testing.assert_array_equal(new, old[jnp.array([0, 3])]),
        student['encoder']['layers'], taught['encoder']['layers'],
    )  # fmt: skip
    for part in ('token_embedding', 'position_embedding', 'embedding_norm', 'head'):
        jax.tree.map(np.testing.assert_array_equal, student[part], taught[part])
    assert 'segment_embedding' in taught
    assert 'segment_embedding' not in student


def test_the_transform_before_the_logits_is_taken_only_if_asked(pair):
    made, params = pair
    objective = made.objective.copy_and_resolve_references()
    objective.copy_transform = False
    student = teacher.start_student(objective, params['student'], params['teacher'])
    np.testing.assert_array_equal(
        student['head']['transform']['kernel'], params['student']['head']['transform']['kernel']
    )
    np.testing.assert_array_equal(student['head']['bias'], params['teacher']['head']['bias'])


@pytest.mark.parametrize(
    ('changes', 'says'),
    [
        ({'objective__layers': (0, 4)}, r'4 encoder layers, 0 to 3, and no layer 4'),
        ({'objective__layers': (-1, 2)}, r'no layer -1'),
        ({'objective__layers': (0, 1, 2)}, r"names 3 layers for the 2 of the student's encoder"),
        ({'teacher__width': 64}, r'set objective\.projection_width=64'),
        (
            {'teacher__width': 64, 'objective__projection_width': 64},
            r'set model\.width=64, or objective\.layers=\(\)',
        ),
        ({'teacher__vocabulary': 512}, r'vocabularies of 96 and 512 rows'),
        ({'objective__projection_width': 8}, r'states of width 8'),
        ({'objective__teacher': '/no/run'}, r"'/no/run' holds no run: make one.*bert\.py:tiny"),
        ({'teacher__widht': 64}, r"teacher\.widht is no field of a model; did you mean 'width'"),
    ],
)
def test_pairs_that_do_not_fit(changes, says, vocabulary):
    made = config()
    with made.unlocked():
        for key, value in changes.items():
            section, name = key.split('__')
            made[section][name] = value
    with pytest.raises(UserError, match=says) as error:
        assembly.make_learner(made, vocabulary)
    assert '\n' not in str(error.value)


def test_a_wider_teacher_needs_a_projection_and_then_fits(vocabulary):
    made = config()
    with made.unlocked():
        made.teacher.width = 64
        made.objective.update(projection_width=64, layers=())
    learner = assembly.make_learner(made, vocabulary)
    params = jax.eval_shape(lambda: train_step.draw_params(learner))
    assert params['student']['projection']['kernel'].shape == (32, 64)
    assert 'projection' not in params['teacher']


def test_a_teacher_is_frozen(vocabulary):
    learner = assembly.make_learner(config(), vocabulary)
    state = jax.eval_shape(lambda: train_step.init_state(learner))
    assert set(state['params']) == {'student'}
    assert 'teacher' not in str(jax.tree_util.tree_structure(state['optimizer']))
