import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

import objectives
from objectives import contract

V = 11


@pytest.fixture
def vocabulary():
    return contract.Vocabulary(
        size=V, table_size=V, pad=0, eos=1, unk=2, cls=None, sep=None, mask=None, modes=None,
        sentinels=None, word_start_V=np.zeros(V, bool), bytes_V=np.array([0, 0, 0, *range(1, 9)]),
    )  # fmt: skip


def make(vocabulary, **changes):
    config = {'name': 'causal_lm', 'length': 5, 'separate_documents': False, 'z_loss': 0.0}
    return objectives.find('causal_lm')(ConfigDict(config | changes), vocabulary)


def windows(tokens, documents):
    tokens, documents = np.array(tokens, np.int32), np.array(documents, np.int32)
    return contract.Windows(tokens, np.zeros_like(tokens), documents, np.arange(len(tokens)))


# Two documents with eos (1) behind the first, then one document and padding.
TWO = windows([[5, 6, 1, 7, 8, 9], [3, 4, 1, 0, 0, 0]], [[0, 0, 0, 1, 1, 1], [2, 2, 2, -1, -1, -1]])


def test_targets_are_the_inputs_shifted_by_one(vocabulary):
    objective = make(vocabulary)
    assert objective.window_length() == 6
    batch = objective.corrupt(jax.random.key(0), TWO)
    np.testing.assert_array_equal(batch.inputs.tokens_BxL, [[5, 6, 1, 7, 8], [3, 4, 1, 0, 0]])
    np.testing.assert_array_equal(batch.targets_BxK, [[6, 1, 7, 8, 9], [4, 1, 0, 0, 0]])
    np.testing.assert_array_equal(batch.weights_BxK, [[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    assert batch.inputs.segments_BxL is None


def test_separate_documents(vocabulary):
    batch = make(vocabulary, separate_documents=True).corrupt(jax.random.key(0), TWO)
    np.testing.assert_array_equal(batch.weights_BxK, [[1, 1, 0, 1, 1], [1, 1, 0, 0, 0]])
    np.testing.assert_array_equal(batch.inputs.positions_BxL, [[0, 1, 2, 0, 1], [0, 1, 2, 0, 1]])
    np.testing.assert_array_equal(batch.inputs.segments_BxL, [[1, 1, 1, 2, 2], [1, 1, 1, 0, 0]])


def identity_model(sharpness=50.0):
    """Predicts that each token comes again."""
    return contract.Model(
        hidden=lambda batch, key=None: sharpness * jax.nn.one_hot(batch.inputs.tokens_BxL, V),
        logits=lambda hidden: hidden,
    )


def test_the_loss_at_a_position_depends_on_the_next_token_alone(vocabulary):
    objective = make(vocabulary)
    again = windows([[5, 5, 5, 5, 5, 5]], [[0] * 6])
    other = windows([[5, 5, 5, 6, 5, 5]], [[0] * 6])  # two transitions are wrong: 5->6 and 6->5
    for data, wrong in ((again, 0), (other, 2)):
        batch = objective.corrupt(None, data)
        term = objective.loss({'model': identity_model()}, batch, None).terms['cross_entropy']
        assert term.weight == 5
        np.testing.assert_allclose(term.sum, 50.0 * wrong, atol=1e-4)


def test_metrics(vocabulary):
    objective = make(vocabulary)
    uniform = contract.Model(lambda batch, key=None: batch.inputs.tokens_BxL[..., None],
                             lambda hidden: jnp.zeros((*hidden.shape[:2], V)))  # fmt: skip
    loss = objective.loss({'model': uniform}, objective.corrupt(None, TWO), None)
    term, bits = loss.terms['cross_entropy'], loss.metrics['bits_per_byte']
    np.testing.assert_allclose(term.sum / term.weight, math.log(V), rtol=1e-6)
    # predicted: 6 1 7 8 9 and 4 1; of 4 0 5 6 7 and 2 0 bytes
    assert bits.weight == 24
    np.testing.assert_allclose(bits.sum / bits.weight, 7 * math.log2(V) / 24, rtol=1e-6)
    assert loss.metrics['accuracy'].sum == 0


def test_z_loss_steers_training_alone(vocabulary):
    objective = make(vocabulary, z_loss=0.5)
    batch = objective.corrupt(None, TWO)
    model = {'model': identity_model(1.0)}
    assert 'z_loss' not in objective.loss(model, batch, None).terms
    term = objective.loss(model, batch, jax.random.key(0)).terms['z_loss']
    assert term.coefficient == 0.5
    np.testing.assert_allclose(term.sum / term.weight, math.log(math.e + V - 1) ** 2, rtol=1e-6)


def test_unknown_objectives_are_named_with_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'causal_lm'"):
        objectives.find('casual_lm')
    with pytest.raises(ValueError, match='no_such_module'):
        objectives.find('no_such_module:make')


def test_an_objective_of_ones_own_is_imported():
    assert objectives.find('objectives.causal_lm:make') is objectives.find('causal_lm')
