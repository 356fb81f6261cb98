"""The train step of a config, compiled for devices that need not be there."""

import functools
import math
import re
from typing import NamedTuple

import jax
import numpy as np

from objectives import contract
from pretrain import assembly, division, flops, meshes, partitioning, phases, train_step
from pretrain.data import tokenizer


class Step(NamedTuple):
    """A train step before it is compiled.

    mesh: jax Mesh. learner: train_step.Learner. state, frozen: abstract, on the mesh. batch_size:
    windows. whole: {parameter or activation: why it is left whole}. model_flops: of a step,
    over all devices, without what is computed twice.
    """

    mesh: jax.sharding.Mesh
    learner: train_step.Learner
    state: dict
    frozen: dict
    batch_size: int
    whole: dict
    model_flops: float


def describe(config, devices, learner=None):
    """The Step of a config's last phase.

    Args:
        config: of the run. devices: of JAX, or descriptions of devices. learner: of this config,
            where it is known: train_step.Learner.

    Raises:
        UserError: the config, its mesh or its batch do not go together with the devices.
    """
    phase = phases.plan(config)[-1]
    mesh = meshes.make_mesh(config.mesh, devices)
    partitioning.check_batch(mesh, phase.batch_size, config.accumulation)
    if learner is None:
        given = config.data.tokenizer
        if given:
            vocabulary = tokenizer.load(given).vocabulary
        else:
            vocabulary = tokenizer.stand_in(config.data.vocabulary_size)
        learner = assembly.make_learner(config, vocabulary, phase)
    division.check(mesh, learner)
    state = assembly.abstract_state(learner, mesh)
    return Step(
        mesh,
        learner,
        state,
        assembly.abstract_frozen(learner, mesh),
        phase.batch_size,
        division.left_whole(mesh, [learner], state),
        flops.step_flops(learner, assembly.batch_shapes(learner.objective, phase.batch_size)),
    )


class OutOfMemory(Exception):
    """The compiler could not make the program fit. needed: bytes of a device, with what it is given
    (the state), None: not said."""

    def __init__(self, needed, said):
        super().__init__(said)
        self.needed = needed


def compile_step(step):
    """Compiles a Step; nothing is run or placed on a device.

    Returns:
        jax's Compiled.

    Raises:
        OutOfMemory: it does not fit.
    """
    rows = partitioning.batch_sharding(step.mesh)
    width = step.learner.objective.window_length()
    window = jax.ShapeDtypeStruct((step.batch_size, width), np.int32, sharding=rows)
    numbers = jax.ShapeDtypeStruct((step.batch_size,), np.int32, sharding=rows)
    update = jax.jit(
        functools.partial(train_step.train_step, step.learner),
        donate_argnums=0,
        out_shardings=(jax.tree.map(lambda x: x.sharding, step.state), None),
    )
    windows = contract.Windows(window, window, window, numbers)
    with jax.set_mesh(step.mesh):
        lowered = update.lower(step.state, windows, step.frozen)
    try:
        return lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        said = str(error)
        if 'RESOURCE_EXHAUSTED' not in said:
            raise
        raise OutOfMemory(_needed(said), said.splitlines()[0]) from None


def _needed(said):
    """Bytes that the compiler says it would have needed."""
    found = re.search(r'\((\d+(?:\.\d+)?)([KMGT]?)\) exceeds', said)
    found = found or re.search(r'Used (\d+(?:\.\d+)?)([KMGT]?) of', said)
    if not found:
        return None
    return float(found[1]) * 1024 ** ' KMGT'.index(found[2] or ' ')


def bytes_on_a_device(tree):
    """Bytes that the largest share of a placed tree takes on one device, exactly.

    Args:
        tree: of ShapeDtypeStructs with shardings.
    """
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )
