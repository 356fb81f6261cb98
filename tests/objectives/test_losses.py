import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from objectives import losses

B, K, D, V = 3, 10, 8, 50


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    return (
        rng.normal(size=(B, K, D)).astype(np.float32),
        rng.normal(size=(D, V)).astype(np.float32),
        rng.integers(0, V, (B, K)),
        rng.integers(0, 3, (B, K)).astype(np.float32),  # weights other than 0 and 1, too
    )


def reference(hidden, matrix, labels, weights):
    """In float64, position by position."""
    loss = correct = z = 0.0
    for h, label, weight in zip(hidden.reshape(-1, D), labels.ravel(), weights.ravel()):
        logits = h.astype(np.float64) @ matrix.astype(np.float64)
        log_z = np.log(np.exp(logits).sum())
        loss += weight * (log_z - logits[label])
        correct += weight * (logits.argmax() == label)
        z += weight * log_z**2
    return loss, correct, z


@pytest.mark.parametrize('chunk', [None, 1, 3, 10, 64])
def test_cross_entropy_equals_a_plain_sum_in_float64(case, chunk):
    hidden, matrix, labels, weights = case
    labels[0, 0] = (hidden[0, 0] @ matrix).argmax()  # one prediction is right
    weights[0, 0] = 2
    sums = losses.cross_entropy(lambda h: h @ matrix, hidden, labels, weights, chunk)
    np.testing.assert_allclose(sums, reference(*case), rtol=1e-5)
    assert sums.correct >= 2


def test_cross_entropy_equals_optax(case):
    hidden, matrix, labels, weights = case
    expected = optax.softmax_cross_entropy_with_integer_labels(hidden @ matrix, labels)
    sums = losses.cross_entropy(lambda h: h @ matrix, hidden, labels, weights)
    np.testing.assert_allclose(sums.loss, (expected * weights).sum(), rtol=1e-5)


@pytest.mark.parametrize('chunk', [3, 5])
def test_chunks_leave_gradients_as_they_are(case, chunk):
    hidden, matrix, labels, weights = case

    def loss(hidden, matrix, chunk):
        sums = losses.cross_entropy(lambda h: h @ matrix, hidden, labels, weights, chunk)
        return sums.loss + 0.1 * sums.z

    whole = jax.grad(loss, (0, 1))(hidden, matrix, K)
    parts = jax.grad(loss, (0, 1))(hidden, matrix, chunk)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), whole, parts)


@pytest.mark.parametrize('chunk', [1, 3, 10])
def test_chunks_leave_draws_as_they_are(case, chunk):
    hidden, matrix, _, _ = case
    seeds = np.array([7, 8, 9], np.uint32)
    draw = lambda chunk, size=V: losses.draw(lambda h: h @ matrix, hidden, seeds, size, chunk)  # noqa: E731
    np.testing.assert_array_equal(draw(chunk), draw(K))
    assert draw(chunk).shape == (B, K)
    assert draw(chunk, 5).max() < 5
    assert len(np.unique(draw(chunk))) > 5


def test_padded_labels_of_weight_0_may_be_anything(case):
    hidden, matrix, labels, weights = case
    weights[:, 5:] = 0
    labels[:, 5:] = -1
    first = losses.cross_entropy(lambda h: h @ matrix, hidden, labels, weights)
    labels[:, 5:] = V + 7
    second = losses.cross_entropy(lambda h: h @ matrix, hidden, labels, weights)
    assert jnp.isfinite(first.loss)
    np.testing.assert_array_equal(first, second)


def test_ties_are_not_all_correct():
    sums = losses.cross_entropy(
        lambda h: jnp.zeros((*h.shape[:2], V)), np.zeros((1, V, D)), np.arange(V)[None],
        np.ones((1, V), np.float32),
    )  # fmt: skip
    assert sums.correct == 1  # the first id alone


def test_many_logits_are_made_in_chunks(monkeypatch, case):
    hidden, matrix, labels, weights = case
    seen = []

    def logits(h):
        seen.append(h.shape)
        return h @ matrix

    monkeypatch.setattr(losses, 'LOGITS_AT_ONCE', 2 * B * V)
    monkeypatch.setattr(losses, 'SMALLEST_CHUNK', 1)
    sums = losses.cross_entropy(logits, hidden, labels, weights)
    np.testing.assert_allclose(sums, reference(*case), rtol=1e-5)
    assert (B, 2, D) in seen
