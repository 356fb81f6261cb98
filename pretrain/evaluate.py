"""Scores a checkpoint on held-out text, or on the tasks of a benchmark.

    python -m pretrain.evaluate --benchmark=text --checkpoint=runs/gpt-tiny \\
        --config.data.source=text:book.txt
    python -m pretrain.evaluate --benchmark=glue --checkpoint=runs/bert-tiny --data_dir=DATA \\
        --workdir=runs/bert-tiny-glue --seeds=5

`text`: loss and bits a byte of held-out text. With the run's own source that is its validation
split; of any other text all documents count. The text is tokenised with the run's tokenizer, and
windows and random keys are fixed, so two calls give the same numbers. (Windows of
`data.cut=document` overlap where a sentence does not fit: its tokens count twice.)

`glue`, `superglue`, `squad`, `snli`, and `own` for a task of your own: fine-tunes the checkpoint on
every task that --data_dir holds files of, with every seed, and the same architecture from scratch;
prints and writes a table (report.md, .json, .png) and the files for the benchmark's server. What is
done is not done again: the same command fills gaps. --config (default configs/BENCHMARK.py) is the
setting.
"""

import functools
import importlib.util
import json
import os
from pathlib import Path

import jax
from absl import flags
from tqdm import tqdm

from pretrain import (
    assembly,
    commandline,
    corpora,
    evaluation,
    meshes,
    partitioning,
    run_folder,
    saved_run,
    storage,
    train_step,
)
from pretrain.data import tokenizer
from pretrain.data.shards import write_whole
from pretrain.errors import UserError
from pretrain.transfer import benchmark, report, settings, sources, surgery

TRANSFER = ('glue', 'superglue', 'squad', 'snli', 'own')
BENCHMARKS = ('text', *TRANSFER)
CONFIG = commandline.define_config()
BENCHMARK = flags.DEFINE_string('benchmark', 'text', f'One of {", ".join(BENCHMARKS)}.')
CHECKPOINT = flags.DEFINE_string('checkpoint', None, 'Folder of a run.', required=True)
STEP = flags.DEFINE_integer('step', None, 'Of the checkpoint; default: the newest whole one.')
SPLIT = flags.DEFINE_string(
    'split', '', "text: 'validation', 'train' or 'all'; default: validation of the run's own "
    'source, all of another.'
)  # fmt: skip
BATCH = flags.DEFINE_integer(
    'batch', 0, "text: windows at once; default: as many as in the run's steps."
)
OUT = flags.DEFINE_string('out', '', 'text: JSON file for the numbers.')
DATA_DIR = flags.DEFINE_string('data_dir', '', 'Tasks: folder of the official files.')
WORKDIR = flags.DEFINE_string('workdir', '', 'Tasks: folder of the results.')
SEEDS = flags.DEFINE_integer('seeds', 5, 'Tasks: how many seeds, from 0 on.')
SCRATCH_SEEDS = flags.DEFINE_integer(
    'scratch_seeds', -1, 'Tasks: number of seeds from scratch; -1: as many as --seeds.'
)
TASKS = flags.DEFINE_list('tasks', [], 'Tasks: only these, divided by commas.')
GRID = flags.DEFINE_string('grid', '', "Tasks: a paper's grid (configs/transfer.py), best on dev.")


def main(argv):
    """Scores on text or on tasks."""
    if len(argv) > 1:
        raise UserError(f'unknown argument {argv[1]!r}')
    if BENCHMARK.value not in BENCHMARKS:
        raise UserError(f'--benchmark={BENCHMARK.value} is not one of {", ".join(BENCHMARKS)}')
    if BENCHMARK.value == 'text':
        score_text()
    else:
        score_tasks()


def score_text():
    """Prints a table of numbers on held-out text."""
    if SPLIT.value not in ('', 'validation', 'train', 'all'):
        raise UserError(f"--split={SPLIT.value} is not one of 'validation', 'train', 'all'")
    if OUT.value and not os.access(storage.local(OUT.value, '--out').absolute().parent, os.W_OK):
        raise UserError(f'--out={OUT.value}: its folder is not there or cannot be written')
    folder = storage.place(CHECKPOINT.value)
    config = CONFIG.value
    own = commandline.read_run_config(folder)
    run = saved_run.open_run(folder, config, STEP.value)
    sources = lambda data: data.get('mixture', ()) or data.source  # noqa: E731
    same_source = sources(config.data) == sources(own.data)
    named = corpora.named_source(config.data)
    split = SPLIT.value or ('validation' if same_source else 'all')

    corpus = open_corpus(run, config, folder, same_source)
    readers = corpora.open_each(config, corpus, split, run.objective, tail=True)
    shards = partitioning.batch_shards(run.mesh)
    batch = BATCH.value or -(-config.batch_size // config.accumulation // shards) * shards
    step = jax.jit(functools.partial(train_step.evaluation_step, run.learner))
    unigram_V = None
    if same_source:
        train = corpora.open_windows(config, corpus, 'train', run.objective)
        unigram_V = evaluation.unigram(corpus, run.objective, train)
    with jax.set_mesh(run.mesh):
        scores = evaluation.evaluate_each(
            step, run.params, readers, corpus.shares, batch, run.mesh,
            unigram_V=unigram_V,
            progress=functools.partial(tqdm, desc=f'evaluating {split}', unit='batch'),
        )  # fmt: skip
    count = sum(map(len, readers.values()))
    print(f'{folder} on {named}, {split}: {count:,} windows')
    for name, value in scores.items():
        print(f'{name:>16}  {value:,.0f}' if name == 'predicted' else f'{name:>16}  {value:.4f}')
    if OUT.value:
        facts = {'checkpoint': str(folder), 'source': named, 'split': split}
        with write_whole(OUT.value) as file:
            file.write(json.dumps(facts | scores, indent=2).encode())


def open_corpus(run, config, folder, same_source):
    """The corpus to score on, tokenised with the run's tokenizer."""
    if same_source and not config.data.tokenizer:  # a given one may be gone: the run has its own
        corpus = corpora.open_corpus(config.data)
        if corpus.tokenizer.digest == run.tokenizer.digest:
            return corpus
    data = config.data.copy_and_resolve_references()
    with data.unlocked():
        data.tokenizer = str(tokenizer.find(folder))
    return corpora.open_corpus(data)


def score_tasks():
    """Runs what is missing of a benchmark, and prints and writes its table."""
    config, name = CONFIG.value, BENCHMARK.value
    workdir = storage.local(WORKDIR.value, '--workdir')
    if config is None or config.get('benchmark') != name:
        raise UserError(f'--config is no config of {name}: leave it out, or give configs/{name}.py')
    for flag, value in (('data_dir', DATA_DIR.value), ('workdir', WORKDIR.value)):
        if not value:
            raise UserError(f'--{flag} is missing: --benchmark={name} needs it')
    if SCRATCH_SEEDS.value < -1:
        raise UserError(f'--scratch_seeds={SCRATCH_SEEDS.value} must be at least 0, or -1')
    if SEEDS.value < 1:
        raise UserError(f'--seeds={SEEDS.value} must be at least 1')
    scratch = SEEDS.value if SCRATCH_SEEDS.value < 0 else SCRATCH_SEEDS.value
    grids = config.grids.to_dict()
    if GRID.value and GRID.value not in grids:
        raise UserError(f'--grid={GRID.value} is none of {", ".join(grids)}')
    grid = commandline.flatten(grids[GRID.value]) if GRID.value else None
    if config.seed:
        raise UserError(
            f'config.seed={config.seed} has no part here: the seeds are 0 to --seeds - 1'
        )
    for point in benchmark.points_of(grid):
        settings.check(benchmark.with_point(settings.for_task(config, config.task), point))
    if run_folder.has_checkpoints(workdir):
        raise UserError(f'--workdir: {str(workdir)!r} holds a run: give another folder')
    assembly.use_compilation_cache(config.cache)
    mesh = meshes.make_mesh(config.mesh)
    run = commandline.read_run_config(CHECKPOINT.value)
    source = surgery.open_source(CHECKPOINT.value, run, STEP.value)

    # All files are read before anything is trained: a mistake in the last one is found at once.
    chosen, missing = benchmark.chosen_tasks(config, DATA_DIR.value, TASKS.value)
    for task, why in missing.items():
        print(f'{task}: left out, {why} in {DATA_DIR.value}')
    opened = {}
    for task in chosen:
        own = settings.for_task(config, task)
        opened[task] = own, *sources.open_task(own, DATA_DIR.value)
    benchmark.check_places(workdir, chosen)
    lock = run_folder.lock(workdir)
    results = []
    for own, task, data in opened.values():
        results.append(
            benchmark.run_task(
                source, task, data, own, mesh, workdir, SEEDS.value, scratch, print, grid
            )
        )
        facts = report.summarise(name, results, missing, config.transfer.hide)
        table = report.write(facts | {'checkpoint': CHECKPOINT.value}, workdir)
    print(f'\n{table}')
    data = {task.name: own for _, task, own in opened.values()}
    made = benchmark.write_submission(name, results, data, workdir)
    for line in made.remarks:
        print(line)
    print(f'wrote {workdir}/report.md, .json, .png' + (f' and {made.path}' if made.path else ''))
    lock.close()


def default_config(value):
    """The config file of the benchmark that is asked for; None: the run's own."""
    name = value('benchmark')
    if name not in TRANSFER:
        return None
    folder = importlib.util.find_spec('configs').submodule_search_locations[0]
    return str(Path(folder) / f'{name}.py')


if __name__ == '__main__':
    commandline.run(main, flags_of_saved_config='checkpoint', default_config=default_config)
