"""A trained model read from a run's folder: its config, tokenizer and parameters."""

from typing import NamedTuple

from objectives import contract
from pretrain import assembly, checkpoints, meshes, restoration
from pretrain.data import tokenizer
from pretrain.errors import UserError
from pretrain.train_step import Learner

TASK_HEAD = 'task_head'  # the name of the head among the models of a fine-tuned run


class Run(NamedTuple):
    """A trained model read from a run's folder; `params` holds the frozen models' as well."""

    config: object
    tokenizer: tokenizer.Tokenizer
    objective: contract.Objective
    learner: Learner
    params: dict
    mesh: object


def open_tokenizer(folder, config, step=None):
    """The Tokenizer of a run, and what its checkpoint says of its progress.

    Args:
        folder: of the run. config: its own, or one changed. step: of the checkpoint; None: the
            newest whole one.

    Raises:
        UserError: something is missing or damaged, or the tokenizer is not the one that the
            checkpoint was trained with.
    """
    missing = [name for name in ('data', 'model', 'objective', 'optimizer') if name not in config]
    if missing:
        raise UserError(f'{str(folder)!r}: its config.json is damaged, it has no {missing[0]!r}')
    tokens = tokenizer.load(folder)
    progress = restoration.read_progress(folder, step)
    if progress.get('tokenizer') != tokens.digest:
        raise UserError(
            f'{str(folder)!r}: its {tokens.file} is not the one that its checkpoint was trained '
            'with: put that one back'
        )
    return tokens, progress


def refuse_task_head(folder, config):
    """Refuses a model that was fine-tuned with the head of a task in place of its own.

    Args:
        folder: of the run. config: its own.

    Raises:
        UserError: it was.
    """
    if not config.get('task'):
        return
    place, _ = restoration.find(folder)
    stored = [restoration.stored_shapes(place / str(s)) for s in restoration.steps_in(place)]
    if any(path.startswith(f'{TASK_HEAD}/') for paths in stored for path in paths):
        raise UserError(
            f'{str(folder)!r} was fine-tuned and has the head of a task in place of its own: '
            'pretrain.finetune and pretrain.evaluate --benchmark=glue (or another) start from it'
        )


def open_run(folder, config, step=None, frozen=True):
    """Reads a run: its config, its tokenizer and its parameters.

    Args:
        folder: of the run.
        config: the run's own, or one changed where it runs or what it reads.
        step: of the checkpoint; None: the newest whole one.
        frozen: read the models that were not trained, too.

    Raises:
        UserError: something is missing or damaged.
    """
    tokens, progress = open_tokenizer(folder, config, step)
    refuse_task_head(folder, config)
    assembly.use_compilation_cache(config.data.cache)
    mesh = meshes.make_mesh(config.mesh)
    learner = assembly.make_learner(config, tokens.vocabulary, frozen=frozen)
    params = assembly.abstract_state(learner, mesh)['params']
    restored = checkpoints.restore_params(folder, params, step)
    if frozen:
        restored |= assembly.frozen_params(config, learner, mesh, progress.get('teacher'))[0]
    return Run(config, tokens, learner.objective, learner, restored, mesh)
