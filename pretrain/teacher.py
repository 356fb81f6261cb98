"""The teacher of a distillation: whether it fits, and what the student takes over from it."""

import jax
import jax.numpy as jnp

from pretrain.errors import UserError


def check_fits(config, student, teacher):
    """Refuses pairs that cannot be compared, and layers that the teacher has not.

    Args:
        config: of the run. student, teacher: TransformerConfigs.

    Raises:
        UserError: the vocabularies, widths or layers do not go together.
    """
    objective = config.objective
    if student.vocabulary != teacher.vocabulary:
        raise UserError(
            f'student and teacher have vocabularies of {student.vocabulary} and '
            f'{teacher.vocabulary} rows: set model.vocabulary={teacher.vocabulary}'
        )
    width = student.projection_width or student.width
    if objective.cosine and width != teacher.width:
        raise UserError(
            f'the cosine compares states of width {width} with those of the teacher, '
            f'{teacher.width}: set objective.projection_width={teacher.width}, a learned '
            'projection, or objective.cosine=0.0'
        )
    layers = tuple(objective.layers)
    if not layers:
        return
    if not all(type(i) is int for i in layers):
        raise UserError(
            f'objective.layers={layers} are numbers of layers, counted from 0: for instance (0, 2)'
        )
    if student.width != teacher.width:
        raise UserError(
            f'objective.layers copies layers of width {teacher.width} into a student of width '
            f'{student.width}: set model.width={teacher.width}, or objective.layers=() for a '
            'random start'
        )
    for stack in ('encoder', 'decoder'):
        own, theirs = getattr(student, f'{stack}_layers'), getattr(teacher, f'{stack}_layers')
        if not own:
            continue
        if len(layers) != own:
            raise UserError(
                f'objective.layers={layers} names {len(layers)} layers for the {own} of the '
                f"student's {stack}: name {own}"
            )
        bad = [i for i in layers if not 0 <= i < theirs]
        if bad:
            raise UserError(
                f'objective.layers={layers}: the teacher has {theirs} {stack} layers, 0 to '
                f'{theirs - 1}, and no layer {bad[0]}'
            )


def start_student(objective, student, teacher):
    """The student's parameters with the teacher's put in, as `objective.layers` says.

    All that both have is taken over: embeddings, norms, the head (its transform only with
    `objective.copy_transform`), and of each stack the named layers (DistilBERT, section 3).

    Args:
        objective: the config's `objective`. student, teacher: trees of parameters; what the
            student alone has stays as it was drawn.

    Returns:
        A tree like `student`.

    Raises:
        UserError: a parameter that both have differs in shape.
    """
    layers = jnp.asarray(tuple(objective.layers))

    def take(path, drawn):
        parts = [entry.key for entry in path]
        given = teacher
        for part in parts:
            if part not in given:
                return drawn
            given = given[part]
        transform = parts[0] == 'head' and parts[1] in ('transform', 'norm')
        if transform and not objective.copy_transform:
            return drawn
        if 'layers' in parts:
            given = given[layers]
        if given.shape != drawn.shape:
            raise UserError(
                f"objective.layers: the teacher's {'/'.join(parts)} is {given.shape} and the "
                f"student's {drawn.shape}: give both the same sizes, or objective.layers=()"
            )
        return given

    return jax.tree_util.tree_map_with_path(take, student)
