"""What an objective makes of the first windows of a run, in words: what is read, what is predicted.

A run prints it when it begins, so that one sees the objective work before one waits for it.
"""

from typing import NamedTuple

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
        learner: train_step.Learner. reader: windows.WindowReader.
        tokens: Tokenizer. count: rows.

    Returns:
        Text of several lines.
    """
    lines = []
    for number, row in enumerate(rows(learner.objective, learner.seed, reader, count)):
        lines.append(f'example {number + 1}')
        for name, text in describe(row, tokens).items():
            lines.append(f'  {name:<9} {shorten(text)}')
    return '\n'.join(lines)


def rows(objective, seed, reader, count):
    """The first rows of the first batch of a run.

    Args:
        objective: contract.Objective. seed: of the run. reader: windows.WindowReader.
        count: rows.

    Returns:
        list of contract.Batch (numpy), each of one row without its axis.
    """
    positions = np.arange(min(max(WINDOWS, count), len(reader)))
    windows = loader.read(reader, seed, positions)
    key = train_step.run_key(seed, train_step.CORRUPT)
    batch = jax.device_get(jax.jit(objective.corrupt)(key, windows))
    return [
        jax.tree.map(lambda x, row=row: x[row], batch) for row in range(min(count, len(positions)))
    ]


class Span(NamedTuple):
    """A stretch of what a row shows.

    kind: 'plain', 'wanted' (read here, something to be predicted here), 'target', 'nothing' (a
    target of weight 0), 'divider'. target: what a wanted place is to become. weight: of it.
    """

    text: str
    kind: str = 'plain'
    target: str = ''
    weight: float = 1.0


def describe(row, tokens):
    """{'reads': text, 'predicts': text, ...} of a contract.Batch of one row without its axis."""
    return {name: plain(found) for name, found in spans(row, tokens).items()}


def spans(row, tokens):
    """{'reads': [Span, ...], ...} of a contract.Batch of one row without its axis."""
    inputs, targets, weights = row.inputs, row.targets_BxK, row.weights_BxK
    length = real_length(inputs, tokens)
    found = {}
    if row.places_BxK is None or inputs.prefix_B is not None:
        found['reads'] = [Span(tokens.decode(inputs.tokens_BxL[:length]))]
        if inputs.prefix_B is not None:
            prefix = int(inputs.prefix_B)
            before, after = inputs.tokens_BxL[:prefix], inputs.tokens_BxL[prefix:length]
            found['reads'] = [
                Span(tokens.decode(before)), Span(' || ', 'divider'), Span(tokens.decode(after))
            ]  # fmt: skip
        found['predicts'] = predictions(targets, weights, tokens)
    else:
        found['reads'] = marked(row, length, tokens)
    if row.seeds_B is not None:
        found['then'] = [Span(
            'samples of the generator take the places in brackets, and of every token is asked '
            'whether it is the original'
        )]  # fmt: skip
    if row.labels_B is not None:
        found['label'] = [Span(str(int(row.labels_B)))]
    return found


def plain(found):
    """Spans as text: `[read -> to be predicted]`, `_` for a target of weight 0."""
    texts = {
        'wanted': lambda s: f'[{s.text} -> {s.target}{shown(s.weight)}]',
        'target': lambda s: f'{s.text}{shown(s.weight)}',
        'nothing': lambda s: '_',
    }
    return ''.join(texts[s.kind](s) if s.kind in texts else s.text for s in found)


def real_length(inputs, tokens):
    """Tokens of a row up to its padding."""
    if inputs.segments_BxL is None:
        return len(inputs.tokens_BxL)
    return int(np.max(np.flatnonzero(inputs.segments_BxL), initial=-1)) + 1


def marked(row, length, tokens):
    """The text that is read, with the places of the targets."""
    wanted = {
        int(place): (int(target), float(weight))
        for place, target, weight in zip(row.places_BxK, row.targets_BxK, row.weights_BxK)
        if weight
    }
    found, run = [], []
    for place, token in enumerate(row.inputs.tokens_BxL[:length]):
        if place not in wanted:
            run.append(token)
            continue
        target, weight = wanted[place]
        found.append(Span(tokens.decode(run)))
        found.append(Span(tokens.decode([token]), 'wanted', tokens.decode([target]), weight))
        run = []
    return [*found, Span(tokens.decode(run))]


def predictions(targets, weights, tokens):
    """The targets; padding at the end is left out."""
    found, run = [], []
    for target, weight in zip(targets, weights):
        if weight == 1:
            run.append(target)
            continue
        found.append(Span(tokens.decode(run), 'target'))
        found.append(
            Span(tokens.decode([target]), 'target', weight=float(weight))
            if weight
            else Span('_', 'nothing')
        )
        run = []
    found.append(Span(tokens.decode(run), 'target'))
    while found and (found[-1].kind == 'nothing' or not found[-1].text):
        found.pop()
    return found or [Span('(nothing)', 'divider')]


def shown(weight):
    """' x0.5' for a weight other than 1."""
    return '' if weight == 1 else f' x{weight:g}'


def shorten(text):
    """One line of at most WIDTH characters: its beginning and its end."""
    text = text.replace('\n', ' \\n ')
    if len(text) <= WIDTH:
        return text
    return f'{text[: WIDTH * 2 // 3]} ... {text[-WIDTH // 3 :]}'
