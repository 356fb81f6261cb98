"""The one transformer: an encoder stack, a decoder stack, or both.

It knows no objective: what to attend to, which positions and which segments come with the inputs
(objectives/contract.py), and only the hidden states that are asked for meet the vocabulary or
another head.
"""

import flax.linen as nn
import jax.numpy as jnp

from objectives import contract
from pretrain.errors import UserError
from pretrain.model.cache import Cache, Context
from pretrain.model.config import TransformerConfig
from pretrain.model.heads import Scores, VocabularyHead
from pretrain.model.layers import Dense, Norm, Table
from pretrain.model.masks import attention_mask
from pretrain.model.stack import Shared, Sight, Stack
from pretrain.partitioning import laid


class Transformer(nn.Module):
    """A transformer of the given config. Methods, with `apply(..., method=...)`:

    hidden(inputs, decoder_inputs): the hidden states to predict from;
    step(inputs, cache): the same for new tokens of the decoder, with the cache of earlier ones;
    logits(hidden), and where the config has such a head, pool(hidden), classify(hidden),
    score(hidden), project(hidden).
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
        if config.e != config.width:
            self.embedding_projection = Dense(config, config.width, biases=True)
        if config.token_head:
            self.head = VocabularyHead(config)
        if config.pooler or config.classes:
            self.pooler = Dense(config, config.width)
        if config.classes:
            # Apart from the pooler, which another task keeps while it replaces the classifier.
            self.classifier = Dense(config, config.classes, biases=True)
        if config.token_scores:
            self.scores = Scores(config)
        if config.projection_width:
            self.projection = Dense(config, config.projection_width, biases=False)
        self.dropout = nn.Dropout(
            config.dropout, (1,) if config.dropout_broadcast else (), name='dropout'
        )

    def __call__(self, inputs, decoder_inputs=None):
        """Touches every parameter; used to make them. Logits, or hidden states without a head."""
        config = self.config
        hidden_BxLxD = self.hidden(inputs, decoder_inputs)
        if config.pooler:
            self.pool(hidden_BxLxD)
        if config.classes:
            self.classify(hidden_BxLxD)
        if config.token_scores:
            self.score(hidden_BxLxD)
        if config.projection_width:
            self.project(hidden_BxLxD)
        return self.logits(hidden_BxLxD) if config.token_head else hidden_BxLxD

    def hidden(self, inputs, decoder_inputs=None, deterministic=True, read_BxQ=None):
        """Hidden states of the last stack.

        Args:
            inputs: contract.Inputs of the encoder, or of a decoder that stands alone.
            decoder_inputs: contract.Inputs of the decoder of an encoder-decoder.
            deterministic: no dropout; else an rng named 'dropout' is needed.
            read_BxQ: places of each row whose states are wanted; the last layer computes no others.
                None: all.

        Returns:
            hidden_BxLxD in config.dtype; with `read_BxQ` hidden_BxQxD.
        """
        if not self.config.encoder_layers:
            return self._run(self.decoder, inputs, deterministic, read_BxQ=read_BxQ)
        if not self.config.decoder_layers:
            return self._run(self.encoder, inputs, deterministic, read_BxQ=read_BxQ)
        encoded_BxSxD = self._run(self.encoder, inputs, deterministic)
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
        return self._run(self.decoder, decoder_inputs, deterministic, context, read_BxQ)

    def step(self, inputs, cache, encoder_inputs=None):
        """Hidden states of the next tokens of the decoder.

        Args:
            inputs: contract.Inputs of T new tokens; positions None: they count on from the real
                tokens in the cache; segments None: no padding among them.
            cache: Cache.
            encoder_inputs: contract.Inputs of the encoder, at the first step of an
                encoder-decoder; later its keys and values are in the cache.

        Returns:
            (hidden_BxTxD, the Cache with the new tokens in it).
        """
        segments_BxT = inputs.segments_BxL
        if segments_BxT is None:
            segments_BxT = jnp.ones_like(inputs.tokens_BxL)
        new = segments_BxT.shape[1]
        positions_BxT = inputs.positions_BxL
        if positions_BxT is None:
            before_Bx1 = jnp.sum(cache.segments_BxS, axis=1, keepdims=True)
            positions_BxT = jnp.maximum(before_Bx1 + jnp.cumsum(segments_BxT, axis=1) - 1, 0)
        segments_BxS = cache.with_segments(segments_BxT)
        sight = Sight(
            queries_T=cache.index + jnp.arange(new),
            keys_S=jnp.arange(segments_BxS.shape[1]),
            prefix_B=inputs.prefix_B,
            # Segment 1 for all: what a padded query sees is of no account.
            query_segments_BxT=jnp.ones_like(segments_BxT),
            key_segments_BxS=segments_BxS,
        )
        encoded_BxCxD, context, context_layers = None, cache.context, None
        if encoder_inputs is not None:
            encoded_BxCxD = self._run(self.encoder, encoder_inputs, deterministic=True)
            mask_Bx1x1xC = None
            if encoder_inputs.segments_BxL is not None:
                mask_Bx1x1xC = (encoder_inputs.segments_BxL != 0)[:, None, None]
            context = Context(None, None, mask_Bx1x1xC)
        elif context is not None:
            context_layers = context.keys_NxBxCxGxK, context.values_NxBxCxGxK
        shared = Shared(
            sight, positions_BxT, None, cache.index, encoded_BxCxD, context and context.mask_Bx1x1xC
        )
        x_BxTxD = self._embed(inputs, positions_BxT, deterministic=True)
        layers = cache.keys_NxBxSxGxK, cache.values_NxBxSxGxK
        hidden_BxTxD, (layers, made) = self.decoder(x_BxTxD, shared, True, layers, context_layers)
        if made is not None:
            context = Context(*made, context.mask_Bx1x1xC)
        return hidden_BxTxD, Cache(*layers, segments_BxS, cache.index + new, context)

    def logits(self, hidden):
        """hidden_...xD -> logits_...xV, float32."""
        if not self.config.token_head:
            raise UserError('model.token_head=False, but the objective predicts tokens: set it')
        return self.head(hidden, self.token_embedding)

    def pool(self, hidden_BxLxD):
        """One vector a row, BxD, from its first place (BERT's [CLS])."""
        return jnp.tanh(self.pooler(hidden_BxLxD[:, 0]))

    def classify(self, hidden_BxLxD):
        """logits_BxC of the classes of a row, float32."""
        return self.classifier(self.pool(hidden_BxLxD), jnp.float32)

    def score(self, hidden):
        """hidden_...xD -> one logit a place, float32."""
        return self.scores(hidden)

    def project(self, hidden):
        """hidden_...xD -> ...xP, the learned map to another model's width."""
        return self.projection(hidden)

    def _run(self, stack, inputs, deterministic, context=(None, None), read_BxQ=None):
        length = inputs.tokens_BxL.shape[1]
        places_L = jnp.arange(length)
        positions_BxL = inputs.positions_BxL
        if positions_BxL is None:
            positions_BxL = places_L[None]
        segments_BxL = inputs.segments_BxL
        sight = Sight(places_L, places_L, inputs.prefix_B, segments_BxL, segments_BxL)
        x_BxLxD = self._embed(inputs, positions_BxL, deterministic)
        shared = Shared(sight, positions_BxL, None, None, *context)
        return stack(x_BxLxD, shared, deterministic, read_BxQ=read_BxQ)[0]

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
        x_BxLxD = self.dropout(x_BxLxD, deterministic=deterministic)
        if config.e != config.width:
            x_BxLxD = self.embedding_projection(x_BxLxD)
        x_BxLxD = laid(x_BxLxD, 'BxLxD')
        self.sow('intermediates', 'embedded', x_BxLxD)
        return x_BxLxD


def init(transformer, key):
    """Draws the parameters: nested dicts, the layers of a stack stacked along axis 0."""
    inputs = contract.Inputs(jnp.zeros((1, 2), jnp.int32))
    both = transformer.config.encoder_layers and transformer.config.decoder_layers
    return transformer.init(key, inputs, inputs if both else None)['params']


def hidden_of_layers(transformer, params, inputs, key=None):
    """The hidden states behind the embeddings and behind every layer, of one stack.

    Args:
        transformer: Transformer with one stack. params: its parameters.
        inputs: contract.Inputs. key: of dropout; None: none.

    Returns:
        hidden_JxBxLxD, J one more than the layers; the last is what `hidden` returns.
    """
    last_BxLxD, kept = transformer.apply(
        {'params': params},
        inputs,
        deterministic=key is None,
        rngs=None if key is None else {'dropout': key},
        method='hidden',
        mutable=['intermediates'],
    )
    kept = kept['intermediates']
    stack = 'encoder' if transformer.config.encoder_layers else 'decoder'
    layers_NxBxLxD = kept[stack]['layers']['hidden'][0]
    return jnp.concatenate([kept['embedded'][0][None], layers_NxBxLxD[:-1], last_BxLxD[None]])


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

    def head(method):
        return lambda hidden: transformer.apply({'params': params}, hidden, method=method)

    config = transformer.config
    return contract.Model(
        hidden,
        head('logits'),
        classify=head('classify') if config.classes else None,
        score=head('score') if config.token_scores else None,
        project=head('project') if config.projection_width else None,
    )
