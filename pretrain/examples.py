"""What an objective makes of the first windows of a run, in words: what is read, what is predicted.

A run prints it when it begins, so that one sees the objective work before one waits for it.
"""

import jax
import numpy as np

from pretrain import train_step
from pretrain.data import loader

WINDOWS = 8  # made into a batch: a next sentence comes from another row
WIDTH = 400  # characters of a line that are shown


def show(learner, reader, tokens, count=2):
    """The first rows of the first batch, decoded.

    Targets that stand for places of the text are shown in it, `[read -> to be predicted]`. Other
    targets stand in a line of their own, where `_` is a target of weight 0, and a weight other
    than 1 stands behind its target (`x0.5`).

    Args:
        learner: train_step.Learner. reader: corpus.WindowReader.
        tokens: Tokenizer. count: rows.

    Returns:
        Text of several lines.
    """
    positions = np.arange(min(WINDOWS, len(reader)))
    windows = loader.read(reader, learner.seed, positions)
    key = train_step.run_key(learner.seed, train_step.CORRUPT)
    batch = jax.device_get(jax.jit(learner.objective.corrupt)(key, windows))
    lines = []
    for row in range(min(count, len(positions))):
        lines.append(f'example {row + 1}')
        for name, text in describe(jax.tree.map(lambda x, row=row: x[row], batch), tokens).items():
            lines.append(f'  {name:<9} {shorten(text)}')
    return '\n'.join(lines)


def describe(row, tokens):
    """{'reads': text, 'predicts': text, ...} of a contract.Batch of one row without its axis."""
    inputs, targets, weights = row.inputs, row.targets_BxK, row.weights_BxK
    length = real_length(inputs, tokens)
    texts = {}
    if row.places_BxK is None or inputs.prefix_B is not None:
        texts['reads'] = tokens.decode(inputs.tokens_BxL[:length])
        if inputs.prefix_B is not None:
            prefix = int(inputs.prefix_B)
            texts['reads'] = ' || '.join(
                tokens.decode(part)
                for part in (inputs.tokens_BxL[:prefix], inputs.tokens_BxL[prefix:length])
            )
        texts['predicts'] = predictions(targets, weights, tokens)
    else:
        texts['reads'] = marked(row, length, tokens)
    if row.seeds_B is not None:
        texts['then'] = (
            'samples of the generator take the places in brackets, and of every token is asked '
            'whether it is the original'
        )
    if row.labels_B is not None:
        texts['label'] = str(int(row.labels_B))
    return texts


def real_length(inputs, tokens):
    """Tokens of a row up to its padding."""
    if inputs.segments_BxL is None:
        return len(inputs.tokens_BxL)
    return int(np.max(np.flatnonzero(inputs.segments_BxL), initial=-1)) + 1


def marked(row, length, tokens):
    """The text that is read, with `[read -> to be predicted]` at the places of the targets."""
    wanted = {
        int(place): (int(target), float(weight))
        for place, target, weight in zip(row.places_BxK, row.targets_BxK, row.weights_BxK)
        if weight
    }
    parts, run = [], []
    for place, token in enumerate(row.inputs.tokens_BxL[:length]):
        if place not in wanted:
            run.append(token)
            continue
        target, weight = wanted[place]
        mark = f'[{tokens.decode([token])} -> {tokens.decode([target])}{shown(weight)}]'
        parts += [tokens.decode(run), mark]
        run = []
    return ''.join([*parts, tokens.decode(run)])


def predictions(targets, weights, tokens):
    """The targets as text; `_` where the weight is 0, and padding at the end left out."""
    parts, run = [], []
    for target, weight in zip(targets, weights):
        if weight == 1:
            run.append(target)
            continue
        parts.append(tokens.decode(run))
        parts.append(f'{tokens.decode([target])}{shown(weight)}' if weight else '_')
        run = []
    return ''.join([*parts, tokens.decode(run)]).rstrip('_') or '(nothing)'


def shown(weight):
    """' x0.5' for a weight other than 1."""
    return '' if weight == 1 else f' x{weight:g}'


def shorten(text):
    """One line of at most WIDTH characters: its beginning and its end."""
    text = text.replace('\n', ' \\n ')
    if len(text) <= WIDTH:
        return text
    return f'{text[: WIDTH * 2 // 3]} ... {text[-WIDTH // 3 :]}'
