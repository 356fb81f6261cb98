"""Small models that transformers saved, and what it computed from them (make_fixtures.py)."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax import traverse_util

from objectives import contract
from pretrain.huggingface import exporting, families
from pretrain.huggingface.reading import read_model
from pretrain.model import beam_search, decoding
from pretrain.model.transformer import Transformer, bind

FIXTURES = Path(__file__).parent / 'fixtures'
NAMES = sorted(path.name for path in FIXTURES.iterdir())
TOLERANCE = 1e-4
# Our heads by the names of make_fixtures.py, and whether they say something of every place.
HEADS = {'logits': True, 'score': True, 'classify': False}


def read(name):
    """(reading.Model, Transformer, parameters, {name: array} of transformers)."""
    model = read_model(FIXTURES / name)
    arrays = dict(np.load(FIXTURES / name / 'expected.npz'))
    params = jax.tree.map(jnp.asarray, model.params)
    return model, Transformer(model.config), params, arrays


def batch(given):
    """The contract.Batch of a call of transformers."""
    real = jnp.asarray(given['attention_mask'], jnp.int32)
    optional = lambda name: jnp.asarray(given[name], jnp.int32) if name in given else None  # noqa: E731
    inputs = contract.Inputs(
        jnp.asarray(given['input_ids'], jnp.int32), optional('position_ids'), real,
        optional('token_type_ids'),
    )  # fmt: skip
    decoder = optional('decoder_input_ids')
    decoder = None if decoder is None else contract.Inputs(decoder)
    return contract.Batch(inputs, decoder, None, None)


@pytest.mark.parametrize('name', NAMES)
def test_every_output_is_that_of_transformers(name):
    """Hidden states, pooled output, logits of all heads; padding, segments, T5 beyond 128."""
    model, module, params, given = read(name)
    expected = {k.removeprefix('expected_'): v for k, v in given.items() if 'expected' in k}
    config = model.config

    @jax.jit
    def forward(params, rows):
        bound = bind(module, params)
        found = {'hidden': bound.hidden(rows)}
        if config.pooler or config.classes:
            found['pooled'] = module.apply({'params': params}, found['hidden'], method='pool')
        if config.token_head:
            found['logits'] = bound.logits(found['hidden'])
        if config.token_scores:
            found['logits'] = bound.score(found['hidden'])
        if config.classes:
            found['classes'] = bound.classify(found['hidden'])
        return found

    found = forward(params, batch(given))
    assert found.keys() == expected.keys() - {'eos', 'greedy', 'beams'}
    real = given['attention_mask'] == 1
    for output, ours in found.items():
        theirs = expected[output]
        places = real if ours.shape[:2] == real.shape else slice(None)  # not T5's decoder
        assert theirs.std() > 0.5, output
        np.testing.assert_allclose(
            ours[places], theirs[places], rtol=0, atol=TOLERANCE, err_msg=output
        )


@pytest.mark.parametrize('name', NAMES)
def test_there_and_back_every_tensor_is_the_same_byte_for_byte(name):
    model = read_model(FIXTURES / name)
    kind, raw, head, left = families.find(model.config, model.family.model_type)
    assert kind is model.family
    assert not left
    flat = traverse_util.flatten_dict(model.params, sep='/')
    tensors, others = exporting.named_tensors(kind, model.config, head, flat.__getitem__)
    assert not others
    stored = safetensors.numpy.load_file(FIXTURES / name / 'model.safetensors')
    assert tensors.keys() == stored.keys()
    for tensor, array in stored.items():
        assert tensors[tensor].shape == array.shape
        assert tensors[tensor].tobytes() == array.tobytes(), tensor
    # transformers' own config.json says the same of all that ours says.
    for key, value in raw.items():
        # T5's releases differ in what ties, and GPT-2's None is four times the width.
        if model.raw.get(key) is not None and key != 'tie_word_embeddings':
            assert model.raw[key] == value, key


@pytest.mark.parametrize('search', ['greedy', 'beams'])
@pytest.mark.parametrize('name', ['gpt2', 't5'])
def test_generated_tokens_are_those_of_transformers(name, search):
    """Prompts padded on the left (T5: on the right), ends that only some rows reach."""
    model, module, params, given = read(name)
    expected, eos = given[f'expected_{search}'], int(given['expected_eos'])
    ids, real = given['input_ids'][:, -12:], given['attention_mask'][:, -12:]
    settings = {
        'new_tokens': expected.shape[1], 'vocabulary_size': model.config.vocabulary, 'eos': eos,
        'prompt': 'encoder' if name.startswith('t5') else 'causal', 'start': 0,
    }  # fmt: skip
    arguments = module, params, jnp.asarray(ids, jnp.int32), jnp.asarray(real.sum(axis=1))
    if search == 'greedy':
        made = decoding.generate(*arguments, jax.random.key(0), **settings)
    else:
        made, _ = beam_search.beam_search(*arguments, beams=3, **settings)

    def up_to_the_end(row):
        ends = np.flatnonzero(row == eos)
        return list(row[: ends[0] + 1] if len(ends) else row)

    for ours, theirs in zip(np.asarray(made), expected):
        assert up_to_the_end(ours) == up_to_the_end(theirs)
