"""Text to text against one row at a time: losses, what is written, and labels by rank."""

import dataclasses
import functools
import random
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs.transfer import transfer
from objectives import contract
from pretrain.data import tokenizer
from pretrain.model.config import TransformerConfig
from pretrain.model.transformer import Transformer
from pretrain.transfer import casts, rows, surgery
from pretrain.transfer.rows import Place
from pretrain.transfer.squad import Question
from pretrain.transfer.task import Example, Span, Task

WORDS = re.findall('[a-z]+', 'the cat sat on mat because it was warm a dog ran and glad house')
TEXT = [' '.join(random.Random(i).choices(WORDS, k=10)) for i in range(300)]
T5 = TransformerConfig(
    512, encoder_layers=1, decoder_layers=1, width=16, heads=2, positions='relative', norm='rms',
    biases=False, scale_attention=False,
)  # fmt: skip


@functools.cache
def tokens():
    return tokenizer.train(TEXT, 310)


def source():
    objective = types.SimpleNamespace(prompt='encoder', shared={})
    return surgery.Source('', None, tokens(), objective, Transformer(T5), 'model', 0, None)


def settings(**changes):
    section = transfer('superglue', 'rte').transfer
    section.update({'dropout': 0.0, 'eval_batch_size': 4, 'length': 60} | changes)
    return section


def task(name='own', kind='classes', labels=(), benchmark='superglue'):
    return Task(name, name, benchmark, kind, labels, ('a', 'b'), (), None)


def words(seed, count):
    return ' '.join(random.Random(seed).choices(WORDS, k=count))


def log_softmax(x):
    x = np.asarray(x, np.float64)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def batch_of(made, members, length, size):
    members = [*members, *[-1] * (size - len(members))]
    return rows.lay_out(made, Place(np.array(members), length), 0)


TRUTH = task('boolq', labels=('False', 'True'))


def asked(known=True):
    """Five questions about passages of different lengths."""
    made = []
    for i, count in enumerate((4, 9, 2, 6, 1)):
        fields = {'passage': words(i, count), 'question': words(i + 40, 2)}
        made.append(Example(i, fields, ('False', 'True')[i % 2] if known else None))
    return made


@functools.cache
def text_cast():
    """The cast, and parameters of numbers of their own."""
    cast = casts.make_cast(source(), TRUTH, settings())
    shapes = jax.eval_shape(lambda: casts.draw(cast, jax.random.key(0)))
    rng = np.random.default_rng(0)

    def fill(path, x):
        scale = 'scale' in jax.tree_util.keystr(path)
        return (rng.normal(size=x.shape) * 0.3 + scale).astype(np.float32)

    return cast, jax.tree_util.tree_map_with_path(fill, shapes)


@functools.partial(jax.jit, static_argnums=0)
def said_by(trunk, params, ids_L, told_K):
    """log-probabilities KxV of what a decoder says behind each id; it has read told_K."""
    inputs = contract.Inputs(ids_L[None]), contract.Inputs(told_K[None])
    return trunk.apply({'params': params}, *inputs)[0]


def tell(cast, params, row, told, room=8):
    """KxV behind each id that was told; junk behind them is not seen."""
    told = [0, *told]
    junk = [*told, *[33] * (room - len(told))]
    ids = (jnp.asarray(x, jnp.int32) for x in (row.ids_L, junk))
    return np.asarray(said_by(cast.trunk, params['trunk'], *ids))[: len(told)]


def test_text_to_text_is_trained_on_the_targets_alone():
    """The sum over the tokens of all targets, each with its eos, by their number."""
    cast, params = text_cast()
    made = cast.rows([*asked(), *asked(known=False)], True)
    assert len(made) == 5
    assert {len(row.targets_K) for row in made} != {2}
    sums, count = 0.0, 0
    for row in made[:3]:
        said = log_softmax(tell(cast, params, row, row.targets_K[:-1]))
        sums -= sum(said[k, t] for k, t in enumerate(row.targets_K))
        count += len(row.targets_K)
    loss = jax.jit(cast.loss)
    for length, size in ((48, 3), (64, 5)):
        batch = batch_of(made, [0, 1, 2], length, size)
        np.testing.assert_allclose(loss(params, batch, jax.random.key(0)), sums / count, rtol=1e-4)
    changed = batch.targets_BxK + 5 * (1 - batch.target_weights_BxK).astype(np.int32)
    np.testing.assert_allclose(
        loss(params, batch._replace(targets_BxK=changed), jax.random.key(0)), sums / count,
        rtol=1e-4,
    )  # fmt: skip


@functools.cache
def overfit():
    """Parameters that know the five answers by heart."""
    cast, params = text_cast()
    made = cast.rows(asked(), True)
    batch = batch_of(made, range(5), 48, 5)
    optimizer = optax.adam(1e-2)

    @jax.jit
    def step(params, state):
        value, slope = jax.value_and_grad(cast.loss)(params, batch, jax.random.key(0))
        move, state = optimizer.update(slope, state)
        return optax.apply_updates(params, move), state, value

    state = optimizer.init(params)
    for _ in range(60):
        params, state, loss = step(params, state)
    assert loss < 0.1
    return params


def test_text_to_text_learns_answers_and_ranks():
    cast = text_cast()[0]
    found, beside = cast.answer(overfit(), asked(known=False))
    assert found == [e.label for e in asked()]
    assert beside == {}
    ranked = casts.rank(
        source(), cast.trunk, overfit()['trunk'], TRUTH, asked(known=False), settings()
    )
    assert ranked == found


@pytest.mark.parametrize('learned', [False, True])
def test_what_a_model_writes_is_what_it_finds_likeliest_token_by_token(learned):
    """Greedy, one full pass a token, up to the eos or to as many as are asked for."""
    params = overfit() if learned else text_cast()[1]
    cast = casts.make_cast(source(), task('record', 'entity'), settings(answer_tokens=6))
    given = [
        Example(i, {'passage': words(i, n), 'query': words(i + 40, 2)}, choices=('cat', 'dog'))
        for i, n in enumerate((4, 9, 2, 6))
    ]
    known, ended = [], 0
    for row in cast.rows(given, False):
        told = []
        while len(told) < 8 and 1 not in told:  # 6, in a bucket of 8
            said = tell(cast, params, row, told, room=12)[-1]
            told.append(int(np.argmax(said[: tokens().vocabulary.size])))
        ended += 1 in told
        known.append(tokens().decode([i for i in told if i != 1]).strip())
    found, _ = cast.answer(params, given)
    assert found == known
    assert len(set(found)) > 1 or learned
    assert (ended > 0) == learned


def test_what_is_no_label_is_no_answer():
    assert text_cast()[0].answer(text_cast()[1], asked())[0] == [''] * 5


def test_what_follows_the_end_is_not_read(monkeypatch):
    """Whether the eos comes first, in the middle or never."""
    yes = tokens().encode(' True').tolist()
    room = len(yes) + 2
    cat = int(tokens().encode(' cat')[0])
    wrote = [[*yes, 1, cat], [1, *yes, cat], [*yes, cat, cat]]
    given = [Example(i, {'passage': 'the', 'question': 'cat'}, None) for i in range(3)]

    def generate(trunk, params, read_BxL, lengths_B, key, *, new_tokens, **rest):
        assert rest['eos'] == 1
        padded = [row + [1] * (new_tokens - room) for row in [*wrote, wrote[0]]]
        return np.array(padded, np.int32)

    monkeypatch.setattr(casts, 'generate', generate)
    cast, params = text_cast()
    assert cast.answer(params, given)[0] == ['True', '', '']


def test_the_likeliest_label_is_that_of_the_mean_over_its_tokens():
    cast, params = text_cast()
    labels = 'the cat sat on the mat', 'dog', 'because'  # by their sums the last would always win
    of_task = dataclasses.replace(task(benchmark='own'), labels=labels)
    given = [Example(i, {'a': words(i, n), 'b': 'it'}) for i, n in enumerate((2, 7, 4, 1, 5, 3))]
    made = casts.make_cast(source(), of_task, settings()).rows(given, False)
    known = []
    for row in made:
        means = []
        for label in labels:
            ids = [*tokens().encode(label).tolist(), 1]
            said = log_softmax(
                tell(cast, params, row, ids[:-1], room=12)[:, : tokens().vocabulary.size]
            )
            means.append(np.mean([said[k, i] for k, i in enumerate(ids)]))
        known.append(labels[int(np.argmax(means))])
    found = casts.rank(source(), cast.trunk, params['trunk'], of_task, given, settings())
    assert found == known
    assert set(found) == {labels[0], labels[2]}


def test_nouns_are_not_ranked():
    wsc = task('wsc', labels=('False', 'True'))
    fields = {'text': 'the man said he ran', 'span1_text': 'the man', 'span2_text': 'he'}
    example = Example(0, fields, spans=(Span('text', 0, 7), Span('text', 13, 15)))
    assert casts.rank(source(), None, None, wsc, [example], settings()) is None


def test_text_to_text_of_squad_gives_texts():
    squad = task('squad_v1.1', 'span', (), 'squad')
    cast = casts.make_cast(source(), squad, settings(answer_tokens=3))
    questions = [Question(str(i), words(i, 2), words(i, 5), (('cat', 0),)) for i in range(3)]
    found, _ = cast.answer(text_cast()[1], questions)
    assert len(found) == 3
    assert all(a.text == a.text.strip() and a.null_odds is None for a in found)
