"""What share of a training step the corruption takes: corrupt() against the whole step.

    python -m benchmarks.corruption_cost

BERT base at length 512 with next sentence and whole words, T5 base at 512 / 114. Both are jitted
alone and timed in turns in one call; the share is the ratio of the medians. On a CPU the batch is
small, because a step takes seconds; corrupt() then has its whole overhead on few rows.
"""

import functools
import json
import statistics
import time
from pathlib import Path

import jax
import numpy as np
from absl import app, flags

from configs import bert, t5
from objectives import contract
from pretrain import assembly, meshes, partitioning, train_step

ROWS = flags.DEFINE_integer('rows', 2, 'Windows a step.')
TIMES = flags.DEFINE_integer('times', 5, 'Timed steps, each beside ten timed corruptions.')
OUT = flags.DEFINE_string('out', '', 'JSON file for the numbers.')
SIZE = 30_522


def vocabulary():
    """A made-up tokenizer of BERT's size, in which two pieces of three begin a word."""
    bytes_V = np.full(SIZE, 4, np.int32)
    bytes_V[:9] = bytes_V[-100:] = 0
    return contract.Vocabulary(
        size=SIZE, table_size=SIZE, pad=0, eos=1, unk=2, cls=3, sep=4, mask=5,
        modes={'R': 6, 'X': 7, 'S': 8}, sentinels=tuple(range(SIZE - 1, SIZE - 101, -1)),
        word_start_V=np.arange(SIZE) % 3 != 0, bytes_V=bytes_V,
    )  # fmt: skip


def windows(width, rows):
    """Sentences of 25 tokens, a document a row."""
    rng = np.random.default_rng(0)
    row = np.arange(width, dtype=np.int32) // 25
    return contract.Windows(
        rng.integers(9, SIZE - 100, (rows, width)).astype(np.int32),
        np.tile(row, (rows, 1)),
        np.tile(np.arange(rows, dtype=np.int32)[:, None], (1, width)),
        np.arange(rows, dtype=np.int32),
    )


def measure(config, rows, times):
    """Median seconds of corrupt() and of a step."""
    config.model.update(dtype='float32', remat='none')
    config.phases = ()
    learner = assembly.make_learner(config, vocabulary())
    mesh = meshes.make_mesh('data=-1')
    data = partitioning.global_array(
        mesh, windows(learner.objective.window_length(), rows), rows
    )
    corrupt = jax.jit(learner.objective.corrupt)
    step = jax.jit(functools.partial(train_step.train_step, learner), donate_argnums=0)
    state = jax.jit(lambda: train_step.init_state(learner))()
    key = jax.random.key(0)
    jax.block_until_ready(corrupt(key, data))
    state, _ = step(state, data)
    jax.block_until_ready(state)
    corruptions, steps = [], []
    for _ in range(times):
        for _ in range(10):
            began = time.perf_counter()
            jax.block_until_ready(corrupt(key, data))
            corruptions.append(time.perf_counter() - began)
        began = time.perf_counter()
        state, _ = step(state, data)
        jax.block_until_ready(state)
        steps.append(time.perf_counter() - began)
    return statistics.median(corruptions), statistics.median(steps)


def main(argv):
    """Prints a table in Markdown."""
    del argv
    big = bert.get_config('base')
    big.objective.whole_words = True
    cases = {'BERT base, 512, next sentence, whole words': big, 'T5 base, 512 / 114': None}
    cases['T5 base, 512 / 114'] = t5.get_config('base')
    cases['T5 base, 512 / 114'].model.vocabulary = 0
    device = jax.devices()[0].device_kind
    print(f'{jax.device_count()} x {device}, jax {jax.__version__}, {ROWS.value} rows\n')
    print('| | corrupt, ms | step, ms | share |\n|---|---|---|---|')
    results = {}
    for name, config in cases.items():
        corrupt, step = measure(config, ROWS.value, TIMES.value)
        results[name] = {'corrupt_s': corrupt, 'step_s': step}
        print(f'| {name} | {corrupt * 1e3:.2f} | {step * 1e3:.0f} | {corrupt / step:.3%} |')
    if OUT.value:
        Path(OUT.value).write_text(json.dumps(results, indent=1))


if __name__ == '__main__':
    app.run(main)
