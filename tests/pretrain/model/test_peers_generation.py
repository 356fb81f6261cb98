"""Greedy and beam search against transformers' generate: the same token ids.

Small random models of GPT-2, Llama and T5, three prompts of different length in one batch. Where
two texts are almost equally good, rounding would decide: so each case must stay the same when
noise of MARGIN, a hundred times what our logits differ by, is added to their logits.
"""

import importlib.util
from pathlib import Path

import jax
import numpy as np
import pytest

from pretrain.model.beam_search import beam_search
from pretrain.model.decoding import generate

torch = pytest.importorskip('torch', reason='torch is missing: pip install -e .[test,peers]')
transformers = pytest.importorskip(
    'transformers', reason='transformers is missing: pip install -e .[test,peers]'
)

pytestmark = pytest.mark.peers

NEW, MARGIN = 9, 3e-4
LENGTHS = [9, 4, 1]
PENALTIES = (0.0, 1.0, 2.0, -0.5)
EOS = {'gpt2': 57, 'llama': 11, 't5-1.0': 38, 't5-1.1': 57}  # texts of both kinds come out


def other_test(name):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f'{name}.py'))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


peers = other_test('test_peers')


class Noise(transformers.LogitsProcessor):
    """Adds to their logits (of beams: logarithms of probabilities)."""

    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, input_ids, scores):
        noise = torch.rand(scores.shape, generator=self.generator)
        return scores + MARGIN * (2 * noise - 1)


class Pair:
    """A model of theirs, ours with its parameters, and prompts for both."""

    def __init__(self, family):
        torch.manual_seed(0)
        self.eos, self.prompt = EOS[family], 'causal'
        if family == 'gpt2':
            self.peer = peers.gpt2_peer(stddev=0.2, seed=1)
            self.ours = peers.ours_of(self.peer, peers.GPT2, **peers.GPT2_FIELDS)
        elif family == 'llama':
            self.peer = peers.llama_peer(tied=False, stddev=0.2, seed=0)
            self.ours = peers.ours_of(self.peer, peers.LLAMA, tied=False, **peers.LLAMA_FIELDS)
        else:
            self.prompt = 'encoder'
            self.peer, self.ours = t5(old=family == 't5-1.0')
        self.real = peers.right_padded(9, LENGTHS)
        if self.prompt == 'causal':
            self.real = self.real[:, ::-1].copy()
        self.prompts = peers.random_tokens(3, 9, seed=3) * self.real

    def theirs(self, noise=None, **settings):
        self.peer.generation_config.eos_token_id = self.eos
        processors = [] if noise is None else [Noise(noise)]
        out = self.peer.generate(
            torch.tensor(self.prompts, dtype=torch.long),
            attention_mask=torch.tensor(self.real, dtype=torch.long), do_sample=False,
            max_new_tokens=NEW, pad_token_id=self.eos,
            logits_processor=transformers.LogitsProcessorList(processors), **settings,
        )[:, 1 if self.prompt == 'encoder' else 9 :].numpy()  # fmt: skip
        rows = np.full((3, NEW), self.eos)  # theirs is as long as the longest text
        rows[:, : out.shape[1]] = out
        return rows

    def arguments(self):
        arguments = *self.ours, self.prompts.astype(np.int32), np.array(LENGTHS)
        return arguments, {
            'new_tokens': NEW, 'vocabulary_size': peers.V, 'eos': self.eos, 'prompt': self.prompt,
        }  # fmt: skip


def t5(old):
    peer = transformers.T5ForConditionalGeneration(transformers.T5Config(
        vocab_size=peers.V, d_model=32, d_kv=12, d_ff=48, num_layers=2, num_decoder_layers=2,
        num_heads=4, feed_forward_proj='relu' if old else 'gated-gelu', tie_word_embeddings=old,
        dropout_rate=0.0, decoder_start_token_id=0, layer_norm_epsilon=peers.NORM_EPSILON,
    ))  # fmt: skip
    if not old:  # transformers 5 ties the logits of a new model whatever its config says
        peer.lm_head.weight = torch.nn.Parameter(torch.zeros(peers.V, 32))
    peers.moved(peer, stddev=0.2)
    return peer, peers.ours_of(
        peer, peers.T5, encoder_layers=2, decoder_layers=2, width=32, heads=4, head_width=12,
        feedforward_width=48, norm='rms', norm_epsilon=peers.NORM_EPSILON, biases=False,
        positions='relative', activation='relu' if old else 'gelu', gated=not old,
        scale_attention=False, tied=old, scale_logits=old,
    )  # fmt: skip


@pytest.fixture(scope='module', params=list(EOS))
def pair(request):
    return Pair(request.param)


def assert_safe(pair, theirs, **settings):
    for seed in (1, 2):
        again = pair.theirs(noise=seed, **settings)
        np.testing.assert_array_equal(theirs, again, err_msg='rounding would decide')


def test_greedy(pair):
    theirs = pair.theirs()
    assert_safe(pair, theirs)
    arguments, settings = pair.arguments()
    ours = generate(*arguments, jax.random.key(0), **settings)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize('early_stopping', [False, True, 'never'])
@pytest.mark.parametrize('beams', [2, 3, 4, 5])
def test_beam_search(pair, beams, early_stopping):
    arguments, settings = pair.arguments()
    for penalty in PENALTIES:
        rules = {'length_penalty': penalty, 'early_stopping': early_stopping}
        theirs = pair.theirs(num_beams=beams, **rules)
        assert_safe(pair, theirs, num_beams=beams, **rules)
        ours, _ = beam_search(*arguments, beams=beams, **rules, **settings)
        np.testing.assert_array_equal(ours, theirs, err_msg=f'length_penalty={penalty}')


def test_the_cases_tell_the_rules_apart(pair):
    found = np.array([[[
        pair.theirs(num_beams=beams, length_penalty=penalty, early_stopping=early)
        for early in (False, True, 'never')] for penalty in PENALTIES] for beams in (2, 5)
    ])  # fmt: skip
    ended = (found == pair.eos).any(axis=-1)
    assert 0.1 < ended.mean() < 0.9, 'some texts must end before the limit and some must not'
    assert (found != found[:1]).any(), 'the number of beams must matter'
    assert (found != found[:, :1]).any(), 'the penalty must matter'
    assert (found != found[:, :, :1]).any(), 'early stopping must matter'
