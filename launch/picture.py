"""Pictures of a plan: what a device holds and what a step waits for."""

import io

import matplotlib

matplotlib.use('agg')
import matplotlib.pyplot as plt

GIB = 2**30
PARTS = ('parameters', 'optimizer', 'frozen', 'activations, gradients', 'code')


def draw(budgets, title):
    """Draws plans side by side: their memory by part, and the seconds that each part needs.

    Args:
        budgets: {name: budget.Budget}, of one kind of device. title: of the picture.

    Returns:
        Bytes of a PNG.
    """
    rows = len(budgets)
    size = 11, 1.8 + 0.45 * rows
    figure, (left, right) = plt.subplots(1, 2, figsize=size, layout='constrained')
    figure.suptitle(title, fontsize=10)
    places = list(range(rows))[::-1]
    made = list(budgets.values())
    _bars(left, places, [_memory(each) for each in made], PARTS)
    limit = made[0].memory
    if limit:
        left.axvline(limit / GIB, color='black', linestyle='--', linewidth=1)
        left.text(limit / GIB, rows - 0.4, 'memory', ha='right', fontsize=8)
    left.set_xlabel('GiB of a device')
    left.set_yticks(places, list(budgets), fontsize=8)
    names = list(dict.fromkeys(name for each in made for name in each.seconds))
    height = 0.8 / max(1, len(names))
    for i, name in enumerate(names):
        at = [p + 0.4 - height * (i + 0.5) for p in places]
        values = [1e3 * each.seconds.get(name, 0.0) for each in made]
        right.barh(at, values, height, label=name, color=f'C{i}')
    right.set_yticks(places, [''] * rows)
    right.set_xlabel('ms of a step, at the best that the chip can')
    for axes in (left, right):
        axes.spines[['top', 'right']].set_visible(False)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=7, loc='best')
    out = io.BytesIO()
    figure.savefig(out, format='png', dpi=110)
    plt.close(figure)
    return out.getvalue()


def _memory(made):
    """{part: GiB}; a total that the compiler only names is one part."""
    parts = {**made.state, 'activations, gradients': made.temporary, 'code': made.code}
    if made.refused and made.total:
        parts['activations, gradients'] = made.total - sum(made.state.values())
    return {name: size / GIB for name, size in parts.items()}


def _bars(axes, places, rows, parts):
    for i, part in enumerate(parts):
        values = [row.get(part, 0.0) for row in rows]
        if not any(values):
            continue
        before = [sum(row.get(other, 0.0) for other in parts[:i]) for row in rows]
        axes.barh(places, values, 0.6, left=before, label=part, color=f'C{i}')
