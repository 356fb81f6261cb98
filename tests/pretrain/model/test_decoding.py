import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from objectives import contract
from pretrain.errors import UserError
from pretrain.model import decoding
from pretrain.model.config import TransformerConfig
from pretrain.model.transformer import Transformer, bind, init

V = 40
FAMILIES = {
    'gpt2': {},
    'modern': {'norm': 'rms', 'positions': 'rotary', 'kv_heads': 2, 'query_key_norm': True},
    'banded': {'attention_window': 3, 'global_every': 2},
}


@pytest.fixture(scope='module', params=list(FAMILIES))
def decoder(request):
    config = TransformerConfig(
        V + 4, decoder_layers=2, width=32, heads=4, max_positions=32, stddev=0.3,
        **FAMILIES[request.param],
    )  # fmt: skip
    module = Transformer(config)
    return module, jax.jit(lambda: init(module, jax.random.key(0)))()


def generate(decoder, prompts, lengths, seed=0, **changes):
    arguments = {'new_tokens': 8, 'vocabulary_size': V, 'eos': -1} | changes
    prompts, lengths = jnp.asarray(prompts), jnp.asarray(lengths)
    key = jax.random.key(seed)
    return np.asarray(decoding.generate(*decoder, prompts, lengths, key, **arguments))


def logits_without_cache(decoder, row, prefix=0):
    module, params = decoder
    padded = np.zeros((1, 32), np.int32)  # on the right, where a causal model does not look
    padded[0, : len(row)] = row
    return np.asarray(forward(module, params, padded, np.array([prefix])))[0, len(row) - 1, :V]


@functools.partial(jax.jit, static_argnums=0)
def forward(module, params, tokens, prefix):
    model = bind(module, params)
    inputs = contract.Inputs(tokens, prefix_B=prefix)  # a prefix of 0 tokens is none
    return model.logits(model.hidden(contract.Batch(inputs, None, tokens, None)))


@pytest.mark.parametrize('reads', ['causal', 'prefix'])
def test_greedy_with_cache_and_left_padding_equals_the_uncached_forward(decoder, reads):
    prompts = np.array([[5, 9, 13, 2, 7], [0, 0, 0, 3, 11]], np.int32)
    made = generate(decoder, prompts, [5, 2], prompt=reads)
    for row, prompt in zip(made, ([5, 9, 13, 2, 7], [3, 11])):
        prefix = len(prompt) if reads == 'prefix' else 0
        for token in row:
            logits = logits_without_cache(decoder, prompt, prefix)
            assert token == logits.argmax()
            prompt = [*prompt, int(token)]


def test_padding_of_the_table_is_never_chosen(decoder):
    made = generate(decoder, np.array([[1]]), [1], temperature=5.0, new_tokens=25)
    assert made.max() < V


def test_a_row_ends_at_eos(decoder):
    prompts = np.array([[5, 9, 13, 2, 7]], np.int32)
    free = generate(decoder, prompts, [5])[0]
    eos = int(free[2])
    ended = generate(decoder, prompts, [5], eos=eos)[0]
    first = int(np.flatnonzero(free == eos)[0])
    np.testing.assert_array_equal(ended[: first + 1], free[: first + 1])
    assert (ended[first:] == eos).all()


def test_draws_follow_the_key_and_not_the_other_rows(decoder):
    row = [5, 9, 13]
    one = generate(decoder, np.array([row]), [3], temperature=1.0, seed=3)
    again = generate(decoder, np.array([row, [7, 7, 7]]), [3, 3], temperature=1.0, seed=3)
    np.testing.assert_array_equal(one[0], again[0])
    assert not np.array_equal(one, generate(decoder, np.array([row]), [3], temperature=1.0, seed=4))


def test_draws_follow_the_distribution(decoder):
    """2,000 first tokens at temperature 2 against softmax(logits / 2), chi-squared."""
    rows = np.tile(np.array([[5, 9, 13]], np.int32), (2000, 1))
    made = generate(decoder, rows, [3] * 2000, temperature=2.0, new_tokens=1)[:, 0]
    logits = logits_without_cache(decoder, [5, 9, 13]) / 2
    expected = np.exp(logits - logits.max())
    expected *= 2000 / expected.sum()
    common = expected > 5
    counts = np.bincount(made, minlength=V)
    chi2 = ((counts - expected) ** 2 / expected)[common].sum()
    assert common.sum() > 3
    assert chi2 < common.sum() + 4 * np.sqrt(2 * common.sum())


@pytest.mark.parametrize(
    ('top_k', 'top_p', 'kept'),
    [
        (0, 1.0, [0, 1, 2, 3]),
        (2, 1.0, [1, 3]),
        (9, 1.0, [0, 1, 2, 3]),
        (0, 0.35, [3]),
        (0, 0.5, [1, 3]),  # 0.4 is less than 0.5, so the second is needed
        (0, 1e-9, [3]),
        (0, 0.75, [0, 1, 3]),
        (3, 0.8, [0, 1, 3]),  # of what top_k left: 4/9, 3/9, 2/9
        (3, 0.7, [1, 3]),
    ],
)
def test_restrict(top_k, top_p, kept):
    logits = jnp.log(jnp.array([[0.2, 0.3, 0.1, 0.4]]))
    out = decoding.restrict(logits, top_k, top_p)[0]
    np.testing.assert_array_equal(np.flatnonzero(np.isfinite(out)), kept)


def test_no_limit_is_no_limit_and_ties_do_not_widen_one():
    logits = 3 * jax.random.normal(jax.random.key(0), (4, 8192))
    np.testing.assert_array_equal(decoding.restrict(logits, 0, 1.0), logits)
    tied = decoding.restrict(jnp.array([[1.0, 1.0, 1.0, 0.0]]), 1, 1.0)[0]
    np.testing.assert_array_equal(np.flatnonzero(np.isfinite(tied)), [0])


class Tokens:
    """A stand-in for a tokenizer: letters, and the names of three special ids."""

    def __init__(self, bos=None):
        self.vocabulary = types.SimpleNamespace(size=V, pad=0, eos=1, bos=bos)

    def encode(self, text, specials=False):
        assert specials, 'names of special ids in a prompt stand for these'
        return np.array([ord(letter) - ord('a') + 5 for letter in text], np.int64)

    def decode(self, ids):
        return ''.join(chr(i - 5 + ord('a')) for i in ids)


def test_ids_of_prompts():
    plain, llama = Tokens(), Tokens(bos=2)
    assert decoding.prompt_ids(plain, 'ab', 'causal') == [5, 6]
    assert decoding.prompt_ids(plain, '', 'prefix') == [1]
    assert decoding.prompt_ids(llama, 'ab', 'causal') == [2, 5, 6]
    assert decoding.prompt_ids(llama, '', 'causal') == [2]
    assert decoding.prompt_ids(llama, 'ab', 'encoder') == [5, 6, 1]
    assert decoding.prompt_ids(llama, '', 'encoder') == [1]


@pytest.fixture(scope='module')
def encoder_decoder():
    config = TransformerConfig(
        V + 4, encoder_layers=1, decoder_layers=1, width=32, heads=4, max_positions=8, stddev=0.5,
    )  # fmt: skip
    module = Transformer(config)
    return module, jax.jit(lambda: init(module, jax.random.key(2)))()


@functools.partial(jax.jit, static_argnums=0)
def answer(module, params, inputs, decoder_inputs):
    model = bind(module, params)
    return model.logits(model.hidden(contract.Batch(inputs, decoder_inputs, None, None)))


def test_texts_behind_an_encoder(encoder_decoder):
    """Prompts of different length; the decoder begins with pad and its text ends before the eos."""
    prompts = ['abc', 'f', 'xyzuvw']
    made = decoding.continue_texts(
        *encoder_decoder, Tokens(), prompts, jax.random.key(0), new_tokens=8, prompt='encoder'
    )
    ended = 0
    for prompt, text in zip(prompts, made):
        ids = jnp.array([[*Tokens().encode(prompt, specials=True), 1]])
        read = [0]
        while len(read) <= 8:
            padded = jnp.array([read + [0] * (8 - len(read))])
            logits = answer(*encoder_decoder, contract.Inputs(ids), contract.Inputs(padded))
            read.append(int(logits[0, len(read) - 1, :V].argmax()))
            if read[-1] == 1:
                ended += 1
                read.pop()
                break
        assert text == Tokens().decode(read[1:])
    assert 0 < ended < 3, 'rows of both kinds'


def test_beams_are_passed_on(encoder_decoder):
    settings = {'new_tokens': 5, 'prompt': 'encoder', 'beams': 2, 'early_stopping': True}
    made = decoding.continue_texts(
        *encoder_decoder, Tokens(), ['abc'], jax.random.key(0), length_penalty=0.0, **settings
    )
    ids = np.array([[5, 6, 7, 1]], np.int32)
    row, _ = decoding.beam_search(
        *encoder_decoder, ids, np.array([4]), new_tokens=5, vocabulary_size=V, eos=1, beams=2,
        length_penalty=0.0, early_stopping=True, prompt='encoder', start=0,
    )  # fmt: skip
    row = row[0].tolist()
    assert made == [Tokens().decode(row[: row.index(1)] if 1 in row else row)]


@pytest.mark.parametrize(
    ('width', 'new', 'prompt', 'says'),
    [
        (5, 4, 'causal', 'are more than'),
        (9, 2, 'encoder', '9 tokens of prompt are more than'),
        (2, 9, 'encoder', '9 new tokens are more than'),
        (8, 8, 'encoder', None),
        (4, 4, 'prefix', None),
    ],
)
def test_room(encoder_decoder, width, new, prompt, says):
    config = encoder_decoder[0].config
    decoding.check_room(dataclasses.replace(config, positions='rotary'), width, new, prompt)
    if says is None:
        decoding.check_room(config, width, new, prompt)
    else:
        with pytest.raises(UserError, match=says):
            decoding.check_room(config, width, new, prompt)


def test_the_space_before_the_first_new_word_is_kept():
    """Of a tokenizer that, as Llama's, drops the space where a text begins."""
    pieces = ['\u2581The', '\u2581cat', 's', '\u2581sat', ' <end>']
    decode = lambda ids: ''.join(pieces[i] for i in ids).replace('\u2581', ' ').removeprefix(' ')  # noqa: E731
    vocabulary = types.SimpleNamespace(bytes_V=np.array([4, 4, 1, 4, 0]))
    tokens = types.SimpleNamespace(decode=decode, vocabulary=vocabulary)
    assert decoding.behind(tokens, [0, 1], [3]) == ' sat'
    assert decoding.behind(tokens, [0, 1], [2, 3]) == 's sat'
    assert decoding.behind(tokens, [4], [0, 1]) == 'The cat'
