"""What a corpus holds, as a table and a picture."""

import io
import os

from pretrain.data import shards
from pretrain.data.bad_input import KINDS
from pretrain.data.filters import LINES
from pretrain.errors import UserError

NAMES = ('documents', 'sentences', 'tokens', 'bytes')


def table(manifest):
    """Sizes of each split, documents by length, and what was removed and skipped.

    Args:
        manifest: dict of a corpus's manifest.json.

    Returns:
        str, lines of text.
    """
    lines = [' '.join([' ' * 10, *(f'{name:>15}' for name in NAMES), f'{"bytes/token":>12}'])]
    for split in shards.SPLITS:
        sizes = [manifest['totals'][split][name] for name in NAMES]
        ratio = sizes[3] / sizes[2] if sizes[2] else 0
        lines.append(' '.join([f'{split:10}', *(f'{n:>15,}' for n in sizes), f'{ratio:>12.2f}']))
    lengths = manifest['lengths']
    total = max(1, sum(lengths))
    used = [k for k, count in enumerate(lengths) if count]
    lines.append('')
    lines.append(f'{"tokens a document":>20} {"documents":>15} {"share":>7}')
    for k in range(used[0], used[-1] + 1):
        bar = '#' * round(40 * lengths[k] / max(lengths))
        lines.append(f'{span(k):>20} {lengths[k]:>15,} {lengths[k] / total:>6.1%} {bar}'.rstrip())
    for name, count in manifest['removed'].items():
        what = 'lines' if name in LINES else 'marks' if name == 'citations' else 'documents'
        lines.append(f'removed by {name}: {count:,} {what}')
    for kind, count in manifest['skipped'].items():
        first = manifest['examples'].get(kind, ['?'])[0]
        lines.append(f'skipped: {count:,} {KINDS[kind]} (the first: {first})')
    return '\n'.join(lines)


def span(k):
    """The lengths in class k of the histogram, in words: those of k binary digits."""
    low, high = (1 << k) >> 1, (1 << k) - 1
    return f'{low:,}' if low >= high else f'{low:,} - {high:,}'


def draw(corpus):
    """Draws the lengths of documents and how often tokens occur.

    Args:
        corpus: corpus.Corpus.

    Returns:
        Path of summary.png in the corpus's folder.
    """
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt
    import numpy as np

    manifest = corpus.manifest
    lengths = manifest['lengths']
    used = [k for k, count in enumerate(lengths) if count]
    classes = range(used[0], used[-1] + 1)
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4))
    left.bar([str((1 << k) >> 1) for k in classes], [lengths[k] for k in classes])
    left.set(xlabel='tokens a document, from', ylabel='documents')
    left.set_title(manifest['source'], parse_math=False)  # a path may hold dollar signs
    left.tick_params(axis='x', rotation=60)
    counts = np.sort(corpus.counts_V)[::-1]
    counts = counts[counts > 0]
    right.loglog(np.arange(1, len(counts) + 1), counts)
    right.set(
        xlabel='rank of a token', ylabel='times in the training split',
        title=f'{len(counts):,} of {corpus.tokenizer.vocabulary.size:,} ids occur',
    )  # fmt: skip
    figure.tight_layout()
    picture = io.BytesIO()
    figure.savefig(picture, dpi=120)
    plt.close(figure)
    path = corpus.folder / 'summary.png'
    try:
        with shards.write_whole(path) as file:
            file.write(picture.getvalue())
    except OSError as error:
        raise UserError(f'cannot write {str(path)!r}: {os.strerror(error.errno)}') from None
    return path
