"""The one transformer: an encoder stack, a decoder stack, or both.

It knows no objective: what to attend to, which positions and which segments come with the inputs
(objectives/contract.py), and only the hidden states that are asked for meet the vocabulary.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from objectives import contract
from pretrain.model.attention import Attention
from pretrain.model.config import TransformerConfig
from pretrain.model.layers import ACTIVATIONS, Dense, Dropout, FeedForward, Norm, initializer
from pretrain.model.masks import attention_mask
from pretrain.model.positions import RelativeBias


class Cache(NamedTuple):
    """Keys and values of the tokens decoded so far, for all layers of the decoder.

    keys_NxBxSxGxK, values_NxBxSxGxK: S places, filled up to `index`.
    segments_BxS: 0 where there is no token (left padding, places not reached yet).
    index: int32 scalar, the place of the next token.
    """

    keys_NxBxSxGxK: jax.Array
    values_NxBxSxGxK: jax.Array
    segments_BxS: jax.Array
    index: jax.Array


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
    """What each layer is given on its own: the values of the scan."""

    window: jax.Array | None
    cache: tuple[jax.Array, jax.Array] | None


class Block(nn.Module):
    """One layer: self-attention, cross-attention in a decoder that has an encoder, feed-forward."""

    config: TransformerConfig
    layers: int
    causal: bool
    cross: bool
    deterministic: bool

    @nn.compact
    def __call__(self, x_BxTxD, per_layer, shared):
        """The signature of a scan: (carry, the layer's own, shared) -> (carry, new cache)."""
        config = self.config
        residual_stddev = None
        if config.residual_scale:
            additions = self.layers * (3 if self.cross else 2)
            residual_stddev = config.stddev * additions**-0.5

        def add(x_BxTxD, name, sublayer):
            norm = Norm(config, name=f'{name}_norm')
            dropout = Dropout(config, self.deterministic)
            if config.norm_placement == 'post':
                return norm(x_BxTxD + dropout(sublayer(x_BxTxD)))
            return x_BxTxD + dropout(sublayer(norm(x_BxTxD)))

        sight, cache = shared.sight, None
        plain = self.causal and per_layer.window is None and per_layer.cache is None
        plain &= sight.prefix_B is None and sight.query_segments_BxT is None
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
            y_BxTxD, cache = Attention(
                config, residual_stddev, self.deterministic, name='attention'
            )(
                x_BxTxD,
                mask=mask,
                bias=shared.bias_1xHxTxS,
                causal=plain,
                positions_BxT=shared.positions_BxT,
                cache=per_layer.cache,
                index=shared.index,
            )
            return y_BxTxD

        def cross_attention(x_BxTxD):
            return Attention(config, residual_stddev, self.deterministic, name='cross_attention')(
                x_BxTxD, context_BxSxD=shared.context_BxSxD, mask=shared.context_mask
            )[0]

        x_BxTxD = add(x_BxTxD, 'attention', attention)
        if self.cross:
            x_BxTxD = add(x_BxTxD, 'cross_attention', cross_attention)
        feed_forward = FeedForward(config, residual_stddev, self.deterministic, name='feedforward')
        return add(x_BxTxD, 'feedforward', feed_forward), cache


class Stack(nn.Module):
    """Layers scanned over their stacked parameters, and the final norm."""

    config: TransformerConfig
    layers: int
    causal: bool
    cross: bool

    @nn.compact
    def __call__(self, x_BxTxD, shared, caches, deterministic):
        """x_BxTxD -> (hidden_BxTxD, new caches or None)."""
        config, sight = self.config, shared.sight
        if config.positions == 'relative':
            bias = RelativeBias(
                config.heads, config.relative_buckets, config.relative_distance,
                bidirectional=not self.causal, name='relative_bias',
            )  # fmt: skip
            shared = shared._replace(bias_1xHxTxS=bias(sight.queries_T, sight.keys_S))
        window = None
        if config.attention_window:
            window = jnp.asarray(config.windows(self.layers), jnp.int32)

        block = Block
        if config.remat != 'none':
            policy = {
                'full': None,
                'dots': jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
            }[config.remat]
            block = nn.remat(Block, policy=policy, prevent_cse=False)
        scanned = nn.scan(
            block,
            variable_axes={'params': 0},
            split_rngs={'params': True, 'dropout': True},
            in_axes=(0, nn.broadcast),
            length=self.layers,
            unroll=self.layers if config.unroll else 1,
        )
        layers = scanned(config, self.layers, self.causal, self.cross, deterministic, name='layers')
        x_BxTxD, caches = layers(x_BxTxD, PerLayer(window, caches), shared)
        if config.final_norm:
            x_BxTxD = Norm(config, name='final_norm')(x_BxTxD)
        if config.dropout_final:
            x_BxTxD = Dropout(config, deterministic)(x_BxTxD)
        return x_BxTxD, caches


class Table(nn.Module):
    """A table of vectors, one a row."""

    config: TransformerConfig
    rows: int
    stddev: float | None = None

    def setup(self):
        init = initializer(self.config, self.stddev)
        self.table = self.param('table', init, (self.rows, self.config.width))

    def __call__(self, ids):
        """ids -> their rows, in config.dtype."""
        return self.table[ids].astype(self.config.dtype)

    def project(self, x):
        """x_...xD -> its products with all rows, float32 (tied logits)."""
        # On a CPU the einsum over both last axes would copy the table once more.
        return jnp.matmul(x, self.table.T.astype(x.dtype), preferred_element_type=jnp.float32)


class Head(nn.Module):
    """Hidden states -> logits over the vocabulary: tied or not, scaled, transformed, biased."""

    config: TransformerConfig

    @nn.compact
    def __call__(self, x, embedding):
        """x_...xD, the token embedding -> logits_...xV, float32."""
        config = self.config
        if config.logit_transform:
            x = Dense(config, config.width, biases=True, name='transform')(x)
            x = Norm(config, name='norm')(ACTIVATIONS[config.activation](x))
        if config.scale_logits:
            x *= config.width**-0.5
        if config.tied:
            logits = embedding.project(x)
        else:
            logits = Dense(config, config.vocabulary, biases=False, name='logits')(x, jnp.float32)
        if config.logit_bias:
            logits += self.param('bias', nn.initializers.zeros, (config.vocabulary,))
        return logits


class Transformer(nn.Module):
    """A transformer of the given config. Methods, with `apply(..., method=...)`:

    hidden(inputs, decoder_inputs): the hidden states to predict from;
    step(inputs, cache): the same for new tokens of a decoder, with the cache of earlier ones;
    logits(hidden).
    """

    config: TransformerConfig

    def setup(self):
        config = self.config
        # Tables of the fan_in families are N(0, 1): T5 (Mesh TensorFlow's embedding).
        table_stddev = 1.0 if config.initializer == 'fan_in' else None
        self.token_embedding = Table(config, config.vocabulary, table_stddev)
        if config.positions == 'learned':
            position_stddev = config.position_stddev or table_stddev
            self.position_embedding = Table(config, config.max_positions, position_stddev)
        if config.segment_types:
            self.segment_embedding = Table(config, config.segment_types, table_stddev)
        if config.embedding_norm:
            self.embedding_norm = Norm(config)
        if config.encoder_layers:
            self.encoder = Stack(config, config.encoder_layers, causal=False, cross=False)
        if config.decoder_layers:
            cross = config.encoder_layers > 0
            self.decoder = Stack(config, config.decoder_layers, causal=True, cross=cross)
        self.head = Head(config)
        self.dropout = nn.Dropout(
            config.dropout, (1,) if config.dropout_broadcast else (), name='dropout'
        )

    def __call__(self, inputs, decoder_inputs=None):
        """Touches every parameter; used to make them."""
        return self.logits(self.hidden(inputs, decoder_inputs))

    def hidden(self, inputs, decoder_inputs=None, deterministic=True):
        """Hidden states of the last stack.

        Args:
            inputs: contract.Inputs of the encoder, or of a decoder that stands alone.
            decoder_inputs: contract.Inputs of the decoder of an encoder-decoder.
            deterministic: no dropout; else an rng named 'dropout' is needed.

        Returns:
            hidden_BxLxD in config.dtype.
        """
        if not self.config.encoder_layers:
            return self._run(self.decoder, inputs, deterministic)
        encoded_BxSxD = self._run(self.encoder, inputs, deterministic)
        if not self.config.decoder_layers:
            return encoded_BxSxD
        segments_BxT = decoder_inputs.segments_BxL
        if inputs.segments_BxL is not None and segments_BxT is None:
            segments_BxT = jnp.ones_like(decoder_inputs.tokens_BxL)
        context_mask = attention_mask(
            jnp.arange(decoder_inputs.tokens_BxL.shape[1]),
            jnp.arange(inputs.tokens_BxL.shape[1]),
            causal=False,
            query_segments_BxT=segments_BxT if inputs.segments_BxL is not None else None,
            key_segments_BxS=inputs.segments_BxL,
        )
        context = encoded_BxSxD, context_mask
        return self._run(self.decoder, decoder_inputs, deterministic, context)

    def step(self, inputs, cache):
        """Hidden states of the next tokens of a decoder that stands alone.

        Args:
            inputs: contract.Inputs of T new tokens, with positions and segments (0: padding).
            cache: Cache.

        Returns:
            (hidden_BxTxD, the Cache with the new tokens in it).
        """
        new = inputs.tokens_BxL.shape[1]
        segments_BxS = jax.lax.dynamic_update_slice(
            cache.segments_BxS, inputs.segments_BxL, (0, cache.index)
        )
        sight = Sight(
            queries_T=cache.index + jnp.arange(new),
            keys_S=jnp.arange(segments_BxS.shape[1]),
            prefix_B=None,
            # Segment 1 for all: what a padded query sees is of no account.
            query_segments_BxT=jnp.ones_like(inputs.segments_BxL),
            key_segments_BxS=segments_BxS,
        )
        x_BxTxD = self._embed(inputs, inputs.positions_BxL, deterministic=True)
        shared = Shared(sight, inputs.positions_BxL, None, cache.index, None, None)
        layers = cache.keys_NxBxSxGxK, cache.values_NxBxSxGxK
        hidden_BxTxD, (keys, values) = self.decoder(x_BxTxD, shared, layers, True)
        return hidden_BxTxD, Cache(keys, values, segments_BxS, cache.index + new)

    def logits(self, hidden):
        """hidden_...xD -> logits_...xV, float32."""
        return self.head(hidden, self.token_embedding)

    def _run(self, stack, inputs, deterministic, context=(None, None)):
        length = inputs.tokens_BxL.shape[1]
        places_L = jnp.arange(length)
        positions_BxL = inputs.positions_BxL
        if positions_BxL is None:
            positions_BxL = places_L[None]
        segments_BxL = inputs.segments_BxL
        sight = Sight(places_L, places_L, inputs.prefix_B, segments_BxL, segments_BxL)
        x_BxLxD = self._embed(inputs, positions_BxL, deterministic)
        shared = Shared(sight, positions_BxL, None, None, *context)
        return stack(x_BxLxD, shared, None, deterministic)[0]

    def _embed(self, inputs, positions_BxL, deterministic):
        config = self.config
        x_BxLxD = self.token_embedding(inputs.tokens_BxL)
        if config.positions == 'learned':
            x_BxLxD += self.position_embedding(positions_BxL)
        if config.segment_types:
            types_BxL = inputs.types_BxL
            x_BxLxD += self.segment_embedding(0 if types_BxL is None else types_BxL)
        if config.embedding_norm:
            x_BxLxD = self.embedding_norm(x_BxLxD)
        return self.dropout(x_BxLxD, deterministic=deterministic)


def init(transformer, key):
    """Draws the parameters: nested dicts, the layers of a stack stacked along axis 0."""
    inputs = contract.Inputs(jnp.zeros((1, 2), jnp.int32))
    both = transformer.config.encoder_layers and transformer.config.decoder_layers
    return transformer.init(key, inputs, inputs if both else None)['params']


def bind(transformer, params):
    """A contract.Model: the transformer with its parameters put in."""

    def hidden(batch, key=None):
        return transformer.apply(
            {'params': params},
            batch.inputs,
            batch.decoder_inputs,
            deterministic=key is None,
            rngs=None if key is None else {'dropout': key},
            method='hidden',
        )

    def logits(hidden_BxKxD):
        return transformer.apply({'params': params}, hidden_BxKxD, method='logits')

    return contract.Model(hidden, logits)


def empty_cache(config, batch, length):
    """A Cache of `length` places for `batch` rows of a decoder with the given config."""
    shape = config.decoder_layers, batch, length, config.key_heads, config.k
    zeros = jnp.zeros(shape, config.dtype)
    return Cache(zeros, zeros, jnp.zeros((batch, length), jnp.int32), jnp.zeros((), jnp.int32))
