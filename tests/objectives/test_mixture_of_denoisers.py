import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

import objectives
from objectives import contract, mixture_of_denoisers

V, PAD, EOS = 160, 0, 1
MODES = {'R': 6, 'X': 7, 'S': 8}
DENOISERS = mixture_of_denoisers.DENOISERS
W = 160


@pytest.fixture(scope='module')
def vocabulary():
    return contract.Vocabulary(
        size=V, table_size=V, pad=PAD, eos=EOS, unk=2, cls=None, sep=None, mask=None, modes=MODES,
        sentinels=tuple(range(V - 1, V - 41, -1)), word_start_V=np.zeros(V, bool),
        bytes_V=np.ones(V, np.int32),
    )  # fmt: skip


SETTINGS = {
    'window': W, 'inputs_length': 0, 'targets_length': 0, 'denoisers': DENOISERS,
    'mode_tokens': True, 'layout': 'encoder_decoder', 'z_loss': 0.0,
}  # fmt: skip


def make(vocabulary, **changes):
    return objectives.find('mixture_of_denoisers')(ConfigDict(SETTINGS | changes), vocabulary)


def windows(lengths, window=W):
    rows = len(lengths)
    tokens = np.random.default_rng(0).integers(0, V - 40, (rows, window)).astype(np.int32)
    padded = np.arange(window) >= np.array(lengths)[:, None]
    tokens[padded] = PAD
    documents = np.where(padded, contract.PADDING, 7).astype(np.int32)
    return contract.Windows(tokens, documents, documents, np.arange(rows, dtype=np.int32))


def counts(length, mean_span, density):
    noise = min(max(round(length * density), 1), length - 1)
    return noise, max(1, round(noise / mean_span)) if mean_span else 1


def sides(batch, row):
    """Inputs and targets of a row without padding, as lists."""
    if batch.decoder_inputs is None:
        told = batch.inputs.tokens_BxL[row][batch.places_BxK[row][batch.weights_BxK[row] > 0] + 1]
        return batch.inputs.tokens_BxL[row][: batch.inputs.prefix_B[row]].tolist(), told.tolist()
    read = batch.inputs.tokens_BxL[row][batch.inputs.segments_BxL[row] > 0]
    return read.tolist(), batch.targets_BxK[row][batch.weights_BxK[row] > 0].tolist()


def assemble(read, told):
    """The text of inputs and targets."""
    assert (read[-1], told[-1]) == (EOS, EOS)
    gaps, sentinel = {}, None
    for token in told[:-1]:
        if token >= V - 40:
            sentinel = token
            gaps[sentinel] = []
        else:
            gaps[sentinel].append(token)
    assert [token for token in read if token >= V - 40] == list(gaps)
    return [t for token in read[:-1] for t in gaps.get(token, [token])], len(gaps)


@pytest.mark.parametrize('layout', ['encoder_decoder', 'decoder'])
def test_every_row_is_one_of_the_denoisers_and_loses_nothing(vocabulary, layout):
    objective = make(vocabulary, layout=layout)
    assert objective.window_length() == W
    lengths = [W] * 700 + [97, 97, 40, 40, 9, 3, 2, 0]
    data = windows(lengths)
    batch = jax.device_get(jax.jit(objective.corrupt)(jax.random.key(0), data))

    full = [counts(W, row[1], row[2]) for row in DENOISERS]
    most_read = max(W - noise + spans + 2 for noise, spans in full)
    most_told = max(noise + spans + 1 for noise, spans in full)
    assert batch.targets_BxK.shape[1] == most_told
    if layout == 'decoder':
        assert objective.stacks == ('decoder',)
        most = max(W + 2 * spans + 3 for _, spans in full)
        assert batch.inputs.tokens_BxL.shape[1] == most < most_read + most_told
    else:
        assert batch.inputs.tokens_BxL.shape[1] == most_read

    seen = {}
    for row, length in enumerate(lengths[:-1]):
        read, told = sides(batch, row)
        text, spans = assemble(read[1:], told)
        assert text == data.tokens_BxW[row, :length].tolist()
        kind = read[0], len(told) - spans - 1, spans
        possible = {(MODES[r[0]], *counts(length, r[1], r[2])) for r in DENOISERS}
        assert kind in possible
        if length == W:
            seen[kind] = seen.get(kind, 0) + 1
    expected = {(MODES[r[0]], *counts(W, r[1], r[2])) for r in DENOISERS}
    assert set(seen) == expected
    assert len(expected) == 7
    assert all(63 < number < 137 for number in seen.values())  # 100 each, four deviations
    assert not batch.weights_BxK[-1].any()
    assert not batch.inputs.segments_BxL[-1].any()


def test_the_sequential_denoiser_takes_the_tail(vocabulary):
    objective = make(vocabulary, denoisers=(('S', 0.0, 0.25, 1.0),), mode_tokens=False)
    data = windows([W, 80])
    batch = jax.device_get(jax.jit(objective.corrupt)(jax.random.key(0), data))
    for row, length in ((0, W), (1, 80)):
        text, kept = data.tokens_BxW[row].tolist(), length * 3 // 4
        assert sides(batch, row) == (
            [*text[:kept], V - 1, EOS],
            [V - 1, *text[kept:length], EOS],
        )


def test_shares(vocabulary):
    denoisers = (('R', 3.0, 0.15, 3.0), ('S', 0.0, 0.25, 1.0))
    objective = make(vocabulary, denoisers=denoisers, window=24)
    data = windows([24] * 4000, window=24)
    batch = jax.jit(objective.corrupt)(jax.random.key(0), data)
    share = float((batch.inputs.tokens_BxL[:, 0] == MODES['R']).mean())
    assert abs(share - 0.75) < 0.028  # four deviations


def test_rows_do_not_depend_on_their_batch_and_nothing_is_compiled_anew(vocabulary):
    corrupt = jax.jit(make(vocabulary).corrupt)
    data = windows([W] * 8)
    batch = corrupt(jax.random.key(0), data)
    turned = corrupt(jax.random.key(0), jax.tree.map(lambda x: x[::-1], data))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[::-1], b), batch, turned)
    corrupt(jax.random.key(5), windows([3] * 8))
    assert corrupt._cache_size() == 1
    text = str(jax.make_jaxpr(corrupt)(jax.random.key(0), data))
    assert 'cond[' not in text  # a table look-up, not a branch


@pytest.mark.parametrize('layout', ['encoder_decoder', 'decoder'])
def test_padding_is_measured(vocabulary, layout):
    objective = make(vocabulary, layout=layout)
    batch = jax.jit(objective.corrupt)(jax.random.key(0), windows([W, W, 30, 0]))
    model = contract.Model(
        lambda batch, key=None: (batch.decoder_inputs or batch.inputs).tokens_BxL[..., None],
        lambda hidden: jnp.zeros((*hidden.shape[:2], V)),
    )
    loss = objective.loss({'model': model}, batch, None)
    assert set(loss.metrics) == {'accuracy', 'padding'}
    real = sum(len(side) for row in range(4) for side in sides(jax.device_get(batch), row))
    places = batch.inputs.tokens_BxL.size
    if layout == 'encoder_decoder':
        places += batch.targets_BxK.size
    assert loss.metrics['padding'] == (places - real, places)
    term = loss.terms['cross_entropy']
    np.testing.assert_allclose(term.sum / term.weight, np.log(V), rtol=1e-6)


def test_wanted_lengths(vocabulary):
    objective = make(vocabulary, inputs_length=200, targets_length=128, layout='decoder')
    shapes = jax.eval_shape(objective.corrupt, jax.random.key(0), windows([W]))
    assert shapes.inputs.tokens_BxL.shape == (1, 328)
    assert shapes.targets_BxK.shape == (1, 128)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'window': 1}, 'window=1 is too short'),
        ({'window': 512}, 'needs 85 sentinels, the tokenizer has 40: shorten window=512'),
        ({'inputs_length': 100}, 'inputs_length=100 is too short: .* up to 14[0-9]; set 0'),
        ({'targets_length': 50}, 'targets_length=50 is too short'),
        ({'denoisers': ()}, 'denoisers is empty'),
        ({'denoisers': (('R', 3.0, 0.15),)}, 'which is not .mode, mean_span'),
        ({'denoisers': (('R', 3.0, 1.15, 1.0),)}, 'density=1.15'),
        ({'denoisers': (('R', 0.5, 0.15, 1.0),)}, 'mean_span=0.5'),
        ({'denoisers': (('R', 1.0, 0.8, 1.0),)}, 'kept tokens'),
        ({'denoisers': (('R', 3.0, 0.15, 0.0),)}, 'share 0.0 .* must be positive'),
        ({'denoisers': (('Q', 3.0, 0.15, 1.0),)}, "mode='Q'; there are: R, X, S"),
        ({'layout': 'encoder-decoder'}, "did you mean 'encoder_decoder'"),
    ],
)
def test_bad_settings_are_refused(vocabulary, changes, message):
    with pytest.raises(ValueError, match=message):
        make(vocabulary, **changes)


def test_a_tokenizer_without_modes_or_sentinels(vocabulary):
    without = dataclasses.replace(vocabulary, modes=None)
    with pytest.raises(ValueError, match='needs a tokenizer with the mode pieces'):
        make(without)
    make(without, mode_tokens=False)
    with pytest.raises(ValueError, match='needs a tokenizer with sentinels'):
        make(dataclasses.replace(vocabulary, sentinels=None))
