"""Where a token stands: rotations of queries and keys, and T5's relative bias.

(Learned positions are a table in transformer.py.)
"""

import flax.linen as nn
import jax.numpy as jnp

from pretrain.partitioning import laid


def rotate(x_BxLxHxK, positions_BxL, theta):
    """Rotates each head by angles that grow with the position (RoPE, Su et al. 2021).

    The first half of K is paired with the second half, as in GPT-NeoX and Llama.

    Args:
        x_BxLxHxK: queries or keys.
        positions_BxL: int32, B may be 1.
        theta: base of the wavelengths; a traced scalar will do.

    Returns:
        The same shape and dtype; the angles are computed in float32.
    """
    half = x_BxLxHxK.shape[-1] // 2
    frequencies = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles_BxLx1xk = positions_BxL[:, :, None, None].astype(jnp.float32) * frequencies
    sin, cos = jnp.sin(angles_BxLx1xk), jnp.cos(angles_BxLx1xk)
    first, second = jnp.split(x_BxLxHxK.astype(jnp.float32), 2, axis=-1)
    turned = [first * cos - second * sin, second * cos + first * sin]
    return jnp.concatenate(turned, axis=-1).astype(x_BxLxHxK.dtype)


def relative_buckets(relative, *, bidirectional, buckets=32, distance=128):
    """Sorts distances between query and key into buckets (T5, section 2.1, and its released code).

    Args:
        relative: int32, key place minus query place.
        bidirectional: half of the buckets for keys to the right; else those all share bucket 0.
        buckets: number of buckets.
        distance: from here on all distances share the last bucket.

    Returns:
        int32 bucket numbers: exact for the nearer half, logarithmic beyond.
    """
    base = jnp.zeros_like(relative)
    if bidirectional:
        buckets //= 2
        base = jnp.where(relative > 0, buckets, 0)
        relative = jnp.abs(relative)
    else:
        relative = jnp.maximum(-relative, 0)
    exact = buckets // 2
    log_ratio = jnp.log(jnp.maximum(relative, 1) / exact) / jnp.log(distance / exact)
    far = exact + (log_ratio * (buckets - exact)).astype(jnp.int32)
    return base + jnp.where(relative < exact, relative, jnp.minimum(far, buckets - 1))


class RelativeBias(nn.Module):
    """A learned number for each head and bucket of distance, added to the attention logits."""

    heads: int
    buckets: int
    distance: int
    bidirectional: bool

    @nn.compact
    def __call__(self, queries_T, keys_S):
        """Places of queries and keys -> bias_1xHxTxS, float32."""
        # Mesh TensorFlow and t5x differ here; fan-average uniform is t5x's.
        init = nn.initializers.variance_scaling(1.0, 'fan_avg', 'uniform')
        table = self.param('table', init, (self.buckets, self.heads))
        bucket_TxS = relative_buckets(
            keys_S[None, :] - queries_T[:, None],
            bidirectional=self.bidirectional,
            buckets=self.buckets,
            distance=self.distance,
        )
        table = laid(table, 'bucketsxH')
        return laid(jnp.moveaxis(table[bucket_TxS], -1, 0)[None], '1xHxTxS')
