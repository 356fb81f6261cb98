"""What is handed over to be scored, word by word, and what the scores decide."""

import dataclasses
import functools
import random
import re
import types

import jax
import numpy as np
import pytest

from configs.transfer import transfer
from objectives import contract
from pretrain.data import tokenizer
from pretrain.errors import UserError
from pretrain.model.config import TransformerConfig
from pretrain.model.transformer import Transformer, init
from pretrain.transfer import choices, scoring, surgery
from pretrain.transfer.scoring import Score
from pretrain.transfer.task import Example, Task

WORDS = re.findall('[a-z]+', 'the cat sat on mat because it was warm a dog ran and glad house')
TEXT = [' '.join(random.Random(i).choices(WORDS, k=10)) for i in range(300)]
GPT = TransformerConfig(512, decoder_layers=1, width=16, heads=2, max_positions=90, stddev=0.3)
BERT = TransformerConfig(512, encoder_layers=1, width=16, heads=2)


@functools.cache
def tokens():
    return tokenizer.train(TEXT, 310)


def task(kind='classes', labels=('no', 'yes'), name='own', benchmark='own'):
    return Task(name, name, benchmark, kind, labels, ('a',), (), None, low=0.0, high=10.0)


CLASSES = task()
NUMBER = task('number', ())
COPA = task('choice', ('choice1', 'choice2'), 'copa', 'superglue')
RECORD = task('entity', (), 'record', 'superglue')


def given(count, offset=0, label=None):
    return [Example(i, {'a': f'text{i + offset}'}, label) for i in range(count)]


def settings(**changes):
    section = transfer('superglue', 'rte').transfer
    section.update(changes)
    return section


def source(prompt='causal'):
    return surgery.Source(
        '', None, tokens(), types.SimpleNamespace(prompt=prompt), None, 'model', 0, None
    )


@pytest.fixture
def answer(monkeypatch):
    """answer(task, examples, [(log-probability, tokens, bytes), ...]) -> (answers, beside, call).

    call: what was handed over to be scored.
    """

    def answer(of_task, examples, scores, train=(), seed=0, prompt='causal', model=GPT, **changes):
        call = {}

        def score(trunk, params, own, texts, **rest):
            call.update(texts=texts, **rest)
            assert (trunk, params, own) == (module, 'params', tokens())
            assert len(texts) == len(rest['query_starts'])
            made = scores if scores else [(-1.0 - i, 1, 1) for i in range(len(texts))]
            return [Score(*s) for s in made]

        module = Transformer(model)
        monkeypatch.setattr(scoring, 'score', score)
        found, beside = choices.answer(
            source(prompt), module, 'params', of_task, list(train), settings(**changes), seed,
            examples,
        )  # fmt: skip
        return found, beside, call

    return answer


def test_the_likeliest_label_wins_and_of_equals_the_first(answer):
    scores = [(-3, 1, 3), (-2, 9, 9), (-1, 1, 3), (-1, 1, 4), (-4, 2, 3), (-5, 5, 9)]
    found, beside, call = answer(CLASSES, given(3), scores, eval_batch_size=7)
    assert found == ['yes', 'no', 'no']
    assert beside == {'shots': 0, 'likeliest': (-2 - 1 - 4) / 3, 'cut_queries': 0}
    ask = [f'a: text{i}\nlabel:' for i in range(3)]
    assert call['texts'] == [(context, c) for context in ask for c in (' no', ' yes')]
    assert call['query_starts'] == [0] * 6
    assert (call['batch'], call['prompt'], call['max_length']) == (7, 'causal', 90)


def test_labels_are_not_divided_by_their_length_and_clauses_by_their_tokens(answer):
    scores = [(-3, 1, 30), (-4, 2, 10)]  # a token -3 and -2; a byte -0.1 and -0.4
    copa = Example(
        0, {'premise': 'It was wet.', 'question': 'cause'}, choices=('It rained', 'He fell')
    )
    assert answer(CLASSES, given(1), scores)[0] == ['no']
    found, _, call = answer(COPA, [copa], scores)
    assert found == ['choice2']
    assert call['texts'] == [
        ('It was wet because', ' it rained'), ('It was wet because', ' he fell'),
    ]  # fmt: skip
    for normalise, known in (('none', 'choice1'), ('tokens', 'choice2'), ('bytes', 'choice1')):
        assert answer(COPA, [copa], scores, normalise=normalise)[0] == [known]
    assert answer(CLASSES, given(1), scores, normalise='tokens')[0] == ['yes']


def test_every_query_has_its_own_number_of_entities(answer):
    def query(*entities):
        fields = {'passage': 'P.', 'query': 'now @placeholder ran'}
        return Example(0, fields, choices=entities)

    scores = [(-5, 5, 1), (-4, 1, 1), (-9, 3, 1), (-2, 1, 1), (-1, 1, 1)]
    found, _, call = answer(RECORD, [query('Ann', 'Bob', 'Eve'), query('Lea', 'Tom')], scores)
    assert found == ['Ann', 'Tom']  # -1, -4, -3 a token; -2, -1
    assert call['texts'][1] == ('P.\nnow', ' Bob ran')
    assert len(call['texts']) == 5


def test_a_number_is_the_mean_of_the_choices_by_their_probability(answer):
    shares = [[0.1, 0.2, 0.3, 0.4, 0, 0], [0, 0, 0, 0, 0.5, 0.5]]
    scores = [(float(np.log(s + 1e-30)) - 50, 2, 2) for own in shares for s in own]
    found, _, call = answer(NUMBER, given(2), scores)
    np.testing.assert_allclose(found, [0.2 * 2 + 0.3 * 4 + 0.4 * 6, 9.0], rtol=1e-6)
    assert [c for _, c in call['texts'][:6]] == [' 0', ' 2', ' 4', ' 6', ' 8', ' 10']


TRAIN = [Example(i, {'a': f'text{i}'}, ('no', 'yes')[i % 2]) for i in range(12)]


def shots_of(call, query):
    """The shots before a query, as [(number, label)]."""
    contexts = {context for context, _ in call['texts'] if context.endswith(query)}
    [context] = contexts
    *shots, last = context.split('\n\n')
    assert last == query
    found = [re.fullmatch(r'a: text(\d+)\nlabel: (no|yes)', shot) for shot in shots]
    return [(int(shot[1]), shot[2]) for shot in found]


def test_solved_examples_of_the_train_split_stand_in_front(answer):
    """Never the query itself, all different, each with its own label; where the query begins."""
    _, beside, call = answer(CLASSES, given(12), None, TRAIN, shots=5)
    assert beside['shots'] == 5
    seen = []
    for i in range(12):
        query = f'a: text{i}\nlabel:'
        shots = shots_of(call, query)
        assert len({number for number, _ in shots}) == 5
        assert i not in {number for number, _ in shots}
        assert all(label == ('no', 'yes')[number % 2] for number, label in shots)
        seen.append(shots)
    for (context, _), start in zip(call['texts'], call['query_starts']):
        assert re.fullmatch(r'a: text\d+\nlabel:', context[start:])
    assert start > 0
    # All queries have those of the seed but where one of them is the query.
    common = max(seen, key=seen.count)
    assert seen.count(common) >= 7


def test_shots_follow_the_seed_and_where_asked_the_query(answer):
    query = given(2, offset=100)

    def drawn(**changes):
        call = answer(CLASSES, query, None, TRAIN, shots=4, **changes)[2]
        return [shots_of(call, f'a: text{100 + i}\nlabel:') for i in range(2)]

    first = drawn(seed=1)
    assert first[0] == first[1]
    assert drawn(seed=1) == first
    assert drawn(seed=2) != first
    own = drawn(seed=1, shots_per_query=True)
    assert own[0] != own[1]
    assert drawn(seed=1, shots_per_query=True) == own
    with pytest.raises(UserError, match='13 shots are more than the 12'):
        answer(CLASSES, query, None, TRAIN, shots=13)


def test_a_query_that_is_too_long_alone_has_no_shots_and_loses_its_beginning(answer):
    long = Example(0, {'a': ' '.join(TEXT[:9])})
    query = f'a: {long.fields["a"]}\nlabel:'
    _, beside, call = answer(CLASSES, [*given(1, 100), long], None, TRAIN, shots=2)
    assert beside['cut_queries'] == 1
    assert call['texts'][2:] == [(query, ' no'), (query, ' yes')]
    assert call['query_starts'][2:] == [None, None]
    assert len(shots_of(call, 'a: text100\nlabel:')) == 2
    assert min(call['query_starts'][:2]) > 0


def test_what_fits_is_told_by_tokens():
    """A choice of few letters that are all spelt may be longer than one of many."""
    of_task = task(labels=('XQZVKJWXQZVK', 'the cat sat on the mat'))
    sizes = [len(tokens().encode(f' {label}')) for label in of_task.labels]
    assert sizes[0] > sizes[1]
    module = Transformer(GPT)
    params = jax.jit(init, static_argnums=0)(module, jax.random.key(3))
    ran = functools.partial(choices.answer, source(), module, params, of_task, [], settings(), 0)
    counts = []
    for length in range(60, 90):  # letters, each a token
        [_], facts = ran([Example(0, {'a': 'X' * length})])
        counts.append(facts['cut_queries'])
    assert counts == sorted(counts)
    assert set(counts) == {0, 1}


def test_a_model_is_asked_as_it_was_trained_and_a_length_is_a_limit(answer):
    for prompt, known in (('prefix', 'prefix'), ('encoder', 'encoder'), (None, 'causal')):
        assert answer(CLASSES, given(1), None, prompt=prompt)[2]['prompt'] == known
    assert answer(CLASSES, given(1), None, length=50)[2]['max_length'] == 50
    assert answer(CLASSES, given(1), None, length=500)[2]['max_length'] == 90
    rotary = dataclasses.replace(GPT, positions='rotary')
    assert answer(CLASSES, given(1), None, model=rotary)[2]['max_length'] == 0
    assert answer(CLASSES, given(1), None, model=rotary, length=500)[2]['max_length'] == 500


def test_an_unknown_way_to_normalise_is_said(answer):
    with pytest.raises(UserError, match="normalise='mean' is none of none, tokens, bytes"):
        answer(CLASSES, given(1), None, normalise='mean')


def test_a_model_that_cannot_score_is_said():
    with pytest.raises(UserError, match='a decoder and logits'):
        choices.answer(source(None), Transformer(BERT), {}, CLASSES, [], settings(), 0, given(1))


def test_a_real_model_picks_what_a_full_pass_finds_likeliest():
    """Of words of the text; one pass over each whole row, its log-probabilities in numpy."""
    of_task = task(labels=('cat', 'dog', 'warm house', 'mat', 'glad'))
    module = Transformer(GPT)
    params = jax.jit(init, static_argnums=0)(module, jax.random.key(3))
    examples = [Example(i, {'a': ' '.join(random.Random(i).choices(WORDS, k=i + 1))})
                for i in range(8)]  # fmt: skip
    run = jax.jit(lambda ids: module.apply({'params': params}, contract.Inputs(ids)))
    known, best = [], []
    for example in examples:
        context = f'a: {example.fields["a"]}\nlabel:'
        sums = []
        for label in of_task.labels:
            ids = tokens().encode(f'{context} {label}')
            first = len(tokens().encode(context))
            padded = np.zeros(90, np.int32)
            padded[: len(ids)] = ids
            logits = np.asarray(run(padded[None])[0], np.float64)[:, : tokens().vocabulary.size]
            said = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
            sums.append(sum(said[i - 1, ids[i]] for i in range(first, len(ids))))
        known.append(of_task.labels[int(np.argmax(sums))])
        best.append(max(sums))
    found, beside = choices.answer(source(), module, params, of_task, [], settings(), 0, examples)
    assert found == known
    assert len(set(found)) > 1
    assert beside['likeliest'] == pytest.approx(np.mean(best), abs=1e-3)
