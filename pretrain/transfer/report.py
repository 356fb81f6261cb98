"""The table of a benchmark: Markdown, JSON and a picture."""

import datetime
import json
import statistics
from pathlib import Path

import jax
import numpy as np

from pretrain.transfer import benchmark, metrics
from pretrain.transfer.experiment import PRETRAINED, SCRATCH
from pretrain.transfer.published import PUBLISHED

SHOWN = {
    'accuracy': 'acc.',
    'accuracy_mismatched': 'acc. mismatched',
    'f1': 'F1',
    'matthews': 'Matthews',
    'pearson': 'Pearson',
    'spearman': 'Spearman',
    'macro_f1': 'F1 (mean of classes)',
    'f1a': 'F1a',
    'exact_groups': 'EM',
    'token_f1': 'F1',
    'token_exact': 'EM',
    'gender_parity': 'parity',
    'exact': 'EM',
    'HasAns_exact': 'EM where there is an answer',
    'HasAns_f1': 'F1 where there is an answer',
    'NoAns_exact': 'EM where there is none',
    'NoAns_f1': 'F1 where there is none',
    'best_exact': 'EM at the best threshold',
    'best_f1': 'F1 at the best threshold',
}


def summarise(name, results, missing, hidden=''):
    """The facts of a report.

    Args:
        name: of the benchmark. results: list of benchmark.TaskResult.
        missing: {task: why it could not be run}.
        hidden: the text that no model read; '': none.

    Returns:
        A dict that JSON can hold: `tasks` {task: {`metrics` of dev {metric: {kind: {median,
        deviation, values}}}, `test`: the same where test has labels}}, `related` of the diagnostic
        sets, `score` {kind: value} by the benchmark's own rule from the
        medians, and `missing`.
    """
    tasks, related = {}, {}
    for result in results:
        runs = {kind: [benchmark.dev_scores(r) for r in own] for kind, own in result.runs.items()}
        tasks[result.task.name] = {
            'title': result.task.title,
            'setting': result.setting,
            'settings_tried': result.tried,
            'metrics': _by_metric(runs, result.majority),
            'test': _of_split('test', result.runs),
            'steps_per_second': statistics.median(
                r.get('steps_per_second', 0) for r in result.runs[PRETRAINED]
            ),
        }
        others = {
            other
            for own in result.runs.values()
            for r in own
            for other in r['scores']
            if not other.startswith(('dev', 'test'))
        }
        for other in sorted(others):
            found = _of_split(other, result.runs)
            related[other] = {'predicted_by': result.task.name, 'metrics': found}
    score, left_out = {}, []
    if name in metrics.BENCHMARKS:
        for kind in (PRETRAINED, SCRATCH, 'majority'):
            medians = {
                task: {
                    metric: kinds[kind]['median']
                    for metric, kinds in facts['metrics'].items()
                    if kind in kinds
                }
                for task, facts in tasks.items()
            }
            value, left_out = metrics.benchmark_score(name, medians)
            if value is not None:
                score[kind] = value
        left_out = metrics.benchmark_score(
            name, {t: dict.fromkeys(f['metrics'], 0.0) for t, f in tasks.items()}
        )[1]
    return {
        'benchmark': name,
        'date': datetime.date.today().isoformat(),
        'hardware': f'{jax.device_count()} x {jax.devices()[0].device_kind}',
        'jax': jax.__version__,
        'tasks': tasks,
        'related': related,
        'score': score,
        'hidden': hidden,
        'missing': left_out,
        'why_missing': missing,
    }


def _of_split(split, runs):
    """{metric: {kind: {...}}} of a split that all runs have scores of; {} where they have none."""
    if any(split not in r['scores'] for own in runs.values() for r in own):
        return {}
    return _by_metric({k: [r['scores'][split] for r in own] for k, own in runs.items()}, {})


def _by_metric(runs, majority):
    """{metric: {kind: {...}}} from {kind: [{metric: value} of each seed]}."""
    made = {}
    for kind, seeds in runs.items():
        for metric in seeds[0]:
            values = [scores[metric] for scores in seeds]
            made.setdefault(metric, {})[kind] = {
                'median': statistics.median(values),
                'deviation': statistics.stdev(values) if len(values) > 1 else 0.0,
                'values': values,
            }
    for metric, value in majority.items():
        if metric in made:
            made[metric]['majority'] = {'median': value, 'deviation': 0.0, 'values': [value]}
    return made


def markdown(facts):
    """The table as Markdown: a line for each metric of each task, and the benchmark's score."""
    published = PUBLISHED.get(facts['benchmark'], ())
    has_scratch = any(
        SCRATCH in kinds for t in facts['tasks'].values() for kinds in t['metrics'].values()
    )
    kinds = [PRETRAINED, *([SCRATCH] if has_scratch else []), 'majority']
    heads = {PRETRAINED: 'this checkpoint', SCRATCH: 'from scratch', 'majority': 'majority class'}
    header = ['task', 'metric', *(heads[k] for k in kinds)]
    header += [f'{row.model} ({row.split})' for row in published]
    lines = [_line(header), _line(['---'] * len(header))]
    for name, task in facts['tasks'].items():
        own = [m for m in task['metrics'] if m in SHOWN]
        for split, title in (('metrics', task['title']), ('test', f'{task["title"]}, test')):
            for metric, found in task[split].items():
                base = metric.partition(' by ')[0]
                mean = base == 'score' and len(own) > 1 and facts['benchmark'] != 'squad'
                if base not in SHOWN and not mean:
                    continue
                cells = [title, _metric(metric, own), *(_cell(found.get(kind)) for kind in kinds)]
                for row in published:
                    # Where test has a line of its own, papers' test scores stand there.
                    here = not task['test'] or (row.split == 'test') == (split == 'test')
                    cells.append(_percent(row.scores.get(name, {}).get(metric)) if here else '')
                lines.append(_line(cells))
    for name, other in facts['related'].items():
        for metric, found in other['metrics'].items():
            if metric.partition(' by ')[0] == 'score':
                continue
            by = facts['tasks'][other['predicted_by']]['title']
            cells = [f'{name} (by {by})', _metric(metric, ())]
            cells += [_cell(found.get(kind)) for kind in kinds]
            lines.append(_line(cells + [''] * len(published)))
    if facts['score']:
        what = 'mean of what is there, not the score' if facts['missing'] else 'score'
        cells = [f'**{facts["benchmark"]}**', what]
        cells += [_percent(_times(facts['score'].get(kind))) for kind in kinds]
        lines.append(_line(cells + [f'{row.average:.1f}' for row in published]))
    notes = [
        'Scores in percent, on dev where nothing else is said: median over the seeds ± standard '
        'deviation (number of seeds).'
    ]
    if facts['hidden']:
        notes.append(f'The {facts["hidden"]} was hidden, in training as on dev.')
    if facts['missing']:
        why = facts['why_missing']
        listed = (f'{n} ({why[n]})' if n in why else n for n in facts['missing'])
        notes.append(f'Missing: {", ".join(listed)}.')
    for task in facts['tasks'].values():
        if task['settings_tried'] > 1:
            chosen = ', '.join(f'{k} {v}' for k, v in task['setting'].items())
            notes.append(
                f'{task["title"]}: the best of {task["settings_tried"]} settings on dev: {chosen}.'
            )
    for row in published:
        said = (f'{row.model}: {row.source}', row.split, row.rule)
        notes.append(f'{", ".join(filter(None, said))}.')
    return '\n'.join([*lines, '', *(f'{note}  ' for note in notes)]) + '\n'


def _metric(name, own):
    base, _, way = name.partition(' by ')
    shown = f'mean of {len(own)}' if base == 'score' else SHOWN[base]
    return shown + (f' by {way}' if way else '')


def _cell(found):
    if not found:
        return ''
    median, seeds = 100 * found['median'], len(found['values'])
    return f'{median:.1f}' + (f' ± {100 * found["deviation"]:.1f} ({seeds})' if seeds > 1 else '')


def _times(value):
    return None if value is None else 100 * value


def _percent(value):
    return '' if value is None else f'{value:.1f}'


def _line(cells):
    return f'| {" | ".join(cells)} |'


def draw(facts, path):
    """A picture: for each task the seeds as points, their median as a bar, the majority as a line.

    Args:
        facts: of `summarise`. path: of the PNG file.
    """
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    tasks = facts['tasks']
    figure, axes = plt.subplots(figsize=(1.6 + 1.1 * len(tasks), 3.6))
    colours = {PRETRAINED: 'tab:blue', SCRATCH: 'tab:orange'}
    for kind, shift in ((PRETRAINED, -0.18), (SCRATCH, 0.18)):
        at, heights = [], []
        for x, task in enumerate(tasks.values()):
            found = task['metrics']['score'].get(kind)
            if not found:
                continue
            at.append(x + shift)
            heights.append(100 * found['median'])
            spread = np.linspace(-0.08, 0.08, len(found['values']))
            axes.plot(
                x + shift + spread, [100 * v for v in found['values']], 'k.', markersize=3, zorder=3
            )
        label = 'this checkpoint' if kind == PRETRAINED else 'from scratch'
        if at:
            axes.bar(at, heights, 0.34, color=colours[kind], alpha=0.7, label=label)
    for x, task in enumerate(tasks.values()):
        found = task['metrics']['score'].get('majority')
        if found:
            axes.hlines(
                100 * found['median'], x - 0.4, x + 0.4, 'gray', 'dashed',
                label='majority class' if x == 0 else None,
            )  # fmt: skip
    axes.set_xticks(range(len(tasks)), [task['title'] for task in tasks.values()])
    axes.set_ylabel('dev score, percent')
    axes.set_ylim(min(0, axes.get_ylim()[0]), 100)
    axes.legend(fontsize=8, loc='lower right')
    axes.spines[['top', 'right']].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def write(facts, workdir):
    """Writes report.md, report.json and report.png; returns the Markdown."""
    text = markdown(facts)
    benchmark.store(workdir, 'report.md', text)
    benchmark.store(workdir, 'report.json', json.dumps(facts, indent=1))
    draw(facts, Path(workdir) / 'report.png')
    return text
