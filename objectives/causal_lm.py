"""Causal language modelling: predict each token from those before it.

GPT (Radford et al. 2018), GPT-2 (2019), GPT-3 (Brown et al. 2020, section 2). Documents are
concatenated with an end-of-text token (`data.separator=true`, which is predicted like any other)
and, as in those papers, attention does not stop at document borders unless
`objective.separate_documents` is set.
"""

import jax
import jax.numpy as jnp

from objectives import contract, losses


def make(config, vocabulary):
    """Makes the objective.

    Args:
        config: the recipe's `objective`: `length`, tokens the model reads at once;
            `separate_documents`, attention and positions start anew in each document, and the
            first token of a document is not predicted from the one before;
            `z_loss`, coefficient of (log Z)^2 (0: none).
        vocabulary: contract.Vocabulary.

    Returns:
        contract.Objective. Metrics: accuracy, and bits_per_byte of the raw text, which unlike the
        loss can be compared across tokenizers.
    """
    bytes_V = jnp.asarray(vocabulary.bytes_V)

    def window_length():
        return config.length + 1  # the last token of a window is only predicted

    def corrupt(key, windows):
        del key  # nothing here is random
        tokens_BxW, documents_BxW = windows.tokens_BxW, windows.documents_BxW
        real_BxL = documents_BxW[:, 1:] != contract.PADDING
        inputs = contract.Inputs(tokens_BxW[:, :-1])
        if config.separate_documents:
            same_BxL = documents_BxW[:, 1:] == documents_BxW[:, :-1]
            real_BxL &= same_BxL
            starts_BxL = jnp.pad(~same_BxL[:, :-1], ((0, 0), (1, 0)))
            place_L = jnp.arange(config.length)
            first_BxL = jax.lax.cummax(jnp.where(starts_BxL, place_L, 0), axis=1)
            segments_BxL = 1 + jnp.cumsum(starts_BxL, axis=1)
            padded_BxL = documents_BxW[:, :-1] == contract.PADDING
            inputs = inputs._replace(
                positions_BxL=place_L - first_BxL,
                segments_BxL=jnp.where(padded_BxL, 0, segments_BxL),
            )
        return contract.Batch(
            inputs=inputs,
            decoder_inputs=None,
            targets_BxK=tokens_BxW[:, 1:],
            weights_BxK=real_BxL.astype(jnp.float32),
        )

    def loss(models, batch, key):
        model = models['model']
        hidden_BxLxD = model.hidden(batch, key)
        sums = losses.cross_entropy(
            model.logits, hidden_BxLxD, batch.targets_BxK, batch.weights_BxK
        )
        weight = jnp.sum(batch.weights_BxK)
        bytes_ = jnp.sum(batch.weights_BxK * bytes_V[batch.targets_BxK])
        terms = {'cross_entropy': contract.Term(sums.loss, weight)}
        if config.z_loss and key is not None:  # it steers training and is no part of the score
            terms['z_loss'] = contract.Term(sums.z, weight, config.z_loss)
        return contract.Loss(
            terms=terms,
            metrics={
                'accuracy': contract.Mean(sums.correct, weight),
                'bits_per_byte': contract.Mean(sums.loss / jnp.log(2.0), bytes_),
            },
        )

    return contract.Objective(window_length, corrupt, loss)
