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

    Raises:
        ValueError: a number is out of range.
    """
    separate, z_coefficient = config.separate_documents, config.z_loss
    contract.require_number('length', config.length, 1)
    contract.require_number('z_loss', z_coefficient)
    bytes_V = jnp.asarray(vocabulary.bytes_V)

    def window_length():
        return config.length + 1  # the last token of a window is only predicted

    def corrupt(key, windows):
        del key  # nothing here is random
        tokens_BxW, documents_BxW = windows.tokens_BxW, windows.documents_BxW
        real_BxL = documents_BxW[:, 1:] != contract.PADDING
        inputs = contract.Inputs(tokens_BxW[:, :-1])
        if separate:
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
        z_loss = 0.0 if key is None else z_coefficient
        terms, metrics = losses.predict_targets(model, model.hidden(batch, key), batch, z_loss)
        bits = terms['cross_entropy'].sum / jnp.log(2.0)
        bytes_ = jnp.sum(batch.weights_BxK * bytes_V[batch.targets_BxK])
        return contract.Loss(terms, metrics | {'bits_per_byte': contract.Mean(bits, bytes_)})

    return contract.Objective(window_length, corrupt, loss, stacks=('decoder',), prompt='causal')
