"""Replaced-token detection: a small masked LM fills gaps, a discriminator finds what it made up.

ELECTRA (Clark et al. 2020, section 2). The generator is trained as a masked LM; its samples
(temperature 1, drawn by Gumbel noise, no gradient through the drawing) take the places of the
masked tokens, and the discriminator says of every token that is no padding whether it is the
original. A sample that happens to be the original counts as original. 85 % of the chosen tokens
are masked and 15 % stay as they are; those too are drawn anew. Token, position and segment
embeddings are shared, as wide as the discriminator's, and so is the norm of their sum, as in the
released code; there is no next-sentence task.

The samples of a row are keyed by the row, not by the step's key, so that they do not depend on the
part of the batch that the row is worked off in.
"""

import jax
import jax.numpy as jnp

from objectives import contract, losses, masked_lm

SHARED = ('token_embedding', 'position_embedding', 'segment_embedding', 'embedding_norm')


def make(config, vocabulary):
    """Makes the objective.

    Args:
        config: the recipe's `objective`: masked_lm's keys (ELECTRA: rate 0.15, mask_share 0.85,
            random_share 0) and `discriminator_weight` (50).
        vocabulary: contract.Vocabulary.

    Returns:
        contract.Objective of the models `generator` and `discriminator`. Metrics: `accuracy` of
        the generator, `detection_accuracy` over all tokens, `detected`, the share of replaced
        tokens that are found, and `replaced`, the share of tokens that are replaced.

    Raises:
        ValueError: see masked_lm.make; a negative weight.
    """
    contract.require_number('discriminator_weight', config.discriminator_weight)
    base = masked_lm.make(config, vocabulary)

    def corrupt(key, windows):
        mask_key, draw_key = jax.random.split(key)
        batch = base.corrupt(mask_key, windows)
        seeds_B = jax.vmap(jax.random.bits)(contract.row_keys(draw_key, windows.numbers_B))
        return batch._replace(seeds_B=seeds_B)

    def loss(models, batch, key):
        keys = (None, None) if key is None else jax.random.split(key)
        generator, discriminator = models['generator'], models['discriminator']
        hidden_BxLxD = generator.hidden(batch, keys[0])
        terms, metrics = losses.predict_targets(generator, hidden_BxLxD, batch)

        drawn_BxK = draw(generator, hidden_BxLxD, batch, vocabulary.size)
        tokens_BxL, replaced_BxL = replace(batch, drawn_BxK)
        seen = batch._replace(inputs=batch.inputs._replace(tokens_BxL=tokens_BxL))
        scores_BxL = discriminator.score(discriminator.hidden(seen, keys[1]))
        real_BxL = (batch.inputs.segments_BxL != 0).astype(jnp.float32)
        weight = jnp.sum(real_BxL)
        nats_BxL = jax.nn.softplus(jnp.where(replaced_BxL, -scores_BxL, scores_BxL))
        terms['detection'] = contract.Term(
            jnp.sum(real_BxL * nats_BxL), weight, config.discriminator_weight
        )
        right_BxL = real_BxL * ((scores_BxL > 0) == replaced_BxL)
        share = jnp.sum(real_BxL * replaced_BxL)
        metrics |= {
            'detection_accuracy': contract.Mean(jnp.sum(right_BxL), weight),
            'detected': contract.Mean(jnp.sum(right_BxL * replaced_BxL), share),
            'replaced': contract.Mean(share, weight),
        }
        return contract.Loss(terms, metrics)

    return contract.Objective(
        base.window_length,
        corrupt,
        loss,
        models={
            'discriminator': {'token_head': False, 'token_scores': True},
            'generator': {},
        },
        shared={'generator': ('discriminator', SHARED)},
        stacks=('encoder',),
    )


def draw(generator, hidden_BxLxD, batch, size):
    """Tokens drawn from what the generator predicts at the chosen places, int32 BxK.

    Args:
        generator: contract.Model. hidden_BxLxD: what it made of the batch.
        batch: contract.Batch with seeds_B. size: ids from here on are never drawn.
    """
    hidden_BxKxD = losses.at_places(jax.lax.stop_gradient(hidden_BxLxD), batch.places_BxK)
    return losses.draw(generator.logits, hidden_BxKxD, batch.seeds_B, size)


def replace(batch, drawn_BxK):
    """The text with drawn tokens at the chosen places.

    Returns:
        (tokens_BxL, replaced_BxL): the second is True where a token is not the original.
    """
    rows_Bx1 = jnp.arange(drawn_BxK.shape[0])[:, None]
    # Places that stand for no prediction point behind the row and are dropped.
    length = batch.inputs.tokens_BxL.shape[1]
    places_BxK = jnp.where(batch.weights_BxK > 0, batch.places_BxK, length)
    tokens_BxL = batch.inputs.tokens_BxL
    tokens_BxL = tokens_BxL.at[rows_Bx1, places_BxK].set(drawn_BxK, mode='drop')
    replaced_BxL = jnp.zeros(tokens_BxL.shape, bool)
    differs_BxK = drawn_BxK != batch.targets_BxK
    return tokens_BxL, replaced_BxL.at[rows_Bx1, places_BxK].set(differs_BxK, mode='drop')
