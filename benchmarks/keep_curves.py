"""Keeps what a run looked like, so that "is this normal?" has an answer.

    python -m benchmarks.keep_curves runs/bert-tiny runs/t5-tiny --out=docs/curves

Writes NAME.json (versions, hardware, date, the rows of metrics.jsonl) and NAME.png of each run, and
prints a Markdown table of their last validation rows.
"""

import datetime
import json
import shutil
import sys
from pathlib import Path

import jax
from absl import app, flags

from pretrain import run_log

OUT = flags.DEFINE_string('out', 'docs/curves', 'Folder of the pictures.')
SHOWN = {  # metric -> what the table calls it
    'accuracy': 'accuracy',
    'next_sentence_accuracy': 'next-sentence accuracy',
    'agreement': 'agreement with the teacher',
    'detection_accuracy': 'detection accuracy',
    'detected': 'replaced tokens found',
    'padding': 'padding',
}


def processor():
    """The name that Linux gives the processor; '' elsewhere."""
    path = Path('/proc/cpuinfo')
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(':')[1].strip() for line in lines if 'model name' in line), '')


def main(argv):
    """Writes the files and prints the table."""
    out = Path(OUT.value)
    out.mkdir(parents=True, exist_ok=True)
    print('| run | steps | seconds | cross-entropy | unigram | below | other |')
    print('|---|---|---|---|---|---|---|')
    for folder in map(Path, argv[1:]):
        rows = run_log.read_rows(folder)
        if not rows or 'validation_cross_entropy' not in rows[-1]:
            sys.exit(f'{folder} holds no finished run')
        date = datetime.datetime.fromtimestamp((folder / 'metrics.jsonl').stat().st_mtime)
        config = json.loads((folder / 'config.json').read_text())
        del config['data']['cache']  # a place on somebody's disk
        facts = {
            'config': config,
            'date': date.date().isoformat(),
            'hardware': f'{jax.device_count()} x {jax.devices()[0].device_kind} {processor()}',
            'jax': jax.__version__,
            'rows': [{k: round(v, 5) for k, v in row.items()} for row in rows],
        }
        (out / f'{folder.name}.json').write_text(json.dumps(facts) + '\n')
        shutil.copyfile(folder / 'loss.png', out / f'{folder.name}.png')
        last = rows[-1]
        nats, unigram = last['validation_cross_entropy'], last['validation_unigram']
        other = ', '.join(
            f'{name} {last[f"validation_{key}"]:.3f}'
            for key, name in SHOWN.items()
            if f'validation_{key}' in last
        )
        print(
            f'| {folder.name} | {last["step"]} | {last["seconds"]:.0f} | {nats:.3f} | '
            f'{unigram:.3f} | {1 - nats / unigram:.1%} | {other} |'
        )


if __name__ == '__main__':
    app.run(main)
