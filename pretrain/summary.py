"""What a run says of itself: a few lines when it begins, a table when it ends."""

import math

import jax
import numpy as np

from pretrain import division, partitioning, run_log
from pretrain.data.mixture import MixedReader


def banner(config, mesh, corpus, stages, abstract, frozen, origin):
    """What is about to run, in a few lines.

    Args:
        config: of the run. mesh: jax Mesh. corpus: Corpus.
        stages: what each phase of the run works with (train.Stage).
        abstract: the train state. frozen: parameters of the models that are not trained.
        origin: where the parameters come from.
    """
    count = lambda tree: f'{sum(x.size for x in jax.tree.leaves(tree)):,}'  # noqa: E731
    models = abstract['params'] | frozen
    lines = [f'{config.name}: {count(abstract["params"])} parameters, {origin}']
    if len(models) > 1:
        parts = [
            f'{name} {count(params)}{" (not trained)" if name in frozen else ""}'
            for name, params in models.items()
        ]
        lines.append(f'models: {", ".join(parts)}')
    for name, each in corpus.corpora.items():
        share = corpus.shares[name]
        lines.append(
            f'corpus: {each.folder}, {each.total("train", "tokens"):,} tokens to train on, '
            f'{each.total("validation", "tokens"):,} held out'
            + (f', {share:.2%} of the windows' if share < 1 else '')
        )
    for stage in stages:
        phase, reader = stage.phase, stage.reader
        epochs = _epochs(reader, (phase.end - phase.begin) * phase.batch_size)
        lines.append(
            f'objective: {config.objective.name}, steps {phase.begin + 1} to {phase.end}: '
            f'{phase.batch_size} of {len(reader):,} windows of {reader.length} tokens a step, '
            f'{epochs}' + (f', {reader.padding:.1%} padding' if reader.padding > 0.0005 else '')
        )
    lines.append(process(mesh, stages[0].phase.batch_size))
    bare = [n for n, each in corpus.corpora.items() if not each.total('validation', 'tokens')]
    if len(bare) == len(corpus.corpora):
        lines.append('warning: no document is held out: there will be no validation loss')
    elif bare:
        lines.append(
            f'warning: no document of {", ".join(bare)} is held out: the validation loss is that '
            'of the other sources'
        )
    left_whole = division.left_whole(mesh, [stage.learner for stage in stages], abstract)
    lines += [f'left whole on every device: {path}: {why}' for path, why in left_whole.items()]
    return '\n'.join(lines)


def process(mesh, batch_size):
    """Who this process is and what falls to it: the line that every process prints.

    Args:
        mesh: jax Mesh. batch_size: windows of a step.
    """
    shape = ','.join(f'{axis}={size}' for axis, size in mesh.shape.items())
    rows = partitioning.process_rows(mesh, batch_size)
    breaks = np.flatnonzero(np.diff(rows) > 1) + 1
    runs = [f'{run[0] + 1} to {run[-1] + 1}' for run in np.split(rows, breaks)]
    return (
        f'process {jax.process_index()} of {jax.process_count()}: {jax.local_device_count()} of '
        f'{jax.device_count()} devices ({jax.devices()[0].device_kind}), mesh {shape}, '
        f'windows {", ".join(runs)} of each {batch_size}'
    )


def _epochs(reader, windows):
    """How often a phase of so many windows reads each corpus, in words."""
    if not isinstance(reader, MixedReader):
        return f'{windows / len(reader):.1f} epochs'
    shares = reader.places / reader.places.sum()
    parts = zip(shares, reader.readers.items(), strict=True)
    return 'epochs: ' + ', '.join(f'{s * windows / len(r):.1f} of {name}' for s, (name, r) in parts)


COLUMNS = {  # of the table: field of a row of metrics.jsonl -> heading
    'step': 'step',
    'loss': 'training loss',
    'validation_loss': 'validation loss',
    'validation_cross_entropy': 'cross-entropy',
    'validation_perplexity': 'perplexity',
    'validation_bits_per_byte': 'bits a byte',
    'validation_accuracy': 'accuracy',
    'validation_next_sentence_accuracy': 'next-sentence accuracy',
    'validation_sentence_order_accuracy': 'sentence-order accuracy',
    'validation_label_1': 'label 1',
    'validation_agreement': 'agreement with the teacher',
    'validation_detection_accuracy': 'detection accuracy',
    'validation_replaced': 'replaced',
    'validation_detected': 'replaced tokens found',
    'validation_padding': 'padding',
}
LINES = 8  # of the table, at most


def results(workdir, picture):
    """The table that a run ends with.

    Args:
        workdir: folder of the run. picture: path of its curve.
    """
    rows = run_log.read_rows(workdir)
    if not rows:  # the run had ended before, and its log was taken away
        return '\nmetrics.jsonl has no rows'
    evaluated = [row for row in rows if 'validation_loss' in row] or rows
    columns = COLUMNS | {
        name: name.removeprefix('validation_').replace('_', ' on ', 1)
        for row in evaluated
        for name in row
        if name.startswith('validation_loss_')
    }
    shown = [name for name in columns if any(name in row for row in evaluated)]
    if all(r.get('validation_cross_entropy') == r.get('validation_loss') for r in evaluated):
        shown = [name for name in shown if name != 'validation_cross_entropy']
    picks = sorted({round(i) for i in np.linspace(0, len(evaluated) - 1, LINES)})
    table = [[columns[name] for name in shown]]
    table += [[_cell(evaluated[i].get(name, math.nan)) for name in shown] for i in picks]
    widths = [max(map(len, column)) for column in zip(*table)]
    text = ['  '.join(cell.rjust(width) for cell, width in zip(line, widths)) for line in table]
    last = evaluated[-1]
    if 'validation_unigram' in last:
        nats = last.get('validation_cross_entropy', last['validation_loss'])
        below = 1 - nats / last['validation_unigram']
        side = 'below' if below >= 0 else 'above'
        text.append(
            f'The same tokens cost {last["validation_unigram"]:.3f} by their frequencies alone '
            f'(unigram cross-entropy): that of the model is {nats:.3f}, {abs(below):.1%} {side}.'
        )
    rates = [row['tokens_per_second'] for row in rows if 'tokens_per_second' in row]
    speed = f', {np.median(rates):,.0f} tokens/s' if rates else ''
    text.append(f'{rows[-1]["seconds"]:.0f} s{speed}; curve: {picture}')
    return '\n'.join(['', *text])


def _cell(value):
    return str(value) if isinstance(value, int) else f'{value:.4g}'  # a step in all its digits
