"""From hidden states to the answer of a task: pooling, which has no parameters, and a head.

Pooling stands apart so that the features of a frozen trunk can be computed once and kept.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

POOLINGS = ('first', 'last', 'mean', 'concat')


def pool(hidden, lengths_B, pooling, spans_BxSx2=None):
    """One vector a row.

    Args:
        hidden: hidden_...xBxLxD, padding on the right.
        lengths_B: real places of each row.
        pooling: 'first' (BERT's [CLS]), 'last' (the last real place: GPT), 'mean', or 'concat'
            (last, maximum and mean: ULMFiT, section 3.3).
        spans_BxSx2: first and last place of marked pieces, whose means follow.

    Returns:
        features_...xBxF, F = D (3 D for 'concat') + S x D, float32.
    """
    hidden = hidden.astype(jnp.float32)
    places_L = jnp.arange(hidden.shape[-2])
    real_BxLx1 = (places_L < lengths_B[:, None])[..., None]
    last = jnp.take_along_axis(
        hidden, jnp.broadcast_to(lengths_B[:, None, None] - 1, (*hidden.shape[:-2], 1, 1)), axis=-2
    )[..., 0, :]
    mean = jnp.sum(jnp.where(real_BxLx1, hidden, 0), axis=-2) / lengths_B[:, None]
    if pooling == 'concat':
        # Not jnp.max: its gradient asks which places equal the maximum, and where a compiler works
        # them out twice and rounds differently, none does and the gradient is lost.
        highest = jnp.argmax(jnp.where(real_BxLx1, hidden, -jnp.inf), axis=-2, keepdims=True)
        parts = [last, jnp.take_along_axis(hidden, highest, axis=-2)[..., 0, :], mean]
    else:
        parts = [{'first': hidden[..., 0, :], 'last': last, 'mean': mean}[pooling]]
    for s in range(0 if spans_BxSx2 is None else spans_BxSx2.shape[1]):
        first_Bx1, end_Bx1 = spans_BxSx2[:, s, :1], spans_BxSx2[:, s, 1:]
        inside_BxLx1 = ((places_L >= first_Bx1) & (places_L <= end_Bx1))[..., None]
        count_Bx1 = jnp.maximum(jnp.sum(inside_BxLx1, axis=-2), 1)
        parts.append(jnp.sum(jnp.where(inside_BxLx1, hidden, 0), axis=-2) / count_Bx1)
    return jnp.concatenate(parts, axis=-1)


class TaskHead(nn.Module):
    """Features -> outputs, float32.

    outputs: U. pooler: dense + tanh first (BERT's, section 4.1), of the features' own width.
    hidden_width: dropout, dense and ReLU of this width first (ULMFiT: 50, with layer norm where the
        paper has batch norm: running statistics of a few thousand rows would be one more thing that
        differs between training and evaluation); 0: none.
    mix: the features come from every layer, Jx...; they are added up with learned weights,
        gamma x sum of softmax(s)_j x features_j, s from 0 and gamma from 1 (ELMo, equation 1).
    """

    outputs: int
    pooler: bool = False
    hidden_width: int = 0
    mix: bool = False
    dropout: float = 0.1
    stddev: float = 0.02

    @nn.compact
    def __call__(self, features, deterministic=True):
        """features_BxF (with `mix` JxBxF) -> outputs_BxU."""
        draw = nn.initializers.normal(self.stddev)
        x = features
        if self.mix:
            s_J = self.param('mix_weights', nn.initializers.zeros, (x.shape[0],))
            gamma = self.param('mix_scale', nn.initializers.ones, ())
            x = gamma * jnp.tensordot(jax.nn.softmax(s_J), x, axes=1)
        if self.pooler:
            x = jnp.tanh(nn.Dense(x.shape[-1], kernel_init=draw, name='pooler')(x))
        if self.hidden_width:
            x = nn.Dropout(self.dropout)(nn.LayerNorm(name='norm')(x), deterministic=deterministic)
            x = nn.relu(nn.Dense(self.hidden_width, kernel_init=draw, name='hidden')(x))
        x = nn.Dropout(self.dropout)(x, deterministic=deterministic)
        return nn.Dense(self.outputs, kernel_init=draw, name='output')(x)


class SpanHead(nn.Module):
    """Start and end logits of every place: one linear map (BERT, section 4.2)."""

    stddev: float = 0.02

    @nn.compact
    def __call__(self, hidden_BxLxD, deterministic=True):
        """hidden_BxLxD -> logits_BxLx2, float32."""
        draw = nn.initializers.truncated_normal(self.stddev)
        return nn.Dense(2, kernel_init=draw, name='output')(hidden_BxLxD.astype(jnp.float32))
