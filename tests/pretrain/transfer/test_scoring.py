"""Scores against one plain pass a text, without batches, buckets or padding."""

import functools
import random
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from objectives import contract
from pretrain.data import tokenizer
from pretrain.errors import UserError
from pretrain.model.config import TransformerConfig
from pretrain.model.transformer import Transformer, init
from pretrain.transfer import scoring
from pretrain.transfer.scoring import Score

WORDS = re.findall('[a-z]+', 'the cat sat on mat because it was warm a dog ran and glad house')
TEXT = [' '.join(random.Random(i).choices(WORDS, k=10)) for i in range(300)]
LENGTH = 50
SMALL = {'vocabulary': 512, 'width': 32, 'heads': 4, 'stddev': 0.3, 'max_positions': LENGTH}
LEARNED = {'decoder_layers': 2}
ROTARY = {'decoder_layers': 2, 'positions': 'rotary', 'norm': 'rms', 'biases': False}
T5 = {
    'encoder_layers': 1, 'decoder_layers': 2, 'positions': 'relative', 'norm': 'rms',
    'biases': False, 'scale_attention': False, 'scale_logits': True, 'initializer': 'fan_in',
}  # fmt: skip
MODELS = {'learned': LEARNED, 'rotary': ROTARY, 't5': T5}
TEXTS = [
    ('the cat sat', ' on the mat'), ('the cat sat', ' because it was warm and the dog was glad'),
    ('a dog ran and the dog was glad because the mat was', ' warm'), ('a dog', ' ran'),
    ('', 'the cat'), ('a dog', ' été'),
]  # fmt: skip


@functools.cache
def tokens():
    return tokenizer.train(TEXT, 310)


@functools.cache
def model(name):
    transformer = Transformer(TransformerConfig(**MODELS[name], **SMALL))
    return transformer, jax.jit(init, static_argnums=0)(transformer, jax.random.key(1))


@functools.partial(jax.jit, static_argnums=0)
def _apply(transformer, params, inputs, decoder_inputs):
    return transformer.apply({'params': params}, inputs, decoder_inputs)


def log_probs(name, ids, told=None, prefix=None):
    """LxV: of what follows each id, or of what a decoder that has read `told` says next.

    Decoders read 50 places, junk behind the real ones, which they cannot see: one program for all.
    """
    transformer, params = model(name)
    row = lambda ids: contract.Inputs(jnp.array([ids], jnp.int32))  # noqa: E731
    junk = lambda ids: row([*ids, *[7] * (LENGTH - len(ids))])  # noqa: E731
    inputs = row(ids) if told else junk(ids)
    if prefix is not None:
        inputs = inputs._replace(prefix_B=jnp.array([prefix]))
    logits = _apply(transformer, params, inputs, junk(told) if told else None)
    logits = np.asarray(logits[0], np.float64)[: len(told or ids), : tokens().vocabulary.size]
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def by_hand(name, context, choice, prompt='causal', cut=0):
    """(log-probability, tokens) of a choice whose first token holds its first character."""
    encode = lambda text: tokens().encode(text).tolist()  # noqa: E731
    if prompt == 'encoder':
        targets = [*encode(choice), 1]
        said = log_probs(name, [*encode(context)[cut:], 1], [0, *targets[:-1]])
        return sum(said[i, t] for i, t in enumerate(targets)), len(targets)
    ids = encode(context + choice)
    held = np.cumsum(tokens().vocabulary.bytes_V[ids])  # lossless: bytes up to each token's end
    first = int(np.sum(held <= len(context.encode())))
    if not first:
        ids, first = [1, *ids], 1
    ids, first = ids[cut:], first - cut
    said = log_probs(name, ids, prefix=first if prompt == 'prefix' else None)
    return sum(said[i - 1, ids[i]] for i in range(first, len(ids))), len(ids) - first


def score(name, texts=TEXTS, **settings):
    return scoring.score(*model(name), tokens(), texts, **settings)


@pytest.mark.parametrize(
    ('name', 'prompt'),
    [('learned', 'causal'), ('rotary', 'causal'), ('rotary', 'prefix'), ('t5', 'encoder')],
)
def test_scores_are_the_sum_over_the_tokens_of_the_choice(name, prompt):
    texts = TEXTS[:3] if prompt == 'encoder' else TEXTS
    made = score(name, texts, prompt=prompt)
    known = [by_hand(name, *text, prompt) for text in texts]
    np.testing.assert_allclose([s.log_prob for s in made], [k for k, _ in known], atol=1e-3)
    assert [s.tokens for s in made] == [count for _, count in known]
    assert [s.bytes for s in made] == [11, 41, 5, 4, 7, 6][: len(texts)]
    assert all(type(s.log_prob) is float for s in made)


def test_a_context_read_in_both_directions_gives_other_scores():
    causal, prefix = (score('rotary', prompt=prompt) for prompt in ('causal', 'prefix'))
    assert abs(causal[2].log_prob - prefix[2].log_prob) > 1e-3


@pytest.mark.parametrize(('name', 'prompt'), [('rotary', 'causal'), ('t5', 'encoder')])
def test_batches_and_buckets_change_nothing(name, prompt):
    texts = TEXTS[:3] if prompt == 'encoder' else TEXTS
    whole = score(name, texts, prompt=prompt)
    other = score(name, texts, prompt=prompt, batch=2, buckets=(6, 10))
    for one, two in zip(whole, other):
        assert one[1:] == two[1:]
        assert abs(one.log_prob - two.log_prob) < 1e-3


def test_what_fills_the_table_up_takes_no_probability():
    """The probabilities of all tokens that may come next sum to 1."""
    size = tokens().vocabulary.size
    assert size < tokens().vocabulary.table_size
    said = log_probs('rotary', tokens().encode('the cat').tolist())[-1]
    known = said[tokens().encode(' mat')[0]]
    assert score('rotary', [('the cat', ' mat')])[0].tokens == 1
    assert abs(score('rotary', [('the cat', ' mat')])[0].log_prob - known) < 1e-4


def test_a_choice_does_not_depend_on_what_follows_it():
    """Causal: the score of two choices one behind the other is the sum of their scores."""
    context, one, two = 'the cat', ' sat', ' on the mat'
    texts = [(context, one), (context + one, two), (context, one + two)]
    first, second, both = score('rotary', texts)
    assert abs(first.log_prob + second.log_prob - both.log_prob) < 1e-3


def test_context_and_choice_are_tokenised_as_one():
    """' on' is one token: a context that ends in a space gives it to the choice."""
    context, choice = 'the cat sat ', 'on the mat'
    whole = tokens().encode(context + choice).tolist()
    apart = [*tokens().encode(context).tolist(), *tokens().encode(choice).tolist()]
    assert whole != apart
    one, two = score('rotary', [(context, choice), (context.rstrip(), ' ' + choice)])
    assert one[:2] == two[:2]


def test_a_long_context_loses_its_left_end():
    """50 positions: 50 tokens are read, and the last token of the text is only predicted."""
    context = ' '.join(TEXT[:8])
    length = len(tokens().encode(context + ' mat'))
    known, count = by_hand('learned', context, ' mat', cut=length - 51)
    assert length > 60
    [made] = score('learned', [(context, ' mat')])
    assert made.tokens == count
    assert abs(made.log_prob - known) < 1e-3
    # The same with a limit on a model that has none, and with shots that may go.
    [limited] = score('rotary', [(context, ' mat')], max_length=20)
    known, _ = by_hand('rotary', context, ' mat', cut=length - 21)
    assert abs(limited.log_prob - known) < 1e-3
    query = [len(context) - len('the dog was glad')]
    assert score('rotary', [(context, ' mat')], max_length=20, query_starts=query) == [limited]


def test_a_query_is_never_cut():
    context = ' '.join(TEXT[:2])
    length = len(tokens().encode(context + ' mat')) - 1
    texts, settings = [(context, ' mat')], {'max_length': length - 1}
    message = f'^{length} tokens of a query and its choice are more than the {length - 1} '
    with pytest.raises(UserError, match=message):
        score('rotary', texts, query_starts=[0], **settings)
    behind_the_first = len(tokens().decode(tokens().encode(context)[:1]))
    assert score('rotary', texts, query_starts=[behind_the_first], **settings)
    assert score('rotary', texts, query_starts=[0], max_length=length)
    with pytest.raises(UserError, match=' tokens of a query and its choice are more than the 2 '):
        score('rotary', [('the', ' cat sat on the mat')], max_length=2)


def test_an_encoder_reads_the_beginning_but_of_shots_the_query():
    context = TEXT[0]
    ids = tokens().encode(context)
    [made] = score('t5', [(context, 'warm')], prompt='encoder', max_length=6)
    known, _ = by_hand('t5', tokens().decode(ids[:5]), 'warm', 'encoder')
    assert abs(made.log_prob - known) < 1e-3
    settings = {'prompt': 'encoder', 'max_length': 6}
    [made] = score('t5', [(context, 'warm')], query_starts=[len(context) - 4], **settings)
    known, _ = by_hand('t5', context, 'warm', 'encoder', cut=len(ids) - 5)
    assert abs(made.log_prob - known) < 1e-3
    with pytest.raises(UserError, match='tokens of a query'):
        score('t5', [(context, 'warm')], query_starts=[0], **settings)
    learned = Transformer(TransformerConfig(**(T5 | {'positions': 'learned'}), **SMALL))
    texts = [('the', ' '.join(TEXT[:8]))]
    with pytest.raises(UserError, match=r"a choice of \d\d tokens is .* the model's 50 positions"):
        scoring.score(learned, {}, tokens(), texts, prompt='encoder')


def test_what_cannot_be_scored_is_said():
    with pytest.raises(UserError, match=r"prompt='encoder' does not suit a model with no encoder"):
        score('rotary', prompt='encoder')
    with pytest.raises(UserError, match=r"prompt='causal' does not suit a model with an encoder"):
        score('t5')
    bert = Transformer(TransformerConfig(vocabulary=60, encoder_layers=1, width=32, heads=4))
    with pytest.raises(UserError, match='a decoder and logits'):
        scoring.score(bert, {}, tokens(), TEXTS)
    for name, prompt in (('rotary', 'causal'), ('t5', 'encoder')):
        with pytest.raises(UserError, match="choice '' has no tokens"):
            score(name, [('the cat', '')], prompt=prompt)
    assert score('rotary', []) == []


def test_a_tokenizer_with_a_beginning_puts_it_first_and_keeps_it():
    """Its bos stays in front whatever is cut."""
    vocabulary = tokens().vocabulary
    facts = {name: getattr(vocabulary, name) for name in vocabulary.__dataclass_fields__}
    own = types.SimpleNamespace(
        vocabulary=contract.Vocabulary(**(facts | {'bos': 3})),
        encode_with_starts=tokens().encode_with_starts,
    )
    ids = tokens().encode('the cat sat on').tolist()
    for limit, kept in ((0, [3, *ids]), (3, [3, *ids[-3:]])):
        made = scoring.score(*model('rotary'), own, [('the cat sat', ' on')], max_length=limit)
        said = log_probs('rotary', kept)
        assert abs(made[0].log_prob - said[-2, kept[-1]]) < 1e-3


def test_batches_are_shown_as_they_are_worked_off():
    seen = []

    def progress(batches):
        for batch in batches:
            seen.append(len(batch[-1]))
            yield batch

    score('rotary', batch=2, progress=progress)
    assert sum(seen) == len(TEXTS)
    assert max(seen) == 2


def test_the_pick():
    scores = [Score(-6.0, 3, 12), Score(-4.0, 1, 4), Score(-6.0, 3, 15)]
    assert scoring.pick(scores) == 1
    assert scoring.pick(scores, 'tokens') == 0  # -2, -4, -2: of equal ones the first
    assert scoring.pick(scores, 'bytes') == 2  # -0.5, -1, -0.4


def test_the_expected_value():
    scores = [Score(-1000 + np.log(share), 1, 2) for share in (0.2, 0.2, 0.4)]
    assert scoring.expected(scores, (0.0, 1.0, 5.0)) == pytest.approx(0.25 * 1 + 0.5 * 5)
