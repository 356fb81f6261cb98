"""Does a student gain from its teacher's layers, from its teacher's predictions, or from both?

    python -m benchmarks.distillation_arms --data_dir=DIR --workdir=runs/arms

Trains a teacher (masked LM), and then students of half its depth in four arms over several seeds:
{started from the teacher's layers, at random} x {distilled, trained alone}. All arms of a seed read
the same windows under the same masks with the same optimizer and number of steps. Prints a table in
Markdown of what they reach on held-out text, and writes `arms.json` into the workdir. Finished runs
are not made again. DIR holds JSON lines with the text in `text` (.jsonl or .jsonl.gz); without it
the benchmark says so and ends.
"""

import json
import statistics
import subprocess
import sys
from pathlib import Path

from absl import app, flags

from pretrain import run_log

DATA_DIR = flags.DEFINE_string('data_dir', None, 'Folder of JSON lines.')
WORKDIR = flags.DEFINE_string('workdir', 'runs/arms', 'Folder for the runs.')
TEACHER_STEPS = flags.DEFINE_integer('teacher_steps', 3000, 'Steps of the teacher.')
STEPS = flags.DEFINE_integer('steps', 600, 'Steps of each student.')
SEEDS = flags.DEFINE_integer('seeds', 3, 'Seeds of each arm.')

LENGTH, BATCH = 64, 32
TEACHER_LAYERS, LAYERS = 4, (0, 3)  # of the teacher that the student starts from
ALONE = ('soft', 'cosine')  # the terms that come from the teacher
METRICS = {
    'cross_entropy': 'cross-entropy (nats)',
    'accuracy': 'accuracy',
    'agreement': 'agreement with the teacher',
}


def train(config, workdir, steps, *flags_):
    """Runs the command, unless it has ended before; returns its last validation row."""
    rows = run_log.read_rows(workdir)
    if not rows or rows[-1]['step'] < steps:
        command = [
            sys.executable, '-m', 'pretrain.train', f'--config={config}', f'--workdir={workdir}',
            f'--config.data.source=jsonl:{DATA_DIR.value}',
            f'--config.data.cache={WORKDIR.value}/cache',
            '--config.data.vocabulary_size=4096', '--config.data.validation_fraction=0.01',
            '--config.model.width=128', '--config.model.heads=2',
            f'--config.model.max_positions={LENGTH}', f'--config.objective.length={LENGTH}',
            f'--config.batch_size={BATCH}', f'--config.steps={steps}',
            f'--config.optimizer.schedule.warmup={steps / 10}',
            f'--config.eval.every={steps // 4}', '--config.eval.windows=2048',
            f'--config.checkpoint.every={steps}', '--config.log.every=20', *flags_,
        ]  # fmt: skip
        subprocess.run(command, check=True)
        rows = run_log.read_rows(workdir)
    return {k.removeprefix('validation_'): v for k, v in rows[-1].items() if 'validation_' in k}


def main(argv):
    """Trains all that is missing and prints the table."""
    del argv
    if not DATA_DIR.value or not Path(DATA_DIR.value).is_dir():
        sys.exit(f'--data_dir={DATA_DIR.value} is no folder: nothing was run')
    folder = Path(WORKDIR.value)
    teacher = train(
        'configs/bert.py:tiny', folder / 'teacher', TEACHER_STEPS.value,
        '--config.objective.name=masked_lm', '--config.data.cut=stream',
        f'--config.model.encoder_layers={TEACHER_LAYERS}', '--config.model.segment_types=0',
    )  # fmt: skip
    results = {'teacher': teacher, 'arms': []}
    for seed in range(SEEDS.value):
        for start in ('layers', 'random'):
            for how in ('distilled', 'alone'):
                extra = [
                    f'--config.seed={seed}', f'--config.objective.teacher={folder}/teacher',
                    f'--config.objective.layers={LAYERS if start == "layers" else ()}',
                    f'--config.model.encoder_layers={len(LAYERS)}',
                ]  # fmt: skip
                if how == 'alone':
                    extra += [f'--config.objective.{term}=0.0' for term in ALONE]
                scores = train(
                    'configs/distilbert.py:tiny', folder / f'{start}-{how}-{seed}', STEPS.value,
                    *extra,
                )  # fmt: skip
                results['arms'].append({'start': start, 'how': how, 'seed': seed, **scores})
    (folder / 'arms.json').write_text(json.dumps(results, indent=1))
    print('\n' + table(results))


def table(results):
    """Markdown: the teacher, then mean and standard deviation over the seeds of each arm."""
    teacher = results['teacher']
    lines = [
        f'unigram cross-entropy of the same tokens: {teacher["unigram"]:.3f}',
        '',
        '| | ' + ' | '.join(METRICS.values()) + ' |',
        '|---' * (1 + len(METRICS)) + '|',
        f'| teacher, {TEACHER_LAYERS} layers | {teacher["cross_entropy"]:.3f} | '
        f'{teacher["accuracy"]:.4f} | |',
    ]
    for start in ('layers', 'random'):
        for how in ('distilled', 'alone'):
            rows = [r for r in results['arms'] if (r['start'], r['how']) == (start, how)]
            cells = []
            for name in METRICS:
                values = [r[name] for r in rows]
                spread = statistics.stdev(values) if len(values) > 1 else 0.0
                cells.append(f'{statistics.mean(values):.4f} ± {spread:.4f}')
            begun = "teacher's layers" if start == 'layers' else 'at random'
            lines.append(f'| started {begun}, {how} | {" | ".join(cells)} |')
    return '\n'.join(lines)


if __name__ == '__main__':
    app.run(main)
