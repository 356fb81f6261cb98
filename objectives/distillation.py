"""Distillation: a student learns what a teacher says of every token, beside its own objective.

DistilBERT (Sanh et al. 2019, section 2; Hinton et al. 2015): the loss of any other objective (the
hard one: `masked_lm` for BERT, `causal_lm` for GPT) on the student, plus

    soft     T^2 KL(softmax(teacher / T) || softmax(student / T)), a mean over tokens;
    cosine   1 - cos(student, teacher) of the last hidden states, a mean over tokens;
    mse      squared difference of the logits, summed over the vocabulary, a mean over tokens.

Both models read the same corrupted text; the teacher runs without dropout and without gradient. The
tokens are all that are no padding, chosen for prediction or not; for an objective that predicts at
every place they are its targets. T^2 keeps the soft gradient as large as the hard one, whatever T.
"""

import jax
import jax.numpy as jnp

import objectives
from objectives import contract, losses


def make(config, vocabulary):
    """Makes the objective.

    Args:
        config: the recipe's `objective`: `hard`, name of the objective that student and teacher
            share, whose own keys stand beside these; `temperature`, T; `soft`, `hard_weight`,
            `cosine`, `mse`, coefficients of the terms, 0 leaves one out; `projection_width`, the
            teacher's width where it is not the student's: the cosine is then taken after a
            learned linear map of the student's states. (`teacher`, `teacher_config`, `layers`
            and `copy_transform` are read where the run begins.)
        vocabulary: contract.Vocabulary, the same for both.

    Returns:
        contract.Objective of the models `student` and `teacher` (frozen). Metrics: those of the
        hard objective and `agreement`, the share of tokens for which both models' first choice is
        the same.

    Raises:
        ValueError: a number is out of range, or there is no such objective.
    """
    contract.require_number('temperature', config.temperature)
    if config.temperature == 0:
        raise ValueError(f'temperature={config.temperature} must be above 0: DistilBERT has 2')
    for name in ('soft', 'hard_weight', 'cosine', 'mse', 'projection_width'):
        contract.require_number(name, config[name])
    if not any(config[name] > 0 for name in ('soft', 'hard_weight', 'cosine', 'mse')):
        raise ValueError('soft, hard_weight, cosine and mse are all 0: nothing is left to learn')
    if config.hard == 'distillation':
        raise ValueError("hard='distillation' has no end: give 'masked_lm' or 'causal_lm'")
    try:
        make_hard = objectives.find(config.hard)
    except ValueError as error:
        raise ValueError(str(error).replace('objective.name', 'objective.hard')) from error
    hard = make_hard(config, vocabulary)
    if tuple(hard.models) != ('model',):
        raise ValueError(
            f'hard={config.hard!r} trains {", ".join(hard.models)}: only an objective of one '
            "model can be distilled, for instance 'masked_lm'"
        )

    def loss(models, batch, key):
        student, teacher = models['student'], models['teacher']
        hidden_BxLxD = student.hidden(batch, key)
        ready = student._replace(hidden=lambda batch, key=None: hidden_BxLxD)
        terms, metrics = hard.loss({'model': ready}, batch, key)
        terms = {
            name: term._replace(coefficient=term.coefficient * config.hard_weight)
            for name, term in terms.items()
        }
        teacher_BxLxD = jax.lax.stop_gradient(teacher.hidden(batch))
        weights_BxL = token_weights(batch)
        weight = jnp.sum(weights_BxL)
        sums = losses.divergence(
            student.logits, hidden_BxLxD, teacher.logits, teacher_BxLxD, weights_BxL,
            config.temperature,
        )  # fmt: skip
        if config.soft:
            soft = config.temperature**2 * sums.kl
            terms['soft'] = contract.Term(soft, weight, config.soft)
        if config.mse:
            terms['mse'] = contract.Term(sums.mse, weight, config.mse)
        if config.cosine:
            mapped_BxLxP = student.project(hidden_BxLxD) if student.project else hidden_BxLxD
            far_BxL = 1.0 - cosine(mapped_BxLxP, teacher_BxLxD)
            terms['cosine'] = contract.Term(jnp.sum(weights_BxL * far_BxL), weight, config.cosine)
        metrics = metrics | {'agreement': contract.Mean(sums.agreement, weight)}
        return contract.Loss(terms, metrics)

    fields = hard.models['model']
    return contract.Objective(
        hard.window_length,
        hard.corrupt,
        loss,
        models={
            'student': fields | {'projection_width': config.projection_width},
            'teacher': fields,
        },
        frozen=('teacher',),
        stacks=hard.stacks,
        cut=hard.cut,
        projects_all=True,
        prompt=hard.prompt,
    )


def token_weights(batch):
    """float32 weights_BxL of the tokens that student and teacher are compared at."""
    if batch.places_BxK is None:
        return batch.weights_BxK
    segments_BxL = batch.inputs.segments_BxL
    if segments_BxL is None:
        return jnp.ones(batch.inputs.tokens_BxL.shape, jnp.float32)
    return (segments_BxL != 0).astype(jnp.float32)


def cosine(x, y):
    """Cosine of the angle between vectors of the last axis, float32."""
    x, y = x.astype(jnp.float32), y.astype(jnp.float32)
    # A square root has no finite slope at 0, where a row of padding may well be.
    length = lambda v: jnp.sqrt(jnp.maximum(jnp.sum(jnp.square(v), axis=-1), 1e-24))  # noqa: E731
    return jnp.sum(x * y, axis=-1) / (length(x) * length(y))
