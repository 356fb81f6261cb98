"""From a config to the things a command works with: corpus, windows, learner, a saved run."""

import os
from pathlib import Path
from typing import NamedTuple

import jax

import objectives
from objectives import contract
from pretrain import checkpoints, partitioning, restoration
from pretrain.data import preparation, tokenizer
from pretrain.data.corpus import Corpus, WindowReader
from pretrain.errors import UserError
from pretrain.model.config import TransformerConfig
from pretrain.model.transformer import Transformer
from pretrain.optimizers import make_optimizer
from pretrain.train_step import Learner, init_state


def corpus_recipe(data):
    """preparation.Recipe of a config's `data`."""
    return preparation.Recipe(
        source=data.source,
        text_field=data.text_field,
        tokenizer=data.tokenizer,
        vocabulary_size=data.vocabulary_size,
        tokenizer_megabytes=data.tokenizer_megabytes,
        validation_fraction=data.validation_fraction,
        shard_megabytes=data.shard_megabytes,
    )


def open_corpus(data, processes=0):
    """The corpus of a config's `data`, prepared first where it is not there yet."""
    return Corpus(preparation.prepare(corpus_recipe(data), data.cache, processes))


def make_objective(config, vocabulary):
    """contract.Objective of a config; UserError when the name or a number of it is wrong."""
    try:
        return objectives.find(config.objective.name)(config.objective, vocabulary)
    except (ValueError, AttributeError, TypeError) as error:
        raise UserError(f'objective: {error}') from None


def open_windows(config, corpus, split, objective, tail=False):
    """corpus.WindowReader of a split, as the config's `data` and the objective want it."""
    data = config.data
    return WindowReader(corpus, split, objective.window_length(), data.cut, data.separator, tail)


def make_transformer(config, vocabulary):
    """The Transformer of a config, for a tokenizer.

    Raises:
        UserError: the fields of `model` contradict each other or the objective.
    """
    if 'length' in config.objective:
        length, model = config.objective.length, config.model
        if length < 1:
            raise UserError(f'objective.length={length} must be at least 1')
        if model.positions == 'learned' and length > model.max_positions:
            raise UserError(
                f'objective.length={length} is more than model.max_positions='
                f'{model.max_positions}: make one of them fit the other'
            )
    fields = config.model.to_dict()
    rows = fields.get('vocabulary') or vocabulary.table_size
    if rows < vocabulary.size:
        raise UserError(
            f'model.vocabulary={rows} is less than the {vocabulary.size} ids of the tokenizer: '
            'set it to 0, or data.vocabulary_size lower'
        )
    try:
        fields = TransformerConfig(**(fields | {'vocabulary': rows}))
    except TypeError as error:
        raise UserError(f'model: {str(error).split("() ")[-1]}') from None
    return Transformer(fields)


def make_learner(config, vocabulary):
    """train_step.Learner of a config, for a tokenizer."""
    if config.steps < 1:
        raise UserError(f'steps={config.steps} must be at least 1')
    objective = make_objective(config, vocabulary)
    tokens = config.batch_size * objective.window_length()
    return Learner(
        transformers={name: make_transformer(config, vocabulary) for name in objective.models},
        objective=objective,
        optimizer=make_optimizer(config.optimizer, config.steps, tokens),
        seed=config.seed,
        accumulation=config.accumulation,
    )


def abstract_state(learner, mesh):
    """The train state as ShapeDtypeStructs, each with its place on the mesh."""
    shapes = jax.eval_shape(lambda: init_state(learner))
    shardings = partitioning.state_shardings(mesh, shapes)
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings
    )


def use_compilation_cache(cache):
    """Keeps compiled programs, unless JAX_COMPILATION_CACHE_DIR names a place already."""
    if not jax.config.jax_compilation_cache_dir:
        jax.config.update('jax_compilation_cache_dir', os.path.abspath(f'{cache}/compiled'))


class Run(NamedTuple):
    """A trained model read from a run's folder."""

    config: object
    tokenizer: tokenizer.Tokenizer
    objective: contract.Objective
    learner: Learner
    params: dict
    mesh: object


def open_run(folder, config, step=None):
    """Reads a run: its config, its tokenizer and its parameters.

    Args:
        folder: of the run.
        config: the run's own, or one changed where it runs or what it reads.
        step: of the checkpoint; None: the newest whole one.

    Raises:
        UserError: something is missing or damaged.
    """
    missing = [name for name in ('data', 'model', 'objective', 'optimizer') if name not in config]
    if missing:
        raise UserError(f'{str(folder)!r}: its config.json is damaged, it has no {missing[0]!r}')
    use_compilation_cache(config.data.cache)
    tokens = tokenizer.load(Path(folder) / 'tokenizer.model')
    if restoration.read_progress(folder, step).get('tokenizer') != tokens.digest:
        raise UserError(
            f'{str(folder)!r}: its tokenizer.model is not the one that its checkpoint was trained '
            'with: put that one back'
        )
    mesh = partitioning.make_mesh(config.mesh)
    learner = make_learner(config, tokens.vocabulary)
    params = abstract_state(learner, mesh)['params']
    restored = checkpoints.restore_params(folder, params, step)
    return Run(config, tokens, learner.objective, learner, restored, mesh)
