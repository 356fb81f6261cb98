import jax
import jax.numpy as jnp
import numpy as np
import pytest

from objectives import contract, encodings

PAD, EOS, S0, S1, S2 = 0, 1, 32099, 32098, 32097
TEXT = np.arange(100, 110)


@pytest.fixture(scope='module')
def vocabulary():
    size = 32100
    return contract.Vocabulary(
        size=size, table_size=32128, pad=PAD, eos=EOS, unk=2, cls=None, sep=None, mask=None,
        modes={'R': 3, 'X': 4, 'S': 5}, sentinels=tuple(range(size - 1, size - 101, -1)),
        word_start_V=np.zeros(size, bool), bytes_V=np.ones(size, np.int32),
    )  # fmt: skip


@pytest.fixture(scope='module')
def pieces(vocabulary):
    return encodings.pieces(vocabulary)


def encode(pieces, inputs, targets, mask, tokens=TEXT, length=None, sizes=(16, 16), seed=0, **more):
    noise = np.array([bit == '1' for bit in mask])
    length = len(tokens) if length is None else length

    @jax.jit
    def one(key, tokens, noise, length):
        names = inputs, targets
        return encodings.encode(key, names, tokens, noise, length, sizes, pieces, **more)

    (read, n), (told, m) = one(jax.random.key(seed), tokens, noise, length)
    assert read.shape == (sizes[0],)
    assert told.shape == (sizes[1],)
    assert (read[n:] == PAD).all()
    assert (told[m:] == PAD).all()
    return read[:n].tolist(), told[:m].tolist()


def test_golden_encoding(pieces):
    read, told = encode(pieces, 'sentinels', 'sentinels', '0011000100')
    assert read == [100, 101, S0, 104, 105, 106, S1, 108, 109, EOS]
    assert told == [S0, 102, 103, S1, 107, S2, EOS]


def test_golden_encoding_of_a_text_that_begins_with_noise(pieces):
    read, told = encode(pieces, 'sentinels', 'sentinels', '1100010000')
    assert read == [S0, 102, 103, 104, S1, 106, 107, 108, 109, EOS]
    assert told == [100, 101, S0, 105, S1, EOS]


def t5(tokens, noise):
    """The sentinel encoding of T5, token by token."""
    out, sentinel, before = [], S0, False
    for token, marked in zip(tokens, noise):
        if not marked:
            out.append(int(token))
        elif not before:
            out.append(sentinel)
            sentinel -= 1
        before = marked
    return [*out, EOS]


def test_random_masks_against_a_plain_encoder(pieces):
    rng = np.random.default_rng(0)
    window, rows = 30, 300
    lengths = rng.integers(1, window + 1, rows)
    tokens = rng.integers(0, 50, (rows, window))  # with the ids of pad and eos
    tokens[np.arange(window) >= lengths[:, None]] = PAD
    noise = rng.random((rows, window)) < rng.random((rows, 1))
    noise &= np.arange(window) < lengths[:, None]
    sizes = 33, 33

    def one(tokens, noise, length):
        names = 'sentinels', 'sentinels'
        return encodings.encode(None, names, tokens, noise, length, sizes, pieces)

    (read, n), (told, m) = map(jax.device_get, jax.jit(jax.vmap(one))(tokens, noise, lengths))
    for row, length in enumerate(lengths):
        text, marked = tokens[row, :length], noise[row, :length]
        assert read[row, : n[row]].tolist() == t5(text, marked)
        assert told[row, : m[row]].tolist() == t5(text, ~marked)


def test_trimming_keeps_the_eos(pieces):
    read, told = encode(pieces, 'keep', 'noise', '1' * 10, sizes=(4, 11))
    assert read == [100, 101, 102, EOS]
    assert told == [*TEXT, EOS]
    read, told = encode(pieces, 'keep', 'noise', '1' * 10, sizes=(11, 10))
    assert read == [*TEXT, EOS]
    assert told == [*TEXT[:9], EOS]


MASK = '0110000111'


@pytest.mark.parametrize(
    ('inputs', 'expected'),
    [
        ('mask', [100, S0, S0, 103, 104, 105, 106, S0, S0, S0]),
        ('drop', [100, 103, 104, 105, 106]),
        ('keep', [*TEXT]),
    ],
)
def test_inputs(pieces, inputs, expected):
    assert encode(pieces, inputs, 'full', MASK) == ([*expected, EOS], [*TEXT, EOS])


def test_targets(pieces):
    noise = [101, 102, 107, 108, 109]
    assert encode(pieces, 'keep', 'noise', MASK)[1] == [*noise, EOS]
    assert encode(pieces, 'drop', 'full', MASK)[1] == [*TEXT, EOS]


def test_random_tokens_are_plain_pieces(pieces, vocabulary):
    tokens, noise = np.full(2000, 100), np.arange(2000) % 2 == 0
    mask = ''.join('10'[i % 2] for i in range(2000))
    read, _ = encode(pieces, 'random', 'noise', mask, tokens, sizes=(2001, 2001))
    read = np.array(read[:-1])
    assert (read[~noise] == 100).all()
    drawn = read[noise]
    assert len(set(drawn.tolist())) > 900
    assert drawn.min() > 5  # pad, eos, unk and the mode tokens
    assert drawn.max() < vocabulary.sentinels[-1]
    assert abs(drawn.mean() - 16000) < 1200  # uniform: four deviations of 290


def test_mask_or_random(pieces):
    tokens = np.full(4000, 100)
    read, _ = encode(pieces, 'mask_or_random', 'noise', '1' * 4000, tokens, sizes=(4001, 4001))
    share = np.mean(np.array(read[:-1]) == S0)
    assert abs(share - 0.9) < 0.02  # four deviations


def test_shuffle_permutes_the_noise_among_its_places(pieces):
    mask = '0111010110'
    noise = np.array([bit == '1' for bit in mask])
    orders = set()
    for seed in range(8):
        read, told = encode(pieces, 'shuffle', 'full', mask, seed=seed)
        read = np.array(read[:-1])
        np.testing.assert_array_equal(read[~noise], TEXT[~noise])
        assert sorted(read[noise]) == TEXT[noise].tolist()
        assert told == [*TEXT, EOS]
        orders.add(tuple(read.tolist()))
    assert len(orders) > 6
    # All orders of three tokens are equally likely.
    text = jnp.array(TEXT[:4])
    one = lambda key: encodings.INPUTS['shuffle'](key, text, text > 100, pieces)[0]  # noqa: E731
    drawn = np.array(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(9), 3000)))
    _, counts = np.unique(drawn, axis=0, return_counts=True)
    assert len(counts) == 6
    assert abs(counts - 500).max() < 90  # four deviations


def test_padding_is_never_read(pieces):
    for inputs in encodings.INPUTS:
        read, _ = encode(pieces, inputs, 'full', '0110000000', length=6)
        assert len(read) == {'sentinels': 6, 'drop': 5}.get(inputs, 7)
        assert read[3 if inputs == 'drop' else -2] == 105
    for targets in encodings.TARGETS:
        _, told = encode(pieces, 'keep', targets, '0110000000', length=6)
        assert told[-1] == EOS
        assert len(told) == {'sentinels': 5, 'noise': 3, 'full': 7}[targets]
        assert not set(told) & set(range(106, 110))


def test_a_row_without_tokens_is_padding_alone(pieces):
    assert encode(pieces, 'sentinels', 'sentinels', '0' * 10, length=0, first=3) == ([], [])


def test_first_token(pieces):
    read, _ = encode(pieces, 'sentinels', 'noise', '0000000011', first=3)
    assert read == [3, *TEXT[:8], S0, EOS]


# One row of 3 + 4 tokens (a real 0 in both), one of padding.
READ = np.array([[7, 0, EOS, PAD], [PAD] * 4]), np.array([3, 0])
TOLD = np.array([[8, 0, 9, EOS, PAD], [PAD] * 5]), np.array([4, 0])


def test_layout_of_an_encoder_decoder():
    batch = encodings.lay_out(READ, TOLD, 'encoder_decoder', PAD)
    np.testing.assert_array_equal(batch.inputs.tokens_BxL, READ[0])
    np.testing.assert_array_equal(batch.inputs.segments_BxL, [[1, 1, 1, 0], [0] * 4])
    np.testing.assert_array_equal(batch.decoder_inputs.tokens_BxL[0], [PAD, 8, 0, 9, EOS])
    assert batch.decoder_inputs.segments_BxL is None
    np.testing.assert_array_equal(batch.targets_BxK, TOLD[0])
    np.testing.assert_array_equal(batch.weights_BxK, [[1, 1, 1, 1, 0], [0] * 5])
    assert batch.places_BxK is None
    assert batch.inputs.prefix_B is None


@pytest.mark.parametrize('length', [None, 7])
def test_layout_of_a_decoder(length):
    batch = encodings.lay_out(READ, TOLD, 'decoder', PAD, length)
    tokens = [7, 0, EOS, 8, 0, 9, EOS, PAD, PAD][:length]
    np.testing.assert_array_equal(batch.inputs.tokens_BxL[0], tokens)
    segments = [1, 1, 1, 1, 1, 1, 1, 0, 0][:length]
    np.testing.assert_array_equal(batch.inputs.segments_BxL[0], segments)
    assert not batch.inputs.tokens_BxL[1].any()
    assert not batch.inputs.segments_BxL[1].any()
    np.testing.assert_array_equal(batch.inputs.prefix_B, [3, 0])
    assert batch.decoder_inputs is None
    np.testing.assert_array_equal(batch.weights_BxK, [[1, 1, 1, 1, 0], [0] * 5])
    # Each target is the token behind the place that it is predicted at.
    np.testing.assert_array_equal(batch.places_BxK[0, :4], [2, 3, 4, 5])
    assert batch.places_BxK.min() >= 0
    assert batch.places_BxK.max() < batch.inputs.tokens_BxL.shape[1]
    row = np.array(batch.inputs.tokens_BxL[0])
    np.testing.assert_array_equal(row[batch.places_BxK[0, :4] + 1], TOLD[0][0, :4])
