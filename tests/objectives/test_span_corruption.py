import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

import objectives
from objectives import contract, span_corruption

V, PAD, EOS = 160, 0, 1


@pytest.fixture(scope='module')
def vocabulary():
    return contract.Vocabulary(
        size=V, table_size=V, pad=PAD, eos=EOS, unk=2, cls=None, sep=None, mask=None, modes=None,
        sentinels=tuple(range(V - 1, V - 41, -1)), word_start_V=np.zeros(V, bool),
        bytes_V=np.ones(V, np.int32),
    )  # fmt: skip


SETTINGS = {
    'inputs_length': 64, 'targets_length': 0, 'noise': 'spans', 'density': 0.15, 'mean_span': 3.0,
    'inputs': 'sentinels', 'targets': 'sentinels', 'roll': False, 'layout': 'encoder_decoder',
    'z_loss': 0.0,
}  # fmt: skip


def make(vocabulary, **changes):
    return objectives.find('span_corruption')(ConfigDict(SETTINGS | changes), vocabulary)


def windows(window, lengths, seed=0):
    """Rows of random ids below the sentinels, among them those of pad and eos."""
    rows = len(lengths)
    tokens = np.random.default_rng(seed).integers(0, V - 40, (rows, window)).astype(np.int32)
    padded = np.arange(window) >= np.array(lengths)[:, None]
    tokens[padded] = PAD
    documents = np.where(padded, contract.PADDING, 7).astype(np.int32)
    return contract.Windows(tokens, documents, documents, np.arange(rows, dtype=np.int32))


@pytest.mark.parametrize(
    ('inputs_length', 'density', 'mean_span', 'expected'),
    [
        (64, 0.15, 3, (70, 10, 3, 14)),
        (128, 0.15, 3, (141, 21, 7, 29)),
        (256, 0.15, 3, (284, 43, 14, 58)),
        (512, 0.15, 3, (568, 85, 28, 114)),
        (1024, 0.15, 3, (1137, 171, 57, 229)),
        (512, 0.15, 2, (552, 83, 42, 126)),
        (512, 0.15, 5, (581, 87, 17, 105)),
        (512, 0.15, 10, (591, 89, 9, 99)),
        (512, 0.15, 64, (600, 90, 1, 92)),
    ],
)
def test_length_arithmetic(inputs_length, density, mean_span, expected):
    assert span_corruption.lengths(inputs_length, density, mean_span) == expected


def test_lengths_are_the_longest_that_fit():
    def sides(raw, density, mean_span):
        noise = min(max(round(raw * density), 1), raw - 1)
        spans = max(1, round(noise / mean_span))
        return raw - noise + spans + 1, noise + spans + 1

    halves = 0
    for density, mean_span in ((0.15, 3), (0.5, 3), (0.5, 8), (0.25, 2)):
        for wanted in range(8, 200, 7):
            raw, noise, spans, targets = span_corruption.lengths(wanted, density, mean_span)
            longest = max(n for n in range(2, 500) if sides(n, density, mean_span)[0] <= wanted)
            read, told = sides(longest, density, mean_span)
            half = density == 0.5 and told > read
            halves += half
            assert (raw, targets) == (longest - half, told - half)
            assert noise == min(max(round(raw * density), 1), raw - 1)
            assert spans == max(1, round(noise / mean_span))
    assert halves > 5  # texts one token shorter at density 0.5


def test_a_full_window_fills_both_sides(vocabulary):
    objective = make(vocabulary, inputs_length=512)
    assert objective.window_length() == 568
    assert objective.stacks == ('encoder', 'decoder')
    batch = jax.jit(objective.corrupt)(jax.random.key(0), windows(568, [568] * 3))
    assert batch.inputs.tokens_BxL.shape == (3, 512)
    assert batch.targets_BxK.shape == (3, 114)
    assert (batch.inputs.segments_BxL == 1).all()
    assert (batch.weights_BxK == 1).all()
    assert (batch.inputs.tokens_BxL[:, -1] == EOS).all()
    assert (batch.targets_BxK[:, -1] == EOS).all()
    assert (batch.targets_BxK[:, 0] == V - 1).all()  # no closing sentinel, but a first one
    assert (batch.inputs.tokens_BxL[:, -2] == V - 28).all()  # the text ends in noise


def sides(batch, row):
    """Inputs and targets of a row without padding, as lists."""
    if batch.decoder_inputs is None:
        tokens, places = batch.inputs.tokens_BxL[row], batch.places_BxK[row]
        read = tokens[: batch.inputs.prefix_B[row]]
        told = tokens[places[batch.weights_BxK[row] > 0] + 1]
        assert (told == batch.targets_BxK[row][: len(told)]).all()
        assert batch.inputs.segments_BxL[row].sum() == len(read) + len(told)
    else:
        read = batch.inputs.tokens_BxL[row][batch.inputs.segments_BxL[row] > 0]
        told = batch.targets_BxK[row][batch.weights_BxK[row] > 0]
    return read.tolist(), told.tolist()


def assemble(read, told):
    """The text of inputs and targets with unique sentinels (text first, then noise)."""
    assert (read[-1], told[-1]) == (EOS, EOS)
    gaps, sentinel = {}, None
    for token in told[:-1]:
        if token >= V - 40:
            sentinel = token
            gaps[sentinel] = []
        else:
            gaps[sentinel].append(token)
    assert list(gaps) == [V - 1 - k for k in range(len(gaps))]
    assert [token for token in read if token >= V - 40] == list(gaps)
    return [t for token in read[:-1] for t in gaps.get(token, [token])]


LENGTHS = [70, 70, 69, 41, 20, 7, 3, 2, 0]


@pytest.mark.parametrize('layout', ['encoder_decoder', 'decoder'])
def test_partial_windows_have_the_counts_of_their_length_and_lose_nothing(vocabulary, layout):
    objective = make(vocabulary, layout=layout)
    data = windows(objective.window_length(), LENGTHS)
    batch = jax.device_get(jax.jit(objective.corrupt)(jax.random.key(0), data))
    for row, length in enumerate(LENGTHS[:-1]):
        read, told = sides(batch, row)
        noise = min(max(round(length * 0.15), 1), length - 1)
        spans = max(1, round(noise / 3))
        assert (len(read), len(told)) == (length - noise + spans + 1, noise + spans + 1)
        assert assemble(read, told) == data.tokens_BxW[row, :length].tolist()
    assert not batch.weights_BxK[-1].any()  # padding alone
    assert not batch.inputs.segments_BxL[-1].any()
    if layout == 'decoder':
        assert objective.stacks == ('decoder',)
        assert batch.inputs.tokens_BxL.shape[1] == 64 + 14
        assert batch.inputs.prefix_B[-1] == 0
    else:
        decoder = batch.decoder_inputs.tokens_BxL
        np.testing.assert_array_equal(decoder[:, 0], PAD)
        np.testing.assert_array_equal(decoder[:, 1:], batch.targets_BxK[:, :-1])


def test_a_row_depends_on_its_number_and_on_nothing_else(vocabulary):
    objective = make(vocabulary)
    data = windows(70, [70] * 6)
    corrupt = jax.jit(objective.corrupt)
    batch = corrupt(jax.random.key(0), data)
    again = corrupt(jax.random.key(0), data)
    jax.tree.map(np.testing.assert_array_equal, batch, again)
    order = np.array([4, 2, 0, 1, 5, 3])
    turned = corrupt(jax.random.key(0), jax.tree.map(lambda x: x[order], data))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[order], b), batch, turned)
    # The same text under other numbers, and under another key, is masked in another way.
    other = corrupt(jax.random.key(0), data._replace(numbers_B=data.numbers_B + 6))
    keyed = corrupt(jax.random.key(1), data)
    for changed in (other, keyed):
        differ = (changed.inputs.tokens_BxL != batch.inputs.tokens_BxL).any(axis=1)
        assert differ.all()
    assert corrupt._cache_size() == 1  # compiled once, whatever stands in the rows
    corrupt(jax.random.key(0), windows(70, LENGTHS[:6]))
    assert corrupt._cache_size() == 1


RECIPES = {
    # What changes, the window, the static length of the targets.
    'iid': ({'noise': 'iid'}, 63, 64),
    'bert': ({'noise': 'iid', 'inputs': 'mask', 'targets': 'full'}, 63, 64),
    'dropped': ({'noise': 'iid', 'inputs': 'drop', 'targets': 'noise'}, 63, 64),
    'deshuffling': ({'noise': 'all', 'inputs': 'shuffle', 'targets': 'full'}, 63, 64),
    'prefix': ({'noise': 'prefix', 'inputs': 'drop', 'targets': 'noise'}, 64, 64),
    'dropped spans': ({'inputs': 'drop', 'targets': 'noise'}, 74, 12),
    'masked spans': ({'inputs': 'mask', 'targets': 'sentinels'}, 63, 13),
    'rolled': ({'roll': True}, 69, 15),
}


@pytest.mark.parametrize('recipe', RECIPES)
def test_recipes_lose_nothing(vocabulary, recipe):
    changes, window, targets_length = RECIPES[recipe]
    objective = make(vocabulary, **changes)
    assert objective.window_length() == window
    lengths = [window] * 9 + [40, 2, 1, 0]
    data = windows(window, lengths)
    batch = jax.device_get(jax.jit(objective.corrupt)(jax.random.key(0), data))
    assert batch.inputs.tokens_BxL.shape == (13, 64)
    assert batch.targets_BxK.shape == (13, targets_length)
    for row, length in enumerate(lengths[:-1]):
        read, told = sides(batch, row)
        text = data.tokens_BxW[row, :length].tolist()
        assert (read[-1], told[-1]) == (EOS, EOS)
        read, told = read[:-1], told[:-1]
        if recipe in ('iid', 'rolled'):
            words = lambda side: [token for token in side if token < V - 40]  # noqa: E731
            assert sorted(words(read) + words(told)) == sorted(text)
        elif recipe == 'bert':
            assert told == text
            assert all(a in (b, V - 1) for a, b in zip(read, text))
            assert len(read) == len(text)
        elif recipe in ('dropped', 'dropped spans'):
            assert sorted(read + told) == sorted(text)
        elif recipe == 'deshuffling':
            assert told == text
            assert sorted(read) == sorted(text)
            assert read != text or length < 3
        elif recipe == 'prefix':
            assert read + told == text
            assert 1 <= len(read) <= max(length - 1, 1)
        else:
            assert len(read) == len(text)
            assert sum(a == V - 1 for a in read) == sum(token < V - 40 for token in told)
    assert not batch.weights_BxK[-1].any()


def test_a_text_in_two_parts_needs_no_more_places_than_its_tokens(vocabulary):
    changes = RECIPES['prefix'][0]
    objective = make(vocabulary, **changes, layout='decoder')
    data = windows(64, [64, 64, 30, 0])
    batch = jax.device_get(jax.jit(objective.corrupt)(jax.random.key(0), data))
    assert batch.inputs.tokens_BxL.shape == (4, 66)
    for row, length in enumerate((64, 64, 30)):
        read, told = sides(batch, row)
        assert read[:-1] + told[:-1] == data.tokens_BxW[row, :length].tolist()


def test_iid_noise_never_leaves_the_sentinels_and_targets_are_trimmed(vocabulary):
    few = dataclasses.replace(vocabulary, sentinels=vocabulary.sentinels[:21])
    objective = make(few, noise='iid', density=0.15, inputs_length=64, targets_length=12)
    data = windows(63, [63] * 200)
    batch = jax.device_get(jax.jit(objective.corrupt)(jax.random.key(0), data))
    assert batch.targets_BxK.shape == (200, 12)
    full = batch.weights_BxK.sum(axis=1) == 12
    assert full.mean() > 0.5
    assert (batch.targets_BxK[full, -1] == EOS).all()
    for tokens in (batch.inputs.tokens_BxL, batch.targets_BxK):
        above = tokens[tokens >= V - 40]
        assert above.min() > V - 22


def uniform_model():
    return contract.Model(
        lambda batch, key=None: (batch.decoder_inputs or batch.inputs).tokens_BxL[..., None],
        lambda hidden: jnp.zeros((*hidden.shape[:2], V)),
    )


@pytest.mark.parametrize('layout', ['encoder_decoder', 'decoder'])
def test_loss_is_over_the_targets_alone(vocabulary, layout):
    objective = make(vocabulary, layout=layout, z_loss=0.5)
    batch = jax.jit(objective.corrupt)(jax.random.key(0), windows(70, [70, 20, 0]))
    loss = objective.loss({'model': uniform_model()}, batch, None)
    term = loss.terms['cross_entropy']
    assert term.weight == 14 + (3 + 1 + 1)
    np.testing.assert_allclose(term.sum / term.weight, np.log(V), rtol=1e-6)
    assert set(loss.terms) == {'cross_entropy'}
    assert set(loss.metrics) == {'accuracy'}
    terms = objective.loss({'model': uniform_model()}, batch, jax.random.key(0)).terms
    assert terms['z_loss'].coefficient == 0.5


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'density': 0.0}, 'density=0.0 must lie between 0 and 1'),
        ({'density': 1.0}, 'density=1.0'),
        ({'density': float('nan')}, 'density=nan'),
        ({'density': 1.5, 'noise': 'iid'}, 'density=1.5'),
        ({'mean_span': 0.5}, 'mean_span=0.5 must be at least 1'),
        ({'inputs_length': 2}, 'inputs_length=2 has no room .* set at least 3'),
        ({'inputs_length': 0}, 'inputs_length=0 has no room'),
        ({'targets_length': 2}, 'targets_length=2 is too short'),
        ({'targets_length': 13}, 'targets_length=13 is too short: .* need 14; set 0'),
        ({'density': 0.8, 'mean_span': 1.0}, 'but only [0-9]+ kept tokens'),
        ({'inputs_length': 1024}, 'needs 57 sentinels, the tokenizer has 40: shorten inputs_len'),
        ({'inputs_length': 512, 'noise': 'iid'}, 'sentinels, the tokenizer has 40: '),
        ({'noise': 'span'}, "noise='span'; did you mean 'spans'"),
        ({'inputs': 'sentinel'}, "did you mean 'sentinels'"),
        ({'targets': 'drop'}, 'unknown objective.targets'),
        ({'layout': 'decoders'}, "did you mean 'decoder'"),
    ],
)
def test_bad_settings_are_refused(vocabulary, changes, message):
    with pytest.raises(ValueError, match=message):
        make(vocabulary, **changes)


def test_a_tokenizer_without_sentinels(vocabulary):
    without = dataclasses.replace(vocabulary, sentinels=None)
    for changes in ({}, RECIPES['bert'][0], RECIPES['iid'][0]):
        with pytest.raises(ValueError, match='span_corruption needs a tokenizer with sentinels'):
            make(without, **changes)
    assert make(without, **RECIPES['prefix'][0]).window_length() == 64
