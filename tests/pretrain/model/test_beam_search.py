"""Beam search against all texts there are. (Against transformers': test_peers_generation.py.)"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from objectives import contract
from pretrain.model.beam_search import beam_search
from pretrain.model.config import TransformerConfig
from pretrain.model.decoding import generate
from pretrain.model.transformer import Transformer, bind, init

V, EOS, NEW = 4, 1, 4  # ids 4 to 6 are padding of the table
FIELDS = {
    'decoder_layers': 1, 'width': 16, 'heads': 2, 'max_positions': 16, 'stddev': 0.7, 'tied': False
}  # fmt: skip
PROMPTS, LENGTHS = [[2, 3, 0], [3, 2]], np.array([3, 2])
ALL = np.array(list(itertools.product(range(V), repeat=NEW)))


@functools.cache
def model(kind):
    encoder = {'encoder_layers': 1} if kind == 'encoder' else {}
    module = Transformer(TransformerConfig(V + 3, **FIELDS, **encoder))
    return module, jax.jit(functools.partial(init, module))(jax.random.key(10))


def search(kind, beams, rows=(0, 1), **changes):
    padded = np.zeros((2, 3), np.int32)
    for row, prompt in zip(padded, PROMPTS):
        row[slice(0, len(prompt)) if kind == 'encoder' else slice(3 - len(prompt), 3)] = prompt
    settings = {'new_tokens': NEW, 'vocabulary_size': V, 'eos': EOS, 'prompt': kind} | changes
    rows = list(rows)
    return beam_search(*model(kind), padded[rows], LENGTHS[rows], beams=beams, **settings)


@functools.cache
def log_p_of_all(kind, row):
    """log p of each token of each text, without a cache."""
    module, params = model(kind)
    prompt = np.tile(PROMPTS[row], (len(ALL), 1))

    @jax.jit
    def forward(*inputs):
        bound = bind(module, params)
        return jax.nn.log_softmax(bound.logits(bound.hidden(contract.Batch(*inputs, None, None))))

    if kind == 'encoder':
        read = np.pad(ALL[:, :-1], ((0, 0), (1, 0)))
        log_p = forward(contract.Inputs(jnp.asarray(prompt)), contract.Inputs(jnp.asarray(read)))
    else:
        read = np.concatenate([prompt, ALL[:, :-1]], axis=1)
        log_p = forward(contract.Inputs(jnp.asarray(read)), None)[:, prompt.shape[1] - 1 :]
    return np.take_along_axis(np.asarray(log_p), ALL[:, :, None], axis=2)[:, :, 0]


def best_of_all(kind, row, penalty):
    """(text, score) of the best text in plain Python; texts behind an eos are eos."""
    found = {}
    for text, log_p in zip(ALL.tolist(), log_p_of_all(kind, row).astype(np.float64)):
        length = text.index(EOS) + 1 if EOS in text else NEW
        whole = (*text[:length], *[EOS] * (NEW - length))
        found[whole] = log_p[:length].sum() / length**penalty
    first, second = sorted(found.values(), reverse=True)[:2]
    assert first - second > 1e-4, 'rounding must not decide'
    return max(found, key=found.get), first


@pytest.mark.parametrize('kind', ['causal', 'encoder'])
def test_a_beam_of_all_texts_finds_the_best(kind):
    """Prompts of different length in one batch."""
    wanted = set()
    for penalty in (0.0, 1.0, 2.5, -0.5):
        tokens, scores = search(kind, 27, length_penalty=penalty, early_stopping='never')
        for row in range(2):
            text, score = best_of_all(kind, row, penalty)
            assert tokens[row].tolist() == list(text), (row, penalty)
            np.testing.assert_allclose(scores[row], score, atol=1e-5)
            wanted.add(text)
    lengths = {text.index(EOS) if EOS in text else NEW for text in wanted}
    assert len(wanted) > 2, 'the penalty must decide'
    assert len(lengths) > 1


def test_a_beam_of_1_that_stops_early_equals_greedy():
    padded = np.array([[*PROMPTS[0]], [*PROMPTS[1], 0]], np.int32)
    greedy = generate(
        *model('encoder'), padded, LENGTHS, jax.random.key(0), new_tokens=NEW,
        vocabulary_size=V, eos=EOS, prompt='encoder',
    )  # fmt: skip
    tokens, _ = search('encoder', 1, early_stopping=True)
    np.testing.assert_array_equal(tokens, greedy)


@pytest.mark.parametrize('early_stopping', [False, True, 'never'])
def test_a_narrow_beam(early_stopping):
    """Its score is that of its text; it does not depend on the other rows; nothing is better."""
    tokens, scores = search('causal', 2, early_stopping=early_stopping, length_penalty=0.7)
    for row in range(2):
        alone, score = search(
            'causal', 2, rows=[row, row], early_stopping=early_stopping, length_penalty=0.7
        )
        np.testing.assert_array_equal(alone[0], tokens[row])
        np.testing.assert_allclose(score[0], scores[row], atol=1e-5)
        text = tokens[row].tolist()
        length = text.index(EOS) + 1 if EOS in text else NEW
        assert text[length:] == [EOS] * (NEW - length)
        log_p = log_p_of_all('causal', row)[ALL.tolist().index(text)]
        np.testing.assert_allclose(scores[row], log_p[:length].sum() / length**0.7, atol=1e-5)
        assert scores[row] <= best_of_all('causal', row, 0.7)[1] + 1e-5


def test_without_an_eos_texts_go_on_to_the_end():
    tokens, _ = search('causal', 3, eos=-1)
    assert tokens.min() >= 0
    assert tokens.max() < V
