"""Multi-head attention: self or cross, grouped queries, with a cache for decoding."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from pretrain.model import masks, positions
from pretrain.model.config import TransformerConfig
from pretrain.model.layers import Dense, Norm
from pretrain.partitioning import laid


def attend(q_BxTxHxK, k_BxSxGxK, v_BxSxGxK, *, mask, bias, causal, scale, dropout):
    """softmax(q k^T scale + bias) v over the keys that the mask allows; softmax in float32.

    Args:
        q_BxTxHxK, k_BxSxGxK, v_BxSxGxK: G divides H.
        mask: bool_Bx1xTxS, or None.
        bias: float_1xHxTxS, or None.
        causal: there is no mask because all of it is 'no key after the query' (T = S).
        scale: of the logits.
        dropout: function applied to the probabilities, or None.

    Returns:
        BxTxHxK.
    """
    if dropout is not None:  # the library's function has none on probabilities
        return _attend_with_dropout(
            q_BxTxHxK, k_BxSxGxK, v_BxSxGxK, mask, bias, causal, scale, dropout
        )
    # cuDNN's fused kernel takes half precision, and causal as a flag; the default never picks it.
    # It refuses odd head widths, and devices before Ampere.
    width = q_BxTxHxK.shape[-1]
    fused = mask is None and bias is None and q_BxTxHxK.dtype == jnp.bfloat16
    fused = fused and width % 8 == 0 and width <= 128 and _has_cudnn_attention()
    return jax.nn.dot_product_attention(
        q_BxTxHxK,
        k_BxSxGxK,
        v_BxSxGxK,
        bias=None if bias is None else bias.astype(q_BxTxHxK.dtype),
        mask=mask,
        scale=scale,
        is_causal=causal,
        implementation='cudnn' if fused else 'xla',
    )


def _has_cudnn_attention():
    if jax.default_backend() != 'gpu':
        return False
    capability = getattr(jax.devices()[0], 'compute_capability', '')  # ROCm's is no number
    return capability.replace('.', '').isdecimal() and float(capability) >= 8.0


def _attend_with_dropout(q_BxTxHxK, k_BxSxGxK, v_BxSxGxK, mask, bias, causal, scale, dropout):
    group = q_BxTxHxK.shape[2] // k_BxSxGxK.shape[2]
    k_BxSxHxK = jnp.repeat(k_BxSxGxK, group, axis=2)
    v_BxSxHxK = jnp.repeat(v_BxSxGxK, group, axis=2)
    logits_BxHxTxS = jnp.einsum(
        'bthk,bshk->bhts', q_BxTxHxK * scale, k_BxSxHxK, preferred_element_type=jnp.float32
    )
    if bias is not None:
        logits_BxHxTxS += bias
    if causal:
        mask = jnp.tril(jnp.ones(logits_BxHxTxS.shape[-2:], bool))
    if mask is not None:
        logits_BxHxTxS = jnp.where(mask, logits_BxHxTxS, jnp.finfo(jnp.float32).min)
    probabilities_BxHxTxS = dropout(jax.nn.softmax(logits_BxHxTxS)).astype(v_BxSxHxK.dtype)
    return jnp.einsum('bhts,bshk->bthk', probabilities_BxHxTxS, v_BxSxHxK)


class Attention(nn.Module):
    """Attention of x to itself, or to a context (cross-attention).

    residual_stddev: of the output projection; None as for other kernels.
    """

    config: TransformerConfig
    residual_stddev: float | None
    deterministic: bool

    @nn.compact
    def __call__(
        self, x_BxTxD, *, context_BxSxD=None, context=None, mask, bias=None, causal=False,
        positions_BxT=None, theta=None, cache=None, index=None, read_BxQ=None,
    ):  # fmt: skip
        """Attends.

        Args:
            x_BxTxD: queries come from here.
            context_BxSxD: keys and values come from here; None: from x.
            context: (keys_bxSxGxK, values_bxSxGxK) that an earlier call made of the context, in
                place of it; B is b or a multiple, whose rows share a context (beams).
            mask, bias, causal: see `attend`.
            positions_BxT: for rotary positions (self-attention only).
            theta: base of their wavelengths in this layer; None: config.rotary_theta.
            cache: (keys_BxSxGxK, values_BxSxGxK) of earlier tokens, or None.
            index: where in the cache x's first token goes.
            read_BxQ: the places of each row that ask, all others are only asked; None: all ask.

        Returns:
            (y_BxTxD, with Q in place of T where only Q places ask; (keys, values) that were
            attended to: of a cache, the new one).
        """
        config = self.config
        split = lambda x, heads: x.reshape(*x.shape[:2], heads, config.k)  # noqa: E731
        source_BxSxD = x_BxTxD if context_BxSxD is None else context_BxSxD
        fan_in = config.initializer == 'fan_in'
        query_stddev = (config.width * config.k) ** -0.5 if fan_in else None  # T5 scales here
        width = config.heads * config.k
        key_width = config.key_heads * config.k

        if read_BxQ is not None:
            x_BxTxD = masks.at_places(x_BxTxD, read_BxQ, axis=1)
            mask, bias = (m if m is None else masks.at_places(m, read_BxQ, 2) for m in (mask, bias))
        q_BxTxHxK = split(Dense(config, width, query_stddev, name='query')(x_BxTxD), config.heads)
        if config.query_key_norm:
            q_BxTxHxK = Norm(config, 'rms', name='query_norm')(q_BxTxHxK)
        if context is None:
            k_BxSxGxK = split(Dense(config, key_width, name='key')(source_BxSxD), config.key_heads)
            v_BxSxGxK = Dense(config, key_width, name='value')(source_BxSxD)
            v_BxSxGxK = split(v_BxSxGxK, config.key_heads)
            if config.query_key_norm:
                k_BxSxGxK = Norm(config, 'rms', name='key_norm')(k_BxSxGxK)
        else:
            k_BxSxGxK, v_BxSxGxK = context
            # The queries of all rows that share a context are those of one row.
            q_BxTxHxK = q_BxTxHxK.reshape(k_BxSxGxK.shape[0], -1, *q_BxTxHxK.shape[2:])
        if config.positions == 'rotary' and context_BxSxD is None and context is None:
            theta = config.rotary_theta if theta is None else theta
            k_BxSxGxK = positions.rotate(k_BxSxGxK, positions_BxT, theta)
            if read_BxQ is not None:
                positions_BxT = masks.at_places(positions_BxT, read_BxQ, axis=1)
            q_BxTxHxK = positions.rotate(q_BxTxHxK, positions_BxT, theta)
        if cache is not None:
            write = lambda old, new: jax.lax.dynamic_update_slice(old, new, (0, index, 0, 0))  # noqa: E731
            k_BxSxGxK, v_BxSxGxK = write(cache[0], k_BxSxGxK), write(cache[1], v_BxSxGxK)

        if cache is None and context is None:
            q_BxTxHxK = laid(q_BxTxHxK, 'BxTxHxK')
            k_BxSxGxK, v_BxSxGxK = laid(k_BxSxGxK, 'BxSxGxK'), laid(v_BxSxGxK, 'BxSxGxK')
        dropout = None
        if config.attention_dropout and not self.deterministic:
            shared = (-2,) if config.dropout_broadcast else ()
            dropout = nn.Dropout(config.attention_dropout, shared, deterministic=False)
        y_BxTxHxK = attend(
            q_BxTxHxK,
            k_BxSxGxK,
            v_BxSxGxK,
            mask=mask,
            bias=bias,
            causal=causal,
            scale=config.k**-0.5 if config.scale_attention else 1.0,
            dropout=dropout,
        )
        y_BxTxD = Dense(config, config.width, self.residual_stddev, name='out')(
            y_BxTxHxK.reshape(*x_BxTxD.shape[:2], width)
        )
        return y_BxTxD, (k_BxSxGxK, v_BxSxGxK)
