"""The default protocol of fine-tuning here, and the same with transformers + torch: dev scores.

    pip install -e .[peers]
    python -m benchmarks.transfer_parity --huggingface=FOLDER --data_dir=GLUE --workdir=runs/parity
    python -m benchmarks.transfer_parity ... --half=torch --threads=1

FOLDER is a BERT in the Hugging Face layout, GLUE holds the official files; without them the
benchmark says so and ends. Both halves have the settings of configs/glue.py (epochs, batch, AdamW
without decay of biases and norms, warm-up, linear decay to 0, clipping, dropout, length), the same
part of the train split (of more than --train_rows a seeded one: of these tasks that is SST-2) and
the same metrics; a task's score is the mean of its metrics.

- ours: `pretrain.evaluate --benchmark=glue` on the run that pretrain.convert makes of FOLDER; or,
  with --ours=RESULTS,RESULTS, what stands in workdirs of it, and nothing is run.
- torch: AutoModelForSequenceClassification and AutoTokenizer of FOLDER in a plain loop, float32,
  rows padded to the longest of their batch, grouped by length as Trainer's group_by_length does
  (--order=random: not grouped). Its tokenizer gives an odd place, where both texts of a pair are
  cut, to the longer one, ours (BERT's rule) to the first.

Every (task, seed) is stored as it finishes: the same command fills gaps (one workdir for one FOLDER
and GLUE). Prints a Markdown table and writes it as parity.json. Ours reaches the other where its
mean is no further below than one standard deviation of torch's seeds; exit code 1 where a task does
not.
"""

import argparse
import datetime
import json
import math
import statistics
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from benchmarks.keep_curves import processor
from configs import glue as glue_config
from pretrain import commandline
from pretrain.data.shards import write_whole
from pretrain.errors import UserError
from pretrain.huggingface import importing
from pretrain.transfer import benchmark, encoding, experiment, glue, metrics

HALVES = ('ours', 'torch')
ORDERS = ('grouped', 'random')


def main():
    """Runs what is missing of both halves, prints the table and writes it."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--data_dir', default='data/glue', help='folder of the official files')
    parser.add_argument('--huggingface', required=True, help='folder of the checkpoint')
    parser.add_argument('--checkpoint', default='', help='our run of it; default: it is made')
    parser.add_argument('--workdir', default='runs/transfer-parity', help='folder of the results')
    parser.add_argument(
        '--ours', default='', help='workdirs of pretrain.evaluate to read, divided by commas; '
        'default: one of our own, which is filled'
    )  # fmt: skip
    parser.add_argument('--tasks', default='rte,mrpc,stsb,sst2')
    parser.add_argument('--seeds', type=int, default=5)
    parser.add_argument('--train_rows', type=int, default=8000, help='0: all')
    parser.add_argument('--half', choices=(*HALVES, 'both'), default='both')
    parser.add_argument('--order', choices=ORDERS, default='grouped', help="of torch's rows")
    parser.add_argument('--threads', type=int, default=0, help="torch's; 0: as many as it takes")
    flags = parser.parse_args()
    tasks = flags.tasks.split(',')
    for name in tasks:
        if name not in glue.TASKS or glue.TASKS[name].predicted_by:
            raise UserError(f'--tasks: {name!r} is no task of GLUE that is trained')
    if not Path(flags.data_dir).is_dir():
        print(f'skipped: there is no folder --data_dir={flags.data_dir}')
        return
    config = glue_config.get_config()
    config.transfer.train_rows = flags.train_rows
    workdir = Path(flags.workdir)
    ours = [Path(f) for f in flags.ours.split(',')] if flags.ours else [workdir / 'ours']
    folders = {'ours': ours, 'torch': [workdir / f'torch-{flags.order}']}
    if flags.half != 'ours':
        for name in tasks:
            run_torch(flags, glue.TASKS[name], config, folders['torch'][0])
    if flags.half != 'torch' and not flags.ours:
        run_ours(flags, ours[0])
    found = {
        name: {
            half: scores(half, folders[half], glue.TASKS[name], config, flags) for half in HALVES
        }
        for name in tasks
    }
    rows = [row(name, values) for name, values in found.items()]
    print(table(rows, flags.seeds))
    facts = {
        'date': datetime.date.today().isoformat(),
        'hardware': processor(),
        'seeds': flags.seeds,
        'order': flags.order,
        'settings': settings(config),
        'rows': rows,
    }
    with write_whole(workdir / 'parity.json') as file:
        file.write(json.dumps(facts, indent=1).encode())
    sys.exit(any(row['reached'] == 'no' for row in rows))


def run_ours(flags, folder):
    """Our half, by the command that everybody uses; it runs only what is not stored."""
    checkpoint = flags.checkpoint or converted(
        flags.huggingface, Path(flags.workdir) / 'checkpoint'
    )
    command = [
        sys.executable, '-m', 'pretrain.evaluate', '--benchmark=glue', f'--tasks={flags.tasks}',
        f'--checkpoint={checkpoint}', f'--data_dir={flags.data_dir}', f'--workdir={folder}',
        f'--seeds={flags.seeds}', '--scratch_seeds=0',
        f'--config.transfer.train_rows={flags.train_rows}',
    ]  # fmt: skip
    made = subprocess.run(command)
    if made.returncode:
        sys.exit(made.returncode)


def converted(huggingface, run):
    """The folder of our run of a checkpoint, made where it is not there."""
    if not run.is_dir():
        print(importing.import_run(huggingface, run))
    return run


def run_torch(flags, task, config, folder):
    """The seeds of a task that are not stored yet."""
    wanted = settings(config)
    train = experiment.part_of(task.read(flags.data_dir, 'train'), flags.train_rows)
    dev = task.read(flags.data_dir, 'dev')
    for seed in range(flags.seeds):
        path = folder / task.name / f'seed-{seed}.json'
        if path.exists():
            continue
        made = fine_tune(flags, task, train, dev, config, seed)
        with write_whole(path) as file:
            file.write(json.dumps({'settings': wanted, **made}, indent=1).encode())
        print(f'{task.title} torch seed {seed}: {made["scores"]["dev"]}')


def fine_tune(flags, task, train, dev, config, seed):
    """One fine-tuning with torch: {'scores', 'steps', 'training_seconds', 'last_loss'}."""
    import torch
    import transformers
    from transformers.trainer_pt_utils import get_length_grouped_indices

    if flags.threads:
        torch.set_num_threads(flags.threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    section = config.transfer
    torch.manual_seed(seed)  # of the classifier, the order and dropout
    tokens, model = open_peer(torch, transformers, flags.huggingface, task, section)
    model.to(device)
    rows, goals = torch_rows(tokens, task, train, section), goals_of(task, train)
    optimizer, schedule, steps = make_optimizer(torch, transformers, model, config, len(rows))

    model.train()
    bar = tqdm(total=steps, desc=f'{task.title} torch seed {seed}', unit='step')
    began, losses = time.time(), []
    for _ in range(section.epochs):
        losses = []
        if flags.order == 'grouped':
            order = get_length_grouped_indices(
                [len(row['input_ids']) for row in rows], section.batch_size
            )
        else:
            order = torch.randperm(len(rows)).tolist()
        for at in range(0, len(order), section.batch_size):
            chosen = order[at : at + section.batch_size]
            batch = tokens.pad([rows[i] for i in chosen], return_tensors='pt').to(device)
            loss = model(**batch, labels=torch.tensor(goals[chosen], device=device)).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.optimizer.clip)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(loss.item())
            bar.update(1)
    bar.close()
    seconds = time.time() - began
    outputs_NxU = predict(torch, model, tokens, torch_rows(tokens, task, dev, section), section)
    if task.kind == 'number':
        made = np.clip(outputs_NxU[:, 0].astype(float), task.low, task.high).tolist()
    else:
        made = [task.labels[c] for c in outputs_NxU.argmax(1)]
    return {
        'scores': {'dev': metrics.score(task, dev, made)},
        'steps': steps,
        'training_seconds': round(seconds, 2),
        'last_loss': statistics.mean(losses),
        'versions': {'torch': torch.__version__, 'transformers': transformers.__version__},
        'device': device,
    }


def open_peer(torch, transformers, folder, task, section):
    """(tokenizer, model) of a folder, with a new classifier and the dropout of the settings."""
    tokens = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=torch.float32, num_labels=max(len(task.labels), 1),
        problem_type='regression' if task.kind == 'number' else 'single_label_classification',
        hidden_dropout_prob=section.dropout, attention_probs_dropout_prob=section.dropout,
        classifier_dropout=section.head_dropout,
    )  # fmt: skip
    return tokens, model


def make_optimizer(torch, transformers, model, config, rows):
    """(AdamW, its schedule, number of steps) of a config and a number of rows."""
    section, settings_ = config.transfer, config.optimizer
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim < 2]  # biases and norms
    optimizer = torch.optim.AdamW(
        [
            {'params': matrices, 'weight_decay': settings_.weight_decay},
            {'params': vectors, 'weight_decay': 0.0},
        ],
        lr=settings_.learning_rate, betas=(settings_.b1, settings_.b2), eps=settings_.epsilon,
    )  # fmt: skip
    steps = math.ceil(rows / section.batch_size) * section.epochs
    schedule = transformers.get_linear_schedule_with_warmup(
        optimizer, int(steps * section.warmup), steps
    )
    return optimizer, schedule, steps


def torch_rows(tokens, task, examples, section):
    """What transformers' tokenizer makes of the examples: a dict of lists each, not padded."""
    texts = [[example.fields[name] for example in examples] for name in task.texts]
    encoded = tokens(
        *texts, truncation='longest_first', max_length=section.length or task.length, padding=False
    )
    return [{name: encoded[name][i] for name in encoded} for i in range(len(examples))]


def goals_of(task, examples):
    """Numbers of the labels, int64, or the labels, float32."""
    kind = np.float32 if task.kind == 'number' else np.int64
    return np.array([encoding.target(task, example) for example in examples], kind)


def predict(torch, model, tokens, rows, section):
    """The outputs of all rows, NxU."""
    model.eval()
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]['input_ids']))
    outputs_NxU = np.zeros((len(rows), model.config.num_labels), np.float32)
    with torch.inference_mode():
        for at in range(0, len(order), section.eval_batch_size):
            chosen = order[at : at + section.eval_batch_size]
            batch = tokens.pad([rows[i] for i in chosen], return_tensors='pt').to(model.device)
            outputs_NxU[chosen] = model(**batch).logits.cpu().numpy()
    return outputs_NxU


def settings(config):
    """The settings that both halves have, flat."""
    return commandline.flatten({s: config[s].to_dict() for s in ('transfer', 'optimizer')})


def scores(half, folders, task, config, flags):
    """The stored dev scores of a task, one a seed; as many as there are."""
    count = len(task.read(flags.data_dir, 'train'))
    made = []
    for seed in range(flags.seeds):
        own = f'{task.name}/seed-{seed}.json'
        if half == 'ours':
            own = f'{task.name}/{experiment.PRETRAINED}/seed-{seed}/{experiment.RESULT}'
        path = next((f / own for f in folders if (f / own).exists()), None)
        if path is None:
            continue
        facts = json.loads(path.read_text())
        stored, wanted = (by_rows(s, count) for s in (facts['settings'], settings(config)))
        for key, value in wanted.items():
            if stored.get(key) != value:
                raise UserError(
                    f'{str(path)!r} was made with {key}={stored.get(key)!r}, not {value!r}: give '
                    'another folder, or remove it'
                )
        made.append(benchmark.dev_scores(facts)['score'])
    return made


def by_rows(flat, count):
    """Settings as JSON has them, with the number of training rows that is really used."""
    rows = flat['transfer.train_rows']
    return json.loads(json.dumps(flat)) | {'transfer.train_rows': min(rows or count, count)}


def row(name, values):
    """A line of the table: {half: (mean, standard deviation, scores)} and what follows."""
    made = {'task': name, **values}
    for half in HALVES:
        if len(values[half]) > 1:
            made[f'{half}_mean'] = statistics.mean(values[half])
            made[f'{half}_deviation'] = statistics.stdev(values[half])
    made['reached'] = ''
    if 'ours_mean' in made and 'torch_mean' in made:
        made['difference'] = made['ours_mean'] - made['torch_mean']
        if abs(made['difference']) <= made['torch_deviation']:
            made['reached'] = 'yes'
        else:
            made['reached'] = 'above' if made['difference'] > 0 else 'no'
    return made


def table(rows, seeds):
    """The rows as Markdown; scores in hundredths."""
    lines = [
        f'| task | ours, mean ± deviation ({seeds} seeds) | torch | difference | within one '
        'standard deviation |',
        '|---|---|---|---|---|',
    ]
    for made in rows:
        cells = [glue.TASKS[made['task']].title]
        for half in HALVES:
            if f'{half}_mean' in made:
                mean, deviation = made[f'{half}_mean'], made[f'{half}_deviation']
                cell = f'{100 * mean:.2f} ± {100 * deviation:.2f}'
                missing = seeds - len(made[half])
                cells.append(cell + (f' ({missing} missing)' if missing else ''))
            else:
                cells.append(f'{len(made[half])} of {seeds} seeds')
        cells.append(f'{100 * made["difference"]:+.2f}' if 'difference' in made else '')
        lines.append(f'| {" | ".join([*cells, made["reached"]])} |')
    return '\n'.join(lines)


if __name__ == '__main__':
    jax.config.update('jax_platforms', 'cpu')  # this process only reads; the device is the halves'
    try:
        main()
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        sys.exit(2)
