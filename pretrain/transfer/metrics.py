"""The metrics of the benchmarks, and the score that each benchmark makes of them.

Every metric is `f(task, examples, predictions) -> float`, in [0, 1], or [-1, 1] for correlations,
with one prediction an example, in the same order: a label, a float where the task is a number, the
text of an entity for ReCoRD. A model that answers in words may say what is no label at all. That
is always wrong: where a metric needs to know which class was predicted, it counts as the label that
follows the right one in `task.labels` (the first follows the last), so that of two labels it is the
wrong one, as in T5.
"""

import numpy as np

from pretrain.errors import UserError
from pretrain.transfer import answers

# What a benchmark's score is made of: {task: names of its metrics}. The score of a task is the
# mean of its metrics, that of the benchmark the mean of its tasks; diagnostic sets are not in it.
# Sources: GLUE (Wang et al. 2018), sections 3 and 6; SuperGLUE (Wang et al. 2019), table 1.
BENCHMARKS = {
    'glue': {
        'cola': ('matthews',),
        'sst2': ('accuracy',),
        'mrpc': ('f1', 'accuracy'),
        'stsb': ('pearson', 'spearman'),
        'mnli': ('accuracy', 'accuracy_mismatched'),
        'qnli': ('accuracy',),
        'qqp': ('f1', 'accuracy'),
        'rte': ('accuracy',),
        'wnli': ('accuracy',),
    },
    'superglue': {
        'boolq': ('accuracy',),
        'cb': ('accuracy', 'macro_f1'),
        'copa': ('accuracy',),
        'multirc': ('f1a', 'exact_groups'),
        'record': ('token_f1', 'token_exact'),
        'rte': ('accuracy',),
        'wic': ('accuracy',),
        'wsc': ('accuracy',),
    },
}


def accuracy(task, examples, predictions) -> float:
    """Share of examples whose prediction is the label."""
    _check(task, examples, predictions)
    right = [example.label == made for example, made in zip(examples, predictions)]
    return float(np.mean(right))


def f1(task, examples, predictions) -> float:
    """F1 of the last label; 0 where no example has that label and none is predicted to."""
    return float(_f1_by_class(_confusion(task, examples, predictions))[-1])


def macro_f1(task, examples, predictions) -> float:
    """Mean over all of the task's labels of their F1; 0 for a label that does not occur at all."""
    return float(np.mean(_f1_by_class(_confusion(task, examples, predictions))))


def matthews(task, examples, predictions) -> float:
    """Matthews correlation, of any number of classes; 0 where either side has one class alone.

    Source: Gorodkin 2004, 'Comparing two K-category assignments by a K-category correlation
    coefficient', equation 8.
    """
    confusion_CxC = _confusion(task, examples, predictions)
    gold_C, predicted_C = confusion_CxC.sum(1), confusion_CxC.sum(0)
    rows = confusion_CxC.sum()
    covariance = np.trace(confusion_CxC) * rows - gold_C @ predicted_C
    gold_variance = rows**2 - gold_C @ gold_C
    predicted_variance = rows**2 - predicted_C @ predicted_C
    # Integers up to here, so a variance of 0 is exactly 0.
    if not gold_variance or not predicted_variance:
        return 0.0
    return float(covariance / np.sqrt(gold_variance) / np.sqrt(predicted_variance))


def pearson(task, examples, predictions) -> float:
    """Pearson's correlation.

    0 where either side is constant (it is not defined there, and a model that always says the same
    has learnt nothing), or a prediction is not finite.
    """
    return _correlation(*_numbers(task, examples, predictions))


def spearman(task, examples, predictions) -> float:
    """Pearson's correlation of the ranks, equal values having the mean of their ranks.

    0 where either side is constant or a prediction is not finite, as for `pearson`.
    """
    gold_N, predicted_N = _numbers(task, examples, predictions)
    if not np.isfinite(predicted_N).all():
        return 0.0
    return _correlation(_ranks(gold_N), _ranks(predicted_N))


def exact_groups(task, examples, predictions) -> float:
    """Share of groups of which every prediction is right (MultiRC: a question's answers)."""
    _check(task, examples, predictions)
    right = {}
    for row, (example, made) in enumerate(zip(examples, predictions)):
        group = _group(example, row)
        right[group] = right.get(group, True) and example.label == made
    return float(np.mean(list(right.values())))


def gender_parity(task, examples, predictions) -> float:
    """Share of pairs (groups of two or more) whose predictions agree; 0 where there are no pairs.

    Labels do not matter; what is no label agrees with nothing.
    """
    _check(task, examples, predictions, labelled=False)
    pairs = {}
    for row, (example, made) in enumerate(zip(examples, predictions)):
        pairs.setdefault(_group(example, row), []).append(made)
    agree = [
        pair[0] in task.labels and all(made == pair[0] for made in pair)
        for pair in pairs.values()
        if len(pair) > 1
    ]
    return float(np.mean(agree)) if agree else 0.0


def token_f1(task, examples, predictions) -> float:
    """Mean over queries of the best SQuAD F1 (form of 1.1) over the right answers."""
    return _answered(task, examples, predictions, answers.f1)


def token_exact(task, examples, predictions) -> float:
    """Share of queries whose prediction, normalised as for SQuAD, is one of the right answers."""
    return _answered(task, examples, predictions, answers.exact_match)


METRICS = {
    'accuracy': accuracy,
    'f1': f1,
    'matthews': matthews,
    'pearson': pearson,
    'spearman': spearman,
    'macro_f1': macro_f1,
    'f1a': f1,  # of MultiRC: over the answers of all questions together
    'exact_groups': exact_groups,
    'token_f1': token_f1,
    'token_exact': token_exact,
    'gender_parity': gender_parity,
}


def score(task, examples, predictions) -> dict:
    """The task's metrics, and 'score', their mean.

    Args:
      task: a Task.
      examples: N Examples with labels.
      predictions: N, in the same order; what they may be stands at the top of this module.

    Returns:
      {name of the metric: value, 'score': mean of the values}.

    Raises:
      UserError: no examples; one without a label, or with a label that the task does not have.
    """
    values = {name: METRICS[name](task, examples, predictions) for name in task.metrics}
    return values | {'score': float(np.mean(list(values.values())))}


def benchmark_score(benchmark: str, results: dict) -> tuple[float | None, list[str]]:
    """The benchmark's score by its own rule, over what is there, and what is not.

    Args:
      benchmark: 'glue' or 'superglue'.
      results: {task: {metric: value}}; other tasks and metrics do not matter. MNLI is one task,
        'mnli', with 'accuracy' and, of the mismatched set, 'accuracy_mismatched'.

    Returns:
      The score (None where there is nothing to average) and the names of what is missing: a task
      ('cola'), or a metric of a task that is there ('mnli accuracy_mismatched'). Where something is
      missing the score is not the benchmark's: show both.

    Raises:
      UserError: a benchmark that has no score.
    """
    if benchmark not in BENCHMARKS:
        raise UserError(
            f'{benchmark!r} has no score of its own: one of {", ".join(BENCHMARKS)} has'
        )
    scores, missing = [], []
    for task, names in BENCHMARKS[benchmark].items():
        values = results.get(task, {})
        found = [values[name] for name in names if name in values]
        if found:
            scores.append(np.mean(found))
            missing += [f'{task} {name}' for name in names if name not in values]
        else:
            missing.append(task)
    return float(np.mean(scores)) if scores else None, missing


def _check(task, examples, predictions, labelled=True):
    """One prediction an example, at least one example, and labels on all of them."""
    if len(examples) != len(predictions):
        raise ValueError(f'{task.title}: {len(examples)} examples, {len(predictions)} predictions')
    if not len(examples):
        raise UserError(f'{task.title}: no examples to score; take a split that has some')
    if not labelled:
        return
    for example in examples:
        if example.label is None:
            raise UserError(
                f'{task.title}: example {example.index} has no label; score a split with labels'
            )


def _confusion(task, examples, predictions):
    """Counts of examples by label (rows) and prediction (columns)."""
    _check(task, examples, predictions)
    classes = len(task.labels)
    number = {label: at for at, label in enumerate(task.labels)}
    cells = []
    for example, made in zip(examples, predictions):
        gold = number.get(example.label)
        if gold is None:
            raise UserError(
                f'{task.title}: example {example.index} has the label {example.label!r}; '
                f'the labels are {", ".join(task.labels)}'
            )
        cells.append(gold * classes + number.get(made, (gold + 1) % classes))
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def _f1_by_class(confusion_CxC):
    right_C = np.diag(confusion_CxC)
    # Twice the right ones, the falsely predicted and the missed: 0 only of a class that is nowhere.
    total_C = confusion_CxC.sum(0) + confusion_CxC.sum(1)
    return 2 * right_C / np.maximum(total_C, 1)


def _numbers(task, examples, predictions):
    _check(task, examples, predictions)
    gold_N = np.array([example.label for example in examples], np.float64)
    return gold_N, np.asarray(predictions, np.float64)


def _correlation(first_N, second_N):
    units = []
    for values_N in (first_N, second_N):
        # Compared, not measured: the variance of equal values need not come out as 0.
        if not np.isfinite(values_N).all() or (values_N == values_N[0]).all():
            return 0.0
        values_N = values_N / np.abs(values_N).max()  # squares of huge values would overflow
        values_N = values_N - values_N.mean()
        units.append(values_N / np.linalg.norm(values_N))
    return float(np.clip(units[0] @ units[1], -1, 1))


def _ranks(values_N):
    _, places_N, counts = np.unique(values_N, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[places_N]


def _group(example, row):
    """What the example is judged with; the second part keeps rows and groups from meeting."""
    return (row, 'row') if example.group is None else (example.group, 'group')


def _answered(task, examples, predictions, measure):
    """Mean over queries; a query that stands in several examples counts once, by the first."""
    _check(task, examples, predictions, labelled=False)
    values = {}
    for example, made in zip(examples, predictions):
        query = example.index if example.group is None else example.group
        if query in values:
            continue
        if not example.answers:
            raise UserError(
                f'{task.title}: query {query} has no answers; score a split with answers'
            )
        values[query] = answers.best_over(example.answers, made, measure)
    return float(np.mean(list(values.values())))
