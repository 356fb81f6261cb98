"""Several checkpoints on the same tasks: what each gains over its own architecture from scratch.

    python -m benchmarks.objectives_compared runs/gpt-glue runs/bert-glue --out=docs/objectives

Each folder is a workdir of `pretrain.evaluate` with seeds from scratch; all must have been made
with the same settings and data. For runs of equal steps and windows, for instance

    python -m pretrain.train --config=configs/bert.py:tiny --workdir=runs/bert \\
        --config.data.source=jsonl:TEXT --config.steps=8000 --config.batch_size=16 \\
        --config.optimizer.schedule.warmup=800 --config.eval.every=2000
    python -m pretrain.evaluate --benchmark=glue --checkpoint=runs/bert --data_dir=GLUE \\
        --workdir=runs/bert-glue --tasks=sst2,mrpc,stsb --seeds=5 --scratch_seeds=5 \\
        --config.transfer.train_rows=8000

and so with gpt.py, t5.py and, with --config.objective.teacher=runs/bert, distilbert.py. Prints a
Markdown table and writes OUT.md, OUT.json and OUT.png.

A task's score is the mean of its metrics. The gain is the difference of the means over the seeds,
with its standard error; 'beats it' says whether the gain is above twice that.
"""

import argparse
import json
import math
import statistics
import sys
from pathlib import Path

from pretrain.data.shards import write_whole
from pretrain.errors import UserError
from pretrain.transfer.experiment import PRETRAINED, RESULT, SCRATCH

OF_THE_RUN = ('checkpoint', 'checkpoint_step', 'seed', 'kind')  # settings that may differ


def main():
    """Reads the reports, prints the table and writes it with its picture."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('folders', nargs='+', type=Path)
    parser.add_argument('--names', default='', help='of the runs, divided by commas')
    parser.add_argument('--out', default='runs/objectives', help='of the files, without an ending')
    flags = parser.parse_args()
    names = flags.names.split(',') if flags.names else [f.name for f in flags.folders]
    if len(names) != len(flags.folders):
        raise UserError(f'--names has {len(names)} names for {len(flags.folders)} folders')
    reports = {name: read(folder) for name, folder in zip(names, flags.folders)}
    check_alike(dict(zip(names, flags.folders)), reports)
    rows = gains(reports)
    text = table(rows)
    print(text)
    for ending, content in (('md', text), ('json', json.dumps(rows, indent=1))):
        with write_whole(f'{flags.out}.{ending}') as file:
            file.write(content.encode())
    draw(rows, f'{flags.out}.png')


def read(folder):
    """The report of a workdir of pretrain.evaluate."""
    try:
        return json.loads((folder / 'report.json').read_text())
    except (OSError, ValueError):
        raise UserError(f'{str(folder)!r} holds no report.json of pretrain.evaluate') from None


def check_alike(folders, reports):
    """Refuses runs of other settings or data.

    Raises:
        UserError: names the first setting that differs.
    """
    first, seen = next(iter(folders)), {}
    for name, folder in folders.items():
        for task in reports[name]['tasks']:
            path = folder / task / PRETRAINED / 'seed-0' / RESULT
            found = json.loads(path.read_text())['settings']
            found = {k: v for k, v in found.items() if k not in OF_THE_RUN}
            known = seen.setdefault(task, found)
            for key in sorted(known.keys() | found):
                if known.get(key) != found.get(key):
                    raise UserError(
                        f'{task}: {name} was made with {key}={found.get(key)!r}, {first} with '
                        f'{known.get(key)!r}'
                    )


def gains(reports):
    """The lines of the table, dicts: task, run, metric, means, deviations, gain, its error."""
    rows = []
    tasks = dict.fromkeys(task for r in reports.values() for task in r['tasks'])
    for task in tasks:
        for name, report in reports.items():
            found = report['tasks'].get(task, {'metrics': {}})
            for metric, kinds in found['metrics'].items():
                base, _, way = metric.partition(' by ')
                if base != 'score' or PRETRAINED not in kinds:
                    continue
                row = {'task': found['title'], 'run': name + (f', by {way}' if way else '')}
                row['majority'] = kinds.get('majority', {}).get('median')
                for kind in (PRETRAINED, SCRATCH):
                    row[kind] = kinds[kind]['values'] if kind in kinds else []
                if len(row[PRETRAINED]) > 1 and len(row[SCRATCH]) > 1:
                    row |= difference(row[PRETRAINED], row[SCRATCH])
                rows.append(row)
    return rows


def difference(ours, theirs):
    """The gain of the means, its standard error (of unequal variances), and what follows."""
    gain = statistics.mean(ours) - statistics.mean(theirs)
    error = math.sqrt(sum(statistics.variance(x) / len(x) for x in (ours, theirs)))
    beats = 'yes' if gain > 2 * error else 'no' if gain < -2 * error else 'not told apart'
    return {'gain': gain, 'error': error, 'beats': beats}


def table(rows):
    """The lines as Markdown, in hundredths."""
    lines = [
        '| task | run | pretrained | from scratch | gain | beats it | majority class |',
        '|---|---|---|---|---|---|---|',
    ]
    for row in rows:
        cells = [row['task'], row['run'], spread(row[PRETRAINED]), spread(row[SCRATCH])]
        cells += [f'{100 * row["gain"]:+.1f} ± {100 * row["error"]:.1f}' if 'gain' in row else '']
        cells += [row.get('beats', '')]
        cells += ['' if row['majority'] is None else f'{100 * row["majority"]:.1f}']
        lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join(lines) + '\n'


def spread(values):
    """Mean ± standard deviation (number of seeds)."""
    if not values:
        return ''
    mean = f'{100 * statistics.mean(values):.1f}'
    return mean + (f' ± {100 * statistics.stdev(values):.1f} ({len(values)})' if values[1:] else '')


def draw(rows, path):
    """A picture: for each task a pair of bars a run, with the seeds as points."""
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    tasks = list(dict.fromkeys(row['task'] for row in rows))
    runs = list(dict.fromkeys(row['run'] for row in rows))
    figure, axes = plt.subplots(1, len(tasks), figsize=(3.4 * len(tasks), 3.6), squeeze=False)
    for axis, task in zip(axes[0], tasks):
        for kind, shift, colour in ((PRETRAINED, -0.2, 'tab:blue'), (SCRATCH, 0.2, 'tab:orange')):
            for x, run in enumerate(runs):
                values = [v for r in rows if (r['task'], r['run']) == (task, run) for v in r[kind]]
                if values:
                    label = {PRETRAINED: 'pretrained', SCRATCH: 'from scratch'}[kind]
                    mean = 100 * statistics.mean(values)
                    axis.bar(x + shift, mean, 0.36, color=colour, alpha=0.7, label=label)
                    axis.plot([x + shift] * len(values), [100 * v for v in values], 'k.', ms=3)
        constant = next((r['majority'] for r in rows if r['task'] == task), None)
        if constant:
            axis.axhline(100 * constant, color='gray', linestyle='dashed', label='majority class')
        axis.set_title(task, fontsize=10)
        axis.set_xticks(range(len(runs)), runs, rotation=30, ha='right', fontsize=8)
        axis.spines[['top', 'right']].set_visible(False)
    axes[0][0].set_ylabel('dev score, percent')
    handles, labels = axes[0][0].get_legend_handles_labels()
    once = dict(zip(labels, handles))
    figure.legend(
        once.values(), once.keys(), fontsize=8, loc='upper center', ncols=3, frameon=False
    )
    figure.tight_layout(rect=(0, 0, 1, 0.93))
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == '__main__':
    try:
        main()
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        sys.exit(2)
