"""The plans that docs/scale.md shows: four models on three pods, none of which has to be there.

    python -m benchmarks.plans --out=docs/plans.json

Each is `python -m launch.plan` in a process of its own; what is in --out already is kept, so that
the command goes on where it was stopped. Needs libtpu (pip install libtpu), a few GiB of memory and
some minutes a plan.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from absl import app, flags

OUT = flags.DEFINE_string('out', 'docs/plans.json', 'JSON file of the results.')
ONLY = flags.DEFINE_string('only', '', 'Plan only configs whose name holds this.')

GIB = 2**30
MODELS = {
    # config: {topology: (mesh, further flags)}
    'configs/bert.py:large': {
        'v5e-256': ('data=256', ()),
        'v5p-128': ('data=64', ()),
        'v4-512': ('data=256', ()),
    },
    'configs/t5.py:11b': {
        'v5e-256': ('fsdp=64,tensor=4', ()),
        'v5p-128': ('fsdp=16,tensor=4', ()),
        'v4-512': ('fsdp=64,tensor=4', ()),
    },
    'configs/gpt.py:gpt3_13b': {
        'v5e-256': ('fsdp=64,tensor=4', ('--config.batch_size=1024', '--config.accumulation=4')),
        'v5p-128': (
            'fsdp=16,tensor=4', ('--config.batch_size=1024', '--config.accumulation=4')
        ),
        'v4-512': ('fsdp=64,tensor=4', ('--config.batch_size=1024', '--config.accumulation=4')),
    },
    'configs/gpt.py:gpt3_175b': {
        'v5e-256': ('fsdp=32,tensor=8', ('--config.batch_size=1536', '--config.accumulation=48')),
        'v5p-128': ('fsdp=16,tensor=4', ('--config.batch_size=1536', '--config.accumulation=48')),
        'v4-512': ('fsdp=64,tensor=4', ('--config.batch_size=1536', '--config.accumulation=24')),
    },
}


def main(argv):
    """Makes what is missing, one after the other."""
    del argv
    path = Path(OUT.value)
    made = json.loads(path.read_text()) if path.exists() else []
    there = {(each['config_file'], each['name']) for each in made}
    for config, pods in MODELS.items():
        for pod, (mesh, further) in pods.items():
            if ONLY.value not in config or (config, pod) in there:
                continue
            with tempfile.NamedTemporaryFile(suffix='.json') as out:
                words = [
                    sys.executable, '-m', 'launch.plan', f'--config={config}', f'--topology={pod}',
                    f'--mesh={mesh}', f'--out={out.name}', *further,
                ]  # fmt: skip
                print('\n$', ' '.join(['python', *words[1:]]), flush=True)
                if subprocess.run(words).returncode:
                    continue
                found = json.loads(Path(out.name).read_text())
            command = [word for word in words[1:] if not word.startswith('--out')]
            facts = {'config_file': config, 'name': pod, 'mesh': mesh, 'command': command}
            made.append(facts | found)
            path.write_text(json.dumps(made, indent=1))
    print('\n' + markdown(made))


def markdown(made):
    """The plans as the table of docs/scale.md."""
    lines = [
        "| config | pod, mesh | parts of a batch | GiB of a chip | FLOPs, of the model's "
        '| sent by a chip, GB a step | a step at least | compiled in |',
        '|---' * 8 + '|',
    ]
    for each in made:
        plan = each['plan']
        parts = [w.rpartition('=')[2] for w in each['command'] if 'accumulation' in w]
        fits = '' if plan['fits'] else ' **does not fit**'
        row = [
            f'`{each["config_file"].removeprefix("configs/")}`',
            f'{each["name"]} ({each["topology"].partition(":")[2]}), `{each["mesh"]}`',
            parts[0] if parts else '1',
            f'{plan["total"] / GIB:.1f} of {plan["memory"] / GIB:.4g}{fits}',
            f'{plan["flops"] / plan["model_flops"]:.2f}' if plan['flops'] else '',
            '; '.join(sent(c) for c in plan['collectives'] if c['sent'] > 0.01e9),
            bound(plan),
            f'{plan["compile_seconds"]:.0f} s' if plan['flops'] else '',
        ]
        lines.append('| ' + ' | '.join(row) + ' |')
    return '\n'.join(lines)


def sent(collective):
    """'all-gather over fsdp 11.1'."""
    return f'{collective["kind"]} over {collective["axes"]} {collective["sent"] / 1e9:,.1f}'


def bound(plan):
    """The least time of a step, and what takes it."""
    if not plan['seconds']:
        return ''
    slowest = max(plan['seconds'], key=plan['seconds'].get)
    return f'{1e3 * plan["bound"]:,.0f} ms ({slowest})'


if __name__ == '__main__':
    app.run(main)
