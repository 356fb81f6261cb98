import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import objectives as sections
from objectives import contract, replaced_token

B, L, V = 4, 40, 30


def vocabulary():
    return contract.Vocabulary(
        size=V - 2, table_size=V, pad=0, eos=1, unk=2, cls=3, sep=4, mask=5, modes=None,
        sentinels=None, word_start_V=np.zeros(V, bool), bytes_V=np.ones(V, np.int32),
    )  # fmt: skip


def make(**changes):
    section = sections.replaced_token(L)
    section.update(changes)
    return replaced_token.make(section, vocabulary())


def windows(rows=B, seed=0):
    tokens = np.random.default_rng(seed).integers(6, V - 2, (rows, L - 2)).astype(np.int32)
    documents = np.zeros_like(tokens)
    documents[1, 20:] = contract.PADDING
    tokens[1, 20:] = 0
    return contract.Windows(tokens, documents, documents, np.arange(rows, dtype=np.int32))


def generator(favourite=None):
    """Uniform over the whole table, or sure of one id."""
    logits_V = jnp.zeros(V) if favourite is None else 99.0 * jax.nn.one_hot(favourite, V)
    return contract.Model(
        lambda batch, key=None: jnp.zeros((*batch.inputs.tokens_BxL.shape, 1)),
        lambda hidden: jnp.broadcast_to(logits_V, (*hidden.shape[:2], V)),
    )


def original(objective, data):
    """The text before masking, put together from what is read and what is predicted."""
    batch = objective.corrupt(jax.random.key(0), data)
    tokens = np.array(batch.inputs.tokens_BxL)
    for row in range(B):
        for place, target, weight in zip(
            batch.places_BxK[row], batch.targets_BxK[row], batch.weights_BxK[row]
        ):
            if weight:
                tokens[row, place] = target
    return batch, tokens


def test_samples_take_the_chosen_places_and_no_other():
    objective = make()
    batch, text = original(objective, windows())
    drawn = replaced_token.draw(generator(), generator().hidden(batch), batch, V - 2)
    assert drawn.max() < V - 2  # no id that means nothing
    tokens, replaced = replaced_token.replace(batch, drawn)
    np.testing.assert_array_equal(np.asarray(replaced), np.asarray(tokens) != text)
    chosen = np.zeros((B, L), bool)
    for row in range(B):
        weights = np.asarray(batch.weights_BxK[row])
        chosen[row, np.asarray(batch.places_BxK[row])[weights > 0]] = True
    assert not (np.asarray(replaced) & ~chosen).any()
    assert replaced.sum() > 0.8 * chosen.sum()  # one in 28 is the original by chance
    # What was masked is masked no more, and what was kept is drawn anew as well.
    drawn = drawn[np.asarray(batch.weights_BxK) > 0]
    np.testing.assert_array_equal(np.asarray(tokens)[chosen], drawn)


def test_a_sample_that_is_the_original_counts_as_original():
    objective = make()
    data = windows()
    data = data._replace(tokens_BxW=np.where(data.tokens_BxW > 0, 17, 0).astype(np.int32))
    batch = objective.corrupt(jax.random.key(0), data)
    model = generator(favourite=17)
    drawn = replaced_token.draw(model, model.hidden(batch), batch, V - 2)
    assert (drawn == 17).all()
    assert not replaced_token.replace(batch, drawn)[1].any()


def test_samples_follow_the_generator():
    """Temperature 1: three ids with probabilities .7, .2, .1, over many rows."""
    objective = make()
    data = windows(rows=1024)
    batch = objective.corrupt(jax.random.key(0), data)
    logits = jnp.log(jnp.zeros(V).at[jnp.array([7, 8, 9])].set(jnp.array([0.7, 0.2, 0.1])))
    model = generator()._replace(
        logits=lambda hidden: jnp.broadcast_to(logits, (*hidden.shape[:2], V))
    )
    drawn = np.asarray(replaced_token.draw(model, model.hidden(batch), batch, V - 2))
    shares = [(drawn == i).mean() for i in (7, 8, 9)]
    # 6144 draws: three standard deviations of the commonest are 0.018
    np.testing.assert_allclose(shares, [0.7, 0.2, 0.1], atol=0.018)


def test_samples_of_a_row_do_not_depend_on_the_batch():
    objective = make()
    whole = objective.corrupt(jax.random.key(0), windows())
    part = jax.tree.map(lambda x: x[2:], whole)
    draw = lambda batch: replaced_token.draw(generator(), generator().hidden(batch), batch, V - 2)  # noqa: E731
    np.testing.assert_array_equal(draw(whole)[2:], draw(part))
    assert (np.asarray(draw(whole)[2]) != np.asarray(draw(whole)[3])).any()


def scores(value_of):
    return contract.Model(
        lambda batch, key=None: batch.inputs.tokens_BxL[..., None].astype(jnp.float32),
        None,
        score=lambda hidden: value_of(hidden[..., 0]),
    )


def test_the_discriminator_is_scored_on_every_token_that_is_no_padding():
    objective = make()
    batch, text = original(objective, windows())
    real = np.asarray(batch.inputs.segments_BxL) > 0
    guess = scores(lambda tokens: 0.3 * jnp.sin(tokens))
    terms, metrics = objective.loss(
        {'generator': generator(), 'discriminator': guess}, batch, None
    )
    drawn = replaced_token.draw(generator(), generator().hidden(batch), batch, V - 2)
    tokens = np.asarray(replaced_token.replace(batch, drawn)[0])
    s, label = 0.3 * np.sin(tokens.astype(np.float64)), tokens != text
    p = 1 / (1 + np.exp(-s))
    nats = -np.where(label, np.log(p), np.log(1 - p))
    assert float(terms['detection'].sum) == pytest.approx(nats[real].sum(), rel=1e-5)
    assert float(terms['detection'].weight) == real.sum() == 40 * 3 + 22
    assert terms['detection'].coefficient == 50.0
    assert terms['cross_entropy'].coefficient == 1.0
    share = {n: float(m.sum / m.weight) for n, m in metrics.items()}
    assert share['replaced'] == pytest.approx(label[real].mean())
    assert share['detection_accuracy'] == pytest.approx(((s > 0) == label)[real].mean())
    assert share['detected'] == pytest.approx((s > 0)[label].mean())


def test_no_gradient_reaches_the_generator_through_its_samples():
    objective = make()
    batch = objective.corrupt(jax.random.key(0), windows())

    def detection(scale):
        model = generator()._replace(
            logits=lambda hidden: scale * jnp.ones((*hidden.shape[:2], V)) * jnp.arange(V)
        )
        pair = {'generator': model, 'discriminator': scores(jnp.sin)}
        return objective.loss(pair, batch, None).terms['detection'].sum

    assert jax.grad(detection)(1.0) == 0


def test_what_the_run_is_told_of_its_models():
    objective = make()
    assert set(objective.models) == {'generator', 'discriminator'}
    assert objective.models['discriminator'] == {'token_head': False, 'token_scores': True}
    owner, parts = objective.shared['generator']
    assert owner == 'discriminator'
    assert parts == (
        'token_embedding', 'position_embedding', 'segment_embedding', 'embedding_norm',
    )  # fmt: skip


def test_a_negative_weight_is_refused():
    with pytest.raises(ValueError, match='discriminator_weight=-1'):
        make(discriminator_weight=-1.0)
