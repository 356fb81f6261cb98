"""Trains a model.

    python -m pretrain.train --config=configs/gpt.py:tiny --workdir=runs/gpt-tiny

What a run starts from, in this order: the newest whole checkpoint in its workdir (so the same
command goes on after a kill); the parameters of the run that `--config.init_from` names; scratch.
"""

import functools
import json
import math
import sys
import time
from pathlib import Path

import jax
import numpy as np
from absl import flags

from objectives import contract
from pretrain import (
    assembly,
    commandline,
    curves,
    evaluation,
    flops,
    partitioning,
    run_folder,
    run_log,
    summary,
    train_step,
)
from pretrain.checkpoints import Checkpoints, restore_params
from pretrain.data import loader
from pretrain.data.shards import write_whole
from pretrain.errors import UserError
from pretrain.model.decoding import continue_texts

CONFIG = commandline.define_config()
WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run.', required=True)
ACCEPT_CHANGES = flags.DEFINE_bool(
    'accept_changes', False, 'Go on in a workdir whose config differs.'
)
COORDINATOR = flags.DEFINE_string(
    'coordinator', '', 'host:port of process 0, for a run of several processes.'
)
PROCESSES = flags.DEFINE_integer('processes', 1, 'Number of processes of the run.')
PROCESS = flags.DEFINE_integer('process', 0, 'Number of this process, from 0.')


def main(argv):
    """Trains: sections that one reads once from top to bottom."""
    if len(argv) > 1:
        raise UserError(f'unknown argument {argv[1]!r}')
    if not WORKDIR.value:
        raise UserError('--workdir is empty: name the folder of the run')
    config, workdir = CONFIG.value, Path(WORKDIR.value)
    if config is None:
        raise UserError('--config is missing: for example --config=configs/gpt.py:tiny')
    began = time.time()
    join_processes()
    first_process = jax.process_index() == 0
    say = print if first_process else lambda *_: None
    assembly.use_compilation_cache(config.data.cache)

    # What can be wrong is found before anything is written.
    check_counts(config)
    mesh = partitioning.make_mesh(config.mesh)
    part = check_batch(config, mesh)
    run_folder.check_config(workdir, config, ACCEPT_CHANGES.value)

    # Data, model, objective, optimizer: all of them functions of the config.
    corpus = assembly.open_corpus(config.data)
    learner = assembly.make_learner(config, corpus.tokenizer.vocabulary)
    objective = learner.objective
    reader = assembly.open_windows(config, corpus, 'train', objective)
    held_out = None
    if corpus.total('validation', 'tokens'):
        held_out = assembly.open_windows(config, corpus, 'validation', objective, tail=True)
    run_folder.check_own_tokenizer(workdir, corpus)
    abstract = assembly.abstract_state(learner, mesh)
    given = None
    if config.init_from and not run_folder.has_checkpoints(workdir):
        given = restore_params(config.init_from, abstract['params'])
        other = run_folder.of_checkpoint(config.init_from)
        run_folder.check_other_tokenizer(other, corpus.tokenizer)

    # The state: resume, then init_from, then scratch.
    shardings = jax.tree.map(lambda x: x.sharding, abstract)
    lock = run_folder.lock(workdir) if first_process else None  # until this process ends
    saved = Checkpoints(workdir / 'checkpoints', config.to_dict(), config.checkpoint.keep)
    start, origin, spent = 0, 'from scratch', 0.0
    restored = saved.restore(abstract)
    if restored:
        state, progress = restored
        start, spent = progress['step'], progress['seconds']
        origin = f'resumed from step {start}'
        if not ACCEPT_CHANGES.value:
            run_folder.check_corpus(workdir, progress['corpus'], corpus)
    else:
        state = jax.jit(lambda: train_step.init_state(learner), out_shardings=shardings)()
        if given:
            state['params'] = given
            origin = f'parameters of {config.init_from}'
    if first_process:
        run_folder.write(workdir, config, corpus.tokenizer)
    say(summary.banner(config, mesh, corpus, reader, learner, abstract, origin))

    # The programs.
    update = jax.jit(
        functools.partial(train_step.train_step, learner),
        donate_argnums=0,
        out_shardings=(shardings, None),
    )
    evaluate = jax.jit(functools.partial(train_step.evaluation_step, learner))
    unigram_V = evaluation.unigram(corpus, config.data.separator)
    step_tokens = config.batch_size * objective.window_length()
    step_flops = model_flops(learner, config.batch_size)
    peak = flops.peak(jax.devices()[0], config.model.dtype)
    log = run_log.RunLog(workdir, config.steps, start) if first_process else None
    rows = partitioning.process_rows(mesh, config.batch_size)
    windows = loader.Loader(reader, config.seed, config.batch_size, rows, start)
    clock = {}  # when which step ended, to tell the speed from

    def finish(step, measured, log_it, validation=None):
        """Reads the measurements of a step that was sent off, and logs them."""
        measured = {name: float(value) for name, value in measured.items()}
        if not measured.pop('finite'):
            stop_not_finite(workdir, config, reader, step, measured, first_process)
        now = time.time()
        if log_it and first_process:
            row = {'step': step, **measured, 'tokens': step * step_tokens}
            row |= {f'validation_{name}': value for name, value in (validation or {}).items()}
            row['seconds'] = spent + now - began
            if clock:
                rate = (step - clock['step']) / (now - clock['time'])
                row['tokens_per_second'] = rate * step_tokens
                if peak:
                    row['mfu'] = rate * step_flops / (peak * jax.device_count())
            log.write(row)
        if log_it or not clock:  # the first step compiled, and tells nothing of the speed
            clock.update(step=step, time=now)

    # The loop. A step is sent off before the one before it is looked at, so that the device
    # never waits for this program.
    stopped, pending = False, None
    with saved, saved.watching_for_preemption():
        try:
            for step in range(start + 1, config.steps + 1):
                batch = partitioning.global_array(mesh, next(windows), config.batch_size)
                state, measured = update(state, batch)
                if pending:
                    finish(*pending)
                last = step == config.steps
                stopped = saved.preempted(step) and not last
                pending = step, measured, last or step % config.log.every == 0
                if first_process:
                    log.advance()
                evaluating = held_out and (last or step % config.eval.every == 0)
                saving = last or stopped or step % config.checkpoint.every == 0
                if evaluating or saving:
                    jax.block_until_ready(measured)
                    ended, scores = time.time(), None
                    if evaluating:
                        scores = evaluation.evaluate(
                            evaluate, state['params'], held_out, part, mesh,
                            config.eval.windows, unigram_V,
                        )  # fmt: skip
                        if clock:  # a pause is not training
                            clock['time'] += time.time() - ended
                    finish(step, measured, pending[2] or evaluating, scores)
                    pending = None
                if saving:
                    # The step's own loss is that of the parameters before it: these are new.
                    trial = scores or evaluation.evaluate(
                        evaluate, state['params'], reader, part, mesh, windows=part
                    )
                    if not math.isfinite(trial['loss']):
                        stop_not_finite(workdir, config, reader, step, trial, first_process)
                    seconds = spent + time.time() - began
                    progress = {'step': step, 'seconds': seconds, 'corpus': corpus.digest}
                    progress['tokenizer'] = corpus.tokenizer.digest
                    saved.save(state, step, progress, scores and scores['loss'])
                    clock.update(step=step, time=time.time())
                if stopped:
                    break
            saved.wait()
        finally:
            windows.close()
            if first_process:
                log.close()

    # The results.
    if first_process:
        picture = curves.draw(workdir)
        if stopped:
            say(f'stopped after step {step} of {config.steps}, saved; the same command goes on')
        else:
            say(summary.results(workdir, picture))
    if lock:
        lock.close()
    if stopped:
        sys.exit(saved.exit_code)
    if config.sample.tokens and config.sample.prompt and jax.process_count() == 1:
        print_sample(config, learner, state, corpus.tokenizer)


def join_processes():
    """Joins the run's other processes, when the flags name a coordinator."""
    if not COORDINATOR.value:
        if PROCESSES.value != 1 or PROCESS.value:
            raise UserError('--processes and --process need --coordinator=HOST:PORT of process 0')
        return
    if not 0 <= PROCESS.value < PROCESSES.value:
        raise UserError(
            f'--process={PROCESS.value} is not one of the --processes={PROCESSES.value}: '
            'they are counted from 0'
        )
    jax.distributed.initialize(COORDINATOR.value, PROCESSES.value, PROCESS.value)


def check_counts(config):
    """Refuses intervals and counts that no loop can keep."""
    least = dict.fromkeys(
        ('batch_size', 'accumulation', 'checkpoint.every', 'eval.every', 'log.every'), 1
    )
    least |= {'checkpoint.keep': 1, 'eval.windows': 0, 'sample.tokens': 0, 'seed': 0}
    for name, bound in least.items():
        value = functools.reduce(lambda c, key: c[key], name.split('.'), config)
        if value < bound:
            raise UserError(f'{name}={value} must be at least {bound}')


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


def model_flops(learner, batch):
    """FLOPs of a step, from the shapes of what the objective makes of its windows."""
    window = jax.ShapeDtypeStruct((batch, learner.objective.window_length()), np.int32)
    numbers = jax.ShapeDtypeStruct((batch,), np.int32)
    made = jax.eval_shape(
        learner.objective.corrupt,
        jax.random.key(0),
        contract.Windows(window, window, window, numbers),
    )
    length, predicted = made.inputs.tokens_BxL.shape[1], made.targets_BxK.shape[1]
    return sum(
        flops.training_flops(module.config, batch, length, predicted)
        for module in learner.transformers.values()
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
            f'\nerror: step {step}: the loss is {measured["loss"]}, the norm of the gradient '
            f'{measured.get("gradient_norm", "not asked for")}: this step is not saved; '
            f"the batch's windows are in {path}: lower optimizer.learning_rate "
            '(--accept_changes goes on from the last checkpoint), or look at the text',
            file=sys.stderr,
        )
    sys.exit(1)


def print_sample(config, learner, state, tokens):
    """Prints a text that the trained model makes up, where it is a decoder."""
    module = learner.transformers.get('model')
    if module is None or module.config.encoder_layers:
        return
    room = config.sample.tokens
    if module.config.positions == 'learned':
        room = min(room, module.config.max_positions - len(tokens.encode(config.sample.prompt)))
    if room < 1:
        return
    text = continue_texts(
        module, state['params']['model'], tokens, [config.sample.prompt],
        train_step.run_key(config.seed, train_step.SAMPLE),
        new_tokens=room, temperature=0.8, top_k=40,
    )[0]  # fmt: skip
    print(f'\nA sample (python -m pretrain.generate makes more):\n{config.sample.prompt}{text}')


if __name__ == '__main__':
    commandline.run(main)
