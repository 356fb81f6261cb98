"""The same run on one device and on meshes of every kind, in one process and in several.

    python -m benchmarks.mesh_parity --out=docs/mesh-parity.json

GPT, BERT, T5 and distillation, small, float32: the loss of each of 20 steps against that of one
device; and what 8 devices have saved after 10 steps, restored on 4, 2, 1 and on 2 processes,
against the 8 devices that went on. All by `launch.local`, with fake CPU devices. What is in --out
already is kept. Takes about half a minute a run on 2 cores. Exit code 0 when no
loss differs by more than 1e-5, none of a restored run by more than 1e-6.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from absl import app, flags

from benchmarks import kill_and_resume
from pretrain import run_log

OUT = flags.DEFINE_string('out', 'docs/mesh-parity.json', 'JSON file of the results.')
STEPS, SAVED = 20, 10
MOST, RESTORED_MOST = 1e-5, 1e-6  # relative differences
CONFIGS = {
    'GPT': 'configs/gpt.py:smoke',
    'BERT': 'configs/bert.py:smoke',
    'T5': 'configs/t5.py:smoke',
    'DistilBERT': 'configs/distilbert.py:smoke',
}
# (processes, devices of each, mesh)
ONE = 1, 1, 'data=1'
MESHES = [
    (1, 2, 'data=2'),
    (1, 2, 'fsdp=2'),
    (1, 2, 'tensor=2'),
    (1, 2, 'sequence=2'),
    (1, 4, 'data=2,fsdp=2'),
    (1, 4, 'fsdp=2,tensor=2'),
    (1, 8, 'data=8'),
    (1, 8, 'fsdp=8'),
    (1, 8, 'data=2,fsdp=2,tensor=2'),
    (1, 8, 'fsdp=2,tensor=2,sequence=2'),
    (2, 2, 'data=2,fsdp=2'),
    (2, 1, 'tensor=2'),
    (4, 1, 'fsdp=4'),
    (4, 2, 'data=2,fsdp=2,tensor=2'),
]
EIGHT = 1, 8, 'data=2,fsdp=2,tensor=2'
RESTORED = [EIGHT, (1, 4, 'fsdp=4'), (1, 2, 'tensor=2'), ONE, (2, 1, 'fsdp=2'), (2, 4, EIGHT[2])]


def main(argv):
    """Makes the runs that are missing, compares, and prints the table of docs/scale.md."""
    del argv
    path = Path(OUT.value)
    found = json.loads(path.read_text()) if path.exists() else {}
    folder = Path(tempfile.mkdtemp(prefix='mesh-parity-'))
    for name, config in CONFIGS.items():
        results = found.setdefault(name, {})
        if len(results) == len(MESHES) + len(RESTORED):
            continue
        alone = losses(run(folder, config, f'{name}-alone', *ONE))
        for processes, devices, mesh in MESHES:
            key = f'{processes} x {devices}, {mesh}'
            if key not in results:
                made = run(folder, config, f'{name}-{len(results)}', processes, devices, mesh)
                results[key] = furthest(losses(made), alone)
                report(path, found, name, key)
        first = run(folder, config, f'{name}-saved', *EIGHT, f'--config.checkpoint.every={SAVED}')
        whole, bits = losses(first), kill_and_resume.bits(first)
        shutil.rmtree(first / 'checkpoints' / str(STEPS))
        for processes, devices, mesh in RESTORED:
            key = f'8 restored on {processes} x {devices}, {mesh}'
            if key not in results:
                copied = folder / f'{name}-{len(results)}'
                shutil.copytree(first, copied)
                made = run(folder, config, copied.name, processes, devices, mesh)
                results[key] = furthest(losses(made), whole)
                if kill_and_resume.bits(made) == bits:
                    results[key] = 'the same bits'
                report(path, found, name, key)
    shutil.rmtree(folder)
    print('\n' + markdown(found))
    most = lambda key: RESTORED_MOST if 'restored' in key else MOST  # noqa: E731
    wrong = [f'{name} {key}' for name, results in found.items() for key, result in results.items()
             if not isinstance(result, str) and not result <= most(key)]  # fmt: skip
    if wrong:
        sys.exit(f'FAILED: {"; ".join(wrong)}')


def markdown(found):
    """A row a mesh, a column a model."""
    lines = [f'| processes x devices of each, mesh | {" | ".join(found)} |']
    lines.append('|---' * (len(found) + 1) + '|')
    for key in next(iter(found.values())):
        cells = [result if isinstance(result := each.get(key, ''), str) else f'{result:.1e}'
                 for each in found.values()]  # fmt: skip
        lines.append(f'| {key} | {" | ".join(cells)} |')
    return '\n'.join(lines)


def run(folder, config, name, processes, devices, mesh, *more):
    """The folder of a finished run."""
    done = subprocess.run(
        [
            sys.executable, '-m', 'launch.local', f'--processes={processes}',
            f'--devices={devices}', '--', 'pretrain.train', f'--config={config}',
            f'--workdir={folder / name}', f'--config.data.cache={folder / "cache"}',
            f'--config.mesh={mesh}',
            f'--config.steps={STEPS}', '--config.log.every=1', '--config.eval.every=1000',
            '--config.eval.windows=16', '--config.sample.tokens=0',
            '--config.optimizer.name=adamw', '--config.optimizer.learning_rate=1e-3', *more,
        ],
        capture_output=True, text=True, errors='replace',
    )  # fmt: skip
    if done.returncode:
        sys.exit(f'FAILED: {name}, {mesh}, exit code {done.returncode}: {done.stderr[-3000:]}')
    return folder / name


def losses(workdir):
    """The loss of each step."""
    return [row['loss'] for row in run_log.read_rows(workdir)]


def furthest(made, wanted):
    """The largest relative difference of two runs."""
    assert len(made) == len(wanted) == STEPS, (len(made), len(wanted))
    return max(abs(a - b) / abs(b) for a, b in zip(made, wanted))


def report(path, found, name, key):
    """Writes what is known, and prints the newest line."""
    path.write_text(json.dumps(found, indent=1))
    result = found[name][key]
    print(f'{name:>10}  {key:<50}  {result if isinstance(result, str) else f"{result:.1e}"}',
          flush=True)  # fmt: skip


if __name__ == '__main__':
    app.run(main)
