import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

import objectives
from objectives import contract

V, PAD, EOS = 50, 0, 1


@pytest.fixture(scope='module')
def vocabulary():
    return contract.Vocabulary(
        size=V, table_size=V, pad=PAD, eos=EOS, unk=2, cls=None, sep=None, mask=None, modes=None,
        sentinels=None, word_start_V=np.zeros(V, bool), bytes_V=np.ones(V, np.int32),
    )  # fmt: skip


def make(vocabulary, **changes):
    config = {'length': 8, 'layout': 'decoder', 'z_loss': 0.0}
    return objectives.find('prefix_lm')(ConfigDict(config | changes), vocabulary)


def windows(window, lengths):
    rows = len(lengths)
    tokens = np.random.default_rng(0).integers(0, V, (rows, window)).astype(np.int32)
    padded = np.arange(window) >= np.array(lengths)[:, None]
    tokens[padded] = PAD
    documents = np.where(padded, contract.PADDING, 7).astype(np.int32)
    return contract.Windows(tokens, documents, documents, np.arange(rows, dtype=np.int32))


def test_a_decoder_predicts_what_follows_the_prefix(vocabulary):
    objective = make(vocabulary)
    assert objective.window_length() == 9
    assert objective.stacks == ('decoder',)
    lengths = [9] * 1600 + [5] * 400 + [2, 1, 0]
    data = windows(9, lengths)
    batch = jax.device_get(jax.jit(objective.corrupt)(jax.random.key(0), data))
    np.testing.assert_array_equal(batch.inputs.tokens_BxL, data.tokens_BxW[:, :-1])
    np.testing.assert_array_equal(batch.targets_BxK, data.tokens_BxW[:, 1:])
    assert batch.places_BxK is None
    prefix = batch.inputs.prefix_B
    for row, length in enumerate(lengths):
        # Target k is token k + 1; those from the prefix's end to the text's end count.
        expected = [prefix[row] <= k + 1 < length for k in range(8)]
        np.testing.assert_array_equal(batch.weights_BxK[row], expected)
    assert (batch.weights_BxK[:2001].sum(axis=1) >= 1).all()
    assert not batch.weights_BxK[2001:].any()
    counts = np.bincount(prefix[:1600], minlength=9)
    assert counts[1:].sum() == 1600
    assert abs(counts[1:] - 200).max() < 55  # uniform in [1, 8], four deviations
    assert set(prefix[1600:2000]) == {1, 2, 3, 4}


def test_an_encoder_reads_the_prefix(vocabulary):
    objective = make(vocabulary, layout='encoder_decoder')
    assert objective.window_length() == 8
    assert objective.stacks == ('encoder', 'decoder')
    lengths = [8] * 50 + [5, 2, 0]
    data = windows(8, lengths)
    batch = jax.device_get(jax.jit(objective.corrupt)(jax.random.key(0), data))
    assert batch.inputs.tokens_BxL.shape == batch.targets_BxK.shape == (53, 8)
    seen = set()
    for row, length in enumerate(lengths[:-1]):
        read = batch.inputs.tokens_BxL[row][batch.inputs.segments_BxL[row] > 0].tolist()
        told = batch.targets_BxK[row][batch.weights_BxK[row] > 0].tolist()
        assert (read[-1], told[-1]) == (EOS, EOS)
        assert read[:-1] + told[:-1] == data.tokens_BxW[row, :length].tolist()
        assert 1 < len(read) <= length
        seen.add(len(read) - 1 if length == 8 else 1)
    assert seen == set(range(1, 8))
    assert not batch.weights_BxK[-1].any()


def test_rows_do_not_depend_on_their_batch(vocabulary):
    corrupt = jax.jit(make(vocabulary).corrupt)
    data = windows(9, [9] * 8)
    batch = corrupt(jax.random.key(0), data)
    turned = corrupt(jax.random.key(0), jax.tree.map(lambda x: x[::-1], data))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[::-1], b), batch, turned)
    assert len(set(batch.inputs.prefix_B.tolist())) > 2


def test_loss(vocabulary):
    objective = make(vocabulary, z_loss=0.1)
    batch = jax.jit(objective.corrupt)(jax.random.key(0), windows(9, [9, 9, 4]))
    model = contract.Model(
        lambda batch, key=None: batch.inputs.tokens_BxL[..., None],
        lambda hidden: np.zeros((*hidden.shape[:2], V), np.float32),
    )
    term = objective.loss({'model': model}, batch, None).terms['cross_entropy']
    assert term.weight == 9 + 9 + 4 - batch.inputs.prefix_B.sum()
    np.testing.assert_allclose(term.sum / term.weight, np.log(V), rtol=1e-6)
    assert 'z_loss' in objective.loss({'model': model}, batch, jax.random.key(0)).terms


@pytest.mark.parametrize('layout', ['decoder', 'encoder_decoder'])
def test_bad_settings_are_refused(vocabulary, layout):
    with pytest.raises(ValueError, match='length=1 is too short'):
        make(vocabulary, length=1, layout=layout)
    with pytest.raises(ValueError, match=f'did you mean {layout!r}'):
        make(vocabulary, layout=layout + 's')
