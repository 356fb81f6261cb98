"""The loss of a model on held-out text, and the baseline that knows only frequencies."""

import math

import jax
import numpy as np

from pretrain import partitioning
from pretrain.data import loader

TOKEN_LOSS = 'cross_entropy'  # the term that is nats a predicted token


def evaluate(step, params, reader, batch, mesh, windows=0, unigram_V=None, progress=iter):
    """Mean loss and metrics over the windows of a split, in their order.

    Args:
        step: jitted train_step.evaluation_step with the learner bound: (params, windows) ->
            (contract.Loss, weight_V).
        params: as in the train state.
        reader: corpus.WindowReader.
        batch: windows at once; the last batch is filled up with padding that counts nothing.
        mesh: jax Mesh.
        windows: how many at most, from the start; 0: all.
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
        piece = loader.in_order(reader, first, batch, rows, count)
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


def unigram(corpus, separator):
    """Log-probabilities of tokens by their frequency in the training split, one added to each.

    Args:
        corpus: corpus.Corpus. separator: an eos follows each document.

    Returns:
        float64 array over the ids that mean something.
    """
    vocabulary = corpus.tokenizer.vocabulary
    counts_V = np.asarray(corpus.counts_V[: vocabulary.size], np.float64)
    counts_V = np.pad(counts_V, (0, vocabulary.size - len(counts_V)))
    if separator:
        counts_V[vocabulary.eos] += corpus.total('train', 'documents')
    counts_V += 1
    return np.log(counts_V / counts_V.sum())


def perplexity(nats):
    """exp of a mean loss; inf where it is too large for a float."""
    return math.exp(nats) if nats < 700 else math.inf


def _divide(total, weight):
    return total / weight if weight else 0.0
