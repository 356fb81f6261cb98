"""Heads of more than one layer, from hidden states to float32 logits."""

import flax.linen as nn
import jax.numpy as jnp

from pretrain.model.config import TransformerConfig
from pretrain.model.layers import ACTIVATIONS, Dense, Norm
from pretrain.partitioning import laid


class VocabularyHead(nn.Module):
    """Hidden states -> logits over the vocabulary: tied or not, scaled, transformed, biased."""

    config: TransformerConfig

    @nn.compact
    def __call__(self, x, embedding):
        """x_...xD, the token embedding -> logits_...xV, float32."""
        config = self.config
        if config.logit_transform:
            x = Dense(config, config.e if config.tied else config.width, name='transform')(x)
            x = Norm(config, name='norm')(ACTIVATIONS[config.activation](x))
        if config.scale_logits:
            x *= config.width**-0.5
        if config.tied:
            logits = embedding.project(x)
        else:
            logits = Dense(config, config.vocabulary, biases=False, name='logits')(x, jnp.float32)
        if config.logit_bias:
            logits += self.param('bias', nn.initializers.zeros, (config.vocabulary,))
        return laid(logits, 'BxKxV') if logits.ndim == 3 else logits


class Scores(nn.Module):
    """Hidden states -> one logit a place (ELECTRA's discriminator: has the token been replaced?)"""

    config: TransformerConfig

    @nn.compact
    def __call__(self, x):
        """x_...xD -> logits_..., float32."""
        config = self.config
        x = ACTIVATIONS[config.activation](Dense(config, config.width, name='transform')(x))
        return Dense(config, 1, biases=True, name='logit')(x, jnp.float32)[..., 0]
