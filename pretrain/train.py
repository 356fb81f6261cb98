"""Trains a model.

    python -m pretrain.train --config=configs/gpt.py:tiny --workdir=runs/gpt-tiny

What a run starts from, in this order: the newest whole checkpoint in its workdir (so the same
command goes on after a kill); the parameters of the run that `--config.init_from` names; scratch.
"""

import functools
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import jax
import numpy as np
from absl import flags

from pretrain import (
    assembly,
    commandline,
    curves,
    evaluation,
    flops,
    partitioning,
    run_log,
    train_step,
)
from pretrain.checkpoints import Checkpoints, restore_params
from pretrain.data import loader, tokenizer
from pretrain.data.shards import write_whole
from pretrain.errors import UserError
from pretrain.generate import continue_texts

CONFIG = commandline.define_config()
WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run.', required=True)
ACCEPT_CHANGES = flags.DEFINE_bool(
    'accept_changes', False, 'Go on in a workdir whose config differs.'
)
COORDINATOR = flags.DEFINE_string(
    'coordinator', '', 'host:port of process 0 of a run of several processes.'
)
PROCESSES = flags.DEFINE_integer('processes', 1, 'Number of processes of the run.')
PROCESS = flags.DEFINE_integer('process', 0, 'Number of this process, from 0.')

# What may differ when a run goes on: where it runs and how often it reports, not what it computes.
FREE_KEYS = ('mesh', 'init_from', 'checkpoint.', 'eval.', 'log.', 'sample.', 'data.cache')


def main(argv):
    """Trains; every line of it once from top to bottom."""
    if len(argv) > 1:
        raise UserError(f'unknown argument {argv[1]!r}')
    config, workdir = CONFIG.value, Path(WORKDIR.value)
    if config is None:
        raise UserError('--config is missing: for example --config=configs/gpt.py:tiny')
    began = time.time()
    if COORDINATOR.value:
        jax.distributed.initialize(COORDINATOR.value, PROCESSES.value, PROCESS.value)
    first_process = jax.process_index() == 0
    say = print if first_process else lambda *_: None
    use_compilation_cache(config.data.cache)

    # What can be wrong is found before anything is written.
    mesh = partitioning.make_mesh(config.mesh)
    check_intervals(config)
    part = check_batch(config, mesh)
    check_workdir(workdir, config)

    corpus = assembly.open_corpus(config.data)
    tokens = corpus.tokenizer
    learner = assembly.make_learner(config, tokens.vocabulary)
    objective = learner.objective
    reader = assembly.open_windows(config, corpus, 'train', objective)
    held_out = None
    if corpus.total('validation', 'tokens'):
        held_out = assembly.open_windows(config, corpus, 'validation', objective, tail=True)
    check_tokenizer(workdir, tokens, 'this run began')
    if first_process:
        write_workdir(workdir, config, tokens)

    # The state: resume, or init_from, or scratch.
    abstract = assembly.abstract_state(learner, mesh)
    saved = Checkpoints(workdir / 'checkpoints', config.to_dict(), config.checkpoint.keep)
    restored = saved.restore(abstract)
    if restored:
        state, progress = restored
        start, origin = progress['step'], f'resumed from step {progress["step"]}'
        spent = progress['seconds']
    else:
        shardings = jax.tree.map(lambda x: x.sharding, abstract)
        state = jax.jit(lambda: train_step.init_state(learner), out_shardings=shardings)()
        start, origin, spent = 0, 'from scratch', 0.0
        if config.init_from:
            check_tokenizer(Path(config.init_from), tokens, 'init_from was trained')
            state['params'] = restore_params(config.init_from, abstract['params'])
            origin = f'parameters of {config.init_from}'
    say(banner(config, mesh, corpus, reader, learner, abstract, origin))

    rows = partitioning.process_rows(mesh, config.batch_size)
    update = jax.jit(
        functools.partial(train_step.train_step, learner),
        donate_argnums=0,
        out_shardings=(jax.tree.map(lambda x: x.sharding, abstract), None),
    )
    evaluate = jax.jit(functools.partial(train_step.evaluation_step, learner))
    unigram_V = evaluation.unigram(corpus, config.data.separator)
    step_tokens = config.batch_size * objective.window_length()
    step_flops = model_flops(learner, config.batch_size)
    peak = flops.peak(jax.devices()[0], config.model.dtype)
    log = run_log.RunLog(workdir, config.steps, start) if first_process else None
    windows = loader.Loader(reader, config.seed, config.batch_size, rows, start)
    clock = {'time': time.time(), 'step': start}
    stopped = None

    def finish(pending, validation=None):
        """Reads the measurements of a step that was sent off earlier, and logs them."""
        step, measured, wanted = pending
        measured = {name: float(value) for name, value in measured.items()}
        if not measured.pop('finite'):
            stop_not_finite(workdir, config, reader, step, measured, first_process)
        if not wanted or not first_process:
            return
        now, row = time.time(), {'step': step, **measured, 'tokens': step * step_tokens}
        rate = (step - clock['step']) / (now - clock['time'])
        row |= {'seconds': spent + now - began, 'tokens_per_second': rate * step_tokens}
        if peak:
            row['mfu'] = rate * step_flops / (peak * jax.device_count())
        row |= {f'validation_{name}': value for name, value in (validation or {}).items()}
        log.write(row)
        clock.update(time=time.time(), step=step)

    with saved, saved.watching_for_preemption():
        try:
            pending = None
            for step in range(start + 1, config.steps + 1):
                batch = partitioning.global_array(mesh, next(windows), config.batch_size)
                state, measured = update(state, batch)
                if pending:  # one step late, so that the device never waits for this loop
                    finish(pending)
                last = step == config.steps
                pending = step, measured, last or step % config.log.every == 0
                if first_process:
                    log.advance()
                evaluating = held_out and (last or step % config.eval.every == 0)
                stopping = saved.preempted(step)
                saving = last or stopping or step % config.checkpoint.every == 0
                if not (evaluating or saving):
                    continue
                validation = None
                if evaluating:
                    validation = evaluation.evaluate(
                        evaluate, state['params'], held_out, part, mesh,
                        config.eval.windows, unigram_V,
                    )  # fmt: skip
                finish((step, measured, pending[2] or evaluating), validation)
                pending = None
                if saving:
                    progress = {'step': step, 'seconds': spent + time.time() - began}
                    saved.save(state, step, progress, validation and validation['loss'])
                clock.update(time=time.time(), step=step)  # those pauses are not training
                if stopping:
                    stopped = step
                    break
            saved.wait()
        finally:
            windows.close()
            if first_process:
                log.close()

    if first_process:
        picture = curves.draw(workdir)
        if stopped:
            say(f'stopped after step {stopped} of {config.steps}, saved; the same command goes on')
        else:
            say(results(workdir, config, picture))
            print_sample(config, learner, state, tokens)
    if stopped:
        sys.exit(128 + signal.SIGTERM)


def use_compilation_cache(cache):
    """Keeps compiled programs, unless JAX_COMPILATION_CACHE_DIR names a place already."""
    if not jax.config.jax_compilation_cache_dir:
        jax.config.update('jax_compilation_cache_dir', os.path.abspath(f'{cache}/compiled'))


def check_intervals(config):
    """Refuses intervals and counts that no loop can keep."""
    for name in ('batch_size', 'accumulation', 'checkpoint.every', 'eval.every', 'log.every'):
        value = functools.reduce(lambda c, n: c[n], name.split('.'), config)
        if value < 1:
            raise UserError(f'{name}={value} must be at least 1')


def check_batch(config, mesh):
    """Returns the rows of one part of the batch; refuses what does not divide."""
    batch, parts = config.batch_size, config.accumulation
    if batch % parts:
        raise UserError(
            f'batch_size={batch} is not divisible by accumulation={parts}: '
            f'set batch_size={-(-batch // parts) * parts}, or another accumulation'
        )
    partitioning.process_rows(mesh, batch)
    shards = partitioning.batch_shards(mesh)
    if batch // parts % shards:
        raise UserError(
            f'batch_size={batch} in accumulation={parts} parts makes parts of {batch // parts} '
            f'windows, which the mesh cannot split into {shards}: '
            f'set batch_size={-(-batch // (parts * shards)) * parts * shards}'
        )
    return batch // parts


def check_workdir(workdir, config):
    """Refuses a workdir that cannot be written, or that holds a run of another config."""
    existing = workdir
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f'--workdir: {str(workdir)!r} cannot be written: give another folder')
    path = workdir / 'config.json'
    if not path.exists() or ACCEPT_CHANGES.value:
        return
    before, now = (flatten(c.to_dict()) for c in (commandline.read_config(path), config))
    changed = [
        f'{key} was {before.get(key)!r}, is {now.get(key)!r}'
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and not key.startswith((*FREE_KEYS, 'name'))
    ]
    if changed:
        raise UserError(
            f'{str(workdir)!r} holds a run of another config ({"; ".join(changed)}): '
            'give another --workdir, or --accept_changes'
        )


def check_tokenizer(run, tokens, what):
    """Refuses to go on from a run whose tokenizer is not the corpus's."""
    path = run / 'tokenizer.model'
    if path.exists() and tokenizer.load(path).digest != tokens.digest:
        raise UserError(
            f'{str(path)!r}, with which {what}, is not the tokenizer of the corpus: '
            f'set data.tokenizer={path}'
        )


def flatten(tree, prefix=''):
    """{'a': {'b': 1}} -> {'a.b': 1}."""
    flat = {}
    for key, value in tree.items():
        flat |= (
            flatten(value, f'{prefix}{key}.') if isinstance(value, dict) else {prefix + key: value}
        )
    return flat


def write_workdir(workdir, config, tokens):
    """Makes the run's folder with its config and its tokenizer."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        with write_whole(workdir / 'config.json') as file:
            file.write(json.dumps(config.to_dict(), indent=2).encode())
        with write_whole(workdir / 'tokenizer.model') as file:
            file.write(tokens.model)
    except OSError as error:
        raise UserError(f'--workdir: cannot write {str(workdir)!r}: {error.strerror}') from None


def model_flops(learner, batch):
    """FLOPs of a step, from the shapes of its batch."""
    length = learner.objective.window_length()
    window = jax.ShapeDtypeStruct((batch, length), np.int32)
    numbers = jax.ShapeDtypeStruct((batch,), np.int32)
    from objectives.contract import Windows

    made = jax.eval_shape(
        learner.objective.corrupt, jax.random.key(0), Windows(window, window, window, numbers)
    )
    inputs, predicted = made.inputs.tokens_BxL.shape[1], made.targets_BxK.shape[1]
    return sum(
        flops.training_flops(m.config, batch, inputs, predicted)
        for m in learner.transformers.values()
    )


def stop_not_finite(workdir, config, reader, step, measured, first_process):
    """Ends the run: says which windows made the loss or the gradient overflow."""
    positions = np.arange((step - 1) * config.batch_size, step * config.batch_size)
    dump = {
        'step': step,
        'measured': {name: str(value) for name, value in measured.items()},
        'windows_of_run': positions.tolist(),
        'windows_of_corpus': loader.corpus_windows(positions, len(reader), config.seed).tolist(),
    }
    path = workdir / f'not-finite-{step}.json'
    if first_process:
        with write_whole(path) as file:
            file.write(json.dumps(dump, indent=1).encode())
        print(
            f'\nerror: step {step}: loss {measured["loss"]}, gradient norm '
            f'{measured["gradient_norm"]}: the parameters were left as they were before it; the '
            f"batch's windows are in {path}; lower optimizer.learning_rate and start again, or "
            'look at the text',
            file=sys.stderr,
        )
    sys.exit(1)


def banner(config, mesh, corpus, reader, learner, abstract, origin):
    """What is about to run, in a few lines."""
    count = sum(x.size for x in jax.tree.leaves(abstract['params']))
    shape = ','.join(f'{axis}={size}' for axis, size in mesh.shape.items())
    device = jax.devices()[0]
    epochs = config.steps * config.batch_size / len(reader)
    lines = [
        f'{config.name}: {count:,} parameters, {origin}',
        f'corpus: {corpus.folder}, {corpus.total("train", "tokens"):,} tokens to train on '
        f'({len(reader):,} windows of {reader.length}, {epochs:.1f} epochs), '
        f'{corpus.total("validation", "tokens"):,} held out',
        f'devices: {jax.device_count()} x {device.device_kind}, mesh {shape}, '
        f'{jax.process_count()} process(es)',
    ]
    if not corpus.total('validation', 'tokens'):
        lines.append('warning: no document is held out: there will be no validation loss')
    left_whole = partitioning.unsharded(mesh, abstract)
    lines += [f'left whole on every device: {path}: {why}' for path, why in left_whole.items()]
    return '\n'.join(lines)


def results(workdir, config, picture):
    """The table that a run ends with."""
    rows = run_log.read_rows(workdir)
    evaluated = [r for r in rows if 'validation_loss' in r]
    names = ['step', 'loss', 'validation_loss', 'validation_perplexity',
             'validation_bits_per_byte', 'validation_accuracy']  # fmt: skip
    shown = [n for n in names if any(n in r for r in evaluated)]
    lines = [' | '.join(n.removeprefix('validation_') if n != 'validation_loss' else 'validation'
                        for n in shown)]  # fmt: skip
    picks = sorted({round(i) for i in np.linspace(0, len(evaluated) - 1, 8)}) if evaluated else []
    for i in picks:
        lines.append(' | '.join(f'{evaluated[i][n]:.4g}' for n in shown))
    table = [line.split(' | ') for line in lines]
    widths = [max(map(len, column)) for column in zip(*table)]
    text = ['  '.join(cell.rjust(w) for cell, w in zip(line, widths)) for line in table]
    if evaluated:
        final = evaluated[-1]
        if 'validation_unigram' in final:
            below = 1 - final['validation_loss'] / final['validation_unigram']
            text.append(
                f'unigram cross-entropy of the same tokens {final["validation_unigram"]:.3f}: '
                f'the validation loss is {below:.1%} below it'
            )
    elif not evaluated:
        text = [f'final training loss {rows[-1]["loss"]:.4f}']
    rates = [r['tokens_per_second'] for r in rows if 'tokens_per_second' in r]
    text.append(
        f'{rows[-1]["seconds"]:.0f} s, {np.median(rates):,.0f} tokens/s; '
        f'curve in {picture}, numbers in {workdir / "metrics.jsonl"}'
    )
    return '\n'.join(['', *text])


def print_sample(config, learner, state, tokens):
    """A text that the trained model makes up, where it is a decoder."""
    module = learner.transformers.get('model')
    if not (config.sample.prompt and config.sample.tokens and module):
        return
    if module.config.encoder_layers:
        return
    key = train_step.run_key(config.seed, train_step.SAMPLE)
    texts = continue_texts(
        module, state['params']['model'], tokens, [config.sample.prompt], key,
        new_tokens=config.sample.tokens, temperature=0.8, top_k=40,
    )  # fmt: skip
    columns = shutil.get_terminal_size().columns
    print('-' * columns, f'{config.sample.prompt}{texts[0]}', '-' * columns, sep='\n')


if __name__ == '__main__':
    commandline.run(main)
