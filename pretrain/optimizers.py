"""Optimizers from a recipe: AdamW, Adafactor, Lion and Muon, right on scan-stacked parameters.

All are one chain: clip the gradient by its global norm, turn it into a direction, add the
decoupled weight decay, multiply by the scheduled learning rate. Parameters below `layers/` carry a
leading layer axis, so nothing here may ask how many dimensions a parameter has: biases are found
by name, and what a method computes of a whole tensor it computes of each layer.
"""

import re
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from pretrain.errors import UserError
from pretrain.schedules import make_schedule, require_known, require_number

OPTIMIZERS = ('adamw', 'adafactor', 'lion', 'muon')
KEYS = (
    'name',
    'learning_rate',
    'schedule',
    'b1',
    'b2',
    'epsilon',
    'bias_correction',
    'momentum',
    'weight_decay',
    'no_decay',
    'clip',
)
NO_DECAY = r'(bias|scale)$'
# Muon's updates are brought to the root mean square that AdamW's have, so that one learning rate
# and one weight decay serve its matrices and Adam's embeddings (Liu et al. 2025, section 2.2).
MUON_RMS = 0.2


def make_optimizer(
    config, steps: int, tokens_per_step: int | Sequence[tuple[int, int]]
) -> optax.GradientTransformation:
    """The optimizer that a recipe asks for.

    Keys of `config` (the recipe's `optimizer`), beside those of `make_schedule`:
        name: one of OPTIMIZERS.
        b1, b2: decay of the first and second moment; for muon those of its Adam part.
            Default 0.9 and 0.999, for lion 0.9 and 0.99.
        epsilon: added to the root of Adam's second moment; default 1e-8. Not adafactor's, which
            is added to squared gradients, where this one would drown them, and stays at 1e-30.
        bias_correction: False leaves out adamw's: m / (sqrt(v) + epsilon), so that the first update
            is (1 - b1) / sqrt(1 - b2) times as large (BERT, ELECTRA). Default True.
        momentum: muon's; default 0.95.
        weight_decay: decoupled, multiplied by the learning rate; default 0.
        no_decay: regular expression searched in a parameter's path ('encoder/final_norm/scale');
            what it finds is not decayed. Default NO_DECAY; '' decays everything.
        clip: largest global norm of the gradient, 0 for none; default 0.

    | | name | b1, b2 | epsilon | weight_decay | clip | learning_rate |
    |---|---|---|---|---|---|---|
    | GPT-3 (appendix B) | adamw | 0.9, 0.95 | 1e-8 | 0.1 | 1 | 6e-4 to 0.6e-4 by size |
    | BERT (appendix A.2) | adamw, no bias_correction | 0.9, 0.999 | 1e-6 | 0.01 | 1 | 1e-4 |
    | ELECTRA (small, base) | as BERT | 0.9, 0.999 | 1e-6 | 0.01 | 1 | 5e-4, 2e-4 |
    | DistilBERT | adamw | 0.9, 0.98 | 1e-6 | 0 | 5 | 5e-4 |
    | T5 (section 3.1.2) | adafactor | | | 0 | 0 | 1, schedule rsqrt; relative to the RMS |
    | Lion (Chen et al. 2023) | lion | 0.9, 0.99 | | 3 to 10 x AdamW's | 1 | AdamW's / 3 to 10 |
    | Muon (Liu et al. 2025) | muon | 0.9, 0.95 | 1e-8 | 0.1 | 1 | AdamW's |

    Args:
        config: ml_collections.ConfigDict.
        steps: length of the run, for the schedule.
        tokens_per_step: of make_schedule, for a schedule in tokens.

    Returns:
        A gradient transformation whose `update` needs the parameters. Its state has the same
        structure for any clip, decay and schedule, and holds moments under the parameter's path.

    Raises:
        UserError: unknown name or key, numbers out of range, a broken regular expression.
    """
    for key in config:
        require_known('optimizer key', key, KEYS)
    name = require_known('optimizer.name', config.name, OPTIMIZERS)
    schedule = make_schedule(config, steps, tokens_per_step)
    clip = require_number('optimizer.clip', config.get('clip', 0.0))
    weight_decay = require_number('optimizer.weight_decay', config.get('weight_decay', 0.0))
    decayed = _decay_mask(config.get('no_decay', NO_DECAY))
    b1 = _moment_decay('b1', config.get('b1', 0.9))
    b2 = _moment_decay('b2', config.get('b2', 0.99 if name == 'lion' else 0.999))
    epsilon = require_number('optimizer.epsilon', config.get('epsilon', 1e-8))

    bias_correction = config.get('bias_correction', True)
    if not bias_correction and name != 'adamw':
        raise UserError(f"optimizer.bias_correction=False is adamw's: {name} has no such switch")

    if name == 'adamw':
        adam = optax.scale_by_adam if bias_correction else scale_by_uncorrected_adam
        direction = adam(b1, b2, epsilon)
    elif name == 'lion':
        direction = optax.scale_by_lion(b1, b2)
    elif name == 'adafactor':
        direction = per_layer(_adafactor_direction())
    else:
        momentum = _moment_decay('momentum', config.get('momentum', 0.95))
        direction = optax.partition(
            {'muon': _muon_direction(momentum), 'adam': optax.scale_by_adam(b1, b2, epsilon)},
            muon_labels,
        )
    return optax.chain(
        optax.clip_by_global_norm(clip) if clip else optax.identity(),
        direction,
        optax.add_decayed_weights(weight_decay, decayed),
        optax.scale_by_learning_rate(schedule),
    )


def scale_by_uncorrected_adam(b1, b2, epsilon) -> optax.GradientTransformation:
    """m / (sqrt(v) + epsilon): Adam as BERT's released code has it, moments not corrected.

    Its state is that of optax.scale_by_adam.
    """
    adam = optax.scale_by_adam(b1, b2, epsilon)

    def update(updates, state, params=None):
        _, state = adam.update(updates, state, params)
        updates = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + epsilon), state.mu, state.nu)
        return updates, state

    return optax.GradientTransformation(adam.init, update)


def global_norm(tree) -> jax.Array:
    """Root of the sum of all squares in a tree, a scalar."""
    return optax.tree.norm(tree)


def parameter_path(key_path) -> str:
    """'encoder/final_norm/scale' for the key path of a leaf."""
    return jax.tree_util.keystr(key_path, simple=True, separator='/')


def muon_labels(params):
    """'muon' for the kernels of the stacks, 'adam' for all else (embeddings, head, norms, biases).

    The embeddings and the logits are matrices too, but their rows are tokens, which are updated
    one by one; Jordan's and Liu et al.'s recipes leave them to Adam.
    """

    def label(key_path, _):
        parts = parameter_path(key_path).split('/')
        return 'muon' if 'layers' in parts and parts[-1] == 'kernel' else 'adam'

    return jax.tree_util.tree_map_with_path(label, params)


def per_layer(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """`inner` as if each layer of a stack were a tensor of its own.

    Adafactor's clipping, its scale by the parameter and its factors are statistics of a whole
    tensor; of a stacked parameter they would mix the layers (and could factor the layer axis).

    Args:
        inner: a transformation that treats each tensor alone. Its state gets a layer axis for the
            parameters below each `layers/`.

    Returns:
        A transformation whose state holds one state of `inner` a stack and one for the rest.
    """
    stacked = optax.GradientTransformation(jax.vmap(inner.init), jax.vmap(inner.update))

    def by_stack(tree):
        labels = jax.tree_util.tree_map_with_path(lambda path, _: _stack(path), tree)
        stacks = {label for label in jax.tree.leaves(labels) if label != 'unstacked'}
        return optax.partition({'unstacked': inner} | dict.fromkeys(stacks, stacked), labels)

    def init(params):
        return by_stack(params).init(params)

    def update(updates, state, params=None):
        return by_stack(updates).update(updates, state, params)

    return optax.GradientTransformation(init, update)


def _stack(key_path) -> str:
    parts = parameter_path(key_path).split('/')
    if 'layers' not in parts:
        return 'unstacked'
    # No slash: the label becomes a key of the state and so a part of paths.
    return '_'.join(parts[: parts.index('layers') + 1])


def _adafactor_direction():
    """Adafactor without momentum (Shazeer and Stern 2018, with T5's settings).

    Second moments decay as 1 - t^-0.8 and are kept as row and column means where both sides have
    128 or more; the update is clipped to a root mean square of 1 and multiplied by that of the
    parameter, at least 1e-3.
    """
    return optax.chain(
        optax.scale_by_factored_rms(decay_rate=0.8, min_dim_size_to_factor=128, epsilon=1e-30),
        optax.clip_by_block_rms(1.0),
        optax.scale_by_param_block_rms(1e-3),
    )


def _muon_direction(momentum):
    """Nesterov momentum, orthogonalized by five Newton-Schulz steps a layer (Jordan 2024)."""
    in_axis, out_axis = 1, 2  # of a stacked kernel (N, in, out)

    def dimensions(updates):
        return jax.tree.map(
            lambda _: optax.contrib.MuonDimensionNumbers(in_axis, out_axis), updates
        )

    def match_adam(updates, _):
        return jax.tree.map(lambda u: u * MUON_RMS * max(u.shape[in_axis:]) ** 0.5, updates)

    return optax.chain(
        optax.contrib.scale_by_muon(beta=momentum, weight_dimension_numbers=dimensions),
        optax.stateless(match_adam),
    )


def _decay_mask(no_decay: str):
    try:
        pattern = re.compile(no_decay)
    except re.error as error:
        raise UserError(
            f'optimizer.no_decay={no_decay!r} is not a regular expression ({error}): '
            f'for instance {NO_DECAY!r}'
        ) from error

    def decayed(params):
        return jax.tree_util.tree_map_with_path(
            lambda path, _: not (no_decay and pattern.search(parameter_path(path))), params
        )

    return decayed


def _moment_decay(key: str, value) -> float:
    value = require_number(f'optimizer.{key}', value)
    if value >= 1:
        raise UserError(f'optimizer.{key}={value:g} must be below 1, for instance 0.9')
    return value
