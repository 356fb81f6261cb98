import functools
import math

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from objectives import contract, masked_lm

PAD, EOS, UNK, CLS, SEP, MASK, FIRST = 0, 1, 2, 3, 4, 5, 9
V = 1000
SPECIAL = {PAD, EOS, CLS, SEP, MASK, 6, 7, 8}


def make_vocabulary(size=V, **changes):
    word_start = np.arange(size) % 3 == 0  # ids that three divides begin words
    word_start[:FIRST] = False
    fields = {
        'size': size, 'table_size': size, 'pad': PAD, 'eos': EOS, 'unk': UNK, 'cls': CLS,
        'sep': SEP, 'mask': MASK, 'modes': {'R': 6, 'X': 7, 'S': 8}, 'sentinels': None,
        'word_start_V': word_start, 'bytes_V': np.ones(size, np.int32),
    }  # fmt: skip
    return contract.Vocabulary(**(fields | changes))


def make_config(**changes):
    config = {
        'name': 'masked_lm', 'length': 128, 'rate': 0.15, 'mask_share': 0.8, 'random_share': 0.1,
        'whole_words': False, 'smoothing': 0.0,
    }  # fmt: skip
    return ConfigDict(config | changes)


@functools.cache  # what tests have in common is compiled once
def make(vocabulary=None, **changes):
    return masked_lm.make(make_config(**changes), vocabulary or make_vocabulary())


def windows(rows, width):
    """Rows of text, each padded to the width; an empty one is a row of padding."""
    tokens = np.full((len(rows), width), PAD, np.int32)
    documents = np.full((len(rows), width), contract.PADDING, np.int32)
    for i, row in enumerate(rows):
        tokens[i, : len(row)], documents[i, : len(row)] = row, i
    sentences = np.where(documents < 0, contract.PADDING, 0)
    return contract.Windows(tokens, sentences, documents, np.arange(len(rows), dtype=np.int32))


def random_rows(sizes, seed=0, lowest=FIRST, vocabulary=V):
    rng = np.random.default_rng(seed)
    return [rng.integers(lowest, vocabulary, size) for size in sizes]


def corrupt(objective, data, seed=0):
    return jax.tree.map(np.asarray, jax.jit(objective.corrupt)(jax.random.key(seed), data))


def framed(row, length):
    """`[CLS] row [SEP]` and padding."""
    tokens = [CLS, *row, SEP] if len(row) else []
    return np.array(tokens + [PAD] * (length - len(tokens)))


def test_the_layout():
    objective = make(length=8, rate=0.5)
    assert objective.window_length() == 6
    assert objective.stacks == ('encoder',)
    rows = [[20, 21, 22, 23, 24, 25], [30, 31], []]
    batch = corrupt(objective, windows(rows, 6))
    assert batch.inputs.types_BxL is None
    assert batch.decoder_inputs is None
    np.testing.assert_array_equal(batch.inputs.segments_BxL, [[1] * 8, [1] * 4 + [0] * 4, [0] * 8])
    np.testing.assert_array_equal(batch.weights_BxK, [[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]])
    for i, row in enumerate(rows):
        tokens = batch.inputs.tokens_BxL[i].copy()
        real = batch.weights_BxK[i] > 0
        places = batch.places_BxK[i][real]
        assert (np.diff(places) > 0).all()
        tokens[places] = batch.targets_BxK[i][real]  # put back what was hidden
        np.testing.assert_array_equal(tokens, framed(row, 8))
        assert not batch.targets_BxK[i][~real].any()
        assert not batch.places_BxK[i][~real].any()
    assert batch.weights_BxK.dtype == np.float32
    assert batch.places_BxK.dtype == np.int32


def test_exact_counts_at_every_length():
    assert masked_lm.predictions(128, 0.15) == 19
    assert masked_lm.predictions(512, 0.15) == 77
    batch = corrupt(make(), windows(random_rows(range(127)), 126))
    counts = batch.weights_BxK.sum(1)
    # Halves go to the even number: 10, 30 and 50 tokens with the special ones.
    assert counts[[126, 1, 8, 28, 48]].tolist() == [19, 1, 2, 4, 8]
    expected = [0] + [max(1, round((size + 2) * 0.15)) for size in range(1, 127)]
    np.testing.assert_array_equal(counts, expected)
    assert batch.weights_BxK.shape == (127, 19)
    long = corrupt(make(length=512), windows(random_rows([510]), 510))
    assert long.weights_BxK.sum() == 77


def test_shares_and_places():
    """2000 rows, 38000 predictions: a share of 0.8 has a deviation of 0.002."""
    rows = random_rows([126] * 2000, lowest=0)
    for row in rows:
        row[10:20] = [*sorted(SPECIAL), UNK, UNK]
    batch = corrupt(make(), windows(rows, 126))
    read = batch.inputs.tokens_BxL
    original = np.stack([framed(row, 128) for row in rows])
    at = np.arange(2000)[:, None]
    np.testing.assert_array_equal(batch.targets_BxK, original[at, batch.places_BxK])
    now = read[at, batch.places_BxK]
    assert abs((now == MASK).mean() - 0.8) < 0.01
    assert abs((now == batch.targets_BxK).mean() - 0.1) < 0.01
    assert abs(((now != batch.targets_BxK) & (now != MASK)).mean() - 0.1) < 0.01
    assert not np.isin(batch.targets_BxK, list(SPECIAL)).any()
    assert (batch.targets_BxK == UNK).any()
    chosen = np.zeros(read.shape, bool)
    chosen[at, batch.places_BxK] = True
    np.testing.assert_array_equal(read[~chosen], original[~chosen])
    # Every place alike: about 19 of 119 candidates, with a deviation of 0.0082.
    share = chosen[:, 30:127].mean(0)
    assert abs(share - share.mean()).max() < 5 * 0.0082
    assert abs(share.mean() - 19 / 118.9) < 0.003


def test_what_happens_to_one_place_tells_nothing_of_the_next():
    batch = corrupt(make(), windows(random_rows([126] * 2000), 126))
    now = np.take_along_axis(batch.inputs.tokens_BxL, batch.places_BxK, 1)
    masked = (now == MASK) - 0.8
    assert abs((masked[:, 1:] * masked[:, :-1]).mean()) < 5 * 0.16 / math.sqrt(36000)
    assert len(set((now == MASK).sum(1))) > 5


def test_random_tokens_come_from_the_whole_vocabulary():
    vocabulary = make_vocabulary(size=30, table_size=64)
    objective = make(vocabulary, mask_share=0.0, random_share=1.0)
    batch = corrupt(objective, windows(random_rows([126] * 1000, vocabulary=30), 126))
    now = np.take_along_axis(batch.inputs.tokens_BxL, batch.places_BxK, 1)
    counts = np.bincount(now.ravel(), minlength=30)
    assert len(counts) == 30
    expected = now.size / 30
    assert abs(counts - expected).max() < 5 * math.sqrt(expected)


def test_a_row_does_not_depend_on_its_batch():
    for changes in ({}, {'whole_words': True}):
        objective = make(length=32, **changes)
        data = windows(random_rows([30, 17, 0, 30, 30]), 30)
        whole = corrupt(objective, data)
        again = corrupt(objective, data)
        jax.tree.map(np.testing.assert_array_equal, whole, again)
        some = corrupt(objective, jax.tree.map(lambda x: x[[3, 1]], data))
        jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[[3, 1]], y), whole, some)
        other = corrupt(objective, data, seed=1)
        assert (whole.places_BxK != other.places_BxK).any()
        same_text = data._replace(tokens_BxW=np.tile(data.tokens_BxW[:1], (5, 1)))
        places = corrupt(objective, same_text).places_BxK
        assert (places[0] != places[3]).any()  # another number, other places


def test_a_row_without_candidates_has_weight_0():
    for whole_words in (False, True):
        batch = corrupt(make(length=8, whole_words=whole_words), windows([[EOS, CLS, 6]], 6))
        assert batch.weights_BxK.sum() == 0
        np.testing.assert_array_equal(batch.inputs.tokens_BxL[0, :6], [CLS, EOS, CLS, 6, SEP, 0])


def plain_walk(sizes, room):
    """BERT's loop."""
    taken, used = [], 0
    for size in sizes:
        fits = bool(size) and used + size <= room
        taken.append(fits)
        used += size if fits else 0
    return taken


def test_groups_are_taken_as_in_a_plain_walk():
    rng = np.random.default_rng(0)
    sizes = rng.geometric(rng.uniform(0.1, 1.0, (600, 1)), (600, 40)).astype(np.int32)
    sizes[rng.random(sizes.shape) < 0.2] = 0
    room = rng.integers(0, 60, 600).astype(np.int32)
    taken = np.asarray(jax.jit(masked_lm.take_groups)(sizes, room))
    expected = [plain_walk(s, r) for s, r in zip(sizes, room)]
    np.testing.assert_array_equal(taken, expected)


def words(row):
    """Lists of the places of each word in `[CLS] row [SEP]`."""
    found, open_ = [], False
    for place, token in enumerate(framed(row, len(row) + 2)):
        if token in SPECIAL:
            open_ = False
        elif open_ and (token % 3 or token < FIRST):
            found[-1].append(place)
        else:
            found.append([place])
            open_ = True
    return found


def test_whole_words():
    rows = random_rows([126, 126, 126, 60, 5] * 40, seed=1, lowest=0)
    for row in rows[::3]:
        row[3:5] = EOS, 10  # a piece that begins no word, behind a special token
    batch = corrupt(make(whole_words=True), windows(rows, 126))
    for i, row in enumerate(rows):
        chosen = set(batch.places_BxK[i][batch.weights_BxK[i] > 0].tolist())
        room = max(1, round((len(row) + 2) * 0.15)) - len(chosen)
        assert room >= 0
        whole = [set(word) for word in words(row)]
        if min(map(len, whole)) <= room + len(chosen):
            assert all(word <= chosen or not word & chosen for word in whole)
            # A word left out is one that did not fit.
            assert all(len(word) > room for word in whole if not word & chosen)
        else:
            assert room == 0
    counts = batch.weights_BxK.sum(1)
    assert counts.min() >= 1
    assert counts.max() == 19


def test_words_are_chosen_alike():
    row = [9, 12, 13, 15, 18, 19, 21, 24, 25, 27, 30, 31]  # 4 words of one piece, 4 of two
    batch = corrupt(make(length=14, whole_words=True, rate=0.2), windows([row] * 4000, 12))
    chosen = np.zeros((4000, 15))
    np.put_along_axis(chosen, np.where(batch.weights_BxK > 0, batch.places_BxK, 14), 1, axis=1)
    chosen = chosen[:, :14]
    one, two = chosen[:, [1, 4, 7, 10]], chosen[:, [2, 5, 8, 11]]
    np.testing.assert_array_equal(two, chosen[:, [3, 6, 9, 12]])
    # Three tokens: 1 + 2 in any order with probability 6/7, else 1 + 1 + the first that fits.
    assert (chosen.sum(1) == 3).all()
    for share in (one.mean(0), two.mean(0)):
        assert abs(share - share.mean()).max() < 5 * math.sqrt(0.25 / 4000)


def test_punctuation_is_a_word_of_its_own():
    """Of `ab ( cd ) ef ,` without a space inside, each word and each mark stands alone."""
    punctuation = np.zeros(V, bool)
    punctuation[[40, 41, 43]] = True
    vocabulary = make_vocabulary(punctuation_V=punctuation)
    row = [9, 10, 40, 11, 13, 41, 14, 16, 43]
    objective = make(vocabulary, length=11, whole_words=True, rate=0.19)
    places = corrupt(objective, windows([row] * 3000, 9)).places_BxK
    pairs, counts = np.unique(places, axis=0, return_counts=True)
    seen = {tuple(map(int, pair)): n / 3000 for pair, n in zip(pairs, counts)}
    # Two tokens: a word first (1/2) fills them, after a mark only a mark fits.
    words, marks = [(1, 2), (4, 5), (7, 8)], [(3, 6), (3, 9), (6, 9)]
    assert set(seen) == {*words, *marks}
    for pair in seen:
        assert abs(seen[pair] - 1 / 6) < 5 * math.sqrt(1 / 6 / 3000)


def test_words_longer_than_the_number_are_cut():
    row = [9, 10, 11, 13, 12, 13, 14, 16, 17]  # words of 4 and 5 pieces at places 1 and 5
    batch = corrupt(make(length=11, whole_words=True, rate=0.3), windows([row] * 3, 9))
    np.testing.assert_array_equal(batch.places_BxK, [[1, 2, 3]] * 3)
    np.testing.assert_array_equal(batch.targets_BxK, [[9, 10, 11]] * 3)


def test_smoothing_draws_by_frequency_without_replacement():
    share = np.full(V, 1e-3)
    share[20:24] = 0.5, 0.1, 0.04, 0.01
    vocabulary = make_vocabulary(log_frequency_V=np.log(share).astype(np.float32))
    objective = make(vocabulary, length=6, rate=0.3, smoothing=0.7)
    places = corrupt(objective, windows([[20, 21, 22, 23]] * 20000, 4)).places_BxK
    p = share[20:24] ** -0.7
    p /= p.sum()
    for i in range(4):
        for j in range(i + 1, 4):
            expected = p[i] * p[j] / (1 - p[i]) + p[i] * p[j] / (1 - p[j])
            seen = (places == [i + 1, j + 1]).all(1).mean()
            assert abs(seen - expected) < 5 * math.sqrt(expected / 20000)


def test_only_the_chosen_places_meet_the_vocabulary():
    """A model that knows what stood at each place has no loss, one that knows nothing log V."""
    objective, rows, seen = make(length=32), random_rows([30, 10, 0]), []
    original = jax.nn.one_hot(np.stack([framed(row, 32) for row in rows]), V)

    def logits(hidden):
        seen.append(hidden.shape)
        return hidden

    @jax.jit
    def term(batch, sharpness):
        model = contract.Model(lambda batch, key=None: sharpness * original, logits)
        loss = objective.loss({'model': model}, batch, None)
        assert set(loss.metrics) == {'accuracy'}
        return loss.terms['cross_entropy']

    batch = corrupt(objective, windows(rows, 30))
    assert term(batch, 0.0).weight == 5 + 2
    np.testing.assert_allclose(term(batch, 0.0).sum, 7 * math.log(V), rtol=1e-6)
    np.testing.assert_allclose(term(batch, 50.0).sum, 0, atol=1e-4)
    assert set(seen) == {(3, 5, V)}


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'length': 2}, r'length=2 .* at least 3'),
        ({'rate': 0.0}, r'rate=0 must lie between 0 and 1'),
        ({'rate': 1.0}, r'rate=1 must lie'),
        ({'rate': math.nan}, r'rate=nan must lie'),
        ({'mask_share': 0.8, 'random_share': 0.3}, r'mask_share=0.8 .*random_share=0.3'),
        ({'mask_share': -0.1}, r'mask_share=-0.1'),
        ({'random_share': -0.1}, r'random_share=-0.1'),
        ({'smoothing': -1.0}, r'smoothing=-1'),
        ({'smoothing': math.inf}, r'smoothing=inf'),
        ({'smoothing': 0.7}, r'objective.smoothing needs a tokenizer with frequencies'),
        ({'smoothing': 0.7, 'whole_words': True}, r'smoothing=0.7 .*whole_words=False'),
    ],
)
def test_bad_numbers(changes, message):
    with pytest.raises(ValueError, match=message) as error:
        make(**changes)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('piece', ['cls', 'sep', 'mask'])
def test_a_tokenizer_without_the_pieces(piece):
    with pytest.raises(ValueError, match=rf'masked_lm needs a tokenizer with a \[{piece.upper()}'):
        make(make_vocabulary(**{piece: None}))


def test_a_tokenizer_without_modes_will_do():
    objective = make(make_vocabulary(modes=None), length=8)
    assert corrupt(objective, windows([[20, 21]], 6)).weights_BxK.sum() == 1
