"""The picture of a run: its losses over its steps, and the line that frequencies alone reach."""

import numpy as np

from pretrain import run_log, storage
from pretrain.data.shards import write_whole


def draw(workdir):
    """Draws loss.png from metrics.jsonl.

    Args:
        workdir: folder of a run.

    Returns:
        Path of the picture, or None when there is nothing to draw yet.
    """
    rows = run_log.read_rows(workdir)
    # Where a loss has several terms, the one that the line of frequencies can be compared with.
    name = 'cross_entropy' if any('cross_entropy' in r for r in rows) else 'loss'
    train = [(r['step'], r[name]) for r in rows if name in r]
    what = 'loss (nats a token)' if name == 'loss' else 'cross-entropy (nats a predicted token)'
    name = f'validation_{name}'
    validation = [(r['step'], r[name]) for r in rows if name in r]
    unigram = [r['validation_unigram'] for r in rows if 'validation_unigram' in r]
    if not train and not validation:
        return None

    import matplotlib

    matplotlib.use('agg')
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5), layout='constrained')
    if train:
        steps, losses = np.array(train).T
        axes.plot(steps, losses, color='tab:blue', alpha=0.3, linewidth=1)
        axes.plot(steps, _smooth(losses), color='tab:blue', label='training (smoothed)')
    if validation:
        steps, losses = np.array(validation).T
        axes.plot(steps, losses, 'o-', color='tab:red', markersize=4, label='validation')
        axes.annotate(f'{losses[-1]:.3f}', (steps[-1], losses[-1]), xytext=(0, 8),
                      textcoords='offset points', ha='right', color='tab:red')  # fmt: skip
    if unigram:
        label = f'unigram frequencies ({unigram[-1]:.3f})'
        axes.axhline(unigram[-1], color='grey', linestyle='--', label=label)
    axes.set(xlabel='step', ylabel=what, title=storage.place(workdir).resolve().name)
    axes.grid(alpha=0.3)
    axes.legend()
    path = storage.place(workdir) / 'loss.png'
    with write_whole(path) as file:
        figure.savefig(file, format='png', dpi=110)
    plt.close(figure)
    return path


def _smooth(values, weight=0.8):
    """Exponential mean, corrected for its start."""
    mean, total, smoothed = 0.0, 0.0, []
    for value in values:
        mean = weight * mean + (1 - weight) * value
        total = weight * total + (1 - weight)
        smoothed.append(mean / total)
    return np.array(smoothed)
