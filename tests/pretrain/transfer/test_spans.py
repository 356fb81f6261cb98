"""Windows and n-best lists against plain loops over their definitions."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pretrain.data import tokenizer
from pretrain.errors import UserError
from pretrain.transfer import spans
from pretrain.transfer.squad import Question

CLS, SEP = 1, 2


def words(cls=CLS, sep=SEP, eos=9, bos=None):
    """A tokenizer whose tokens are the words, each with a number of its own from 10."""
    numbers = {}

    def encode_with_offsets(text):
        ids, starts, ends, at = [], [], [], 0
        for word in text.split():
            start = text.index(word, at)
            at = start + len(word)
            ids.append(numbers.setdefault(word, 10 + len(numbers)))
            starts.append(start)
            ends.append(at)
        return tuple(np.array(x, np.int64) for x in (ids, starts, ends))

    return types.SimpleNamespace(
        vocabulary=types.SimpleNamespace(cls=cls, sep=sep, eos=eos, bos=bos),
        encode=lambda text: encode_with_offsets(text)[0],
        encode_with_offsets=encode_with_offsets,
    )


def asked(count, first=None, last=None, question='who it was'):
    """A question about w0 w1 ..., answered by the words from first to last."""
    context = ' '.join(f'w{n}' for n in range(count))
    if first is None:
        return Question('x', question, context, (), True)
    text = ' '.join(f'w{n}' for n in range(first, last + 1))
    return Question('x', question, context, ((text, context.index(text)),))


def test_a_row_by_hand():
    question = asked(10, 5, 6, 'who')
    made = spans.windows(words(), [asked(1, 0, 0), question], length=8, stride=3, question_length=2)
    first, *rows = made  # its question is cut to two words
    assert first.ids_L.tolist() == [CLS, 11, 12, SEP, 10, SEP]
    assert (first.question, first.start, first.end) == (0, 4, 4)
    # 8 - 3 - 1 = 4 words a window, a new one every 3; w0 is 10, 'who it was' 11 to 13.
    assert [row.ids_L[3:-1].tolist() for row in rows] == [
        [10, 14, 15, 16], [16, 17, 18, 19], [19, 20, 21, 22],
    ]  # fmt: skip
    assert [row.starts_L[3:-1].tolist() for row in rows] == [
        [0, 3, 6, 9], [9, 12, 15, 18], [18, 21, 24, 27],
    ]  # fmt: skip
    assert [row.ends_L.tolist() for row in rows] == [
        [-1, -1, -1, 2, 5, 8, 11, -1], [-1, -1, -1, 11, 14, 17, 20, -1],
        [-1, -1, -1, 20, 23, 26, 29, -1],
    ]  # fmt: skip
    # w3 and w6 stand at the edge of both their windows: the first counts.
    assert [row.best_L.astype(int).tolist() for row in rows] == [
        [0, 0, 0, 1, 1, 1, 1, 0], [0, 0, 0, 0, 1, 1, 1, 0], [0, 0, 0, 0, 1, 1, 1, 0],
    ]  # fmt: skip
    assert [(row.start, row.end) for row in rows] == [(0, 0), (5, 6), (0, 0)]
    for row in rows:
        assert row.question == 1
        assert row.types_L.tolist() == [0, 0, 0, 1, 1, 1, 1, 1]
        assert (row.ids_L[0], row.ids_L[2], row.ids_L[7]) == (CLS, SEP, SEP)
        assert row.ids_L.dtype == row.starts_L.dtype == row.types_L.dtype == np.int32


def windows_by_definition(pieces, room, stride):
    found, start = [], 0
    while True:
        size = min(pieces - start, room)
        found.append((start, start + size))
        if start + size >= pieces:
            return found
        start += min(size, stride)


def owner_by_definition(found, piece):
    scores = [
        min(piece - low, high - 1 - piece) + 0.01 * (high - low) if low <= piece < high else -1
        for low, high in found
    ]
    return scores.index(max(scores))


def test_windows_and_most_context_by_their_definitions():
    for pieces in [0, 1, 2, 5, 6, 7, 13, 40]:
        for room in (1, 4, 6, 50):
            for stride in (1, 2, 4, 5, 9):
                found = spans.window_spans(pieces, room, stride)
                assert found == windows_by_definition(pieces, room, stride)
                owners = spans.most_context(found, pieces)
                assert owners.tolist() == [owner_by_definition(found, p) for p in range(pieces)]


def test_every_answer_has_its_windows():
    questions = [asked(30, first, last) for first in range(30) for last in range(first, 30)]
    made = spans.windows(words(), questions, length=16, stride=4, question_length=4)
    for row in made:
        text, start = questions[row.question].answers[0]
        held = row.starts_L[row.starts_L >= 0][0] <= start
        held &= start + len(text) <= row.ends_L.max()
        assert held == (row.start > 0)
        if held:
            assert row.starts_L[row.start] == start
            assert row.ends_L[row.end] == start + len(text)
        else:
            assert row.end == 0


def test_questions_are_cut_and_contexts_may_be_empty():
    long = asked(3, 1, 1, ' a b c d e f ')
    *rows, bare = spans.windows(words(), [long, Question('y', 'a', '', (), True)], 9, 4, 5)
    # One word and [SEP] behind five of the question.
    assert [(len(row.ids_L), row.types_L.sum(), row.start) for row in rows] == [
        (9, 2, 0), (9, 2, 7), (9, 2, 0),
    ]  # fmt: skip
    assert bare.ids_L.tolist()[::2] == [CLS, SEP]
    assert bare.types_L.tolist() == [0, 0, 0, 1]


@pytest.fixture(scope='module')
def pieces():
    text = ['The Normans, in Normandy, came from Denmark — 10th century (« Normanni »). 山 é'] * 9
    return tokenizer.train([*text, 'where from which when ' + 'abcdefghijklmnopqrstuvwxyz'], 310)


def test_gold_spans_of_real_pieces_give_the_answer_back(pieces):
    context = 'The Normans—in Normandy, came\nfrom «山 Denmark» in the 10th century é\U0001f680.'
    for text in ['Normans', 'Normandy', 'from', '山', ' Denmark', 'é\U0001f680', '10th century ']:
        question = Question('x', 'Which?', context, ((text, context.index(text)),))
        rows = spans.windows(pieces, [question], length=40, stride=8, question_length=12)
        assert len(rows) > 1
        assert all(len(r.ids_L) <= 40 for r in rows)
        v = pieces.vocabulary
        assert {(r.ids_L[0], r.ids_L[-1]) for r in rows} == {(v.cls, v.sep)}
        said = {context[r.starts_L[r.start] : r.ends_L[r.end]].strip() for r in rows if r.start}
        assert len(said) == 1
        assert text.strip() in said.pop()


def test_an_answer_inside_a_piece_is_the_whole_piece():
    question = Question('x', 'q', 'ab cdef gh', (('de', 4),))
    (row,) = spans.windows(words(), [question], training=True)
    assert (row.starts_L[row.start], row.ends_L[row.end]) == (3, 7)


def test_answers_that_cannot_be_recovered_are_not_trained_on():
    lost = Question('x', 'q', 'ab cd', (('cd', 2),))
    hidden = Question('x', 'q', 'ab \n cd', (('\n', 3),))
    questions = [lost, asked(3), hidden, asked(3, 1, 1)]
    assert [w.question for w in spans.windows(words(), questions, training=True)] == [1, 3]
    made = spans.windows(words(), questions)
    assert [(w.question, w.start) for w in made] == [(0, 0), (1, 0), (2, 0), (3, 6)]


def test_marks_that_a_tokenizer_lacks():
    def ends(**marks):
        (row,) = spans.windows(words(**marks), [asked(2, 0, 0)])
        return row.ids_L[0], row.ids_L[-1]

    assert ends() == (CLS, SEP)
    assert ends(cls=None, sep=None) == (9, 9)
    assert ends(cls=None, sep=None, bos=8) == (8, 9)
    with pytest.raises(UserError, match=r'\[CLS\] and \[SEP\]'):
        ends(cls=None, sep=None, eos=-1)
    with pytest.raises(UserError, match=r'67 tokens hold no context .* 68 or longer'):
        spans.windows(words(), [asked(2, 0, 0)], length=67)
    with pytest.raises(UserError, match='stride=0'):
        spans.windows(words(), [asked(2, 0, 0)], stride=0)


def by_definition(rows, starts, ends, context, n_best, longest):
    """All (text, start logit, end logit) of a question, the best first, each text once."""
    found = []
    for row, start, end in zip(rows, starts, ends, strict=True):
        length = len(row.ids_L)
        for s in sorted(range(length), key=start.__getitem__, reverse=True)[:n_best]:
            for e in sorted(range(length), key=end.__getitem__, reverse=True)[:n_best]:
                if row.starts_L[s] < 0 or row.starts_L[e] < 0 or not row.best_L[s]:
                    continue
                if s <= e < s + longest:
                    text = context[row.starts_L[s] : row.ends_L[e]].strip()
                    found.append((text, float(start[s]), float(end[e])))
    listed = {}
    for text, start, end in sorted(found, key=lambda f: f[1] + f[2], reverse=True):
        listed.setdefault(text, (text, start, end))
    return list(listed.values())


def test_n_best_lists_by_their_definition():
    rng = np.random.default_rng(0)
    questions = [asked(count, question='q' + ' q' * (count % 3)) for count in (1, 7, 30, 12, 23)]
    questions.append(questions[0]._replace(context='same same same same same'))
    rows = spans.windows(words(), questions, length=14, stride=3, question_length=4)
    # Rows come in buckets: what is behind them is padding, and must not count.
    starts, ends = (
        [np.pad(rng.normal(size=len(r.ids_L)), (0, 3), constant_values=99) for r in rows]
        for _ in range(2)
    )
    for n_best, longest in ((20, 30), (4, 30), (6, 2)):
        given = spans.best_answers(rows, starts, ends, questions, n_best, longest)
        null = spans.best_answers(rows, starts, ends, questions, n_best, longest, True, 0.3)
        for q, question in enumerate(questions):
            own = [n for n, row in enumerate(rows) if row.question == q]
            expected = by_definition(
                [rows[n] for n in own], [starts[n][: len(rows[n].ids_L)] for n in own],
                [ends[n][: len(rows[n].ids_L)] for n in own], question.context, n_best, longest,
            )  # fmt: skip
            got = [(c.text, c.start_logit, c.end_logit) for c in given[q].candidates]
            assert got == expected[:n_best]
            weights = np.exp([s + e for _, s, e in got])
            shares = [c.probability for c in given[q].candidates]
            np.testing.assert_allclose(shares, weights / weights.sum(), rtol=1e-9)
            assert given[q].null_odds is None
            assert given[q].text == given[q].span == (got[0][0] if got else '')

            none = min(starts[n][0] + ends[n][0] for n in own)
            best = got[0][1] + got[0][2] if got else -np.inf
            if got:
                assert null[q].null_odds == pytest.approx(none - best)
            assert null[q].span == given[q].span
            assert null[q].text == ('' if none - best > 0.3 else given[q].span)
            assert len(null[q].candidates) == len(got) + 1
            shown = [c.text for c in null[q].candidates]
            assert shown.index('') == sum(s + e >= none for _, s, e in got)
            assert sum(c.probability for c in null[q].candidates) == pytest.approx(1)


def test_the_answer_that_logits_point_at_is_found_over_windows():
    questions = [asked(40, n, n + 2) for n in range(0, 37, 4)]
    rows = spans.windows(words(), questions, length=16, stride=4, question_length=4)
    logits = [np.zeros((2, len(r.ids_L)), np.float32) for r in rows]
    for row, (start, end) in zip(rows, logits, strict=True):
        start[row.start] = end[row.end] = 5  # at [CLS] where the window has not the whole
    starts, ends = zip(*logits, strict=True)
    said = spans.best_answers(rows, starts, ends, questions, null=True)
    assert [a.text for a in said] == [q.answers[0][0] for q in questions]
    assert all(a.null_odds == -10 for a in said)


def test_no_answer_and_no_possible_span():
    question = asked(3, 1, 1)
    (row,) = spans.windows(words(), [question])
    assert len(row.ids_L) == 9
    start, end = np.arange(9.0), -np.arange(9.0)  # among the best 2 x 2 no end follows a start
    (answer,) = spans.best_answers([row], [start], [end], [question], n_best=2)
    assert answer == ('', '', [], None)
    (answer,) = spans.best_answers([row], [start], [end], [question], n_best=2, null=True)
    assert (answer.text, answer.span, answer.null_odds) == ('', '', 0 - (0 - 8))
    assert [(c.text, c.probability) for c in answer.candidates] == [('', 1)]
    # The null score is that of the window where it is least; above the threshold alone it wins.
    start, end = np.zeros(9), np.zeros(9)
    start[6], end[6], start[0], end[0] = 2, 1, 3, 1.5
    args = [row, row], [start, start], [end, np.where(np.arange(9) == 0, 1, end)], [question]
    for threshold, text in ((0.99, ''), (1, 'w1')):
        (answer,) = spans.best_answers(*args, null=True, threshold=threshold)
        assert (answer.text, answer.span, answer.null_odds) == (text, 'w1', 1)
    (answer,) = spans.best_answers([], [], [], [question], null=True)
    assert answer == ('', '', [], None)


def test_a_span_of_white_space_is_no_answer():
    row = spans.Window(
        np.arange(5), np.zeros(5), np.array([-1, -1, 0, 1, -1]), np.array([-1, -1, 1, 2, -1]),
        np.array([False, False, True, True, False]), 0,
    )  # fmt: skip
    start = np.array([0, 0, 5, 1, 0])
    (answer,) = spans.best_answers([row], [start], [start], [Question('x', 'q', ' b', ())])
    assert [c.text for c in answer.candidates] == ['b']


def test_the_loss_by_hand_and_independent_of_padding():
    rng = np.random.default_rng(1)
    start, end = rng.normal(size=(2, 4, 7)).astype(np.float32)
    starts, ends = np.array([0, 2, 4, 6]), np.array([0, 3, 4, 6])
    lengths, weights = np.array([3, 4, 7, 1]), np.array([1, 2, 1, 0], np.float32)
    expected = 0
    for b in range(3):
        for logits, place in ((start[b], starts[b]), (end[b], ends[b])):
            shares = np.exp(logits[: lengths[b]].astype(np.float64))
            expected -= weights[b] * 0.5 * np.log(shares[place] / shares.sum())
    total, weight = spans.span_loss(start, end, starts, ends, weights, lengths)
    assert float(total) == pytest.approx(expected, rel=1e-6)
    assert float(weight) == 4
    wide = [jnp.pad(x, ((0, 0), (0, 5)), constant_values=3) for x in (start, end)]
    loss = jax.jit(lambda s, e: spans.span_loss(s, e, starts, ends, weights, lengths)[0])
    assert float(loss(*wide)) == pytest.approx(expected, rel=1e-6)
    gradient = np.asarray(jax.grad(loss)(*wide))
    assert np.isfinite(gradient).all()
    assert not gradient[3].any()
    assert not gradient[0, 3:].any()
    np.testing.assert_allclose(gradient.sum(1), 0, atol=1e-6)
