"""Scores a checkpoint.

    python -m pretrain.evaluate --benchmark=text --checkpoint=runs/gpt-tiny \\
        --config.data.source=text:book.txt

`text`: loss and bits a byte of held-out text. With the run's own source that is its validation
split; of any other text all documents count. The text is tokenised with the run's tokenizer, and
windows and random keys are fixed, so two calls give the same numbers. (Windows of
`data.cut=document` overlap where a sentence does not fit: its tokens count twice.)
"""

import functools
import json
import os
from pathlib import Path

import jax
from absl import flags
from tqdm import tqdm

from pretrain import assembly, commandline, evaluation, partitioning, saved_run, train_step
from pretrain.data import tokenizer
from pretrain.data.shards import write_whole
from pretrain.errors import UserError

BENCHMARKS = ('text',)
CONFIG = commandline.define_config()
BENCHMARK = flags.DEFINE_string('benchmark', 'text', f'One of {", ".join(BENCHMARKS)}.')
CHECKPOINT = flags.DEFINE_string('checkpoint', None, 'Folder of a run.', required=True)
STEP = flags.DEFINE_integer('step', None, 'Of the checkpoint; default: the newest whole one.')
SPLIT = flags.DEFINE_string(
    'split', '', "'validation', 'train' or 'all'; default: validation of the run's own source, "
    'all of another.'
)  # fmt: skip
BATCH = flags.DEFINE_integer('batch', 0, "Windows at once; default: as many as in the run's steps.")
OUT = flags.DEFINE_string('out', '', 'JSON file for the numbers.')


def main(argv):
    """Prints a table of numbers."""
    if len(argv) > 1:
        raise UserError(f'unknown argument {argv[1]!r}')
    if BENCHMARK.value not in BENCHMARKS:
        raise UserError(
            f'--benchmark={BENCHMARK.value} is not one of {", ".join(map(repr, BENCHMARKS))}'
        )
    if SPLIT.value not in ('', 'validation', 'train', 'all'):
        raise UserError(f"--split={SPLIT.value} is not one of 'validation', 'train', 'all'")
    if OUT.value and not os.access(Path(OUT.value).absolute().parent, os.W_OK):
        raise UserError(f'--out={OUT.value}: its folder is not there or cannot be written')
    folder = Path(CHECKPOINT.value)
    config = CONFIG.value
    own = commandline.read_run_config(folder)
    run = saved_run.open_run(folder, config, STEP.value)
    same_source = config.data.source == own.data.source
    split = SPLIT.value or ('validation' if same_source else 'all')

    corpus = open_corpus(run, config, folder, same_source)
    reader = assembly.open_windows(config, corpus, split, run.objective, tail=True)
    shards = partitioning.batch_shards(run.mesh)
    batch = BATCH.value or -(-config.batch_size // config.accumulation // shards) * shards
    step = jax.jit(functools.partial(train_step.evaluation_step, run.learner))
    unigram_V = None
    if same_source:
        train = assembly.open_windows(config, corpus, 'train', run.objective)
        unigram_V = evaluation.unigram(corpus, run.objective, train)
    scores = evaluation.evaluate(
        step, run.params, reader, batch, run.mesh,
        unigram_V=unigram_V,
        progress=functools.partial(tqdm, desc=f'evaluating {split}', unit='batch'),
    )  # fmt: skip
    print(f'{folder} on {config.data.source}, {split}: {len(reader):,} windows')
    for name, value in scores.items():
        print(f'{name:>16}  {value:,.0f}' if name == 'predicted' else f'{name:>16}  {value:.4f}')
    if OUT.value:
        facts = {'checkpoint': str(folder), 'source': config.data.source, 'split': split}
        with write_whole(OUT.value) as file:
            file.write(json.dumps(facts | scores, indent=2).encode())


def open_corpus(run, config, folder, same_source):
    """The corpus to score on, tokenised with the run's tokenizer."""
    if same_source and not config.data.tokenizer:  # a given one may be gone: the run has its own
        corpus = assembly.open_corpus(config.data)
        if corpus.tokenizer.digest == run.tokenizer.digest:
            return corpus
    data = config.data.copy_and_resolve_references()
    with data.unlocked():
        data.tokenizer = str(tokenizer.find(folder))
    return assembly.open_corpus(data)


if __name__ == '__main__':
    commandline.run(main, flags_of_saved_config='checkpoint')
