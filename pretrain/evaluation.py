"""The loss of a model on held-out text, and the baseline that knows only frequencies."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from pretrain import partitioning
from pretrain.data import loader

SAMPLED, SAMPLED_AT_ONCE = 1024, 64  # windows, to count the special ids among the targets
TOKEN_LOSS = 'cross_entropy'  # the term that is nats a predicted token


def evaluate(step, params, reader, batch, mesh, windows=0, unigram_V=None, progress=iter):
    """Mean loss and metrics over the windows of a split, in a fixed shuffled order.

    Args:
        step: jitted train_step.evaluation_step with the learner bound: (params, windows) ->
            (contract.Loss, weight_V).
        params: as in the train state.
        reader: windows.WindowReader, or another with its `read` and length.
        batch: windows at once; the last batch is filled up with padding that counts nothing.
        mesh: jax Mesh.
        windows: how many at most, from the start of that order; 0: all.
        unigram_V: log-probabilities of `unigram`, or None.
        progress: wraps the iterable of batches, for a progress bar.

    Returns:
        {name: float}: loss, each term, each metric, `perplexity`, and `unigram`, the
        cross-entropy of the same tokens under unigram_V; `predicted`, their number.
    """
    rows = partitioning.process_rows(mesh, batch)
    count = min(windows or len(reader), len(reader))
    sums, weight_V = None, 0.0
    for first in progress(range(0, count, batch)):
        piece = loader.for_evaluation(reader, first, batch, rows, count)
        loss, weights = step(params, partitioning.global_array(mesh, piece, batch))
        # Added up in float64: a float32 sum over a large split would drift.
        loss = jax.tree.map(lambda x: np.float64(x), loss)
        weight_V = weight_V + np.asarray(weights, np.float64)
        sums = loss if sums is None else jax.tree.map(np.add, sums, loss)
    terms = {name: _divide(t.sum, t.weight) for name, t in sums.terms.items()}
    coefficients = {name: t.coefficient for name, t in loss.terms.items()}
    result = {'loss': sum(coefficients[name] * mean for name, mean in terms.items()), **terms}
    result |= {name: _divide(m.sum, m.weight) for name, m in sums.metrics.items()}
    if TOKEN_LOSS in terms:
        result['perplexity'] = perplexity(terms[TOKEN_LOSS])
    total = float(weight_V.sum())
    if unigram_V is not None and total:
        result['unigram'] = float(-(weight_V[: len(unigram_V)] * unigram_V).sum() / total)
    result['predicted'] = total
    return {name: float(value) for name, value in result.items()}


def evaluate_each(step, params, readers, shares, *arguments, **options):
    """Mean loss and metrics over several corpora, and the loss on each.

    Args:
        readers: {name: reader}. shares: {name: weight of the corpus in the means}.
        step, params, the rest: as of `evaluate`, which is called for each.

    Returns:
        {name: float}: what `evaluate` returns, in the mean over corpora, where there are several
        with the loss on each as `loss_NAME`.
    """
    results = {
        name: evaluate(step, params, reader, *arguments, **options)
        for name, reader in readers.items()
    }
    if len(shares) == 1:
        return next(iter(results.values()))
    first = next(iter(results.values()))
    total = sum(shares[name] for name in results)
    mixed = {
        metric: sum(shares[name] / total * result[metric] for name, result in results.items())
        for metric in first
    }
    if TOKEN_LOSS in mixed:
        mixed['perplexity'] = perplexity(mixed[TOKEN_LOSS])
    mixed['predicted'] = sum(result['predicted'] for result in results.values())
    return mixed | {f'loss_{name}': result['loss'] for name, result in results.items()}


def unigram(corpus, objective, reader):
    """Log-probabilities of predicted tokens by their frequency in the training split.

    Pieces of text are counted in the whole split, one added to each. Ids that no text holds (eos,
    sentinels) are counted among the targets that the objective makes of some windows.

    Args:
        corpus: corpus.Corpus. objective: contract.Objective. reader: of the training windows.

    Returns:
        float64 array over the ids that mean something.
    """
    vocabulary = corpus.tokenizer.vocabulary
    counts_V = np.zeros(vocabulary.size)
    counted_V = np.asarray(corpus.counts_V[: vocabulary.size], np.float64)
    counts_V[: len(counted_V)] = counted_V

    @jax.jit
    def targets(windows):
        batch = objective.corrupt(jax.random.key(0), windows)
        weight_V = jnp.zeros(vocabulary.table_size, jnp.float32)
        return weight_V.at[batch.targets_BxK].add(batch.weights_BxK)

    sampled_V = np.zeros(vocabulary.table_size)
    count = min(SAMPLED, len(reader))
    for first in range(0, count, SAMPLED_AT_ONCE):
        rows = slice(0, SAMPLED_AT_ONCE)
        windows = loader.for_evaluation(reader, first, SAMPLED_AT_ONCE, rows, count)
        sampled_V += np.asarray(targets(windows), np.float64)
    is_text_V = vocabulary.bytes_V[: vocabulary.size] > 0
    special_V = np.where(is_text_V, 0, sampled_V[: vocabulary.size] + 1)
    special_V /= sampled_V.sum() + np.sum(~is_text_V)
    text_V = np.where(is_text_V, counts_V + 1, 0)
    return np.log(special_V + (1 - special_V.sum()) * text_V / text_V.sum())


def perplexity(nats):
    """exp of a mean loss; inf where it is too large for a float."""
    return math.exp(nats) if nats < 700 else math.inf


def _divide(total, weight):
    return total / weight if weight else 0.0
