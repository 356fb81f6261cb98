"""Casts with a head against one row at a time: no padding, no batches, heads and losses in numpy.

Text to text has its own file, test_text_cast.py.
"""

import dataclasses
import functools
import random
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.transfer import transfer
from objectives import contract
from pretrain.data import tokenizer
from pretrain.errors import UserError
from pretrain.model import transformer as transformers
from pretrain.model.config import TransformerConfig
from pretrain.model.transformer import Transformer
from pretrain.transfer import casts, heads, rows, surgery
from pretrain.transfer.rows import Place, Row
from pretrain.transfer.task import Example, Span, Task

WORDS = re.findall('[a-z]+', 'the cat sat on mat because it was warm a dog ran and glad house')
TEXT = [' '.join(random.Random(i).choices(WORDS, k=10)) for i in range(300)]
SMALL = {'vocabulary': 512, 'width': 16, 'heads': 2, 'max_positions': 20}
BERT = {
    'encoder_layers': 2, 'norm_placement': 'post', 'embedding_norm': True, 'final_norm': False,
    'segment_types': 2, 'classes': 2, 'logit_transform': True, 'logit_bias': True,
}  # fmt: skip
DISTILBERT = BERT | {'segment_types': 0, 'classes': 0}
GPT = {'decoder_layers': 2}
T5 = {
    'encoder_layers': 1, 'decoder_layers': 1, 'positions': 'relative', 'norm': 'rms',
    'biases': False, 'scale_attention': False,
}  # fmt: skip
MODELS = {'bert': BERT, 'distilbert': DISTILBERT, 'gpt': GPT, 'prefix': GPT, 't5': T5}
PROMPTS = {'gpt': 'causal', 'prefix': 'prefix', 't5': 'encoder'}


@functools.cache
def tokens():
    return tokenizer.train(TEXT, 310)


def source(name, **fields):
    module = Transformer(TransformerConfig(**(SMALL | MODELS[name] | fields)))
    objective = types.SimpleNamespace(prompt=PROMPTS.get(name), shared={})
    return surgery.Source(
        '', None, tokens(), objective, module, 'model', 0, None, name == 'prefix'
    )


def settings(**changes):
    section = transfer('superglue', 'rte').transfer
    section.update({'dropout': 0.0, 'head_dropout': 0.0, 'eval_batch_size': 4} | changes)
    return section


def task(name='own', kind='classes', labels=('no', 'yes', 'so'), texts=('a', 'b'), **fields):
    fields = {'benchmark': 'own', 'low': 0.0, 'high': 5.0} | fields
    return Task(name, name, kind=kind, labels=labels, texts=texts, metrics=(), read=None, **fields)


CLASSES = task()
NUMBER = task(kind='number', labels=())
COPA = task('copa', 'choice', ('choice1', 'choice2'), benchmark='superglue')
RECORD = task('record', 'entity', (), benchmark='superglue', length=40)
WIC = task('wic', 'classes', ('False', 'True'), benchmark='superglue')


def words(seed, count):
    return ' '.join(random.Random(seed).choices(WORDS, k=count))


def examples(of_task, known=True):
    """Seven examples of very different lengths; some do not fit into 20 places."""
    made = []
    for i, count in enumerate((3, 1, 16, 2, 9, 1, 5)):
        a, b = words(i, count), words(i + 50, 1 + i % 3)
        example = Example(i, {'a': a, 'b': b})
        if of_task.kind == 'number':
            label = 0.7 * i
        elif of_task.kind == 'choice':
            fields = {'premise': a, 'question': ('cause', 'effect')[i % 2]}
            example = Example(i, fields, choices=(b, words(i + 90, 4)))
        elif of_task.kind == 'entity':
            query = f'{b} @placeholder {words(i + 70, 1)}'
            choices = tuple(WORDS[i : i + 2 + i % 2])
            answers = choices[-1:] if known else ()
            example = Example(i, {'passage': a, 'query': query}, choices=choices, answers=answers)
        if of_task.name == 'wic':
            spans = tuple(Span(f, 0, len(t.split()[0])) for f, t in zip(SENTENCES, (a, b)))
            fields = dict(zip((*SENTENCES, 'word'), (a, b, words(i, 1))))
            example = Example(i, fields, spans=spans)
        if of_task.labels:
            label = of_task.labels[i % len(of_task.labels)]
        elif of_task.kind == 'entity':
            label = example.answers[0] if known else None
        made.append(example._replace(label=label if known else None))
    return made


SENTENCES = ('sentence1', 'sentence2')


def cast_and_params(name, of_task, fields=(), **changes):
    """The cast, and parameters of numbers of their own; scales are near 1."""
    cast = casts.make_cast(source(name, **dict(fields)), of_task, settings(**changes))
    shapes = jax.eval_shape(lambda: casts.draw(cast, jax.random.key(0)))
    rng = np.random.default_rng(0)

    def fill(path, x):
        scale = 'scale' in jax.tree_util.keystr(path)
        return (rng.normal(size=x.shape) * 0.3 + scale).astype(np.float32)

    return cast, jax.tree_util.tree_map_with_path(fill, shapes)


@functools.partial(jax.jit, static_argnums=0)
def hidden_of(trunk, params, *inputs):
    return trunk.apply({'params': params}, *inputs, method='hidden')


@functools.partial(jax.jit, static_argnums=0)
def logits_of(trunk, params, hidden):
    return trunk.apply({'params': params}, hidden, method='logits')


def states(cast, params, row, prefix=False):
    """LxD of one row that stands alone, without padding."""
    inputs = contract.Inputs(
        jnp.asarray(row.ids_L)[None],
        types_BxL=None if row.types_L is None else jnp.asarray(row.types_L)[None],
        prefix_B=jnp.array([len(row.ids_L)]) if prefix else None,
    )
    return np.asarray(hidden_of(cast.trunk, params['trunk'], inputs)[0])


def dense(params, x):
    return x @ params['kernel'] + params['bias']


def by_hand(cast, params, row, pooling, prefix=False):
    """The outputs of one row."""
    state_LxD = states(cast, params, row, prefix)
    x = {
        'first': state_LxD[0], 'last': state_LxD[-1], 'mean': state_LxD.mean(axis=0),
        'concat': np.concatenate([state_LxD[-1], state_LxD.max(axis=0), state_LxD.mean(axis=0)]),
    }[pooling]  # fmt: skip
    if row.spans_Sx2 is not None:
        pieces = [state_LxD[first : last + 1].mean(axis=0) for first, last in row.spans_Sx2]
        x = np.concatenate([x, *pieces])
    if 'pooler' in params['head']:
        x = np.tanh(dense(params['head']['pooler'], x))
    return dense(params['head']['output'], x)


def log_softmax(x):
    x = np.asarray(x, np.float64)
    return (
        x
        - np.log(np.exp(x - x.max(-1, keepdims=True)).sum(-1, keepdims=True))
        - x.max(-1, keepdims=True)
    )


TASKS = {'classes': CLASSES, 'number': NUMBER, 'copa': COPA, 'record': RECORD, 'wic': WIC}
KINDS = [
    ('bert', 'classes', 'first'), ('distilbert', 'classes', 'mean'), ('gpt', 'classes', 'last'),
    ('prefix', 'classes', 'first'), ('gpt', 'number', 'concat'), ('bert', 'wic', 'first'),
    ('gpt', 'copa', 'last'), ('bert', 'record', 'first'), ('gpt', 'record', 'last'),
]  # fmt: skip


@functools.cache
def answered(name, kind, pooling):
    """(task, cast, params, rows, outputs by hand)."""
    of_task = TASKS[kind]
    cast, params = cast_and_params(name, of_task, pooling=pooling)
    made = cast.rows(examples(of_task), True)
    outputs = [by_hand(cast, params, row, pooling, name == 'prefix') for row in made]
    return of_task, cast, params, made, np.array(outputs)


def decided(of_task, made, outputs):
    """The mean loss over decisions, in plain loops."""
    if of_task.kind == 'number':
        return np.mean([(o[0] - row.target) ** 2 for row, o in zip(made, outputs)])
    if of_task.kind == 'choice':
        pairs = range(0, len(made), 2)
        said = [log_softmax([outputs[i][0], outputs[i + 1][0]]) for i in pairs]
        return -np.mean([log_prob[int(made[i].target)] for log_prob, i in zip(said, pairs)])
    return -np.mean([log_softmax(o)[int(row.target)] for row, o in zip(made, outputs)])


def batch_of(cast, made, members, length, size=None):
    members = [*members, *[-1] * ((size or len(members)) - len(members))]
    return rows.lay_out(made, Place(np.array(members), length), 0, cast.prefix)


@pytest.mark.parametrize(('name', 'kind', 'pooling'), KINDS)
def test_outputs_and_loss_are_those_of_rows_alone(name, kind, pooling):
    """Whatever the padding, and with a batch that is not full; padding may be far from 0."""
    of_task, cast, params, made, known = answered(name, kind, pooling)
    lengths = {len(row.ids_L) for row in made}
    assert max(lengths) == 20  # as many as the model has positions, and less than the bucket
    assert len(lengths) > 2
    both = jax.jit(lambda p, b: (cast.outputs(p, b), cast.loss(p, b, jax.random.key(0))))
    for length in (24, 40):
        batch = batch_of(cast, made, range(len(made)), length, 24)
        tokens_BxL = np.where(batch.inputs.segments_BxL, batch.inputs.tokens_BxL, 9)
        batch = batch._replace(inputs=batch.inputs._replace(tokens_BxL=tokens_BxL))
        found, loss = both(params, batch)
        np.testing.assert_allclose(found[: len(made)], known, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(loss, decided(of_task, made, known), rtol=1e-4)
    assert np.ptp(known, axis=0).min() > 1e-2  # rows differ


@pytest.mark.parametrize(('name', 'kind', 'pooling'), [KINDS[0], KINDS[4], KINDS[6], KINDS[7]])
def test_what_fills_a_batch_has_no_part_in_loss_and_gradient(name, kind, pooling):
    of_task, cast, params, made, known = answered(name, kind, pooling)
    members = [2, 3, 4, 5]
    full, filled = (batch_of(cast, made, members, 40, size) for size in (None, 10))
    value = jax.jit(jax.value_and_grad(lambda p, b: cast.loss(p, b, jax.random.key(0))))
    (one, slope), (two, other) = value(params, full), value(params, filled)
    np.testing.assert_allclose(one, two, rtol=1e-5)
    chosen = [made[i] for i in members]
    np.testing.assert_allclose(one, decided(of_task, chosen, known[members]), rtol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), slope, other)
    assert max(np.abs(x).max() for x in jax.tree.leaves(slope)) > 1e-2


@pytest.mark.parametrize(('name', 'kind', 'pooling'), [KINDS[0], KINDS[4], KINDS[6], KINDS[7]])
def test_answers_are_in_the_order_of_the_examples(name, kind, pooling):
    of_task, cast, params, made, known = answered(name, kind, pooling)
    given = examples(of_task, known=False)
    found, beside = cast.answer(params, given)
    assert beside == {}
    assert len(found) == len(given)
    if of_task.kind == 'number':
        np.testing.assert_allclose(found, np.clip(known[:, 0], 0, 5), atol=1e-4)
    elif of_task.kind == 'choice':
        wanted = [int(known[i + 1, 0] > known[i, 0]) for i in range(0, len(made), 2)]
        assert found == [of_task.labels[c] for c in wanted]
    elif of_task.kind == 'entity':
        at = 0
        for example, answer in zip(given, found):
            own = known[at : at + len(example.choices)]
            at += len(example.choices)
            assert answer == example.choices[int(np.argmax(own[:, 1] - own[:, 0]))]
    else:
        assert found == [of_task.labels[int(c)] for c in known.argmax(axis=1)]


def test_the_decoder_is_read_at_its_last_token_and_sees_what_it_should():
    """Behind it and, if causal, before what comes later; a prefix LM sees all from the first."""
    for name, sees in (('gpt', False), ('prefix', True)):
        cast, params = cast_and_params(name, CLASSES, pooling='first')
        ids = np.array([20, 21, 22, 23], np.int32)
        made = [Row(ids, None, 0, 0), Row(ids + np.array([0, 0, 0, 5], np.int32), None, 0, 0)]
        one, two = jax.jit(cast.outputs)(params, batch_of(cast, made, [0, 1], 8))
        assert np.allclose(one, two, atol=1e-6) != sees


def run_rows(made, function, unit=1, **changes):
    return casts.run_rows(function, made, settings(**changes), unit, tokens())


def test_what_is_computed_by_batches_comes_back_by_rows():
    rng = np.random.default_rng(0)
    made = [Row(np.full(n, 7, np.int32), None, i, i) for i, n in enumerate(rng.integers(1, 60, 41))]
    seen = []

    def function(batch):
        seen.append(batch.inputs.tokens_BxL.shape)
        return np.stack([batch.lengths_B, batch.targets_B], axis=1)

    for unit, size in ((1, 4), (1, 64), (2, 6)):
        own = made[: len(made) // unit * unit]
        found = run_rows(own, function, unit, eval_batch_size=size)
        np.testing.assert_array_equal(found[:, 0], [len(row.ids_L) for row in own])
        np.testing.assert_array_equal(found[:, 1], np.arange(len(own)))
    assert {rows for rows, _ in seen} == {4, 64, 6}  # a shape for each length, full or not

    def progress(places):
        seen[:] = []
        return iter(places)

    casts.run_rows(function, made, settings(), 1, tokens(), progress=progress)
    assert len(seen) == 11


@pytest.mark.parametrize('kind', ['classes', 'number', 'choice', 'entity'])
def test_the_loss_of_a_task(kind):
    """Against plain loops, with targets that are not known where the weight is 0."""
    of_task = task(kind=kind, labels=('x', 'y') if kind in ('classes', 'choice') else ())
    units = {'classes': 2, 'entity': 2}.get(kind, 1)
    rng = np.random.default_rng(0)
    outputs = rng.normal(size=(8, units)).astype(np.float32)
    targets = rng.uniform(0, 5, 8) if kind == 'number' else np.repeat([1, 0, 0, 1], 2)
    made = [Row(np.zeros(1, np.int32), None, i, t) for i, t in enumerate(targets)]
    weights = np.array([1, 1, 1, 1, 1, 1, 0, 0], np.float32)
    batch = rows.RowBatch(None, None, weights, np.where(weights, targets, -1).astype(np.float32))
    known = decided(of_task, made[:6], outputs[:6])
    np.testing.assert_allclose(casts.task_loss(of_task, outputs, batch), known, rtol=1e-5)
    empty = batch._replace(weights_B=np.zeros(8, np.float32))
    assert casts.task_loss(of_task, outputs, empty) == 0


def test_an_entity_is_chosen_for_each_query_by_its_margin():
    """Not by its own logit; of equal ones the first; a query may have none."""
    given = [Example(i, {}, choices=c) for i, c in enumerate([('a', 'b', 'c'), (), ('d', 'e')])]
    made = [Row(np.zeros(1), None, i) for i in (0, 0, 0, 2, 2)]
    outputs = np.array([[9.0, 10], [1, 5], [0, 3], [0, 2], [2, 4]])
    assert casts.decide(RECORD, given, made, outputs) == ['b', '', 'd']


def test_numbers_stay_in_their_range_and_are_floats():
    found = casts.decide(NUMBER, [None] * 3, [], np.float32([[-1], [2.5], [7]]))
    assert found == [0.0, 2.5, 5.0]
    assert all(type(n) is float for n in found)


def lm_by_hand(cast, params, made):
    """Mean nats of every token but the first, each row alone."""
    sums, count = 0.0, 0
    for row in made:
        hidden = states(cast, params, row)
        said = log_softmax(logits_of(cast.trunk, params['trunk'], hidden))
        sums -= sum(said[i, t] for i, t in enumerate(row.ids_L[1:]))
        count += len(row.ids_L) - 1
    return sums / count


@pytest.mark.parametrize('mix', [False, True])
def test_the_lms_loss_is_added_with_its_coefficient(mix):
    made = answered('gpt', 'classes', 'last')[3]
    cast, params = cast_and_params('gpt', CLASSES, lm_coefficient=0.5, mix_layers=mix)
    assert cast.trunk.config.token_head
    batch = batch_of(cast, made, [0, 2, 3], 24, 6)
    found = jax.jit(cast.loss)(params, batch, jax.random.key(0))
    outputs = jax.jit(cast.outputs)(params, batch)[:3]
    chosen = [made[i] for i in (0, 2, 3)]
    known = decided(CLASSES, chosen, outputs) + 0.5 * lm_by_hand(cast, params, chosen)
    np.testing.assert_allclose(found, known, rtol=1e-4)


def test_a_mix_of_layers_is_learned_on_pooled_states():
    """Embeddings and both layers, against the states of stacks cut off behind each layer."""
    cast, params = cast_and_params('gpt', CLASSES, mix_layers=True, pooling='mean')
    made = cast.rows(examples(CLASSES), True)[:2]
    layers = params['trunk']['decoder']['layers']
    known = []
    for row in made:
        length = len(row.ids_L)
        trunk = params['trunk']
        x = trunk['token_embedding']['table'][row.ids_L]
        of_layers = [x + trunk['position_embedding']['table'][:length]]
        config = dataclasses.replace(cast.trunk.config, decoder_layers=1, final_norm=False)
        one = {**trunk, 'decoder': {'layers': jax.tree.map(lambda p: p[:1], layers)}}
        inputs = contract.Inputs(jnp.asarray(row.ids_L)[None])
        of_layers.append(np.asarray(hidden_of(Transformer(config), one, inputs)[0]))
        of_layers.append(states(cast, params, row))
        head = params['head']
        shares = np.exp(head['mix_weights']) / np.exp(head['mix_weights']).sum()
        mixed = sum(s * x.mean(axis=0) for s, x in zip(shares, of_layers))
        known.append(dense(head['output'], head['mix_scale'] * mixed))
    found = jax.jit(cast.outputs)(params, batch_of(cast, made, [0, 1], 24))
    np.testing.assert_allclose(found, known, rtol=1e-3, atol=1e-4)
    assert params['head']['mix_weights'].shape == (3,)
    assert 'pooler' not in params['head']


def test_dropout_is_that_of_the_settings_or_the_checkpoints():
    """In trunk and head, drawn from the key, in training alone."""
    own = {'dropout': 0.3, 'attention_dropout': 0.2}
    trunk = casts.new_trunk(source('bert', **own), settings(dropout=-1.0))
    assert (trunk.config.dropout, trunk.config.attention_dropout) == (0.3, 0.2)
    trunk = casts.new_trunk(source('bert', **own), settings(dropout=0.1, dtype='bfloat16'))
    assert (trunk.config.dropout, trunk.config.attention_dropout) == (0.1, 0.1)
    assert trunk.config.dtype == 'bfloat16'
    for changes in ({'dropout': 0.2}, {'head_dropout': 0.5}):
        cast, params = cast_and_params('bert', CLASSES, own, **changes)
        batch = batch_of(cast, cast.rows(examples(CLASSES), True), range(4), 24)
        loss = jax.jit(cast.loss)
        one, two = (loss(params, batch, jax.random.key(i)) for i in (0, 1))
        assert abs(one - two) > 1e-4
        assert one == loss(params, batch, jax.random.key(0))


def test_the_first_parameters_follow_the_key_and_differ_by_part():
    cast = casts.make_cast(source('bert'), CLASSES, settings())
    draw = jax.jit(lambda key: casts.draw(cast, key))
    one, two = draw(jax.random.key(0)), draw(jax.random.key(1))
    assert one['head']['output']['kernel'].shape == (16, 3)
    for part in ('trunk', 'head'):
        differ = jax.tree_util.tree_leaves_with_path(
            jax.tree.map(lambda a, b: (a != b).mean(), one[part], two[part])
        )
        drawn = [x for path, x in differ if str(path[-1]) in ("['kernel']", "['table']")]
        assert len(drawn) > 1
        assert min(drawn) > 0.9
    known = jax.eval_shape(lambda: transformers.init(cast.trunk, jax.random.key(0)))
    assert jax.tree.map(np.shape, one['trunk']) == jax.tree.map(np.shape, known)
    width = casts.make_cast(source('bert'), WIC, settings(pooling='concat'))
    shapes = jax.eval_shape(lambda: casts.draw(width, jax.random.key(0)))['head']
    assert shapes['output']['kernel'].shape == ((3 + 2) * 16, 2)


def test_the_default_is_what_suits_the_stacks():
    assert [casts.default_cast(source(name)) for name in ('bert', 'gpt', 't5')] == [
        'head', 'head', 'text',
    ]  # fmt: skip
    assert casts.make_cast(source('t5'), CLASSES, settings()).head is None
    bert = casts.make_cast(source('bert'), CLASSES, settings()).head
    gpt = casts.make_cast(source('gpt'), CLASSES, settings()).head
    assert isinstance(bert, heads.TaskHead)
    assert (bert.pooler, gpt.pooler) == (True, False)
    assert (bert.outputs, gpt.outputs) == (3, 3)
    assert casts.make_cast(source('bert'), COPA, settings()).unit == 2


@pytest.mark.parametrize(
    ('name', 'changes', 'match'),
    [
        ('t5', {'cast': 'head'}, 'an encoder and a decoder: set transfer.cast=text'),
        ('bert', {'cast': 'text'}, 'one stack: set transfer.cast=head'),
        ('gpt', {'cast': 'text'}, 'one stack: set transfer.cast=head'),
        ('gpt', {'cast': 'heads'}, "'heads' is none of head, text"),
        ('bert', {'pooling': 'max'}, "pooling='max' is none of first, last, mean, concat"),
        ('bert', {'lm_coefficient': 0.5}, 'lm_coefficient needs a decoder'),
        ('prefix', {'lm_coefficient': 0.5}, 'lm_coefficient needs a causal decoder'),
        ('gpt', {'length': 3}, 'rows of 3 tokens'),
    ],
)
def test_what_cannot_be_is_said_in_one_line(name, changes, match):
    with pytest.raises(UserError, match=match) as error:
        casts.make_cast(source(name), CLASSES, settings(**changes))
    assert '\n' not in str(error.value)
    with pytest.raises(UserError, match='predicts tokens'):
        casts.make_cast(source('t5', token_head=False), CLASSES, settings())
