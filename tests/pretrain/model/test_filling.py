import functools
import random

import jax
import numpy as np
import pytest

from objectives import contract
from pretrain.data import tokenizer
from pretrain.errors import UserError
from pretrain.model.config import TransformerConfig
from pretrain.model.filling import fill_masks
from pretrain.model.transformer import Transformer, bind, init


@pytest.fixture(scope='module')
def tokens():
    words = ['ripe', 'chill', 'cold', 'vine', 'house', 'fallen']
    return tokenizer.train([' '.join(random.Random(i).choices(words, k=9)) for i in range(99)], 290)


@pytest.fixture(scope='module')
def encoder(tokens):
    module = Transformer(TransformerConfig(
        tokens.vocabulary.table_size, encoder_layers=1, width=32, heads=4, max_positions=32,
        segment_types=2, logit_transform=True, stddev=0.4,
    ))  # fmt: skip
    return functools.partial(bind, module), jax.jit(functools.partial(init, module))(
        jax.random.key(0)
    )


def test_fillings_against_the_whole_softmax(tokens, encoder):
    """Two masks, a text of another length beside it, and all specials as in training."""
    texts = ['cold [MASK] house[MASK]', 'fallen vine [MASK] chill cold ripe house']
    made = fill_masks(*encoder, tokens, texts, 4)
    assert [len(masks) for masks in made] == [2, 1]
    v, model = tokens.vocabulary, encoder[0](encoder[1])
    forward = jax.jit(lambda batch: model.logits(model.hidden(batch)))
    for text, masks in zip(texts, made):
        parts = [tokens.encode(part).tolist() for part in text.replace(' [MASK]', '[MASK]').split(
            '[MASK]')]  # fmt: skip
        ids = [v.cls, *parts[0]]
        places = []
        for part in parts[1:]:
            places.append(len(ids))
            ids += [v.mask, *part]
        ids.append(v.sep)
        inputs = contract.Inputs(np.array([ids], np.int32))
        logits = np.asarray(forward(contract.Batch(inputs, None, None, None)))
        for place, candidates in zip(places, masks):
            p = np.exp(logits[0, place].astype(np.float64))
            p /= p.sum()
            order = np.argsort(-p[: v.size])[:4]
            np.testing.assert_allclose([c.probability for c in candidates], p[order], rtol=1e-4)
            for candidate, id in zip(candidates, order):
                assert candidate.piece == tokens.decode([id])
                filled = [*ids[:place], id, *ids[place + 1 :]]
                assert candidate.text == tokens.decode(filled[1:-1])
    assert '<MASK>' in made[0][0][0].text, 'the other mask stays'
    assert '<MASK>' not in made[1][0][0].text


def test_more_candidates_than_pieces_are_all_pieces(tokens, encoder):
    made = fill_masks(*encoder, tokens, ['[MASK]'], 10**6)[0][0]
    assert len(made) == tokens.vocabulary.size < tokens.vocabulary.table_size


def test_a_text_without_a_mask_is_refused(tokens, encoder):
    with pytest.raises(UserError, match=r"'cold' has no mask: write \[MASK\] where"):
        fill_masks(*encoder, tokens, ['[MASK]', 'cold'], 4)
