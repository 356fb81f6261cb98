"""The step against a plain gradient of a plain loss, and against itself on other meshes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from objectives import causal_lm, contract
from pretrain import assembly, meshes, partitioning, train_step
from pretrain.model.config import TransformerConfig
from pretrain.model.transformer import Transformer, bind

V, L, B = 64, 12, 8


def learner(optimizer=None, accumulation=1, objective=None, **model):
    fields = {
        'decoder_layers': 2, 'width': 32, 'heads': 4, 'max_positions': 16, 'norm': 'rms',
        'positions': 'rotary', 'kv_heads': 2,
    }  # fmt: skip
    config = ConfigDict(
        {'length': L, 'separate_documents': True, 'z_loss': 1e-3} | (objective or {})
    )
    vocabulary = contract.Vocabulary(
        size=V, table_size=V, pad=0, eos=1, unk=None, cls=None, sep=None, mask=None, modes=None,
        sentinels=None, word_start_V=np.zeros(V, bool), bytes_V=np.arange(V),
    )  # fmt: skip
    return train_step.Learner(
        {'model': Transformer(TransformerConfig(V, **(fields | model)))},
        causal_lm.make(config, vocabulary),
        optimizer or optax.sgd(1.0),
        seed=3,
        accumulation=accumulation,
    )


def windows(seed=0):
    """Rows whose number of predicted tokens differs a lot."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(3, V, (B, L + 1)).astype(np.int32)
    documents = np.sort(rng.integers(0, 3, (B, L + 1)), axis=1).astype(np.int32)
    for row in range(B):
        documents[row, L + 1 - row :] = contract.PADDING
    return contract.Windows(tokens, np.zeros_like(tokens), documents, np.arange(B, dtype=np.int32))


def step(learner, steps=1, mesh=None):
    """The state and the measurements after a few steps."""
    mesh = mesh or meshes.make_mesh('data=1', jax.devices()[:1])
    abstract = assembly.abstract_state(learner, mesh)
    shardings = jax.tree.map(lambda x: x.sharding, abstract)
    state = jax.jit(lambda: train_step.init_state(learner), out_shardings=shardings)()
    run = jax.jit(
        functools.partial(train_step.train_step, learner), out_shardings=(shardings, None)
    )
    for i in range(steps):
        with jax.set_mesh(mesh):
            state, measured = run(state, partitioning.global_array(mesh, windows(i), B))
    return jax.device_get((state, measured))


def by_hand(params, module):
    """Loss and its gradient without segments: each document of each row alone in a row."""
    data = windows()
    texts = [
        data.tokens_BxW[row][data.documents_BxW[row] == number]
        for row in range(B)
        for number in range(3)
    ]
    texts = [text for text in texts if len(text) > 1]
    padded = np.zeros((len(texts), L + 1), np.int32)  # on the right, where nobody looks
    for row, text in zip(padded, texts):
        row[: len(text)] = text
    real = np.arange(L) < np.array([len(text) - 1 for text in texts])[:, None]

    def total(params):
        model = bind(module, params['model'])
        inputs = contract.Inputs(jnp.asarray(padded[:, :-1]))
        logits = model.logits(model.hidden(contract.Batch(inputs, None, None, None)))
        nats = optax.softmax_cross_entropy_with_integer_labels(logits, padded[:, 1:])
        z = jnp.square(jax.nn.logsumexp(logits, axis=-1))
        return ((nats + 1e-3 * z) * real).sum() / real.sum()

    return jax.jit(jax.value_and_grad(total))(params)


def test_the_gradient_is_that_of_the_mean_over_all_predicted_tokens():
    it = learner()
    before = train_step.init_state(it)
    after, measured = step(it)
    loss, gradient = by_hand(before['params'], it.transformers['model'])
    np.testing.assert_allclose(measured['loss'], loss, rtol=1e-5)
    np.testing.assert_allclose(measured['gradient_norm'], optax.tree.norm(gradient), rtol=1e-4)
    jax.tree.map(  # plain gradient descent with rate 1: the step is the gradient
        lambda new, old, g: np.testing.assert_allclose(old - new, g, atol=2e-6),
        after['params'], dict(before['params']), gradient,
    )  # fmt: skip
    assert after['step'] == 1


@pytest.mark.parametrize('parts', [8])
def test_accumulation_equals_the_big_batch(parts):
    whole, parted = step(learner()), step(learner(accumulation=parts))
    # Float32 sums in another order; the rows' weights differ from part to part.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6), whole, parted)


@pytest.mark.parametrize(
    ('mesh', 'accumulation'),
    [('data=8', 1), ('fsdp=8', 1), ('tensor=4,data=2', 1), ('sequence=4,data=2', 1)],
)
def test_eight_devices_compute_what_one_computes(mesh, accumulation):
    it = learner(optax.adamw(1e-2), accumulation=accumulation)
    one = step(it, steps=3)
    eight = step(it, steps=3, mesh=meshes.make_mesh(mesh))
    np.testing.assert_allclose(eight[1]['loss'], one[1]['loss'], rtol=1e-5)
    # Adam divides by the root of tiny squares, so parameters differ by more than the loss.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4),
        one[0]['params'],
        eight[0]['params'],
    )


def test_random_bits_do_not_depend_on_the_mesh():
    it = learner(optax.sgd(0.1), dropout=0.5)
    one = step(it, steps=2)[1]
    eight = step(it, steps=2, mesh=meshes.make_mesh('data=4,tensor=2'))[1]
    np.testing.assert_allclose(eight['loss'], one['loss'], rtol=1e-5)
    assert one['loss'] != pytest.approx(
        float(step(learner(optax.sgd(0.1)), steps=2)[1]['loss']), rel=1e-4
    )


def test_a_step_that_is_not_finite_changes_nothing():
    it = learner(optax.adamw(1e-2))
    state = train_step.init_state(it)
    run = jax.jit(functools.partial(train_step.train_step, it))
    state, measured = run(state, windows())
    assert measured['finite'] == 1
    bad = jax.tree.map(lambda x: x, state)
    table = bad['params']['model']['token_embedding']['table']
    bad['params']['model']['token_embedding']['table'] = table.at[5, 0].set(jnp.inf)
    kept, measured = run(bad, windows())
    assert measured['finite'] == 0
    jax.tree.map(np.testing.assert_array_equal, kept, bad)


def test_evaluation_adds_up_over_batches_and_ignores_padded_rows():
    it = learner()
    params = train_step.init_state(it)['params']
    data = windows()
    run = jax.jit(functools.partial(train_step.evaluation_step, it))
    whole, weights = run(params, data)
    pieces = []
    for rows in (slice(0, 3), slice(3, 8)):
        padded = jax.tree.map(
            lambda x, rows=rows: np.concatenate([x[rows], np.full_like(x[: 8 - len(x[rows])], -1)]),
            data,
        )
        padded = padded._replace(tokens_BxW=np.maximum(padded.tokens_BxW, 0))
        pieces.append(run(params, padded))
    np.testing.assert_allclose(pieces[0][1] + pieces[1][1], weights)
    for name in ('sum', 'weight'):
        parts = [getattr(p[0].terms['cross_entropy'], name) for p in pieces]
        np.testing.assert_allclose(
            sum(parts), getattr(whole.terms['cross_entropy'], name), rtol=1e-5
        )
    assert weights.sum() == whole.terms['cross_entropy'].weight


def test_the_objective_reaches_zero_on_one_small_batch():
    it = learner(optax.adam(1e-2), objective={'z_loss': 0.0, 'separate_documents': False})
    state = train_step.init_state(it)
    run = jax.jit(functools.partial(train_step.train_step, it))
    for _ in range(200):
        state, measured = run(state, windows())
    assert measured['loss'] < 0.02
    assert measured['accuracy'] == 1
