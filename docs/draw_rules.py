"""Draws docs/rules.png from the tables of pretrain/partitioning.py, so that it cannot be wrong.

    python docs/draw_rules.py

Each box is an array, cut as a mesh of fsdp=2, tensor=2, sequence=2 cuts it.
"""

import re
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
from jax.sharding import PartitionSpec as P
from matplotlib.patches import Rectangle

from pretrain import partitioning

PARAMETERS = {  # a path that a rule is found for: names of the dimensions
    'token_embedding/table': ('V', 'D'),
    'position_embedding/table': ('length', 'D'),
    'attention/query/kernel': ('D', 'H·K'),
    'attention/out/kernel': ('H·K', 'D'),
    'feedforward/up/kernel': ('D', 'F'),
    'feedforward/down/kernel': ('F', 'D'),
    'head/logits/kernel': ('D', 'V'),
    'pooler/kernel': ('D', 'D'),
    'attention_norm/scale': ('D',),
}
ACTIVATIONS = ('x_BxLxD', 'q_BxTxHxK', 'k_BxSxGxK', 'h_BxLxF', 'logits_BxKxV')
COLOURS = {'fsdp': '#4c72b0', 'tensor': '#dd8452', 'sequence': '#55a868', 'data': '#4c72b0'}


def main():
    """Draws both tables."""
    figure, axes = plt.subplots(2, 1, figsize=(11, 3.9))
    for title, ax in zip(('parameters, their gradients and moments', 'activations'), axes):
        ax.set_title(title, loc='left', fontsize=10, pad=12)
        ax.set_aspect('equal')
        ax.axis('off')
    for i, (path, names) in enumerate(PARAMETERS.items()):
        found = (spec for pattern, spec in partitioning.RULES if re.search(pattern, path))
        spec = tuple(next(found, P()))
        box(axes[0], i, re.sub('[_/]', '\n', path.rpartition('/')[0]), names,
            spec + (None,) * (len(names) - len(spec)))  # fmt: skip
    for i, name in enumerate(ACTIVATIONS):
        dimensions = name.partition('_')[2].split('x')
        spec = [partitioning.DIMENSIONS.get(d) for d in dimensions]
        spec = [None if axis == partitioning.ANYWHERE else axis for axis in spec]
        box(axes[1], i * 1.8, name, dimensions, spec)
    axes[0].set_xlim(-0.2, 1.6 * len(PARAMETERS))
    axes[1].set_xlim(-0.2, 1.6 * len(PARAMETERS))
    for ax in axes:
        ax.set_ylim(-0.4, 1.6)
    handles = [Rectangle((0, 0), 1, 1, color=COLOURS[a]) for a in ('fsdp', 'tensor', 'sequence')]
    figure.legend(handles, ('data and fsdp (of parameters fsdp alone)', 'tensor', 'sequence'),
                  loc='lower center', ncol=3, frameon=False, fontsize=9)  # fmt: skip
    figure.savefig(Path(__file__).with_name('rules.png'), dpi=110, bbox_inches='tight')


def box(ax, place, title, names, spec):
    """One array: a line across it for each dimension that an axis splits."""
    x, wide = place * 1.6, 1.0
    ax.add_patch(Rectangle((x, 0), wide, 1, fill=False, linewidth=1.2))
    lines = []
    for i, (name, axis) in enumerate(zip(names, spec)):
        axis = axis[-1] if isinstance(axis, tuple) else axis
        colour = COLOURS.get(axis, '#999999')
        if axis and i == 0 and len(names) > 1:
            ax.plot([x, x + wide], [0.5, 0.5], color=colour, linewidth=3)
        elif axis and (i == 1 or len(names) == 1) and len(names) < 3:
            ax.plot([x + wide / 2] * 2, [0, 1], color=colour, linewidth=3)
        elif axis:
            at = x + wide * (0.33 if i == 1 else 0.66)
            ax.plot([at, at], [0, 1], color=colour, linewidth=3)
        lines.append((name, colour if axis else '#999999'))
    ax.text(x + wide / 2, 1.08, title, ha='center', fontsize=8)
    for i, (name, colour) in enumerate(lines):
        share = (i + 0.5) / len(lines)
        ax.text(x + wide * share, -0.22, name, ha='center', fontsize=8, color=colour)


if __name__ == '__main__':
    main()
