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
from typing import NamedTuple

import jax
import numpy as np
from absl import flags
from flax import traverse_util

from pretrain import (
    assembly,
    commandline,
    corpora,
    curves,
    division,
    evaluation,
    examples,
    flops,
    meshes,
    partitioning,
    phases,
    processes,
    run_folder,
    run_log,
    storage,
    summary,
    teacher,
    train_step,
)
from pretrain.checkpoints import Checkpoints
from pretrain.data import loader
from pretrain.data.mixture import MixedReader
from pretrain.data.shards import write_whole
from pretrain.data.windows import WindowReader
from pretrain.errors import UserError
from pretrain.model.decoding import continue_texts, prompt_ids
from pretrain.restoration import restore_start

CONFIG = commandline.define_config()
WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run.', required=True)
ACCEPT_CHANGES = flags.DEFINE_bool(
    'accept_changes', False, 'Go on in a workdir whose config differs.'
)
PROCESSES = processes.define_flags()


def main(argv):
    """Trains: sections that one reads once from top to bottom."""
    if len(argv) > 1:
        raise UserError(f'unknown argument {argv[1]!r}')
    if not WORKDIR.value:
        raise UserError('--workdir is empty: name the folder of the run')
    config, workdir = CONFIG.value, storage.place(WORKDIR.value)
    if config is None:
        raise UserError('--config is missing: for example --config=configs/gpt.py:tiny')
    began = time.time()
    processes.join(PROCESSES)
    first_process = jax.process_index() == 0
    say = print if first_process else lambda *_: None
    assembly.use_compilation_cache(config.data.cache)

    # What can be wrong is found before anything is written.
    check_counts(config)
    mesh = meshes.make_mesh(config.mesh)
    plan = phases.plan(config)
    for phase in plan:
        partitioning.check_batch(mesh, phase.batch_size, config.accumulation)
    run_folder.check_config(workdir, config, ACCEPT_CHANGES.value)
    data = run_folder.with_own_tokenizer(workdir, config.data)
    for learner in assembly.check_before_data(config, plan, data.tokenizer):
        division.check(mesh, learner)

    # Data, model, objective, optimizer: all of them functions of the config.
    corpus = corpora.open_corpus(data)
    stages = [lay_out(config, corpus, phase) for phase in plan]
    learner = stages[-1].learner
    run_folder.check_own_tokenizer(workdir, corpus)
    abstract = assembly.abstract_state(learner, mesh)
    shardings = jax.tree.map(lambda x: x.sharding, abstract)
    if learner.objective.frozen and config.objective.teacher:
        run_folder.check_teacher(config.objective.teacher, corpus.tokenizer)
    if learner.objective.frozen and config.objective.layers:
        jax.eval_shape(
            functools.partial(teacher.start_student, config.objective),
            abstract['params']['student'],
            assembly.abstract_frozen(learner, mesh)['teacher'],
        )
    given = None
    if config.init_from and not run_folder.has_checkpoints(workdir):
        given, new_heads = restore_start(config.init_from, abstract['params'])
        other = run_folder.of_checkpoint(config.init_from)
        run_folder.check_other_tokenizer(other, corpus.tokenizer)

    # The state: resume, then init_from, then scratch (a student: from layers of its teacher).
    lock = run_folder.lock(workdir) if first_process else None  # until this process ends
    saved = Checkpoints(workdir / 'checkpoints', config.to_dict(), config.checkpoint.keep)
    start, origin, spent, recorded = 0, 'from scratch', 0.0, None
    moved = 0  # windows that it has read beyond what its present phases say
    restored = saved.restore(abstract)
    if restored:
        state, progress = restored
        start, spent = progress['step'], progress['seconds']
        planned = phases.position(plan, start)  # another batch size may have been accepted
        moved = progress.get('windows', planned) - planned
        recorded = progress.get('teacher')
        origin = f'resumed from step {start}'
        if not ACCEPT_CHANGES.value:
            run_folder.check_corpus(workdir, progress['corpus'], corpus)
    frozen, facts = assembly.frozen_params(config, learner, mesh, recorded)
    if not restored:
        state = jax.jit(lambda: train_step.init_state(learner), out_shardings=shardings)()
        if given:
            drawn = traverse_util.flatten_dict(state['params'], sep='/')
            state['params'] = traverse_util.unflatten_dict(drawn | given, sep='/')
            origin = f'parameters of {config.init_from}'
            origin += f'; drawn anew: {", ".join(new_heads)}' if new_heads else ''
        elif frozen and config.objective.layers:
            state['params']['student'] = jax.jit(
                functools.partial(teacher.start_student, config.objective),
                out_shardings=shardings['params']['student'],
            )(state['params']['student'], frozen['teacher'])
            origin = f'layers {tuple(config.objective.layers)} of the teacher'
    if first_process:
        run_folder.write(workdir, config, corpus.tokenizer)
    if not first_process:
        print(summary.process(mesh, plan[0].batch_size), flush=True)
    else:
        print(summary.banner(config, mesh, corpus, stages, abstract, frozen, origin), flush=True)
        for stage in stages:
            print(examples.show(stage.learner, stage.reader, corpus.tokenizer))

    peak = flops.peak(jax.devices()[0], config.model.dtype)
    log = run_log.RunLog(workdir, config.steps, start) if first_process else None
    clock = {}  # when which step ended, to tell the speed from
    stage = windows = None

    def finish(step, measured, log_it, validation=None):
        """Reads the measurements of a step that was sent off, and logs them."""
        measured = {name: float(value) for name, value in measured.items()}
        if not measured.pop('finite'):
            stop_not_finite(workdir, config, stage, step, moved, measured, first_process)
        now = time.time()
        if log_it and first_process:
            row = {'step': step, **measured, 'tokens': tokens_read(stages, step)}
            row |= {f'validation_{name}': value for name, value in (validation or {}).items()}
            row['seconds'] = spent + now - began
            if clock:
                rate = (step - clock['step']) / (now - clock['time'])
                row['tokens_per_second'] = rate * stage.step_tokens
                if peak:
                    row['mfu'] = rate * stage.step_flops / (peak * jax.device_count())
            log.write(row)
        if log_it or not clock:  # the first step compiled, and tells nothing of the speed
            clock.update(step=step, time=now)

    # The loop. A step is sent off before the one before it is looked at, so that the device
    # never waits for this program.
    stopped, step = False, start
    with saved, saved.watching_for_preemption(), jax.set_mesh(mesh):
        try:
            for stage in stages:
                if stopped or step >= stage.phase.end:
                    continue
                update, evaluate = compiled(stage.learner, shardings)
                unigram_V = evaluation.unigram(corpus, stage.learner.objective, stage.reader)
                batch_size = stage.phase.batch_size
                part = batch_size // config.accumulation
                rows = partitioning.process_rows(mesh, batch_size)
                windows = loader.Loader(
                    stage.reader, config.seed, batch_size, rows, stage.phase.position(step) + moved,
                    config.data.get('workers', 1), config.data.get('prefetch', 2),
                )  # fmt: skip
                clock.clear()
                pending = None
                while step < stage.phase.end:
                    step += 1
                    batch = partitioning.global_array(mesh, next(windows), batch_size)
                    state, measured = update(state, batch, frozen)
                    if pending:
                        finish(*pending)
                    last, turn = step == config.steps, step == stage.phase.end
                    stopped = saved.preempted(step) and not last
                    pending = step, measured, last or step % config.log.every == 0
                    if first_process:
                        log.advance()
                    evaluating = stage.held_out and (turn or step % config.eval.every == 0)
                    saving = last or stopped or step % config.checkpoint.every == 0
                    if evaluating or saving or turn:
                        jax.block_until_ready(measured)
                        ended, scores = time.time(), None
                        if evaluating:
                            scores = evaluation.evaluate_each(
                                evaluate, state['params'] | frozen, stage.held_out, corpus.shares,
                                part, mesh, config.eval.windows, unigram_V,
                            )  # fmt: skip
                            if clock:  # a pause is not training
                                clock['time'] += time.time() - ended
                        finish(step, measured, pending[2] or evaluating, scores)
                        pending = None
                    if saving:
                        # The step's own loss is that of the parameters before it: these are new.
                        trial = scores or evaluation.evaluate(
                            evaluate, state['params'] | frozen, stage.reader, part, mesh,
                            windows=part,
                        )  # fmt: skip
                        if not math.isfinite(trial['loss']):
                            stop_not_finite(
                                workdir, config, stage, step, moved, trial, first_process
                            )
                        seconds = spent + time.time() - began
                        progress = {'step': step, 'seconds': seconds, 'corpus': corpus.digest}
                        progress |= {'tokenizer': corpus.tokenizer.digest, 'teacher': facts}
                        progress['windows'] = stage.phase.position(step) + moved
                        # Losses of phases of other lengths do not compare: the best is of the last.
                        ranked = scores and stage is stages[-1]
                        if first_process:
                            log.save()
                        saved.save(state, step, progress, scores['loss'] if ranked else None)
                        clock.update(step=step, time=time.time())
                    if stopped:
                        break
                windows.close()
            saved.wait()
        finally:
            if windows:
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


def check_counts(config):
    """Refuses intervals and counts that no loop can keep."""
    least = dict.fromkeys(
        ('batch_size', 'accumulation', 'checkpoint.every', 'eval.every', 'log.every'), 1
    )
    least |= {'checkpoint.keep': 1, 'eval.windows': 0, 'sample.tokens': 0, 'seed': 0}
    least |= {f'data.{name}': 0 for name in ('workers', 'prefetch') if name in config.data}
    for name, bound in least.items():
        value = functools.reduce(lambda c, key: c[key], name.split('.'), config)
        if value < bound:
            raise UserError(f'{name}={value} must be at least {bound}')


class Stage(NamedTuple):
    """What a phase of the run works with.

    held_out: reader of each corpus's validation split. step_tokens, step_flops: of one step.
    """

    phase: phases.Phase
    learner: train_step.Learner
    reader: WindowReader | MixedReader
    held_out: dict[str, WindowReader]
    step_tokens: int
    step_flops: float


def lay_out(config, corpus, phase):
    """The Stage of a phase."""
    learner = assembly.make_learner(config, corpus.tokenizer.vocabulary, phase)
    objective = learner.objective
    held_out = {}
    if corpus.total('validation', 'tokens'):
        held_out = corpora.open_each(config, corpus, 'validation', objective, tail=True)
    return Stage(
        phase,
        learner,
        corpora.open_windows(config, corpus, 'train', objective),
        held_out,
        phase.batch_size * objective.window_length(),
        flops.step_flops(learner, assembly.batch_shapes(objective, phase.batch_size)),
    )


def compiled(learner, shardings):
    """The jitted (train_step, evaluation_step) of a learner."""
    update = jax.jit(
        functools.partial(train_step.train_step, learner),
        donate_argnums=0,
        out_shardings=(shardings, None),
    )
    return update, jax.jit(functools.partial(train_step.evaluation_step, learner))


def tokens_read(stages, step):
    """Tokens of raw text in the windows of the first `step` steps; padding counts as text."""
    return sum(max(0, min(step, s.phase.end) - s.phase.begin) * s.step_tokens for s in stages)


def stop_not_finite(workdir, config, stage, step, moved, measured, first_process):
    """Ends the run: says which windows made the loss or the gradient overflow."""
    positions = np.arange(stage.phase.position(step - 1), stage.phase.position(step)) + moved
    windows = stage.reader.numbers(positions, config.seed)
    dump = {
        'step': step,
        'measured': {name: str(value) for name, value in measured.items()},
        'windows_of_run': positions.tolist(),
        'windows_of_corpus': windows.tolist(),
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
    """Prints a text that the trained model makes up, where it was trained to continue texts."""
    if learner.objective.prompt not in ('causal', 'prefix'):
        return
    name = 'student' if 'student' in learner.transformers else 'model'
    module = learner.transformers[name]
    room = config.sample.tokens
    if module.config.positions == 'learned':
        width = len(prompt_ids(tokens, config.sample.prompt, learner.objective.prompt))
        room = min(room, module.config.max_positions - width)
    if room < 1:
        return
    text = continue_texts(
        module, state['params'][name], tokens, [config.sample.prompt],
        train_step.run_key(config.seed, train_step.SAMPLE),
        new_tokens=room, temperature=0.8, top_k=40, prompt=learner.objective.prompt,
    )[0]  # fmt: skip
    print(f'\nA sample (python -m pretrain.generate makes more):\n{config.sample.prompt}{text}')


if __name__ == '__main__':
    commandline.run(main)
