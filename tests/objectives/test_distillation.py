"""Against float64 numpy, and against what must hold in the limits (spec of the loss)."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import objectives as sections
from objectives import contract, distillation, losses

B, L, D, V = 3, 8, 6, 12


def vocabulary():
    return contract.Vocabulary(
        size=V, table_size=V, pad=0, eos=1, unk=2, cls=3, sep=4, mask=5, modes=None,
        sentinels=None, word_start_V=np.zeros(V, bool), bytes_V=np.ones(V, np.int32),
    )  # fmt: skip


def config(hard='masked_lm', **changes):
    section = sections.distillation(getattr(sections, hard)(L))
    section.update(changes)
    return section


def model(seed, scale=1.0, width=D):
    """States that depend on the place and on dropout's key; logits by a matrix."""
    rng = np.random.default_rng(seed)
    states = jnp.asarray(rng.normal(size=(B, L, width)), jnp.float32)
    matrix = jnp.asarray(scale * rng.normal(size=(width, V)), jnp.float32)
    return contract.Model(
        lambda batch, key=None: states if key is None else states + 1.0,
        lambda hidden: hidden @ matrix,
    )


def batch(lengths=(8, 5, 3), predicted=2):
    segments = (np.arange(L) < np.array(lengths)[:, None]).astype(np.int32)
    inputs = contract.Inputs(jnp.full((B, L), 7), segments_BxL=jnp.asarray(segments))
    return contract.Batch(
        inputs, None, jnp.full((B, predicted), 9), jnp.ones((B, predicted)),
        jnp.tile(jnp.arange(1, 1 + predicted), (B, 1)),
    )  # fmt: skip


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def test_all_terms_equal_sums_in_float64():
    objective = distillation.make(config(mse=0.1, temperature=2.0), vocabulary())
    student, teacher, data = model(0), model(1), batch()
    terms, metrics = objective.loss({'student': student, 'teacher': teacher}, data, None)
    hs, ht = (np.asarray(m.hidden(data), np.float64) for m in (student, teacher))
    ls, lt = (np.asarray(m.logits(m.hidden(data)), np.float64) for m in (student, teacher))
    real = np.asarray(data.inputs.segments_BxL) > 0
    ps, pt = softmax(ls / 2), softmax(lt / 2)
    kl = 4 * (pt * (np.log(pt) - np.log(ps))).sum(-1)[real].mean()  # T^2, a mean over tokens
    far = 1 - (hs * ht).sum(-1) / np.linalg.norm(hs, axis=-1) / np.linalg.norm(ht, axis=-1)
    mse = np.square(ls - lt).sum(-1)[real].mean()
    hard = -np.log(softmax(ls))[:, 1:3, 9].mean()
    agreement = (ls.argmax(-1) == lt.argmax(-1))[real].mean()
    mean = {name: float(term.sum / term.weight) for name, term in terms.items()}
    assert mean == pytest.approx(
        {'soft': kl, 'cosine': far[real].mean(), 'mse': mse, 'cross_entropy': hard}, rel=1e-5
    )
    coefficients = {name: term.coefficient for name, term in terms.items()}
    assert coefficients == {'soft': 5.0, 'cosine': 1.0, 'mse': 0.1, 'cross_entropy': 2.0}
    shown = metrics['agreement']
    assert float(shown.sum / shown.weight) == pytest.approx(agreement)
    assert 0 < agreement < 1


def test_a_student_that_is_its_teacher_has_nothing_to_learn():
    objective = distillation.make(config(), vocabulary())
    terms, metrics = objective.loss({'student': model(0), 'teacher': model(0)}, batch(), None)
    assert abs(float(terms['soft'].sum)) < 1e-5
    assert abs(float(terms['cosine'].sum)) < 1e-5
    assert metrics['agreement'].sum == metrics['agreement'].weight == 16


def test_the_soft_gradient_keeps_its_size_at_high_temperatures():
    """Hinton et al. 2015, section 2.1: with T^2 it tends to (z - v) / V for centred logits."""
    student, teacher = model(0), model(1)
    states, given = student.hidden(None), teacher.logits(teacher.hidden(None))

    def gradient(temperature):
        objective = distillation.make(config(temperature=temperature), vocabulary())

        def loss(logits):
            asked = contract.Model(lambda b, key=None: logits, lambda hidden: hidden)
            taught = contract.Model(lambda b, key=None: given, lambda hidden: hidden)
            pair = {'student': asked, 'teacher': taught}
            return objective.loss(pair, batch((8, 8, 8)), None).terms['soft'].sum

        return jax.grad(loss)(student.logits(states))

    z, v = (np.asarray(m.logits(m.hidden(None)), np.float64) for m in (student, teacher))
    limit = ((z - z.mean(-1, keepdims=True)) - (v - v.mean(-1, keepdims=True))) / V
    np.testing.assert_allclose(gradient(1000.0), limit, atol=2e-3 * np.abs(limit).max())
    sizes = [float(jnp.linalg.norm(gradient(t))) for t in (2.0, 4.0, 8.0, 16.0)]
    assert max(sizes) / min(sizes) < 2.5  # without T^2 it would shrink to a 64th


def test_padding_counts_nothing():
    objective = distillation.make(config(), vocabulary())
    models = {'student': model(0), 'teacher': model(1)}
    short = objective.loss(models, batch((8, 5, 3)), None).terms
    assert short['soft'].weight == short['cosine'].weight == 16
    states = models['student'].hidden(None)
    noisy = states.at[2, 3:].set(99.0).at[1, 5:].set(0.0)  # padded places; one of length 0
    models['student'] = models['student']._replace(hidden=lambda batch, key=None: noisy)
    for name, term in objective.loss(models, batch((8, 5, 3)), None).terms.items():
        assert float(term.sum) == pytest.approx(float(short[name].sum), rel=1e-5), name


def test_no_gradient_reaches_the_teacher_and_none_is_nan():
    objective = distillation.make(config(mse=1.0), vocabulary())
    states = model(1).hidden(None)
    matrix = jnp.ones((D, V)) * 0.1 + jnp.eye(D, V)

    def loss(scales):
        def taught(scale):
            return contract.Model(
                lambda b, key=None: scale * states, lambda hidden: hidden @ matrix * scale
            )

        pair = {'student': taught(scales[0]), 'teacher': taught(scales[1])}
        return sum(t.sum for t in objective.loss(pair, batch(), None).terms.values())

    of_student, of_teacher = jax.grad(loss)(jnp.array([0.7, 1.3]))
    assert of_teacher == 0
    assert jnp.isfinite(of_student)
    assert of_student != 0
    assert jnp.isfinite(jax.grad(loss)(jnp.array([0.0, 1.3]))).all()  # states of length 0


def test_the_teacher_runs_without_dropout_and_the_student_with_its_key():
    objective = distillation.make(config(), vocabulary())
    asked = []
    spy = lambda name, m: m._replace(  # noqa: E731
        hidden=lambda batch, key=None: asked.append((name, key)) or m.hidden(batch)
    )
    key = jax.random.key(0)
    pair = {'student': spy('student', model(0)), 'teacher': spy('teacher', model(1))}
    objective.loss(pair, batch(), key)
    assert asked == [('student', key), ('teacher', None)]


def test_causal_teachers_are_compared_at_the_predicted_places():
    objective = distillation.make(config('causal_lm'), vocabulary())
    assert objective.window_length() == L + 1
    assert objective.stacks == ('decoder',)
    tokens = np.full((B, L + 1), 7, np.int32)
    documents = np.zeros_like(tokens)
    documents[1, 4:] = contract.PADDING
    data = objective.corrupt(
        jax.random.key(0), contract.Windows(tokens, documents * 0, documents, np.arange(B))
    )
    terms, metrics = objective.loss({'student': model(0), 'teacher': model(1)}, data, None)
    assert terms['soft'].weight == terms['cross_entropy'].weight == 8 + 3 + 8
    assert 'bits_per_byte' in metrics


def test_a_wider_teacher_is_met_by_a_projection():
    objective = distillation.make(config(projection_width=2 * D), vocabulary())
    assert objective.models['student'] == {'projection_width': 2 * D}
    assert objective.models['teacher'] == {}
    matrix = jnp.asarray(np.random.default_rng(3).normal(size=(D, 2 * D)), jnp.float32)
    student = model(0)._replace(project=lambda hidden: hidden @ matrix)
    teacher = model(1, width=2 * D)
    term = objective.loss({'student': student, 'teacher': teacher}, batch(), None).terms['cosine']
    x, y = np.asarray(student.hidden(None) @ matrix), np.asarray(teacher.hidden(None))
    far = 1 - (x * y).sum(-1) / np.linalg.norm(x, axis=-1) / np.linalg.norm(y, axis=-1)
    real = np.asarray(batch().inputs.segments_BxL) > 0
    assert float(term.sum) == pytest.approx(far[real].sum(), rel=1e-5)


@pytest.mark.parametrize('chunk', [1, 3, 8])
def test_chunks_change_nothing(chunk):
    student, teacher = model(0), model(1)
    weights = jnp.asarray(np.random.default_rng(2).integers(0, 3, (B, L)), jnp.float32)

    def sums(chunk, states):
        return losses.divergence(
            student.logits, states, teacher.logits, teacher.hidden(None), weights, 2.0, chunk
        )

    states = student.hidden(None)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), sums(chunk, states),
        sums(L, states),
    )  # fmt: skip
    gradients = [jax.grad(lambda s, c=c: sum(sums(c, s)[:2]))(states) for c in (chunk, L)]
    np.testing.assert_allclose(*gradients, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ('changes', 'says'),
    [
        ({'temperature': 0.0}, r'temperature=0\.0 must be above 0'),
        ({'cosine': -1.0}, r'cosine=-1\.0 must be a number of at least 0'),
        ({'soft': math.nan}, r'soft=nan must be a number'),
        ({'temperature': math.inf}, r'temperature=inf must be a number'),
        ({'soft': 0.0, 'hard_weight': 0.0, 'cosine': 0.0}, 'nothing is left to learn'),
        ({'hard': 'distillation'}, 'has no end'),
        ({'hard': 'masked_ml'}, "unknown objective.hard='masked_ml'; did you mean 'masked_lm'"),
    ],
)
def test_what_cannot_be(changes, says):
    with pytest.raises(ValueError, match=says):
        section = config()
        section.update(changes)
        distillation.make(section, vocabulary())


def test_only_objectives_of_one_model_can_be_distilled():
    section = sections.distillation(ConfigDict(sections.replaced_token(L)))
    with pytest.raises(ValueError, match='only an objective of one model'):
        distillation.make(section, vocabulary())
