"""A checkpoint on every task of a benchmark that there is data for, seed after seed.

Each (task, kind of start, seed) is stored as it finishes, so a second call makes what is missing
and no more.
"""

import itertools
import statistics
from pathlib import Path
from typing import NamedTuple

from pretrain.data.shards import write_whole
from pretrain.errors import UserError
from pretrain.transfer import casts, experiment, metrics, sources, submission
from pretrain.transfer.experiment import PRETRAINED, SCRATCH
from pretrain.transfer.sources import TASKS

MISMATCHED = 'dev_mismatched'


class TaskResult(NamedTuple):
    """What is known of a task.

    task: Task. majority: {metric: value} of always answering what is most frequent in train.
    runs: {PRETRAINED or SCRATCH: list of stored results, a dict a seed}.
    setting: the point of a grid that was chosen on dev, {key: value}; {} without a grid.
    tried: how many points were tried.
    """

    task: object
    majority: dict
    runs: dict
    setting: dict
    tried: int


def run_task(source, task, data, config, mesh, workdir, seeds, scratch_seeds, say=print, grid=None):
    """Runs what is not stored yet of a task, and returns all of it as a TaskResult.

    Args:
        source: surgery.Source. task: Task. data: Data. config: of the transfer. mesh: jax Mesh.
        workdir: of the benchmark. seeds: number of seeds. scratch_seeds: from scratch.
        say: prints a line.
        grid: {key of the config: values}: every combination is run with every seed and the one
            with the highest mean on dev is kept; the others stay stored.
    """
    points = points_of(grid)
    cast = config.transfer.cast or casts.default_cast(source)
    if cast == 'choices' and not config.transfer.shots:
        seeds = min(seeds, 1)  # nothing is drawn
    best = None
    for point in points:
        own = with_point(config, point)
        runs = _Runs(source, task, data, own, mesh, say, Path(workdir) / task.name)
        made = runs.all(PRETRAINED, point, seeds)
        score = statistics.mean(dev_scores(r)['score'] for r in made)
        if best is None or score > best[0]:
            best = score, point, made, runs
    _, point, made, runs = best
    found = {PRETRAINED: made}
    if scratch_seeds:
        found[SCRATCH] = runs.all(SCRATCH, point, scratch_seeds)
    return TaskResult(task, majority(task, data), found, point, len(points))


class _Runs:
    """The stored runs of a task with one setting, made where they are missing."""

    def __init__(self, source, task, data, config, mesh, say, folder):
        self.made = None  # opened where something is missing, and then for all seeds
        self.parts = source, task, data, config, mesh
        self.say, self.folder = say, folder

    def all(self, kind, point, seeds):
        """The results of seeds 0 .. seeds - 1."""
        source, task, data, config, _ = self.parts
        results = []
        for seed in range(seeds):
            place = seed_folder(self.folder, kind, point, seed)
            settings = experiment.settings_of(config, source, data, task, seed, kind)
            facts = experiment.read(place, settings)
            if facts is None:
                if self.made is None:
                    self.made = sources.open_experiment(*self.parts)
                self.made.write(place, self.made.run(seed, kind), settings)
                facts = experiment.read(place, settings)
                shown = ', '.join(f'{k} {v:.4f}' for k, v in facts['scores'].get('dev', {}).items())
                self.say(f'{task.title} {kind} {point_name(point)} seed {seed}: {shown}')
            results.append(facts)
        return results


def point_name(point):
    """A point of a grid as the name of its folder: 'batch_size=16,epochs=3'; '' without a grid."""
    return ','.join(f'{key.rpartition(".")[2]}={value}' for key, value in point.items())


def seed_folder(folder, kind, point, seed):
    """Where a result is stored below the folder of its task."""
    return folder / kind / point_name(point) / f'seed-{seed}'


def points_of(grid):
    """All combinations of a grid's values, {key: value}; one that is empty without a grid."""
    if not grid:
        return [{}]
    values = [v if isinstance(v, tuple | list) else (v,) for v in grid.values()]
    return [dict(zip(grid, chosen)) for chosen in itertools.product(*values)]


def with_point(config, point):
    """The config with the values of a point of a grid.

    Raises:
        UserError: the config has no such key, or a value of another type there.
    """
    config = config.copy_and_resolve_references()
    for key, value in point.items():
        *sections, name = key.split('.')
        section = config
        try:
            for part in sections:
                section = section[part]
            if name not in section:
                raise KeyError(f'it has no {name}')
            section[name] = value
        except (AttributeError, KeyError, TypeError) as error:
            why = str(error.args[0]).partition('\n')[0]
            raise UserError(f'grid: {key}={value!r} does not suit the config: {why}') from None
    return config


def majority(task, data):
    """The dev scores of always answering what is most frequent in train; {} where unknown."""
    train = data.splits.get('train') or []
    dev = data.splits.get('dev') or []
    if not dev or not train or task.kind == 'span':
        return {}
    if task.kind == 'number':
        constant = statistics.mean(e.label for e in train)
    elif task.kind != 'entity':
        counts = {label: 0 for label in task.labels}
        for e in train:
            counts[e.label] += 1
        constant = max(counts, key=counts.get)
    made = [e.choices[0] if task.kind == 'entity' else constant for e in dev]
    scores = metrics.score(task, dev, made)
    if MISMATCHED in data.splits:
        other = data.splits[MISMATCHED]
        scores['accuracy_mismatched'] = metrics.score(task, other, [constant] * len(other))[
            'accuracy'
        ]
    return scores


def dev_scores(result):
    """A stored result's scores on dev, MNLI's mismatched accuracy among them."""
    scores = dict(result['scores'].get('dev', {}))
    if MISMATCHED in result['scores']:
        scores['accuracy_mismatched'] = result['scores'][MISMATCHED]['accuracy']
        scores['score'] = (scores['accuracy'] + scores['accuracy_mismatched']) / 2
    return scores


def median_seed(results):
    """The number of the seed whose dev score is the (lower) median."""
    order = sorted(range(len(results)), key=lambda i: dev_scores(results[i])['score'])
    return order[(len(order) - 1) // 2]


def write_submission(benchmark, results, data, workdir):
    """Writes the servers' files from the seed of each task with the median dev score.

    Args:
        benchmark: 'glue' or 'superglue'. results: list of TaskResult.
        data: {task name: Data}. workdir: of the benchmark.

    Returns:
        submission.Submission.
    """
    if benchmark == 'squad':
        return _write_squad(results[0], workdir)
    if benchmark not in submission.FILES:
        return submission.Submission(None, [])
    predicted = {}
    for result in results:
        own = data[result.task.name]
        seed = median_seed(result.runs[PRETRAINED])
        folder = Path(workdir) / result.task.name
        folder = seed_folder(folder, PRETRAINED, result.setting, seed)
        for split, key in (('test', ''), ('test_mismatched', '_mismatched')):
            if split in own.splits:
                made = experiment.read_predictions(folder, split)
                predicted[result.task.name + key] = result.task, own.splits[split], made
        for other, (task, examples) in own.related.items():
            predicted[other] = task, examples, experiment.read_predictions(folder, other)
    return submission.write(Path(workdir) / 'submission', benchmark, predicted)


def _write_squad(result, workdir):
    folder = Path(workdir) / result.task.name
    folder = seed_folder(folder, PRETRAINED, result.setting, median_seed(result.runs[PRETRAINED]))
    lines = experiment.read_lines(folder, 'dev')
    texts = {line['index']: line['prediction'] for line in lines}
    odds = {line['index']: line['null_odds'] for line in lines}
    null = odds if None not in odds.values() else None
    return submission.Submission(
        submission.write_squad(Path(workdir) / 'submission', texts, null)[0], []
    )


def chosen_tasks(config, data_dir, names=()):
    """The tasks of a benchmark that can be run, and why the others cannot.

    Args:
        config: of the transfer; its `task`, where it names one, is the only one.
        data_dir: folder of the official files. names: only these; (): all.

    Returns:
        (names of the tasks, {name: why not}).

    Raises:
        UserError: an unknown name, or none can be run.
    """
    name = config.benchmark
    if name not in TASKS:  # SQuAD, of which the config names the version
        if any(task != config.task for task in names):
            raise UserError(f'--tasks: there is {config.task} alone; --config names the version')
        return [config.task], {}
    tasks = TASKS[name]
    own = [task for task, facts in tasks.items() if not facts.predicted_by]
    names = names or ([config.task] if config.task else own)
    for task in names:
        if task not in own:
            raise UserError(f'--tasks: {task!r} is none of {", ".join(own)}')
    present = sources.available(data_dir, tasks)
    found, missing = [], {}
    for task in own:
        if task in names:
            absent = [split for split in ('train', 'dev') if split not in present.get(task, ())]
            if absent:
                missing[task] = f'no {" and no ".join(absent)} split'
            else:
                found.append(task)
        elif task in present:
            missing[task] = 'not asked for'
    for task, facts in tasks.items():
        if facts.predicted_by and task in present and facts.predicted_by not in found:
            missing[task] = f'the model of {facts.predicted_by} answers it, which is not run'
    if not found:
        raise UserError(
            f'--data_dir={str(data_dir)!r} has no train and dev files of {", ".join(names)}'
        )
    return found, missing


def check_places(workdir, tasks):
    """Refuses a workdir where something else stands in the place of results, before any is made.

    Args:
        workdir: of the benchmark. tasks: their names, which are those of folders.
    """
    workdir = Path(workdir)
    for path in (workdir / name for name in (*tasks, 'submission')):
        if path.exists() and not path.is_dir():
            raise UserError(f'--workdir: {str(path)!r} is a file and should be a folder: remove it')
    for path in (workdir / f'report.{ending}' for ending in ('md', 'json', 'png')):
        if path.is_dir():
            raise UserError(f'--workdir: {str(path)!r} is a folder and should be a file: remove it')


def store(workdir, name, content):
    """Writes a text or bytes into the benchmark's folder, whole or not at all."""
    with write_whole(Path(workdir) / name) as file:
        file.write(content if isinstance(content, bytes) else content.encode())
