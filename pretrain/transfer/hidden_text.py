"""A task of which one text is hidden: how far its labels can be told without it.

A model that infers from a hypothesis without the premise has learnt how the data were written
(Gururangan et al. 2018, Annotation Artifacts in Natural Language Inference Data; Poliak et al.
2018, Hypothesis Only Baselines). A number on the task is about what lies above that.
"""

from pretrain.errors import UserError

# Texts that are the question itself: without them there is nothing to answer.
_ASKED = {'choice': ('question',), 'entity': ('query',)}


def hide(task, splits, related, field):
    """The examples with an empty text in place of one, in training as in every split.

    Args:
        task: Task. splits: {name: list of Example}. related: {name: (Task, list of Example)}, the
            sets that this task's model answers. field: one of task.texts.

    Returns:
        splits and related, as new lists. All else of an example stays, its group and the layout
        of its texts too.

    Raises:
        UserError: the task has no such text, or cannot be without it.
    """
    marked = {span.field for rows in splits.values() for e in rows for span in e.spans}
    needed = {*marked, *_ASKED.get(task.kind, ())}
    allowed = [text for text in task.texts if text not in needed]
    if len(task.texts) == 1 or not allowed:
        raise UserError(
            f'transfer.hide={field!r}: {task.title} has no text that it can be without: leave '
            'transfer.hide empty, or choose others with --tasks'
        )
    if field not in allowed:
        raise UserError(
            f'transfer.hide={field!r} is no text that {task.title} can be without: '
            f'{" or ".join(allowed)}'
        )
    return (
        {name: _without(rows, field) for name, rows in splits.items()},
        {name: (other, _without(rows, field)) for name, (other, rows) in related.items()},
    )


def _without(examples, field):
    return [e._replace(fields=e.fields | {field: ''}) for e in examples]
