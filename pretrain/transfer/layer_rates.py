"""Which layers are trained, and at which rate.

The layers of a stack share one array, their axis in front, so a rate for each layer is a vector
along that axis, and a stack of which only the upper layers are trained is cut in two: what is
frozen is not among the optimizer's parameters and has no update, no decay and no moments.

Groups are counted from the top: 0 the head, 1 the last layer (with the final norm), ..., and last
of all the embeddings. An encoder lies below its decoder.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

STACKS = ('decoder', 'encoder')  # from the top


def group_count(trunk):
    """Number of groups: the head, every layer, the embeddings."""
    return 2 + sum(_layers(trunk).values())


def groups(params):
    """The group of every parameter.

    Args:
        params: {'trunk': ..., 'head': ...}, arrays or their shapes.

    Returns:
        {path: int, or int_N along the layer axis}.
    """
    layers = _layers(params['trunk'])
    above, first = {}, 1
    for stack in STACKS:
        above[stack], first = first, first + layers.get(stack, 0)
    numbers = {}
    for path in traverse_util.flatten_dict(params, sep='/'):
        part, *names = path.split('/')
        stack = names[0] if names else ''
        if part == 'head' or stack == 'head':  # the vocabulary's head is one, too
            numbers[path] = 0
        elif stack not in STACKS:
            numbers[path] = first
        elif 'layers' in names:
            numbers[path] = above[stack] + np.arange(layers[stack])[::-1]
        elif 'final_norm' in names:
            numbers[path] = above[stack]
        else:  # T5's table of relative positions: as its lowest layer
            numbers[path] = above[stack] + layers[stack] - 1
    return numbers


def rates(params, decay):
    """What the learning rate of every parameter is multiplied by: decay ^ group.

    ELECTRA (section 3.1 of its appendix) and ULMFiT (section 3.2, decay 1 / 2.6). ELECTRA's
    released code gives its top layer decay^2, this one decay^1, as ULMFiT does.

    Args:
        params: {'trunk': ..., 'head': ...}. decay: 1 leaves all rates equal.

    Returns:
        {path: float32 scalar, or N x 1 x ... array along the layer axis}.
    """
    flat = traverse_util.flatten_dict(params, sep='/')
    made = {}
    for path, group in groups(params).items():
        rate = np.float32(decay) ** np.asarray(group, np.float32)
        made[path] = jnp.asarray(rate.reshape(rate.shape + (1,) * (flat[path].ndim - rate.ndim)))
    return made


def split(params, trained):
    """Parts the parameters into those that are trained and those that are not.

    Args:
        params: {'trunk': ..., 'head': ...}. trained: how many groups from the top are trained.

    Returns:
        (trained, frozen): {path: array}; a stack of which some layers are trained stands in both,
        its upper layers in the first.
    """
    own, frozen = {}, {}
    flat = traverse_util.flatten_dict(params, sep='/')
    for path, group in groups(params).items():
        if np.ndim(group):
            below = int(np.sum(group >= trained))
            if below < len(group):
                own[path] = flat[path][below:]
            if below:
                frozen[path] = flat[path][:below]
        else:
            (own if group < trained else frozen)[path] = flat[path]
    return own, frozen


def join(trained, frozen):
    """The parameters again, of what `split` made, as a tree."""
    whole = dict(frozen)
    for path, x in trained.items():
        whole[path] = jnp.concatenate([frozen[path], x]) if path in frozen else x
    return traverse_util.unflatten_dict(whole, sep='/')


def part_rates(trained, of_whole):
    """The rates of the parameters that `split` left to be trained.

    Args:
        trained: {path: array} of `split`. of_whole: {path: array} of `rates`.
    """
    return {
        path: of_whole[path][-x.shape[0] :] if np.ndim(of_whole[path]) else of_whole[path]
        for path, x in trained.items()
    }


def _layers(trunk):
    """{stack: its number of layers}."""
    return {
        stack: jax.tree.leaves(trunk[stack]['layers'])[0].shape[0]
        for stack in STACKS
        if stack in trunk
    }
