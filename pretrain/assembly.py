"""From a config to what is trained: objective, models, learner, and the models beside them."""

import difflib
import os
import re

import jax
import numpy as np

import objectives
from objectives import contract
from pretrain import (
    checkpoints,
    commandline,
    manifest,
    partitioning,
    phases,
    restoration,
    storage,
    teacher,
)
from pretrain.data import tokenizer
from pretrain.errors import UserError
from pretrain.model.config import TransformerConfig
from pretrain.model.transformer import Transformer
from pretrain.optimizers import make_optimizer
from pretrain.train_step import Learner, draw_params, init_state


def make_objective(config, vocabulary, objective=None):
    """contract.Objective of a config; UserError when the name or a number of it is wrong.

    Args:
        config: of the run. vocabulary: contract.Vocabulary.
        objective: a section `objective` to take in place of the config's.
    """
    section = config.objective if objective is None else objective
    try:
        made = objectives.find(section.name)(section, vocabulary)
        made.window_length()
        batch_shapes(made)  # keys may be read there only
    except (AttributeError, KeyError) as error:
        key = re.match(r"""["']+(\w+)["']""", str(error))  # as a section says what it has not
        if key is None:
            raise
        mend = f'start from a config that has it, as configs/compare.py:{section.name}'
        if ':' in section.name or section.name == 'distillation':
            mend = f'give objective.{key[1]} in a config file of your own'
        raise UserError(
            f'objective {section.name!r} needs a key objective.{key[1]}, which this config has '
            f'not: {mend}'
        ) from error
    except ValueError as error:
        raise UserError(f'objective: {error}') from None
    except TypeError as error:
        if ':' in section.name:  # a mistake in a module of the user's own wants its line
            raise
        raise UserError(f'objective: {error}') from None
    return made


def make_transformer(config, vocabulary, name='model', fixed=None):
    """The Transformer of one of a config's models, for a tokenizer.

    Args:
        config: of the run: the section `model`, with the fields changed that the section of the
            model's own name holds.
        vocabulary: contract.Vocabulary.
        name: of the model. fixed: fields that the objective sets.

    Raises:
        UserError: the fields contradict each other or the tokenizer.
    """
    fields = config.model.to_dict()
    own = config.get(name) if name != 'model' else None
    for key, value in (own.to_dict() if own else {}).items():
        if key not in fields:
            near = difflib.get_close_matches(key, fields, 1)
            hint = f'; did you mean {near[0]!r}?' if near else ''
            raise UserError(f'{name}.{key} is no field of a model{hint}')
        fields[key] = value
    rows = fields.get('vocabulary') or vocabulary.table_size
    if rows < vocabulary.size:
        raise UserError(
            f'model.vocabulary={rows} is less than the {vocabulary.size} ids of the tokenizer: '
            'set it to 0, or data.vocabulary_size lower'
        )
    try:
        fields = TransformerConfig(**(fields | (fixed or {}) | {'vocabulary': rows}))
    except UserError as error:
        text = str(error)
        for key in own or ():
            text = text.replace(f'model.{key}=', f'{name}.{key}=')
        raise UserError(text) from None
    except TypeError as error:
        raise UserError(f'model: {str(error).split("() ")[-1]}') from None
    return Transformer(fields)


def make_learner(config, vocabulary, phase=None, frozen=True):
    """train_step.Learner of a config, for a tokenizer.

    Args:
        config: of the run. vocabulary: contract.Vocabulary.
        phase: phases.Phase; None: the last.
        frozen: with the models that are not trained; without them the trained ones can be read
            and used, but no step can be made.

    Raises:
        UserError: something in the config is wrong, or its parts do not go together.
    """
    if config.steps < 1:
        raise UserError(f'steps={config.steps} must be at least 1')
    phase = phase or phases.plan(config)[-1]
    objective = make_objective(config, vocabulary, phases.objective_of(config, phase))
    tokens = []
    for each in phases.plan(config):
        section = phases.objective_of(config, each)
        length = make_objective(config, vocabulary, section).window_length()
        tokens.append((each.begin, each.batch_size * length))
    tokens = tokens if len(tokens) > 1 else tokens[0][1]
    transformers = {}
    for name, fixed in objective.models.items():
        if name in objective.frozen and not frozen:
            continue
        if name == 'teacher' and config.objective.teacher:
            transformers[name] = teacher_module(config, vocabulary)
        else:
            transformers[name] = make_transformer(config, vocabulary, name, fixed)
    if 'teacher' in transformers:
        teacher.check_fits(config, transformers['student'].config, transformers['teacher'].config)
    check_batch_fits(config, objective, transformers)
    return Learner(
        transformers=transformers,
        objective=objective,
        optimizer=make_optimizer(config.optimizer, config.steps, tokens),
        seed=config.seed,
        accumulation=config.accumulation,
    )


def check_before_data(config, plan, given):
    """Finds mistakes in objective, model and optimizer before a corpus is prepared for hours.

    Args:
        config: of the run. plan: its phases. given: path of its tokenizer; '': one is trained.

    Returns:
        train_step.Learner of each phase, without the models that are not trained; where a tokenizer
        is to be trained, with a stand-in for it.
    """
    if given:
        vocabulary = tokenizer.load(given).vocabulary
    else:
        vocabulary = tokenizer.stand_in(config.data.vocabulary_size)
    learners = [make_learner(config, vocabulary, phase, frozen=False) for phase in plan]
    if config.objective.get('teacher'):
        open_teacher(config.objective)
    return learners


def batch_shapes(objective, rows=1):
    """The contract.Batch that the objective makes of `rows` windows, as ShapeDtypeStructs."""
    window = jax.ShapeDtypeStruct((rows, objective.window_length()), np.int32)
    numbers = jax.ShapeDtypeStruct((rows,), np.int32)
    windows = contract.Windows(window, window, window, numbers)
    return jax.eval_shape(objective.corrupt, jax.random.key(0), windows)


STACKS = {
    ('encoder',): 'an encoder alone',
    ('decoder',): 'a decoder alone',
    ('encoder', 'decoder'): 'an encoder and a decoder',
}


def _layers(fields, stack):
    return getattr(fields, f'{stack}_layers')


def check_batch_fits(config, objective, transformers):
    """Refuses models that have not the stacks or the positions that the batches need."""
    name = config.objective.name
    if objective.window_length() < 1:
        width = objective.window_length()
        raise UserError(f'objective {name!r} asks for windows of {width} tokens: give it a length')
    batch = batch_shapes(objective)
    lengths = {'inputs': batch.inputs.tokens_BxL.shape[1]}
    if batch.decoder_inputs is not None:
        lengths['targets'] = batch.decoder_inputs.tokens_BxL.shape[1]
    for model, module in transformers.items():
        fields = module.config
        wrong = [
            stack
            for stack in ('encoder', 'decoder')
            if objective.stacks and bool(_layers(fields, stack)) != (stack in objective.stacks)
        ]
        if wrong:
            has = ', '.join(f'{stack}_layers={_layers(fields, stack)}' for stack in wrong)
            mend = ', '.join(
                f'model.{stack}_layers{" above 0" if stack in objective.stacks else "=0"}'
                for stack in wrong
            )
            if model == 'teacher' and config.objective.teacher:
                mend = 'another objective.teacher'
            raise UserError(
                f'objective {name!r} needs {STACKS[objective.stacks]}, and its {model} has {has}: '
                f'set {mend}'
            )
        for side, length in lengths.items():
            if fields.positions == 'learned' and length > fields.max_positions:
                section = model if 'max_positions' in config.get(model, {}) else 'model'
                raise UserError(
                    f'objective {name!r} makes {side} of {length} tokens, more than '
                    f'{section}.max_positions={fields.max_positions}: make one fit the other'
                )


def abstract_state(learner, mesh):
    """The train state as ShapeDtypeStructs, each with its place on the mesh."""
    return _placed(jax.eval_shape(lambda: init_state(learner)), mesh)


def abstract_frozen(learner, mesh):
    """The parameters of the models that are not trained, as ShapeDtypeStructs on the mesh."""
    shapes = jax.eval_shape(lambda: draw_params(learner))
    frozen = {name: shapes[name] for name in learner.objective.frozen}
    return _placed({'params': frozen}, mesh)['params']


def _placed(shapes, mesh):
    shardings = partitioning.state_shardings(mesh, shapes)
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings
    )


def open_teacher(objective):
    """The config and the Tokenizer of the run that `objective.teacher` names.

    Raises:
        UserError: there is no such run.
    """
    path = storage.place(objective.teacher)
    if path.is_dir():  # or its folder of checkpoints, or one of those
        path, _ = restoration.find(path)
        path = path.parent if path.name == 'checkpoints' else path
    if not (path / 'config.json').is_file():
        raise UserError(
            f'objective.teacher={objective.teacher!r} holds no run: make one, for instance '
            f'python -m pretrain.train --config={objective.teacher_config} '
            f'--workdir={objective.teacher}'
        )
    return commandline.read_config(path / 'config.json'), tokenizer.load(path)


def teacher_module(config, vocabulary):
    """The Transformer of the run that `objective.teacher` names.

    Raises:
        UserError: there is no such run, or its vocabulary is not the corpus's.
    """
    folder = config.objective.teacher
    own, tokens = open_teacher(config.objective)
    theirs = tokens.vocabulary
    if theirs.size != vocabulary.size or (theirs.bytes_V != vocabulary.bytes_V).any():
        raise UserError(
            f'objective.teacher={folder!r} has another vocabulary ({theirs.size} ids) than the '
            f'corpus ({vocabulary.size} ids): set data.tokenizer={folder}/{tokens.file}'
        )
    return teaching(make_learner(own, theirs, frozen=False).transformers)


def teaching(of_models):
    """Of {model name: ...} of a run, what belongs to the model that can teach."""
    return next(of_models[n] for n in ('model', 'student', 'generator') if n in of_models)


def frozen_params(config, learner, mesh, recorded=None):
    """The parameters of the models that a run does not train.

    A teacher's are read from its run and not saved again: a checkpoint records its step and the
    digest of its parameters, and a run goes on with that very teacher only.

    Args:
        config: of the run. learner: its Learner. mesh: jax Mesh.
        recorded: what a checkpoint of the run says of its teacher (see Returns); None: any.

    Returns:
        ({model name: parameters}, facts): facts are the teacher's step and the digest of its
        parameters, JSON-able; None where there is no teacher or it is drawn at random.

    Raises:
        UserError: the teacher's checkpoint is missing, damaged, or not the recorded one.
    """
    names = learner.objective.frozen
    if not names:
        return {}, None
    folder = config.objective.get('teacher', '')
    if not folder:
        shardings = jax.tree.map(lambda x: x.sharding, abstract_frozen(learner, mesh))
        draw = jax.jit(
            lambda: {n: p for n, p in draw_params(learner).items() if n in names},
            out_shardings=shardings,
        )
        return draw(), None
    own, tokens = open_teacher(config.objective)
    step = recorded['step'] if recorded else restoration.newest_whole(folder)
    path, _ = restoration.find(folder)
    teachers = make_learner(own, tokens.vocabulary, frozen=False)
    whole = abstract_state(teachers, mesh)['params']
    try:
        params = checkpoints.restore_params(folder, whole, step)
    except UserError as error:
        if not recorded:
            raise
        raise UserError(
            f'objective.teacher={folder!r}: this run learns from its step {step}, which cannot be '
            f'read ({error}): bring it back; a teacher that trains on needs a higher '
            'checkpoint.keep, or another --workdir'
        ) from None
    facts = {'step': step, 'digest': manifest.item_digest(path / str(step), 'params')}
    if recorded and facts != recorded:
        raise UserError(
            f'objective.teacher={folder!r}: the parameters of its step {step} are not those that '
            'this run has learned from so far: put them back, or give another --workdir'
        )
    return {'teacher': teaching(params)}, facts


def use_compilation_cache(cache):
    """Keeps compiled programs, unless JAX_COMPILATION_CACHE_DIR names a place already."""
    folder = storage.local(cache, 'data.cache')
    if not jax.config.jax_compilation_cache_dir:
        jax.config.update('jax_compilation_cache_dir', os.path.abspath(folder / 'compiled'))
