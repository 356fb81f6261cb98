"""What a mesh cannot split of a run, because a size does not divide: said, or refused."""

import math

from pretrain import assembly, partitioning
from pretrain.errors import UserError


def left_whole(mesh, learners, abstract):
    """Parameters and activations that the rules would split and the mesh cannot.

    Args:
        mesh: of `meshes.make_mesh`. learners: train_step.Learner of each phase. abstract: the train
            state.

    Returns:
        {what: why}: {'model/head/bias': '50257 does not divide by tensor=2'}; an activation is
        named by its dimension and size: {'inputs of 30 tokens': ...}.
    """
    found = partitioning.unsharded(mesh, abstract)
    for learner in learners:
        for axis, dimensions in _dimensions(learner).items():
            parts = mesh.shape[axis]
            for what, size in dimensions.items():
                if size % parts:
                    found[what] = f'{size} does not divide by {axis}={parts}'
    return found


def check(mesh, learner):
    """Refuses an axis along which a run would split nothing: its devices all did the same.

    Args:
        mesh: of `meshes.make_mesh`. learner: train_step.Learner.

    Raises:
        UserError: there is one; its sizes are named, and one that would do.
    """
    for axis, dimensions in _dimensions(learner).items():
        parts = mesh.shape[axis]
        sizes = dict(dimensions)
        if axis == 'tensor':
            for name, module in learner.transformers.items():
                sizes[f'{module.config.f} hidden units of {name}'] = module.config.f
                sizes[f'a vocabulary of {module.config.vocabulary}'] = module.config.vocabulary
        if parts > 1 and all(size % parts for size in sizes.values()):
            fits = max(math.gcd(parts, size) for size in dimensions.values())
            raise UserError(
                f'mesh: {axis}={parts} splits nothing, since it does not divide '
                f'{", ".join(sizes)}: set {axis}={fits}, or change these sizes'
            )


def _dimensions(learner):
    """{axis: {name: size}} of the activations. Fewer heads of keys than devices are meant so."""
    batch = assembly.batch_shapes(learner.objective)
    inputs = batch.inputs.tokens_BxL.shape[1]
    lengths = {f'inputs of {inputs} tokens': inputs}
    if batch.decoder_inputs is not None:
        targets = batch.decoder_inputs.tokens_BxL.shape[1]
        lengths[f'targets of {targets} tokens'] = targets
    heads = {
        f'{module.config.heads} heads of {name}': module.config.heads
        for name, module in learner.transformers.items()
    }
    return {'sequence': lengths, 'tensor': heads}
