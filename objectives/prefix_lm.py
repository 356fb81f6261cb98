"""Prefix LM: the start of a text is read in both directions, the rest is predicted from it.

T5 (Raffel et al. 2020, sections 3.2.1 and 3.3.1): the prefix has a length drawn uniformly from
[1, n - 1] of the text's n tokens. For an encoder-decoder model the prefix is the encoder's text
and the rest the decoder's, each with an EOS behind it, as in span_corruption. A decoder-only
model reads the text as it is, as in causal_lm; inside the prefix it looks both ways, and only
what follows the prefix counts.
"""

import types

import jax
import jax.numpy as jnp

from objectives import contract, encodings, losses, noise_masks, span_corruption


def make(config, vocabulary):
    """Makes the objective.

    Args:
        config: the recipe's `objective`: `length`, tokens that the model reads at once (each of
            the two stacks of an encoder-decoder model); `layout`, a name of encodings.LAYOUTS;
            `z_loss`, coefficient of (log Z)^2 (0: none).
        vocabulary: contract.Vocabulary.

    Returns:
        contract.Objective. Metrics: accuracy.

    Raises:
        ValueError: an unknown layout; too short a length.
    """
    encodings.check_name('layout', config.layout, encodings.LAYOUTS)
    contract.require_number('z_loss', config.z_loss)
    if config.length < 2:
        raise ValueError(
            f'length={config.length} is too short for a prefix and what follows: set at least 2'
        )
    if config.layout == 'encoder_decoder':
        settings = types.SimpleNamespace(
            inputs_length=config.length,
            targets_length=config.length,
            noise='prefix',
            inputs='drop',
            targets='noise',
            roll=False,
            layout=config.layout,
            z_loss=config.z_loss,
        )
        return span_corruption.make(settings, vocabulary)

    def window_length():
        return config.length + 1  # the last token of a window is only predicted

    def corrupt(key, windows):
        keys_B = contract.row_keys(key, windows.numbers_B)
        tokens_BxW = windows.tokens_BxW
        lengths_B = jnp.sum(windows.documents_BxW != contract.PADDING, axis=1)
        prefix_B = jax.vmap(noise_masks.prefix_length)(keys_B, lengths_B)
        place_L = jnp.arange(1, config.length + 1)  # in the window, of each predicted token
        after_BxL = (place_L >= prefix_B[:, None]) & (place_L < lengths_B[:, None])
        return contract.Batch(
            inputs=contract.Inputs(tokens_BxW[:, :-1], prefix_B=prefix_B),
            decoder_inputs=None,
            targets_BxK=tokens_BxW[:, 1:],
            weights_BxK=after_BxL.astype(jnp.float32),
        )

    def loss(models, batch, key):
        model = models['model']
        z_loss = 0.0 if key is None else config.z_loss
        return losses.predict_targets(model, model.hidden(batch, key), batch, z_loss)

    return contract.Objective(window_length, corrupt, loss, stacks=('decoder',), prompt='prefix')
