"""The ways in which a model is made to answer a task, each a few pure functions.

`head`: a new head on the states of an encoder or a decoder (BERT, section 3.2; GPT, section 3.3).
`text`: the answer is written out by an encoder-decoder (T5, section 2.4).
The third, scored choices, trains nothing and has its own file (choices.py).
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from objectives import contract, losses
from pretrain.errors import UserError
from pretrain.model import transformer as transformers
from pretrain.model.decoding import generate
from pretrain.transfer import encoding, heads, rows, scoring, spans, surgery, text_to_text

CASTS = ('head', 'text', 'choices')


class Cast(NamedTuple):
    """What the training loop works with.

    trunk: Transformer of the parameters 'trunk'.
    head: flax module of the parameters 'head'; None: it has none.
    unit: rows that stay together.
    prefix: rows are read in both directions (prefix LM).
    rows: (examples, training) -> list of rows.Row.
    loss: (params, batch, key) -> scalar; params are {'trunk': ..., 'head': ...}.
    outputs: (params, batch) -> array, a row each; of the head's cast.
    features: (trunk's params, batch) -> array, a row each: what the head reads; None: no such.
    keeps_features: they are small enough to be kept for all rows while the trunk is frozen.
    answer: (params, examples, progress) -> (predictions, {name: number} to report beside).
    """

    trunk: object
    head: object
    unit: int
    prefix: bool
    rows: Callable
    loss: Callable
    outputs: Callable | None
    features: Callable | None
    keeps_features: bool
    answer: Callable


def default_cast(source):
    """The cast that suits the stacks of a model: 'text' for an encoder-decoder, else 'head'."""
    model = source.transformer.config
    return 'text' if model.encoder_layers and model.decoder_layers else 'head'


def make_cast(source, task, settings):
    """The Cast of a task for a checkpoint.

    Args:
        source: surgery.Source. task: Task. settings: the section `transfer` of a config.

    Raises:
        UserError: the model cannot be used so.
    """
    name = settings.cast or default_cast(source)
    model = source.transformer.config
    both = bool(model.encoder_layers and model.decoder_layers)
    if name == 'head' and both:
        raise UserError(
            'transfer.cast=head needs one stack, and this checkpoint has an encoder and a decoder: '
            'set transfer.cast=text'
        )
    if name == 'text' and not both:
        raise UserError(
            'transfer.cast=text needs an encoder and a decoder, and this checkpoint has one stack: '
            'set transfer.cast=head'
        )
    if name == 'head':
        return _head_cast(source, task, settings)
    if name == 'text':
        return _text_cast(source, task, settings)
    raise UserError(f'transfer.cast={name!r} is none of {", ".join(CASTS)}')


def new_trunk(source, settings, keep_head=False):
    """The Transformer to fine-tune: the checkpoint's, with the settings' dropout and dtype."""
    fields = {'dtype': settings.dtype, 'remat': settings.remat}
    if settings.dropout >= 0:
        fields |= {'dropout': settings.dropout, 'attention_dropout': settings.dropout}
    return surgery.trunk_of(source.transformer, keep_head, **fields)


def draw(cast, key):
    """Parameters drawn at random: {'trunk': ..., 'head': ...}."""
    trunk_key, head_key = jax.random.split(key)
    # Operation by operation it would take seconds; the tasks of a benchmark share a trunk.
    trunk = jax.jit(transformers.init, static_argnums=0)(cast.trunk, trunk_key)
    return {'trunk': trunk, 'head': draw_head(cast, trunk, head_key)}


def draw_head(cast, trunk, key):
    """The head's parameters drawn at random; {} where the cast has none."""
    if cast.head is None:
        return {}
    batch = _smallest_batch(cast)
    seen = jax.eval_shape(cast.features, trunk, batch)
    return cast.head.init(key, jnp.zeros(seen.shape, seen.dtype))['params']


def _smallest_batch(cast):
    types = np.zeros(2, np.int32) if cast.trunk.config.segment_types else None
    row = rows.Row(np.zeros(2, np.int32), types, 0, 0, np.zeros((2, 2), np.int32))
    place = rows.Place(np.zeros(cast.unit, np.int64), 2)
    return rows.lay_out([row], place, 0, cast.prefix)


def _head_cast(source, task, settings):
    model = source.transformer.config
    is_encoder = bool(model.encoder_layers)
    pooling = settings.pooling or ('first' if is_encoder else 'last')
    if pooling not in heads.POOLINGS:
        raise UserError(f'transfer.pooling={pooling!r} is none of {", ".join(heads.POOLINGS)}')
    spans = is_encoder and task.name in ('wic', 'wsc') and task.benchmark == 'superglue'
    with_lm = settings.lm_coefficient > 0
    if with_lm and (is_encoder or not model.token_head):
        raise UserError('transfer.lm_coefficient needs a decoder with a head for the vocabulary')
    if with_lm and source.prefix:
        raise UserError(
            'transfer.lm_coefficient needs a causal decoder: this one reads a row in both '
            'directions and would see what it predicts'
        )
    trunk = new_trunk(source, settings, keep_head=with_lm)
    units = {'classes': len(task.labels), 'entity': 2}.get(task.kind, 1)
    head = heads.TaskHead(
        units,
        pooler=is_encoder and pooling == 'first' and not spans and not settings.mix_layers,
        hidden_width=settings.hidden_width,
        mix=settings.mix_layers,
        dropout=settings.head_dropout,
    )
    length = encoding.row_length(task, model, settings.length)
    unit = 2 if task.kind == 'choice' else 1
    prefix = source.prefix
    one_place = pooling in ('first', 'last') and not (spans or with_lm or settings.mix_layers)

    def make_rows(examples, training):
        del training
        if is_encoder:
            types = model.segment_types > 1
            return encoding.encoder_rows(source.tokenizer, task, examples, length, types)
        return encoding.decoder_rows(source.tokenizer, task, examples, length)

    def hidden(params, batch, key):
        if settings.mix_layers:
            return transformers.hidden_of_layers(trunk, params, batch.inputs, key)
        read_Bx1 = None
        if one_place:
            last_B = batch.lengths_B - 1
            read_Bx1 = (last_B if pooling == 'last' else jnp.zeros_like(last_B))[:, None]
        rngs = None if key is None else {'dropout': key}
        return trunk.apply(
            {'params': params}, batch.inputs, None, key is None, read_Bx1, rngs=rngs,
            method='hidden',
        )  # fmt: skip

    def pooled(states, batch):
        if one_place:
            return states[:, 0].astype(jnp.float32)
        marked = batch.spans_BxSx2 if spans else None
        return heads.pool(states, batch.lengths_B, pooling, marked)

    def features(params, batch):
        return pooled(hidden(params, batch, None), batch)

    def apply_head(params, vectors, key):
        rngs = None if key is None else {'dropout': key}
        return head.apply({'params': params}, vectors, deterministic=key is None, rngs=rngs)

    def loss(params, batch, key):
        trunk_key, head_key = jax.random.split(key)
        states = None
        if batch.features is None:
            states = hidden(params['trunk'], batch, trunk_key)
            vectors = pooled(states, batch)
        else:
            vectors = jnp.moveaxis(batch.features, 0, -2)
        outputs = apply_head(params['head'], vectors, head_key)
        total = task_loss(task, outputs, batch)
        if with_lm:
            last = states[-1] if settings.mix_layers else states
            total += settings.lm_coefficient * _lm_loss(trunk, params['trunk'], last, batch)
        return total

    def outputs(params, batch):
        vectors = features(params['trunk'], batch)
        return apply_head(params['head'], vectors, None)

    jitted = jax.jit(outputs)

    def answer(params, examples, progress=iter):
        made = make_rows(examples, False)
        outputs_RxU = run_rows(
            functools.partial(jitted, params), made, settings, unit, source.tokenizer, prefix,
            progress,
        )  # fmt: skip
        return decide(task, examples, made, outputs_RxU), {}

    return Cast(trunk, head, unit, prefix, make_rows, loss, outputs, features, True, answer)


def run_rows(function, made, settings, unit, tokens, prefix=False, progress=iter):
    """Applies a function of batches to all rows.

    Args:
        function: RowBatch -> array Bx... made: list of Row. settings: as of make_cast.
        unit: rows that stay together. tokens: Tokenizer. prefix: see rows.lay_out.
        progress: wraps the list of batches.

    Returns:
        numpy array Rx..., in the order of the rows.
    """
    result = None
    places = rows.evaluation_batches(made, settings.eval_batch_size, unit)
    for place in progress(places):
        batch = rows.lay_out(made, place, tokens.vocabulary.pad, prefix)
        values = np.asarray(function(batch))
        if result is None:
            result = np.zeros((len(made), *values.shape[1:]), values.dtype)
        real_B = place.rows_B >= 0
        result[place.rows_B[real_B]] = values[real_B]
    return result


def task_loss(task, outputs_BxU, batch):
    """The mean loss of a batch: cross-entropy of the classes, or squared error of a number.

    Args:
        task: Task. outputs_BxU: of the head. batch: rows.RowBatch; rows of weight 0 do not count.
    """
    weights_B, targets_B = batch.weights_B, batch.targets_B
    if task.kind == 'number':
        losses_B = (outputs_BxU[:, 0] - targets_B) ** 2
    else:
        if task.kind == 'choice':  # one output a row, two rows a decision
            outputs_BxU = outputs_BxU.reshape(-1, 2)
            weights_B, targets_B = weights_B[::2], targets_B[::2]
        losses_B = optax.softmax_cross_entropy_with_integer_labels(
            outputs_BxU, jnp.maximum(targets_B, 0).astype(jnp.int32)
        )
    return jnp.sum(losses_B * weights_B) / jnp.maximum(jnp.sum(weights_B), 1)


def decide(task, examples, made, outputs_RxU):
    """The predictions of a head, one an example: a label, a float, the text of an entity.

    Args:
        task: Task. examples: list of Example. made: their rows. outputs_RxU: of the head, by row.
    """
    if task.kind == 'classes':
        return [task.labels[c] for c in np.argmax(outputs_RxU, axis=1)]
    if task.kind == 'number':
        return np.clip(outputs_RxU[:, 0].astype(float), task.low, task.high).tolist()
    if task.kind == 'choice':
        return [task.labels[c] for c in np.argmax(outputs_RxU.reshape(-1, 2), axis=1)]
    margins_R = outputs_RxU[:, 1] - outputs_RxU[:, 0]
    best = {}
    numbers = {}
    for row, margin in zip(made, margins_R):
        choice = numbers[row.example] = numbers.get(row.example, -1) + 1
        if row.example not in best or margin > best[row.example][0]:
            best[row.example] = margin, choice
    return [e.choices[best[i][1]] if i in best else '' for i, e in enumerate(examples)]


def _lm_loss(trunk, params, states_BxLxD, batch):
    """The causal LM's loss on the rows themselves (GPT, equation 5), a mean over tokens."""
    logits = functools.partial(trunk.apply, {'params': params}, method='logits')
    inputs = batch.inputs
    weights_BxK = (inputs.segments_BxL[:, 1:] * batch.weights_B[:, None]).astype(jnp.float32)
    sums = losses.cross_entropy(logits, states_BxLxD[:, :-1], inputs.tokens_BxL[:, 1:], weights_BxK)
    return sums.loss / jnp.maximum(jnp.sum(weights_BxK), 1)


def _text_cast(source, task, settings):
    model = source.transformer.config
    if not model.token_head:
        raise UserError('transfer.cast=text needs a checkpoint that predicts tokens')
    trunk = new_trunk(source, settings, keep_head=True)
    length = encoding.row_length(task, model, settings.length)
    tokens = source.tokenizer
    vocabulary = tokens.vocabulary

    def make_rows(examples, training):
        return encoding.text_rows(tokens, task, examples, length, training)

    def loss(params, batch, key):
        bound = transformers.bind(trunk, params['trunk'])
        read = contract.Batch(
            batch.inputs, batch.decoder_inputs, batch.targets_BxK, batch.target_weights_BxK
        )
        sums = losses.cross_entropy(
            bound.logits, bound.hidden(read, key), read.targets_BxK, read.weights_BxK
        )
        return sums.loss / jnp.maximum(jnp.sum(read.weights_BxK), 1)

    def write(params, batch, new_tokens):
        return generate(
            trunk, params['trunk'], batch.inputs.tokens_BxL, batch.lengths_B, jax.random.key(0),
            new_tokens=new_tokens, vocabulary_size=vocabulary.size, eos=vocabulary.eos,
            prompt='encoder', start=vocabulary.pad,
        )  # fmt: skip

    def answer(params, examples, progress=iter):
        made = make_rows(examples, False)
        longest = max(len(row.targets_K) for row in made)
        if task.kind in ('entity', 'span') or any(e.label is None for e in examples):
            longest = max(longest, settings.answer_tokens)
        new_tokens = rows.bucket(longest, rows.TARGET_BUCKETS)
        said_RxN = run_rows(
            functools.partial(write, params, new_tokens=new_tokens), made, settings, 1, tokens,
            progress=progress,
        )  # fmt: skip
        told = [_text(tokens, said_N) for said_N in said_RxN]
        if task.kind == 'span':
            return [spans.Answer(text.strip(), text.strip(), [], None) for text in told], {}
        return [text_to_text.parse(task, e, text) for e, text in zip(examples, told)], {}

    return Cast(trunk, None, 1, False, make_rows, loss, None, None, False, answer)


def _text(tokens, ids):
    """The text of ids up to the first eos."""
    ends = np.flatnonzero(ids == tokens.vocabulary.eos)
    return tokens.decode(ids[: ends[0]] if len(ends) else ids)


def rank(source, trunk, params, task, examples, settings, progress=iter):
    """Which of a task's target strings an encoder-decoder finds likeliest (rank classification).

    Small models write strings that are no label; ranking the labels asks less of them, so both are
    reported. The mean over a label's tokens is compared, since labels differ in length.

    Returns:
        Predictions, one an example; None where the task has no closed set of strings.
    """
    texts, counts = [], []
    for example in examples:
        said = text_to_text.labels(task, example)
        if not said:
            return None
        context = text_to_text.inputs(task, example)
        texts += [(context, text) for text in said]
        counts.append(said)
    scored = scoring.score(
        trunk, params, source.tokenizer, texts, batch=settings.eval_batch_size, prompt='encoder',
        max_length=encoding.row_length(task, trunk.config, settings.length), progress=progress,
    )  # fmt: skip
    predictions, at = [], 0
    for example, said in zip(examples, counts):
        own = scored[at : at + len(said)]
        at += len(said)
        best = int(np.argmax([log_prob / tokens for log_prob, tokens, _ in own]))
        predictions.append(text_to_text.parse(task, example, said[best]))
    return predictions
