"""A stack of layers: one block, scanned over parameters that carry a leading layer axis.

What differs between the layers (a window, a wavelength, whether there is a first norm) is a value
of the scan, never a Python branch, so that all layers are one program.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from pretrain.model.attention import Attention
from pretrain.model.config import TransformerConfig
from pretrain.model.layers import Dropout, FeedForward, Norm
from pretrain.model.masks import at_places, attention_mask
from pretrain.model.positions import RelativeBias
from pretrain.partitioning import laid


class Sight(NamedTuple):
    """Arguments of the mask builder that all layers of a stack share."""

    queries_T: jax.Array
    keys_S: jax.Array
    prefix_B: jax.Array | None
    query_segments_BxT: jax.Array | None
    key_segments_BxS: jax.Array | None


class Shared(NamedTuple):
    """What all layers of a stack are given alike."""

    sight: Sight
    positions_BxT: jax.Array
    bias_1xHxTxS: jax.Array | None
    index: jax.Array | None
    context_BxSxD: jax.Array | None
    context_mask: jax.Array | None


class PerLayer(NamedTuple):
    """What each layer is given on its own: the values of the scan; None: nothing to tell apart.

    window: see attention_mask. theta: of rotary positions. normed: its attention has a norm first.
    cache, context: keys and values of earlier tokens and of what the encoder made, when decoding.
    """

    window: jax.Array | None
    theta: jax.Array | None
    normed: jax.Array | None
    cache: tuple[jax.Array, jax.Array] | None
    context: tuple[jax.Array, jax.Array] | None


class Block(nn.Module):
    """One layer: self-attention, cross-attention in a decoder that has an encoder, feed-forward."""

    config: TransformerConfig
    layers: int
    causal: bool
    cross: bool
    deterministic: bool

    @nn.compact
    def __call__(self, x_BxTxD, per_layer, shared, read_BxQ=None):
        """The signature of a scan: (carry, the layer's own, shared) -> (carry, what is kept).

        Kept while decoding: (the new cache, the context's keys and values if they were made here).
        With `read_BxQ`, Q places of each row, the layer computes the states of these alone.
        """
        config = self.config
        residual_stddev = None
        if config.residual_scale:
            additions = self.layers * (3 if self.cross else 2)
            residual_stddev = config.stddev * additions**-0.5

        x_BxTxD = laid(x_BxTxD, 'BxTxD')

        def add(x_BxTxD, name, sublayer, normed=None, read_BxQ=None):
            norm = Norm(config, name=f'{name}_norm')
            dropout = Dropout(config, self.deterministic)
            kept_BxTxD = x_BxTxD if read_BxQ is None else at_places(x_BxTxD, read_BxQ, axis=1)
            if config.norm_placement == 'post':
                return norm(kept_BxTxD + dropout(sublayer(x_BxTxD)))
            y_BxTxD = norm(x_BxTxD)
            if normed is not None:
                y_BxTxD = jnp.where(normed, y_BxTxD, x_BxTxD)
            return kept_BxTxD + dropout(sublayer(y_BxTxD))

        sight, caches = shared.sight, per_layer.cache is not None
        cache = context = None
        plain = self.causal and per_layer.window is None and per_layer.cache is None
        plain &= sight.prefix_B is None and sight.query_segments_BxT is None and read_BxQ is None
        mask = None
        if not plain:
            mask = attention_mask(
                sight.queries_T,
                sight.keys_S,
                causal=self.causal,
                window=per_layer.window,
                prefix_B=sight.prefix_B,
                query_segments_BxT=sight.query_segments_BxT,
                key_segments_BxS=sight.key_segments_BxS,
            )

        def attention(x_BxTxD):
            nonlocal cache
            y_BxTxD, kept = Attention(
                config, residual_stddev, self.deterministic, name='attention'
            )(
                x_BxTxD,
                mask=mask,
                bias=shared.bias_1xHxTxS,
                causal=plain,
                positions_BxT=shared.positions_BxT,
                theta=per_layer.theta,
                cache=per_layer.cache,
                index=shared.index,
                read_BxQ=read_BxQ,
            )
            cache = kept if caches else None
            return y_BxTxD

        def cross_attention(x_BxTxD):
            nonlocal context
            mask = shared.context_mask
            if read_BxQ is not None and mask is not None:
                mask = at_places(mask, read_BxQ, axis=2)
            y_BxTxD, kept = Attention(
                config, residual_stddev, self.deterministic, name='cross_attention'
            )(
                x_BxTxD,
                context_BxSxD=shared.context_BxSxD,
                context=per_layer.context,
                mask=mask,
            )
            context = kept if caches and per_layer.context is None else None
            return y_BxTxD

        x_BxTxD = add(x_BxTxD, 'attention', attention, per_layer.normed, read_BxQ)
        if self.cross:
            x_BxTxD = add(x_BxTxD, 'cross_attention', cross_attention)
        feed_forward = FeedForward(config, residual_stddev, self.deterministic, name='feedforward')
        x_BxTxD = add(x_BxTxD, 'feedforward', feed_forward)
        x_BxTxD = laid(x_BxTxD, 'BxTxD')
        self.sow('intermediates', 'hidden', x_BxTxD)  # kept only where a caller asks for it
        return x_BxTxD, (cache, context)


class Stack(nn.Module):
    """Layers scanned over their stacked parameters, and the final norm."""

    config: TransformerConfig
    layers: int
    causal: bool
    cross: bool

    @nn.compact
    def __call__(
        self, x_BxTxD, shared, deterministic, cache=None, context=None, read_BxQ=None
    ):  # fmt: skip
        """Runs the layers.

        Args:
            x_BxTxD, shared, deterministic: see Block.
            cache, context: see PerLayer; stacked along the layers.
            read_BxQ: places of each row whose states are wanted; None: all.

        Returns:
            (hidden_BxTxD, or hidden_BxQxD; what the layers keep: see Block, None with `read_BxQ`).
        """
        config, sight = self.config, shared.sight
        if config.positions == 'relative':
            bias = RelativeBias(
                config.heads, config.relative_buckets, config.relative_distance,
                bidirectional=not self.causal, name='relative_bias',
            )  # fmt: skip
            shared = shared._replace(bias_1xHxTxS=bias(sight.queries_T, sight.keys_S))
        local = config.attention_window > 0
        thetas = local and config.positions == 'rotary' and config.rotary_theta_local
        per_layer = PerLayer(
            window=jnp.array(config.windows(self.layers), jnp.int32) if local else None,
            theta=jnp.array(config.thetas(self.layers), jnp.float32) if thetas else None,
            normed=None if config.first_norm else jnp.arange(self.layers) > 0,
            cache=cache,
            context=context,
        )

        block = Block
        if config.remat != 'none':
            policy = {
                'full': None,
                'dots': jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
            }[config.remat]
            block = nn.remat(Block, policy=policy, prevent_cse=False)
        facts = config, self.layers, self.causal, self.cross, deterministic
        if read_BxQ is None:
            layers = _scanned(block, self.layers, config.unroll)(*facts, name='layers')
            x_BxTxD, kept = layers(x_BxTxD, per_layer, shared)
        else:
            x_BxTxD, kept = self._read(block, facts, x_BxTxD, per_layer, shared, read_BxQ), None
        if config.final_norm:
            x_BxTxD = Norm(config, name='final_norm')(x_BxTxD)
        if config.dropout_final:
            x_BxTxD = Dropout(config, deterministic)(x_BxTxD)
        return x_BxTxD, kept

    def _read(self, block, facts, x_BxTxD, per_layer, shared, read_BxQ):
        """hidden_BxQxD: all layers but the last of all places, the last of those that are read.

        A head that reads one place of a row needs no more, and of six layers that spares a seventh.
        """
        stacked = self.variables['params']['layers']
        rngs = lambda: {} if facts[-1] else {'dropout': self.make_rng('dropout')}  # noqa: E731
        part = lambda tree, which: jax.tree.map(lambda x: x[which], tree)  # noqa: E731
        if self.layers > 1:
            count = self.layers - 1
            first = _scanned(block, count, self.config.unroll)(*facts, parent=None)
            own = part((stacked, per_layer), slice(count))
            x_BxTxD, _ = first.apply({'params': own[0]}, x_BxTxD, own[1], shared, rngs=rngs())
        params, own = part((stacked, per_layer), -1)
        last = block(*facts, parent=None)
        return last.apply({'params': params}, x_BxTxD, own, shared, read_BxQ, rngs=rngs())[0]


def _scanned(block, layers, unroll):
    """The block as a scan over parameters with a leading axis."""
    return nn.scan(
        block,
        variable_axes={'params': 0, 'intermediates': 0},
        split_rngs={'params': True, 'dropout': True},
        in_axes=(0, nn.broadcast),
        length=layers,
        unroll=layers if unroll else 1,
    )
