"""The parameters that a task starts from: taken over or drawn anew, and a report of both.

A task's model is the trunk of a pretrained one (embeddings and stacks) with another head. Heads
of the pretraining objective are left behind; all else of the checkpoint must find its place, and
all of the trunk must be found.
"""

import dataclasses
import re
from typing import NamedTuple

import jax
from flax import traverse_util

from pretrain import assembly, restoration, saved_run
from pretrain.errors import UserError
from pretrain.model.transformer import Transformer

# What a pretraining objective or another task puts on top of the trunk.
HEADS = re.compile(r'(head|pooler|classifier|scores|projection)(/|$)')


class Source(NamedTuple):
    """A checkpoint to start from, without its arrays.

    folder: of the run. config: its ConfigDict. tokenizer: Tokenizer. objective:
    contract.Objective. transformer: Transformer of the model that a task starts from; `model`:
    its name. step: of the checkpoint. task: what it was fine-tuned for, a dict; None: it was not.
    prefix: it was trained to read a beginning in both directions, and so reads a task's rows.
    """

    folder: str
    config: object
    tokenizer: object
    objective: object
    transformer: Transformer
    model: str
    step: int
    task: dict | None
    prefix: bool = False


class Report(NamedTuple):
    """Which parameters came from where; paths below the model ('encoder/final_norm/scale').

    used: taken over. drawn: of the new head, drawn at random. left: heads of the checkpoint that
    the task does not need. mismatched: of a head that the checkpoint has in another shape, drawn
    anew as well.
    """

    used: list[str]
    drawn: list[str]
    left: list[str]
    mismatched: list[str]

    def __str__(self):
        parts = [f'{len(self.used)} parameters taken over']
        for verb, names in (
            ('drawn anew', self.drawn),
            ('drawn anew for their shape', self.mismatched),
            ('left behind', self.left),
        ):
            if names:
                parts.append(f'{verb}: {", ".join(names)}')
        return '; '.join(parts)


def open_source(folder, config, step=None):
    """Reads what a checkpoint is, before any array of it.

    Args:
        folder: of a run, pretrained or fine-tuned. config: its own. step: None: the newest.

    Raises:
        UserError: it is no run, damaged, or has no model that a task could start from.
    """
    tokens, _ = saved_run.open_tokenizer(folder, config, step)
    learner = assembly.make_learner(config, tokens.vocabulary, frozen=False)
    names = ('discriminator', 'student', 'model')
    name = next((n for n in names if n in learner.transformers), None)
    if name is None:
        name = next(iter(learner.transformers))
    found = restoration.newest_whole(folder) if step is None else step
    task = config.get('task')
    return Source(
        str(folder), config, tokens, learner.objective, learner.transformers[name], name, found,
        task.to_dict() if task else None,
        assembly.batch_shapes(learner.objective).inputs.prefix_B is not None,
    )  # fmt: skip


def trunk_of(transformer, keep_head=False, **fields):
    """The Transformer without its heads.

    Args:
        transformer: Transformer. keep_head: keep the logits over the vocabulary.
        fields: of the config, to change (dropout).
    """
    bare = {'pooler': False, 'classes': 0, 'token_scores': False, 'projection_width': 0}
    bare |= {} if keep_head else {'token_head': False}
    return Transformer(dataclasses.replace(transformer.config, **(bare | fields)))


def read_params(source):
    """All parameters of the model that a task starts from, {path: array}, and of a task's head.

    Returns:
        (trunk and heads {path: array}, task head {path: array}; the second is empty where the
        checkpoint was not fine-tuned).
    """
    folder, _ = restoration.find(source.folder)
    folder = folder / str(source.step)
    stored = traverse_util.unflatten_dict(restoration.stored_shapes(folder), sep='/')
    arrays = restoration.read_arrays(folder, 'params', stored, same_dtype=False)
    own = dict(arrays[source.model])
    owner, parts = source.objective.shared.get(source.model, ('', ()))
    own |= {part: arrays[owner][part] for part in parts if part in arrays.get(owner, {})}
    flat = traverse_util.flatten_dict
    return flat(own, sep='/'), flat(arrays.get(saved_run.TASK_HEAD, {}), sep='/')


def take_over(stored, stored_head, drawn, drawn_head):
    """Puts a checkpoint's parameters in the places of freshly drawn ones.

    Args:
        stored: {path: array} of the checkpoint's model. stored_head: of its task head.
        drawn: tree of the new trunk. drawn_head: tree of the new head.

    Returns:
        (trunk, head, Report), trees like `drawn` and `drawn_head`.

    Raises:
        UserError: the trunk lacks a parameter, has one of another shape, or the checkpoint holds
            one that is neither of the trunk nor of a known head.
    """
    wanted = traverse_util.flatten_dict(drawn, sep='/')
    missing = sorted(wanted.keys() - stored.keys())
    if missing:
        raise UserError(f'the checkpoint lacks {_listed(missing)}, which the model needs')
    for path, leaf in wanted.items():
        if stored[path].shape != leaf.shape:
            raise UserError(
                f'the checkpoint has {path} of shape {stored[path].shape}, and the model needs '
                f'{leaf.shape}'
            )
    besides = sorted(stored.keys() - wanted.keys())
    unexpected = [path for path in besides if not HEADS.match(path)]
    if unexpected:
        raise UserError(
            f'the checkpoint holds {_listed(unexpected)}, for which the model has no place'
        )
    # A task's head first, then the pooler that next-sentence prediction trained.
    offered = {path: stored[path] for path in besides if path.startswith('pooler/')} | stored_head
    head = traverse_util.flatten_dict(drawn_head, sep='/')
    fits = {p for p in head if p in offered and offered[p].shape == head[p].shape}
    report = Report(
        used=[*wanted, *sorted(fits)],
        drawn=sorted(p for p in head if p not in offered),
        left=sorted({*besides, *stored_head} - fits - head.keys()),
        mismatched=sorted(p for p in head if p in offered and p not in fits),
    )
    trunk = {path: stored[path].astype(leaf.dtype) for path, leaf in wanted.items()}
    head |= {path: offered[path].astype(head[path].dtype) for path in fits}
    unflatten = traverse_util.unflatten_dict
    return unflatten(trunk, sep='/'), unflatten(head, sep='/'), report


def _listed(paths):
    more = f' and {len(paths) - 3} more' if len(paths) > 3 else ''
    return ', '.join(paths[:3]) + more


def count(tree):
    """Number of parameters."""
    return sum(x.size for x in jax.tree.leaves(tree))
