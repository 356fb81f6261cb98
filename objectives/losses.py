"""Losses over the vocabulary: the one place that decides whether to work in chunks."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from objectives import contract

# Above this many logits (float32 and their gradient: 2 GiB) they are made and thrown away in
# chunks of positions, at about a fifth more time (measured on CPU, V = 32,000).
LOGITS_AT_ONCE = 2**28
SMALLEST_CHUNK = 128  # positions; smaller matmuls leave an accelerator idle


class Sums(NamedTuple):
    """Sums over all predicted positions, each position counted with its weight; float32 scalars.

    loss: nats. correct: predictions whose highest logit is the label's. z: (log Z)^2.
    """

    loss: jax.Array
    correct: jax.Array
    z: jax.Array


def cross_entropy(logits_fn, hidden_BxKxD, labels_BxK, weights_BxK, chunk=None):
    """Weighted cross-entropy of labels, in nats, summed and not averaged.

    Args:
        logits_fn: hidden_BxKxD -> logits_BxKxV in float32.
        hidden_BxKxD: hidden states of the predicted positions only.
        labels_BxK: int32 token ids; where the weight is 0 any id will do.
        weights_BxK: float32.
        chunk: positions of K projected at once; None decides by the number of logits.

    Returns:
        Sums. Divide by the summed weights of the whole global batch, not of a part of it.
    """
    if chunk is None:
        chunk = _chunk_length(logits_fn, hidden_BxKxD)
    arrays = hidden_BxKxD, labels_BxK, weights_BxK
    return _in_chunks(lambda *parts: _sums(logits_fn, *parts), arrays, chunk)


class Divergence(NamedTuple):
    """Sums over positions, each counted with its weight; float32 scalars.

    kl: nats. mse: squared differences of logits, summed over the vocabulary. agreement: positions
    at which both have the same highest logit.
    """

    kl: jax.Array
    mse: jax.Array
    agreement: jax.Array


def divergence(
    student_fn, student_BxKxD, teacher_fn, teacher_BxKxE, weights_BxK, temperature=1.0, chunk=None
):
    """KL(teacher || student) of softmax(logits / temperature), summed and not averaged.

    Args:
        student_fn, teacher_fn: hidden states -> logits_BxKxV in float32.
        student_BxKxD, teacher_BxKxE: hidden states of both at the same positions.
        weights_BxK: float32.
        temperature: of both distributions; mse and agreement do not depend on it.
        chunk: positions of K projected at once; None decides by the number of logits.

    Returns:
        Divergence; no gradient goes through the teacher's logits.
    """
    if chunk is None:
        chunk = _chunk_length(student_fn, student_BxKxD)

    def sums(student, teacher, weights_BxK):
        s_BxKxV = student_fn(student).astype(jnp.float32)
        t_BxKxV = jax.lax.stop_gradient(teacher_fn(teacher).astype(jnp.float32))
        log_s_BxKxV = jax.nn.log_softmax(s_BxKxV / temperature)
        log_t_BxKxV = jax.nn.log_softmax(t_BxKxV / temperature)
        kl_BxK = jnp.sum(jnp.exp(log_t_BxKxV) * (log_t_BxKxV - log_s_BxKxV), axis=-1)
        same_BxK = jnp.argmax(s_BxKxV, axis=-1) == jnp.argmax(t_BxKxV, axis=-1)
        return Divergence(
            kl=jnp.sum(weights_BxK * kl_BxK),
            mse=jnp.sum(weights_BxK * jnp.sum(jnp.square(s_BxKxV - t_BxKxV), axis=-1)),
            agreement=jnp.sum(weights_BxK * same_BxK),
        )

    return _in_chunks(sums, (student_BxKxD, teacher_BxKxE, weights_BxK), chunk)


def draw(logits_fn, hidden_BxKxD, seeds_B, size, chunk=None):
    """Draws a token at each position from softmax(logits), by Gumbel noise.

    Args:
        logits_fn: hidden_BxKxD -> logits_BxKxV in float32.
        hidden_BxKxD: hidden states; no gradient goes through the drawing.
        seeds_B: uint32; the noise of position k of a row depends on its seed and k alone.
        size: ids from here on (padding of the table) are never drawn.
        chunk: positions of K projected at once; None decides by the number of logits.

    Returns:
        int32 tokens_BxK.
    """
    batch, positions = hidden_BxKxD.shape[:2]
    chunk = min(chunk or _chunk_length(logits_fn, hidden_BxKxD), positions)
    keys_B = jax.vmap(jax.random.key)(seeds_B)

    def choose(hidden, number_BxK):
        logits = jax.lax.stop_gradient(logits_fn(hidden).astype(jnp.float32))
        logits = jnp.where(jnp.arange(logits.shape[-1]) < size, logits, -jnp.inf)
        each = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)))
        return jax.vmap(jax.vmap(jax.random.categorical))(each(keys_B, number_BxK), logits)

    number_BxK = jnp.broadcast_to(jnp.arange(positions), (batch, positions))
    parts = jax.tree.map(lambda x: _cut(x, chunk), (hidden_BxKxD, number_BxK))
    drawn = jax.lax.map(lambda part: choose(*part), parts)
    return jnp.moveaxis(drawn, 0, 2).reshape(batch, -1)[:, :positions].astype(jnp.int32)


def _cut(x, chunk):
    """BxK... -> chunks x B x chunk..., what is missing at the end filled up with 0.

    A chunk takes positions that lie `chunks` apart, so that each device of those that share a row
    by its length has a part of every chunk.
    """
    batch, positions = x.shape[:2]
    chunks = -(-positions // chunk)
    x = jnp.pad(x, [(0, 0), (0, chunks * chunk - positions)] + [(0, 0)] * (x.ndim - 2))
    return jnp.moveaxis(x.reshape(batch, chunk, chunks, *x.shape[2:]), 2, 0)


def _in_chunks(sums, arrays, chunk):
    """sums(*arrays), worked off in chunks of positions (axis 1) that are added up."""
    if chunk >= arrays[0].shape[1]:
        return sums(*arrays)

    @jax.checkpoint  # the logits of a chunk are made again in the backward pass, never kept
    def add(total, part):
        return jax.tree.map(jnp.add, total, sums(*part)), None

    parts = jax.tree.map(lambda x: _cut(x, chunk), arrays)
    shapes = jax.eval_shape(sums, *jax.tree.map(lambda x: x[0], parts))
    zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return jax.lax.scan(add, zero, parts)[0]


def at_places(hidden_BxLxD, places_BxK):
    """The hidden states of some places, hidden_BxKxD; all of them where `places_BxK` is None."""
    if places_BxK is None:
        return hidden_BxLxD
    return jnp.take_along_axis(hidden_BxLxD, places_BxK[..., None], axis=1)


def predict_targets(model, hidden_BxLxD, batch, z_loss=0.0):
    """The loss of a batch's targets: what most objectives consist of.

    Args:
        model: contract.Model; only the predicted places meet its vocabulary.
        hidden_BxLxD: what it made of the batch.
        batch: contract.Batch.
        z_loss: coefficient of (log Z)^2, which keeps logits near 0 in training; 0: none, as in
            evaluation, where it is no part of the score.

    Returns:
        contract.Loss with the term `cross_entropy` (nats a target; `z_loss`) and the metric
        `accuracy`.
    """
    hidden_BxKxD = at_places(hidden_BxLxD, batch.places_BxK)
    sums = cross_entropy(model.logits, hidden_BxKxD, batch.targets_BxK, batch.weights_BxK)
    weight = jnp.sum(batch.weights_BxK)
    terms = {'cross_entropy': contract.Term(sums.loss, weight)}
    if z_loss:
        terms['z_loss'] = contract.Term(sums.z, weight, z_loss)
    return contract.Loss(terms, {'accuracy': contract.Mean(sums.correct, weight)})


def _chunk_length(logits_fn, hidden_BxKxD):
    batch, positions, _ = hidden_BxKxD.shape
    vocabulary = jax.eval_shape(logits_fn, hidden_BxKxD).shape[-1]
    chunks = -(-batch * positions * vocabulary // LOGITS_AT_ONCE)
    return max(-(-positions // chunks), min(SMALLEST_CHUNK, positions))


def _sums(logits_fn, hidden_BxKxD, labels_BxK, weights_BxK):
    logits_BxKxV = logits_fn(hidden_BxKxD).astype(jnp.float32)
    log_z_BxK = jax.nn.logsumexp(logits_BxKxV, axis=-1)
    # A comparison instead of a gather: it stays local when the vocabulary is sharded.
    ids_V = jnp.arange(logits_BxKxV.shape[-1])
    hit_BxKxV = labels_BxK[..., None] == ids_V
    label_BxK = jnp.sum(jnp.where(hit_BxKxV, logits_BxKxV, 0.0), axis=-1)
    correct_BxK = jnp.argmax(logits_BxKxV, axis=-1) == labels_BxK
    return Sums(
        loss=jnp.sum(weights_BxK * (log_z_BxK - label_BxK)),
        correct=jnp.sum(weights_BxK * correct_BxK),
        z=jnp.sum(weights_BxK * jnp.square(log_z_BxK)),
    )
