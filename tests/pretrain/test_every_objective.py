"""What must hold for every objective: sharding, accumulation and resuming change nothing."""

import functools

import jax
import numpy as np
import optax
import pytest

from configs import compare, objectives
from objectives import contract
from pretrain import assembly, meshes, partitioning, train_step
from pretrain.checkpoints import Checkpoints

NAMES = (
    'causal_lm', 'prefix_lm', 'masked_lm', 'next_sentence', 'span_corruption',
    'mixture_of_denoisers', 'replaced_token', 'distillation', 'two_stacks',
)  # fmt: skip
B = 8
@functools.cache
def make_learner(name, vocabulary, accumulation=1):
    if name == 'two_stacks':  # an encoder and a decoder
        config = compare.get_config('span_corruption,smoke')
        config.objective = objectives.span_corruption(32)
        config.model.encoder_layers = 1
    else:
        config = compare.get_config(f'{name},smoke')
    config.accumulation = accumulation
    learner = assembly.make_learner(config, vocabulary)
    # No division by the root of tiny squares as in Adam, which would magnify the last digits.
    descent = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1, momentum=0.9))
    return learner._replace(optimizer=descent)


def windows(learner, step):
    """Sentences of 3 tokens, a document a row, rows of different lengths, the last one empty."""
    width = learner.objective.window_length()
    rng = np.random.default_rng(step)
    tokens = rng.integers(9, 76, (B, width)).astype(np.int32)
    sentences = np.broadcast_to(np.arange(width, dtype=np.int32) // 3, (B, width)).copy()
    documents = np.broadcast_to(np.arange(B, dtype=np.int32)[:, None] // 2, (B, width)).copy()
    for row, length in enumerate(rng.integers(6, width + 1, B)):
        length = 0 if row == B - 1 else length
        tokens[row, length:] = 0
        sentences[row, length:] = documents[row, length:] = contract.PADDING
    return contract.Windows(tokens, sentences, documents, np.arange(B * step, B * step + B))


@functools.cache
def start(name, vocabulary):
    """The state that every run of an objective begins with, and its frozen parameters."""
    learner = make_learner(name, vocabulary)
    config = compare.get_config(f'{name},smoke' if name == 'distillation' else 'causal_lm,smoke')
    state = jax.jit(lambda: train_step.init_state(learner))()
    frozen, _ = assembly.frozen_params(config, learner, meshes.make_mesh('data=-1'))
    return jax.device_get((state, frozen))


@functools.cache
def programs(name, vocabulary, mesh='data=1', accumulation=1):
    """(the state at the start, step(state, number) -> (state, measurements), abstract state)."""
    learner = make_learner(name, vocabulary, accumulation)
    devices = jax.devices() if mesh != 'data=1' else jax.devices()[:1]
    mesh = meshes.make_mesh(mesh, devices)
    abstract = assembly.abstract_state(learner, mesh)
    shardings = jax.tree.map(lambda x: x.sharding, abstract)
    frozen_shardings = jax.tree.map(lambda x: x.sharding, assembly.abstract_frozen(learner, mesh))
    state, frozen = start(name, vocabulary)
    state = jax.device_put(state, shardings)
    frozen = jax.device_put(frozen, frozen_shardings)
    update = jax.jit(
        functools.partial(train_step.train_step, learner), out_shardings=(shardings, None)
    )

    def step(state, number):
        rows = partitioning.global_array(mesh, windows(learner, number), B)
        with jax.set_mesh(mesh):
            return update(state, rows, frozen)

    return state, step, abstract


def run(name, vocabulary, mesh='data=1', accumulation=1):
    state, step, _ = programs(name, vocabulary, mesh, accumulation)
    for number in range(2):
        state, measured = step(state, number)
    return jax.device_get((state, measured))


@pytest.mark.parametrize('name', NAMES)
def test_eight_devices_and_two_parts_compute_what_one_device_computes_at_once(name, vocabulary):
    """The parts hold different numbers of predicted tokens, and the last row none."""
    one = run(name, vocabulary)
    many = run(name, vocabulary, 'fsdp=2,tensor=2,sequence=2', accumulation=2)
    assert one[1].keys() == many[1].keys()
    for key in one[1]:
        np.testing.assert_allclose(one[1][key], many[1][key], rtol=2e-5, atol=1e-6, err_msg=key)
    jax.tree.map(  # float32 sums in another order
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6), one[0], many[0]
    )


@pytest.mark.parametrize('name', NAMES)
def test_a_resumed_run_has_the_same_bits(name, vocabulary, tmp_path):
    state, step, abstract = programs(name, vocabulary)
    for number in range(2):
        state, _ = step(state, number)
    with Checkpoints(tmp_path / 'checkpoints', {}) as saved:
        saved.save(state, 2, {})
    with Checkpoints(tmp_path / 'checkpoints', {}) as saved:
        restored, _ = saved.restore(abstract)
    for number in range(2, 4):
        state, measured = step(state, number)
        restored, again = step(restored, number)
    jax.tree.map(np.testing.assert_array_equal, (state, measured), (restored, again))
    assert np.isfinite(measured['loss'])


@pytest.mark.parametrize('name', NAMES)
def test_it_learns_one_small_batch(name, vocabulary):
    """The same windows under the same corruption: what is to be predicted can be learned."""
    state, step, _ = programs(name, vocabulary)
    losses = []
    for _ in range(400):  # ELECTRA's generator draws what its loss depends on, and needs the most
        state, measured = step(state, 0)
        losses.append(float(measured['cross_entropy']))
        if losses[-1] < 0.1 * losses[0]:
            return
    pytest.fail(f'from {losses[0]} to {losses[-1]} only')


def test_electras_tables_learn_from_both_models(vocabulary):
    """The generator has none of its own: its loss reaches those of the discriminator."""
    learner = make_learner('replaced_token', vocabulary)
    params = start('replaced_token', vocabulary)[0]['params']
    assert 'token_embedding' not in params['generator']
    batch = jax.jit(learner.objective.corrupt)(jax.random.key(0), windows(learner, 0))

    @jax.jit
    @jax.grad
    def of_masked_lm(params):
        loss = learner.objective.loss(train_step.bind(learner, params), batch, None)
        return loss.terms['cross_entropy'].sum

    gradient = of_masked_lm(params)['discriminator']
    assert np.abs(gradient['token_embedding']['table']).max() > 0
    assert max(np.abs(x).max() for x in jax.tree.leaves(gradient['encoder'])) == 0
