"""Fine-tuning here beside transformers' Trainer: the same model, rows and batch size, in one call.

    pip install -e .[peers] accelerate
    python -m benchmarks.finetuning_speed --huggingface=FOLDER --data_dir=GLUE --task=mrpc

FOLDER is a BERT in the Hugging Face layout, GLUE holds the official files; without them the
benchmark says so and ends. Four sides, all with the settings of configs/glue.py (batches of 16,
AdamW, dropout 0.1, clipping, float32), no evaluation and nothing saved:

- fixed: Trainer, every row padded to the task's length (128).
- dynamic: Trainer, DataCollatorWithPadding: padded to the longest row of a random batch.
- grouped: as dynamic, and rows of like length in a batch (Trainer's group_by_length).
- ours: transfer.finetuning.Trainer, batches from buckets of lengths.

A measurement is one whole epoch over the same rows (--rows: a seeded part of them), because batches
differ in length: seconds from the epoch's begin to its end, with collating and copying, without
tokenising. The sides take turns, epoch by epoch, so that whatever else happens to the machine
happens to all. Not counted: of Trainer's sides --warmup steps before the first turn and whatever it
does before an epoch begins; of ours one epoch before the first turn, in which every length is
compiled (its seconds are printed, `first epoch`). What ours does before an epoch (placing the
parameters, making the optimizer's state) is counted.

Prints a Markdown table: medians (least to most) of examples and steps a second, and of ours over
each of the others, measured in the same turn; above 1 ours is faster. CPU s: seconds of all cores
in an epoch; where this is far below the cores times the seconds, others had the cores: measure
again. Threads: torch takes --threads, or as many as it likes, XLA all cores it may run on;
`taskset -c 0 python -m ... --threads=1` holds both to one core. --out writes the numbers as JSON.
"""

import argparse
import datetime
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

# Both live in one GPU's memory, so neither may take it all at the start.
os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')

import jax

from benchmarks import transfer_parity
from benchmarks.step_speed import device_name, span, version
from configs import glue as glue_config
from pretrain import commandline, meshes
from pretrain.data.shards import write_whole
from pretrain.errors import UserError
from pretrain.transfer import experiment, glue, rows, surgery

SIDES = ('fixed', 'dynamic', 'grouped', 'ours')
VERSIONS = ('jax', 'torch', 'transformers', 'accelerate')


class Side(NamedTuple):
    """One of those that are compared.

    run: () -> (seconds of an epoch, seconds of all cores in it).
    warm: () -> None, before the first turn.
    padding: share of places of an epoch that hold no token; None: not known.
    """

    run: object
    warm: object
    padding: float | None


def main():
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--data_dir', default='data/glue', help='folder of the official files')
    parser.add_argument('--huggingface', required=True, help='folder of the checkpoint')
    parser.add_argument('--task', default='mrpc')
    parser.add_argument('--rows', type=int, default=0, help='of the train split; 0: all')
    parser.add_argument('--repeats', type=int, default=5, help='turns of every side')
    parser.add_argument('--warmup', type=int, default=10, help="steps of Trainer's sides")
    parser.add_argument('--sides', default=','.join(SIDES))
    parser.add_argument('--threads', type=int, default=0, help="torch's; 0: as many as it takes")
    parser.add_argument('--out', default='', help='JSON file of the results')
    flags = parser.parse_args()
    chosen = flags.sides.split(',')
    if flags.task not in glue.TASKS or not {*chosen} <= {*SIDES} or 'ours' not in chosen:
        raise UserError(f'--task: one of GLUE; --sides: ours, and others of {", ".join(SIDES)}')
    if len(chosen) > 1 and not version('accelerate'):
        raise UserError("transformers' Trainer needs accelerate: pip install accelerate")
    if not Path(flags.data_dir).is_dir():
        print(f'skipped: there is no folder --data_dir={flags.data_dir}')
        return
    task, config = glue.TASKS[flags.task], glue_config.get_config()
    config.transfer.epochs = 1
    examples = experiment.part_of(task.read(flags.data_dir, 'train'), flags.rows)
    steps = -(-len(examples) // config.transfer.batch_size)
    with tempfile.TemporaryDirectory() as folder:
        sides = {}
        for name in chosen:
            if name == 'ours':
                sides[name] = our_side(flags, task, examples, config, Path(folder) / 'run')
            else:
                sides[name] = peer_side(name, flags, task, examples, config, folder)
        load = [os.getloadavg()[0]]
        first = {}
        for name, side in sides.items():
            began = time.perf_counter()
            side.warm()
            first[name] = time.perf_counter() - began
        seconds, used = ({name: [] for name in sides} for _ in range(2))
        for turn in range(flags.repeats):
            for name, side in sides.items():
                for kept, value in zip((seconds[name], used[name]), side.run()):
                    kept.append(value)
                print(f'turn {turn + 1}, {name}: {seconds[name][-1]:.2f} s', flush=True)
        load.append(os.getloadavg()[0])

    device = device_name('gpu' if jax.default_backend() == 'gpu' else 'cpu')
    date = datetime.date.today().isoformat()
    versions = {name: version(name) for name in VERSIONS}
    print(f'\n{device}; {date}; load {load[0]:.1f} before, {load[1]:.1f} after')
    print(', '.join(f'{package} {number}' for package, number in versions.items()))
    print(
        f'{task.title}, {len(examples):,} rows, {steps} steps of {config.transfer.batch_size} an '
        f'epoch; {flags.repeats} epochs of each side; first epoch of ours, compiled: '
        f'{first["ours"]:.1f} s\n'
    )
    print(table(sides, seconds, used, len(examples), steps))
    if flags.out:
        facts = {
            'device': device, 'date': date, 'load': load, 'versions': versions,
            'task': task.name, 'batch_size': config.transfer.batch_size, 'threads': flags.threads,
            'rows': len(examples), 'steps': steps, 'seconds': seconds,
            'cpu_seconds': used, 'first_epoch': first['ours'],
            'padding': {n: s.padding for n, s in sides.items()},
        }  # fmt: skip
        with write_whole(flags.out) as file:
            file.write(json.dumps(facts, indent=1).encode())


def our_side(flags, task, examples, config, run):
    """Our Side: every epoch from the same parameters, over the same batches."""
    transfer_parity.converted(flags.huggingface, run)
    source = surgery.open_source(run, commandline.read_run_config(run))
    mesh = meshes.make_mesh('data=1', jax.devices()[:1])
    data = experiment.Data({'train': examples}, {}, '')
    made = experiment.Experiment(source, task, data, config, mesh, show=False)
    params, _ = made.start(0)

    def epoch():
        before = clocks()
        done = made.trainer.train(params, made.rows, seed=0)
        jax.block_until_ready(done.params)
        return since(before)

    places = rows.training_batches(made.rows, config.transfer.batch_size, 1, 0, 0)
    return Side(epoch, epoch, rows.padding(made.rows, places))


def peer_side(name, flags, task, examples, config, folder):
    """The Side of transformers' Trainer; its model goes on training from turn to turn."""
    import torch
    import transformers

    if flags.threads:
        torch.set_num_threads(flags.threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.manual_seed(0)
    section = config.transfer
    tokens, model = transfer_parity.open_peer(torch, transformers, flags.huggingface, task, section)
    encoded = transfer_parity.torch_rows(tokens, task, examples, section)
    lengths = [len(row['input_ids']) for row in encoded]
    if name == 'fixed':
        size = {'padding': 'max_length', 'max_length': section.length or task.length}
        encoded = [dict(tokens.pad(row, **size)) for row in encoded]
        collate, padding = transformers.default_data_collator, padded(lengths, size['max_length'])
    else:
        collate, padding = transformers.DataCollatorWithPadding(tokens), None
    for row, goal in zip(encoded, transfer_parity.goals_of(task, examples).tolist()):
        row['labels'] = goal

    class Clock(transformers.TrainerCallback):
        """What an epoch takes."""

        def on_epoch_begin(self, *arguments, **keywords):
            self.before = clocks()

        def on_epoch_end(self, *arguments, **keywords):
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.spent = since(self.before)

    def train(steps):
        clock, optimizer = Clock(), config.optimizer
        whole = -(-len(encoded) // section.batch_size)
        arguments = transformers.TrainingArguments(
            output_dir=folder, num_train_epochs=1, max_steps=steps, seed=0,
            per_device_train_batch_size=section.batch_size,
            learning_rate=optimizer.learning_rate, weight_decay=optimizer.weight_decay,
            adam_beta1=optimizer.b1, adam_beta2=optimizer.b2, adam_epsilon=optimizer.epsilon,
            max_grad_norm=optimizer.clip, lr_scheduler_type='linear',
            warmup_steps=int(whole * section.warmup),
            train_sampling_strategy='group_by_length' if name == 'grouped' else 'random',
            dataloader_pin_memory=False, remove_unused_columns=False, report_to='none',
            save_strategy='no', logging_strategy='no', disable_tqdm=True,
        )  # fmt: skip
        trainer = transformers.Trainer(
            model=model, args=arguments, train_dataset=encoded, data_collator=collate,
            callbacks=[clock],
        )  # fmt: skip
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
        return clock.spent

    return Side(lambda: train(-1), lambda: train(flags.warmup), padding)


def clocks():
    """The time, and what all threads of this process have used of all cores."""
    return time.perf_counter(), time.process_time()


def since(before):
    """What has passed of both since then."""
    return tuple(now - then for now, then in zip(clocks(), before))


def padded(lengths, size):
    """Share of the places that hold no token, of rows that are all `size` long."""
    return 1 - sum(lengths) / (len(lengths) * size)


def table(sides, seconds, used, examples, steps):
    """The medians as Markdown, and the ratios."""
    lines = [
        '| | examples/s | steps/s | seconds of an epoch | CPU s | padding | ours is faster by |',
        '|---|---|---|---|---|---|---|',
    ]
    for name, side in sides.items():
        own = seconds[name]
        ratios = [theirs / ours for theirs, ours in zip(own, seconds['ours'])]
        padding = '' if side.padding is None else f'{100 * side.padding:.0f} %'
        lines.append(
            f'| {name} | {span([examples / s for s in own], 1)} '
            f'| {span([steps / s for s in own], 2)} | {span(own, 1)} '
            f'| {statistics.median(used[name]):.1f} | {padding} '
            f'| {"" if name == "ours" else span(ratios, 2)} |'
        )
    return '\n'.join(lines)


if __name__ == '__main__':
    try:
        main()
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        sys.exit(2)
