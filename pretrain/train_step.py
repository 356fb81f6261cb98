"""The only place where data, objective and model meet: one jitted function a step."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from objectives import contract
from pretrain import partitioning
from pretrain.model import transformer

# The random streams of a run, each folded into the run's key.
INIT, CORRUPT, LOSS, EVALUATION, SAMPLE = range(5)


class Learner(NamedTuple):
    """What a run consists of before it has any state: pure functions, made from its config.

    transformers: flax modules by the names that the objective asks for.
    objective: contract.Objective. optimizer: optax.GradientTransformation.
    seed: of the run. accumulation: parts that a batch is worked off in.
    """

    transformers: dict
    objective: contract.Objective
    optimizer: optax.GradientTransformation
    seed: int
    accumulation: int


def run_key(seed, stream):
    """The key of one of the random streams of a run."""
    return jax.random.fold_in(jax.random.key(seed), stream)


def init_state(learner):
    """Draws the state of a run.

    Returns:
        {'params': {model name: parameters}, 'optimizer': ..., 'step': int32 scalar}, without the
        frozen models; jit it with the shardings of the mesh as out_shardings.
    """
    params = draw_params(learner)
    params = {n: p for n, p in params.items() if n not in learner.objective.frozen}
    return {
        'params': params,
        'optimizer': learner.optimizer.init(params),
        'step': jnp.zeros((), jnp.int32),
    }


def draw_params(learner):
    """{model name: parameters} of all models, frozen ones too, without what they share."""
    keys = jax.random.split(run_key(learner.seed, INIT), len(learner.transformers))
    params = {}
    for key, (name, module) in zip(keys, sorted(learner.transformers.items())):
        _, others = learner.objective.shared.get(name, ('', ()))
        drawn = transformer.init(module, key)
        params[name] = {part: x for part, x in drawn.items() if part not in others}
    return params


def train_step(learner, state, windows, frozen=None):
    """One update of the parameters on one global batch.

    Gradients of the parts of the batch are added up (`accumulation`). Every term of the loss is
    divided by its weight over the whole batch, so the result is that of the batch in one piece.

    Args:
        learner: Learner (static).
        state: see init_state. When the loss, the norm of the gradient or that of the new
            parameters is not finite, it is returned as it was, so that no bad parameter is ever
            kept.
        windows: contract.Windows of the global batch.
        frozen: {model name: parameters} of the models that are not trained.

    Returns:
        (state, measurements): dict of float32 scalars: `loss`, each term and each metric by name,
        `gradient_norm`, and `finite`, 1 or 0.
    """
    objective, frozen = learner.objective, frozen or {}
    batch = objective.corrupt(run_key(learner.seed, CORRUPT), windows)
    batch = partitioning.laid_by_rows(batch)
    key = jax.random.fold_in(run_key(learner.seed, LOSS), state['step'])

    def part_loss(params, part, key, weights):
        loss = objective.loss(bind(learner, params | frozen), part, key)
        total = sum(
            term.coefficient * _divide(term.sum, term.weight if weights is None else weights[name])
            for name, term in loss.terms.items()
        )
        return total, loss

    gradient = jax.grad(part_loss, has_aux=True)
    parts = learner.accumulation
    if parts == 1:
        gradients, loss = gradient(state['params'], batch, key, None)
        gradients = partitioning.laid_as_parameters(gradients)
    else:
        # Only the weights are asked of this loss, so the compiler leaves the model out of it.
        whole = objective.loss(bind(learner, state['params'] | frozen), batch, key)
        weights = {name: term.weight for name, term in whole.terms.items()}

        def add(sums, part):
            index, rows = part
            new, loss = gradient(state['params'], rows, jax.random.fold_in(key, index), weights)
            new = partitioning.laid_as_parameters(new), loss
            return jax.tree.map(jnp.add, sums, new), None

        split = jax.tree.map(lambda x: _split(x, parts), batch)
        shapes = jax.eval_shape(
            gradient, state['params'], jax.tree.map(lambda x: x[0], split), key, weights
        )
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        (gradients, loss), _ = jax.lax.scan(add, zeros, (jnp.arange(parts), split))
        # A coefficient is a constant of the objective, not a sum over the parts.
        loss = loss._replace(
            terms={
                n: t._replace(coefficient=whole.terms[n].coefficient) for n, t in loss.terms.items()
            }
        )

    measurements = measure(loss)
    norm = optax.tree.norm(gradients)
    updates, optimizer = learner.optimizer.update(gradients, state['optimizer'], state['params'])
    params = optax.apply_updates(state['params'], updates)
    new = {'params': params, 'optimizer': optimizer, 'step': state['step'] + 1}
    finite = jnp.isfinite(measurements['loss']) & jnp.isfinite(norm)
    finite &= jnp.isfinite(optax.tree.norm(params))
    state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), new, state)
    measurements |= {'gradient_norm': norm, 'finite': finite.astype(jnp.float32)}
    return state, measurements


def evaluation_step(learner, params, windows):
    """The loss of a batch without dropout, as sums that can be added up over batches.

    Args:
        learner: Learner (static). params: {model name: parameters}, the frozen ones included.
        windows: contract.Windows; rows of padding count nothing.

    Returns:
        (contract.Loss, weight_V): the second is how often each id was to be predicted, weighted,
        which is what a baseline that knows only frequencies needs.
    """
    objective = learner.objective
    batch = objective.corrupt(run_key(learner.seed, EVALUATION), windows)
    batch = partitioning.laid_by_rows(batch)
    loss = objective.loss(bind(learner, params), batch, None)
    rows = max(m.config.vocabulary for m in learner.transformers.values())
    weight_V = jnp.zeros(rows, jnp.float32).at[batch.targets_BxK].add(batch.weights_BxK)
    return loss, weight_V


def measure(loss):
    """contract.Loss -> {name: mean}, with the total under 'loss'."""
    values = {name: _divide(term.sum, term.weight) for name, term in loss.terms.items()}
    total = sum(term.coefficient * values[name] for name, term in loss.terms.items())
    metrics = {name: _divide(mean.sum, mean.weight) for name, mean in loss.metrics.items()}
    return {'loss': total, **values, **metrics}


def bind(learner, params):
    """{model name: contract.Model} with the parameters put in."""
    params = dict(params)
    for name, (owner, parts) in learner.objective.shared.items():
        lent = {part: params[owner][part] for part in parts if part in params[owner]}
        params[name] = params[name] | lent
    return {
        name: transformer.bind(module, params[name])
        for name, module in learner.transformers.items()
    }


def _divide(total, weight):
    return jnp.where(weight > 0, total / jnp.where(weight > 0, weight, 1), 0.0)


def _split(x, parts):
    """Bx... -> parts x B/parts x...; part i takes every parts-th row, so no device's rows move."""
    return jnp.moveaxis(x.reshape(-1, parts, *x.shape[1:]), 1, 0)
