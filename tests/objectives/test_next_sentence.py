import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from objectives import contract, next_sentence

PAD, CLS, SEP, MASK, FIRST = 0, 3, 4, 5, 9
LENGTH, OVERHANG = 24, 8
MOST = LENGTH - 3
WIDTH = MOST + OVERHANG
SPAN = 64  # token ids of row r begin at FIRST + SPAN x r, so that a token tells where it stood


def make_vocabulary(**changes):
    size = FIRST + SPAN * 3000
    fields = {
        'size': size, 'table_size': size, 'pad': PAD, 'eos': 1, 'unk': 2, 'cls': CLS, 'sep': SEP,
        'mask': MASK, 'modes': {'R': 6, 'X': 7, 'S': 8}, 'sentinels': None,
        'word_start_V': np.ones(size, bool), 'bytes_V': np.ones(size, np.int32),
    }  # fmt: skip
    return contract.Vocabulary(**(fields | changes))


@functools.cache  # what tests have in common is compiled once
def make(vocabulary=None, **changes):
    config = {
        'name': 'next_sentence', 'length': LENGTH, 'rate': 0.15, 'mask_share': 0.8,
        'random_share': 0.1, 'whole_words': False, 'smoothing': 0.0, 'order': False,
        'short_share': 0.1, 'overhang': OVERHANG, 'sentence_coefficient': 1.0,
    }  # fmt: skip
    return next_sentence.make(ConfigDict(config | changes), vocabulary or make_vocabulary())


def windows(rows, width=WIDTH):
    """Windows of (document, sizes of its sentences); what is too long is cut, None is padding."""
    shape = (len(rows), width)
    sentences, documents = np.full((2, *shape), contract.PADDING, np.int32)
    for i, row in enumerate(rows):
        if row is not None:
            numbers = np.repeat(np.arange(len(row[1])), row[1])[:width]
            sentences[i, : len(numbers)], documents[i, : len(numbers)] = numbers, row[0]
    ids = FIRST + SPAN * np.arange(len(rows))[:, None] + np.arange(width)
    tokens = np.where(sentences >= 0, ids, PAD).astype(np.int32)
    return contract.Windows(tokens, sentences, documents, np.arange(len(rows), dtype=np.int32))


def random_rows(count, seed=0):
    """Documents of one to four windows, the last one of each not full; some rows of padding."""
    rng, rows, document = np.random.default_rng(seed), [], 0
    while len(rows) < count:
        for last in [False] * rng.integers(0, 4) + [True]:
            sizes, wanted = [], rng.integers(1, WIDTH + 1) if last else WIDTH
            while sum(sizes) < wanted:
                sizes.append(int(rng.geometric(rng.choice([0.1, 0.2, 0.6]))))
            if last:
                sizes[-1] -= sum(sizes) - int(wanted)
            rows.append((document, sizes))
        document += 1
        if rng.random() < 0.1:
            rows.append(None)
    return rows[:count]


def corrupt(objective, data, seed=0):
    return jax.tree.map(np.asarray, jax.jit(objective.corrupt)(jax.random.key(seed), data))


def texts(batch):
    """Reads `[CLS] A [SEP] B [SEP]`: for each row lists of (row, place), A's and B's."""
    for i, tokens in enumerate(batch.inputs.tokens_BxL):
        real = batch.weights_BxK[i] > 0
        tokens = tokens.copy()
        tokens[batch.places_BxK[i][real]] = batch.targets_BxK[i][real]
        size = batch.inputs.segments_BxL[i].sum()
        assert batch.inputs.segments_BxL[i, :size].all()
        assert (tokens[size:] == PAD).all()
        seps = np.flatnonzero(tokens == SEP).tolist()
        types = np.zeros(LENGTH, int)
        if len(seps) == 2:
            types[seps[0] + 1 : size] = 1
        np.testing.assert_array_equal(batch.inputs.types_BxL[i], types)
        if not size:
            yield [], []
            continue
        assert tokens[0] == CLS
        assert seps[-1] == size - 1
        where = [divmod(int(token) - FIRST, SPAN) for token in tokens]
        yield where[1 : seps[0]], where[seps[0] + 1 : size - 1]


def stretch(places):
    """(row, begin, size) of a text; it must be in one piece."""
    row, begin = places[0]
    assert places == [(row, begin + i) for i in range(len(places))]
    return row, begin, len(places)


def plain_cut(a, b, most):
    """BERT's loop, on lengths."""
    while a + b > most:
        if a > b:
            a -= 1
        else:
            b -= 1
    return a, b


def plain_partner(documents, row):
    count = len(documents)
    others = [(row + i) % count for i in range(1, count + 1)]
    others = [i for i in others if documents[i] != contract.PADDING]
    return next((i for i in others if documents[i] != documents[row]), (others or [row])[0])


def sentence_sizes(data, row):
    sentences = data.sentences_BxW[row]
    return np.bincount(sentences[sentences >= 0]).tolist()


def chunks(sizes, targets):
    """The paper's loop for each target: (target, sizes of the chunk's sentences)."""
    for target in targets:
        chunk = []
        for size in sizes:
            chunk.append(size)
            if sum(chunk) >= target:
                break
        yield target, chunk


def possible_pairs(data, row):
    """All that BERT's algorithm can draw: {(A's size, B's row, begin and size before the cut)}."""
    other = plain_partner(data.documents_BxW[:, 0], row)
    sizes, others = sentence_sizes(data, row), sentence_sizes(data, other)
    found = set()
    for target, chunk in chunks(sizes, range(2, MOST + 1)):
        for border in range(1, max(len(chunk), 2)):
            a = sum(chunk[:border])
            if len(chunk) > 1:
                found.add((0, a, row, a, sum(chunk) - a))
            for start in range(len(others)):
                begin, b = sum(others[:start]), []
                for size in others[start:]:
                    b.append(size)
                    if sum(b) >= target - a:
                        break
                goes_on = sum(others) == WIDTH
                if sum(b) >= target - a or not goes_on:
                    found.add((1, a, other, begin, sum(b)))
    return found


def possible_orders(data, row):
    found = set()
    for _, chunk in chunks(sentence_sizes(data, row), range(2, MOST + 1)):
        borders = [sum(chunk[:i]) for i in range(1, len(chunk))] or range(1, chunk[0])
        found |= {(a, sum(chunk) - a) for a in borders}
    return found


ROWS = random_rows(300)


@pytest.mark.parametrize('seed', [0, 1])
def test_pairs_are_such_as_the_paper_draws(seed):
    objective, data = make(), windows(ROWS)
    assert objective.window_length() == WIDTH
    batch = corrupt(objective, data, seed)
    labels = batch.labels_B
    uncut = 0
    for i, (a, b) in enumerate(texts(batch)):
        if ROWS[i] is None:
            assert (a, b, labels[i]) == ([], [], -1)
            continue
        a_row, a_begin, a_size = stretch(a)
        b_row, b_begin, b_size = stretch(b)
        assert a_row == i
        if labels[i]:
            assert ROWS[b_row][0] != ROWS[i][0]
        else:
            assert b_row == i
            assert b_begin >= a_begin + a_size
        assert any(
            (label, row) == (labels[i], b_row)
            and plain_cut(a_whole, b_whole, MOST) == (a_size, b_size)
            and a_begin + a_size <= a_whole
            and b_from <= b_begin
            and b_begin + b_size <= b_from + b_whole
            for label, a_whole, row, b_from, b_whole in possible_pairs(data, i)
        )
        if a_size + b_size < MOST:  # nothing is cut: whole sentences, one behind the other
            uncut += 1
            ends = np.cumsum(sentence_sizes(data, i)).tolist()
            other = np.cumsum([0, *sentence_sizes(data, b_row)]).tolist()
            assert a_begin == 0
            assert a_size in ends
            assert b_begin in other
            assert b_begin + b_size in other
            assert labels[i] or b_begin == a_size
    assert uncut > 40
    real = labels[labels >= 0]
    assert 0.5 < real.mean() < 0.85
    weights = batch.weights_BxK.sum(1)
    sizes = batch.inputs.segments_BxL.sum(1)
    assert weights.tolist() == [n and max(1, round(n * 0.15)) for n in sizes]
    assert sizes.max() == LENGTH


@pytest.mark.parametrize('seed', [0, 1])
def test_orders_are_such_as_the_paper_draws(seed):
    rows = [(1000, [1]), (1001, [2]), (1002, [40]), *ROWS]
    data = windows(rows)
    batch = corrupt(make(order=True), data, seed)
    for i, (a, b) in enumerate(texts(batch)):
        if rows[i] is None:
            assert (a, b, batch.labels_B[i]) == ([], [], -1)
            continue
        if rows[i][1] == [1]:
            assert (a, b, batch.labels_B[i]) == ([(i, 0)], [], -1)
            continue
        swapped = batch.labels_B[i] == 1
        assert swapped or batch.labels_B[i] == 0
        (a_row, a_begin, a_size), (b_row, b_begin, b_size) = stretch(a), stretch(b)
        assert a_row == b_row == i
        first, second = ((b_begin, b_size), (a_begin, a_size))[:: 1 if swapped else -1]
        assert first[0] + first[1] <= second[0]
        found = False
        for one, two in possible_orders(data, i):
            a_whole, b_whole = (two, one) if swapped else (one, two)
            found |= (
                plain_cut(a_whole, b_whole, MOST) == (a_size, b_size)
                and sum(first) <= one
                and one <= second[0]
                and sum(second) <= one + two
            )
        assert found
    real = batch.labels_B[batch.labels_B >= 0]
    assert abs(real.mean() - 0.5) < 5 * 0.5 / math.sqrt(len(real))


def numbers_of(batch):
    """Begin and size of A and of B for each row."""
    return np.array([stretch(a)[1:] + stretch(b)[1:] for a, b in texts(batch)]).T


def test_targets_borders_and_labels_are_drawn_as_stated():
    """Sentences of one token: nothing is ever cut, so the pair shows all that was drawn."""
    count = 3000
    batch = corrupt(make(), windows([(i, [1] * WIDTH) for i in range(count)]))
    a_begin, a_size, b_begin, b_size = numbers_of(batch)
    target = a_size + b_size
    assert not a_begin.any()
    assert abs(batch.labels_B.mean() - 0.5) < 5 * 0.5 / math.sqrt(count)
    # One in ten is uniform in 2 .. 21, both included.
    full = 0.9 + 0.1 / (MOST - 1)
    assert abs((target == MOST).mean() - full) < 5 * math.sqrt(full * (1 - full) / count)
    counts = np.bincount(target, minlength=MOST + 1)[2:MOST]
    assert counts.min() >= 1
    assert np.sum((counts - count * 0.005) ** 2 / (count * 0.005)) < 55  # chi-square, 19 degrees
    # A's share of a full pair is uniform.
    counts = np.bincount(a_size[target == MOST], minlength=MOST)[1:]
    assert np.sum((counts - counts.mean()) ** 2 / counts.mean()) < 55
    # A random B begins anywhere from where it is as long as wanted.
    random = (batch.labels_B == 1) & (b_size == 5)
    assert np.unique(b_begin[random]).tolist() == list(range(WIDTH - 5 + 1))


def test_the_length_of_a_pair_does_not_tell_its_label():
    """Long documents: whether B is random or not, windows end where the text goes on."""
    rng = np.random.default_rng(0)
    rows = [(i, rng.geometric(0.2, WIDTH).tolist()) for i in range(3000)]
    batch = corrupt(make(short_share=0.0), windows(rows))
    size = batch.inputs.segments_BxL.sum(1)
    assert (size == LENGTH).all()


def test_a_random_text_may_be_short_where_its_document_ends():
    """Windows of 5 tokens with more room: B begins at any sentence and ends with the document."""
    batch = corrupt(make(short_share=0.0), windows([(i, [1] * 5) for i in range(3000)]))
    _, _, b_begin, b_size = numbers_of(batch)
    random = batch.labels_B == 1
    np.testing.assert_array_equal((b_begin + b_size)[random], 5)
    counts = np.bincount(b_begin[random])
    assert len(counts) == 5
    assert abs(counts - counts.mean()).max() < 5 * math.sqrt(counts.mean())


def test_a_chunk_of_one_sentence_takes_a_random_text():
    batch = corrupt(make(), windows([(i, [WIDTH]) for i in range(40)]))
    assert (batch.labels_B == 1).all()
    one = corrupt(make(), windows([(i, [1]) for i in range(40)]))  # a token each
    assert (one.labels_B == 1).all()
    assert [a + b for a, b in texts(one)] == [[(i, 0), ((i + 1) % 40, 0)] for i in range(40)]


def test_tokens_are_cut_from_both_ends_alike():
    """Sentences of 15 and 17 tokens: 5 and 6 go, which leaves 10 and 11 (B goes first)."""
    sizes = [15, 17]
    objective = make(short_share=0.0, overhang=32 - MOST)
    batch = corrupt(objective, windows([(i, sizes) for i in range(3000)], 32))
    a_begin, a_size, b_begin, b_size = numbers_of(batch)[:, batch.labels_B == 0]
    count = len(a_begin)
    assert set(zip(a_size.tolist(), b_size.tolist())) == {plain_cut(15, 17, MOST)}
    for front, gone in ((a_begin, 15 - a_size[0]), (b_begin - 15, 17 - b_size[0])):
        expected = [math.comb(gone, k) / 2**gone for k in range(gone + 1)]
        seen = np.bincount(front, minlength=gone + 1) / count
        assert len(seen) == gone + 1
        assert abs(seen - expected).max() < 5 * 0.5 / math.sqrt(count)
    both = np.corrcoef(a_begin, b_begin)[0, 1]
    assert abs(both) < 5 / math.sqrt(count)


def test_lengths_are_those_of_the_papers_loop():
    for most in (2, 3, 20, 21):
        a, b = (x.ravel() for x in np.meshgrid(np.arange(1, 40), np.arange(1, 40)))
        left = np.array(next_sentence.lengths_left(a, b, most))
        expected = [plain_cut(*pair, most) for pair in zip(a.tolist(), b.tolist())]
        np.testing.assert_array_equal(left.T, expected)
        assert left.min() >= 1


def test_partners():
    find = jax.jit(next_sentence.partners)
    for documents in (
        [0, 0, 1, 1, 2], [3, 3, 3, 3, 3], [0, -1, -1, 0, 1], [0, -1, 0, -1, -1], [-1, 5, -1, -1, -1]
    ):  # fmt: skip
        found = find(np.array(documents))
        for i, document in enumerate(documents):
            if document != contract.PADDING:
                assert found[i] == plain_partner(documents, i)


def test_a_batch_of_one_document_takes_text_of_the_next_row_and_calls_it_random():
    batch = corrupt(make(), windows([(7, [3] * 12)] * 39 + [None]))
    rows = {stretch(b)[0] - i for i, (_, b) in enumerate(texts(batch)) if batch.labels_B[i] == 1}
    assert 1 in rows
    assert rows <= {1, -38}
    alone = corrupt(make(), windows([None] * 20 + [(7, [WIDTH])] + [None] * 19))
    assert np.flatnonzero(alone.labels_B + 1).tolist() == [20]
    assert alone.labels_B[20] == 1  # a single sentence, so it takes text of its own window
    assert stretch(list(texts(alone))[20][1])[0] == 20


def test_a_row_depends_on_its_batch_only_in_what_random_text_it_gets():
    data, some = windows(ROWS[:40]), np.array([30, 3, 4, 20, 21])
    for order in (False, True):
        objective = make(order=order)
        whole = corrupt(objective, data)
        jax.tree.map(np.testing.assert_array_equal, whole, corrupt(objective, data))
        part = corrupt(objective, jax.tree.map(lambda x: x[some], data))
        np.testing.assert_array_equal(whole.labels_B[some], part.labels_B)
        rows = slice(None) if order else whole.labels_B[some] == 0
        jax.tree.map(
            lambda x, y, rows=rows: np.testing.assert_array_equal(x[some][rows], y[rows]),
            whole,
            part,
        )
        other = corrupt(objective, data, seed=1)
        assert (whole.labels_B != other.labels_B).any()


def test_a_sharded_batch_gives_the_same():
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ('data',))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('data'))
    data = windows(ROWS[:32])
    objective = make(whole_words=True)
    sharded = corrupt(objective, jax.tree.map(lambda x: jax.device_put(x, sharding), data))
    jax.tree.map(np.testing.assert_array_equal, corrupt(objective, data), sharded)


@pytest.mark.parametrize('order', [False, True])
def test_the_loss_of_the_sentences(order):
    name = 'sentence_order' if order else 'next_sentence'
    objective = make(order=order, sentence_coefficient=0.5)
    assert objective.models == {'model': {'classes': 2}}
    batch = corrupt(objective, windows(ROWS[:40]))
    labels = batch.labels_B
    logits = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    model = contract.Model(
        hidden=lambda batch, key=None: jnp.ones((40, LENGTH, 1)),
        logits=lambda hidden: jnp.zeros((*hidden.shape[:2], 7)),
        classify=lambda hidden: logits,
    )
    loss = jax.jit(lambda batch: objective.loss({'model': model}, batch, None))(batch)
    rows = [i for i in range(40) if labels[i] >= 0]
    assert 30 < len(rows) < 40
    expected = sum(
        math.log(sum(math.exp(x) for x in logits[i])) - logits[i, labels[i]] for i in rows
    )
    term, accuracy = loss.terms[name], loss.metrics[f'{name}_accuracy']
    assert term.coefficient == 0.5
    assert term.weight == accuracy.weight == len(rows)
    np.testing.assert_allclose(term.sum, expected, rtol=1e-5)
    assert accuracy.sum == sum(logits[i].argmax() == labels[i] for i in rows)
    words = loss.terms['cross_entropy']
    np.testing.assert_allclose(words.sum / words.weight, math.log(7), rtol=1e-6)
    assert words.weight == batch.weights_BxK.sum()


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'length': 4}, r'length=4 leaves next_sentence no room .* at least 5'),
        ({'length': 4, 'order': True}, r'length=4 leaves sentence_order no room'),
        ({'short_share': 1.5}, r'short_share=1.5'),
        ({'short_share': math.nan}, r'short_share=nan'),
        ({'overhang': -1}, r'overhang=-1'),
        ({'sentence_coefficient': -1.0}, r'sentence_coefficient=-1'),
        ({'rate': 0.0}, r'rate=0'),
    ],
)
def test_bad_numbers(changes, message):
    with pytest.raises(ValueError, match=message) as error:
        make(**changes)
    assert '\n' not in str(error.value)


def test_a_tokenizer_without_the_pieces():
    with pytest.raises(ValueError, match=r'next_sentence needs a tokenizer with a \[SEP\]'):
        make(make_vocabulary(sep=None))


def test_the_shortest_length_that_is_allowed():
    vocabulary = make_vocabulary()
    objective = make(vocabulary, length=5, overhang=0)
    batch = corrupt(objective, windows([(0, [1, 1]), (1, [2]), None], 2))
    assert batch.inputs.segments_BxL.sum(1).tolist() == [5, 5, 0]
