"""Answers as spans: rows of a question and a window of its paragraph, and spans out of logits.

A paragraph longer than a row is read through several windows that overlap; a place that stands in
many of them counts in the one where it has most around it. All is as in Google's code for BERT
(run_squad.py) but for the unit: a piece of any tokenizer that knows its characters, so that a
predicted answer is cut out of the paragraph as it is, and nothing needs to be found again.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pretrain.errors import UserError
from pretrain.transfer import squad

HIDDEN = -1e30  # logit of padding; finite, so that a row of nothing else has no NaN in its gradient


class Window(NamedTuple):
    """One row: [CLS] question [SEP] window of the context [SEP].

    ids_L: int32. types_L: int32, 0 up to the first [SEP], then 1.
    starts_L, ends_L: int32, the characters of the context that each place stands for; -1 outside
        of it.
    best_L: bool, of all windows this one has most context around the place (never outside).
    question: number of the question.
    start, end: first and last place of the answer; 0, 0, which is [CLS], where the window does not
        hold all of it, or there is none.
    """

    ids_L: np.ndarray
    types_L: np.ndarray
    starts_L: np.ndarray
    ends_L: np.ndarray
    best_L: np.ndarray
    question: int
    start: int = 0
    end: int = 0


class Candidate(NamedTuple):
    """A possible answer: its probability is its share of the candidates that are left."""

    text: str
    probability: float
    start_logit: float
    end_logit: float


class Answer(NamedTuple):
    """What is said to a question.

    text: the answer; '' for none.
    span: the best text that is not empty, whatever `text` is; '' where no span is possible.
    candidates: list of Candidate, the best first.
    null_odds: how far the score of no answer lies above that of `span`; None in 1.1.
    """

    text: str
    span: str
    candidates: list[Candidate]
    null_odds: float | None


def windows(tokens, questions, length=384, stride=128, question_length=64, training=False):
    """The rows of all questions.

    Where a tokenizer has no [CLS], its bos or else its eos stands there, and eos where it has no
    [SEP] (decoders' and T5's). In a model that reads from left to right that first place sees
    nothing of the row, and the score of no answer is the same for all.

    Args:
        tokens: a tokenizer. questions: list of squad.Question.
        length: most places of a row. stride: pieces from one window's beginning to the next one's.
        question_length: pieces that a question is cut to.
        training: leave out questions whose answer is not there, or not where the file says.

    Returns:
        List of Window: of each question one or more, in the order of the questions. Targets are
        those of its first answer.

    Raises:
        UserError: a row leaves no room for context, or the tokenizer has nothing that ends a text.

    Source: Devlin et al. 2018, section 4.2; run_squad.py for what the paper leaves out.
    """
    if length < question_length + 4:
        raise UserError(
            f'rows of {length} tokens hold no context behind a question of {question_length}: '
            f'make them {question_length + 4} or longer'
        )
    if stride < 1 or question_length < 1:
        raise UserError(f'stride={stride} and question_length={question_length} must be 1 or more')
    cls, sep = _marks(tokens.vocabulary)
    # The questions about one context follow each other.
    offsets = functools.lru_cache(16)(tokens.encode_with_offsets)
    made = []
    for number, question in enumerate(questions):
        ids_T, starts_T, ends_T = offsets(question.context)
        pieces = answer_pieces(question, starts_T, ends_T)
        if training and pieces is None and not question.impossible:
            continue
        asked = tokens.encode(question.question.strip())[:question_length]
        room = length - len(asked) - 3
        head = len(asked) + 2
        spans = window_spans(len(ids_T), room, stride)
        owners_T = most_context(spans, len(ids_T))
        for w, (low, high) in enumerate(spans):
            holds = pieces is not None and low <= pieces[0] and pieces[1] < high
            target = [p - low + head if holds else 0 for p in pieces or (0, 0)]
            made.append(
                Window(
                    np.concatenate([[cls], asked, [sep], ids_T[low:high], [sep]]).astype(np.int32),
                    np.repeat(np.array([0, 1], np.int32), (head, high - low + 1)),
                    _around(starts_T[low:high], head, -1, np.int32),
                    _around(ends_T[low:high], head, -1, np.int32),
                    _around(owners_T[low:high] == w, head, False, bool),
                    number,
                    *target,
                )
            )
    return made


def _marks(vocabulary):
    """The ids at the beginning of a row and behind its texts."""
    eos = vocabulary.eos if vocabulary.eos >= 0 else None
    cls = next((i for i in (vocabulary.cls, vocabulary.bos, eos) if i is not None), None)
    sep = eos if vocabulary.sep is None else vocabulary.sep
    if cls is None or sep is None:
        raise UserError(
            'question and context need a tokenizer with [CLS] and [SEP], or with a token that ends '
            'a text in their place, and this one has not'
        )
    return cls, sep


def _around(values, before, fill, kind):
    return np.pad(values.astype(kind), (before, 1), constant_values=fill)


def window_spans(pieces, room, stride):
    """Where the windows of a context begin and end.

    Args:
        pieces: of the context. room: most of a window. stride: from one beginning to the next.

    Returns:
        List of (first piece, last piece + 1); one that is empty, of an empty context.
    """
    lows = [0]
    while lows[-1] + room < pieces:
        lows.append(lows[-1] + min(room, stride))
    return [(low, min(low + room, pieces)) for low in lows]


def most_context(spans, pieces):
    """The window that each piece counts in.

    That in which the smaller of its left and right context, plus a hundredth of the window's
    length, is greatest; the first of equals.

    Args:
        spans: of windows, as (first piece, last piece + 1). pieces: of the context.

    Returns:
        owners_T: number of a window.
    """
    best_T, owners_T = np.full(pieces, -1.0), np.zeros(pieces, np.int64)
    for w, (low, high) in enumerate(spans):
        left = np.arange(high - low)
        score = np.minimum(left, left[::-1]) + 0.01 * (high - low)
        ahead = score > best_T[low:high]
        best_T[low:high][ahead] = score[ahead]
        owners_T[low:high][ahead] = w
    return owners_T


def answer_pieces(question, starts_T, ends_T):
    """The pieces that hold the first answer, without the white space around it.

    Args:
        question: squad.Question. starts_T, ends_T: characters of the context's pieces.

    Returns:
        (first, last); None where there is no answer, or not where the file says.
    """
    if not question.answers or squad.misplaced(question):
        return None
    text, start = question.answers[0]
    end = start + len(text.rstrip())
    start += len(text) - len(text.lstrip())
    within = np.flatnonzero((starts_T < end) & (ends_T > start))
    return (int(within[0]), int(within[-1])) if len(within) else None


def best_answers(
    windows, start_logits, end_logits, questions, n_best=20, longest=30, null=False, threshold=0.0
):
    """The answer to each question, from the logits of its windows.

    A span is possible if it begins at one of the n_best starts and ends at one of the n_best ends
    of its window, both in the context, the start where no other window has more context around
    it. The score of a span is the sum of its two logits, that of no answer the sum of those at
    [CLS] in the window where it is least.

    Args:
        windows: list of Window.
        start_logits, end_logits: one array a window, of its places at least; what is behind them
            is padding.
        questions: those that the windows were made of.
        n_best: starts and ends that are tried, and candidates that are returned.
        longest: most pieces of an answer.
        null: there may be no answer (2.0).
        threshold: there is none if its score lies further than this above that of the best span.

    Returns:
        List of Answer, one a question. Where no span is possible the text is '' and the odds are
        reckoned against the worst span there could be.

    Source: run_squad.py; Devlin et al. 2018, section 4.3 for the threshold.
    """
    found = [[] for _ in questions]
    for window, start_L, end_L in zip(windows, start_logits, end_logits, strict=True):
        found[window.question].append(_spans(window, start_L, end_L, n_best, longest))
    return [
        _answer(question.context, spans, n_best, null, threshold)
        for question, spans in zip(questions, found, strict=True)
    ]


class _Spans(NamedTuple):
    """Possible spans of a window: their characters and logits; no answer; the worst there is."""

    characters_Nx2: np.ndarray
    logits_Nx2: np.ndarray
    null: tuple[float, float]
    worst: float


def _spans(window, start_L, end_L, n_best, longest):
    places = len(window.ids_L)
    start_L, end_L = (np.asarray(x[:places], np.float64) for x in (start_L, end_L))
    starts = np.argsort(-start_L, kind='stable')[:n_best]
    ends = np.argsort(-end_L, kind='stable')[:n_best]
    starts = starts[window.best_L[starts]]
    ends = ends[window.ends_L[ends] >= 0]
    size = ends - starts[:, None] + 1
    s, e = np.nonzero((size >= 1) & (size <= longest))
    first, last = starts[s], ends[e]
    return _Spans(
        np.stack([window.starts_L[first], window.ends_L[last]], 1),
        np.stack([start_L[first], end_L[last]], 1),
        (float(start_L[0]), float(end_L[0])),
        float(start_L.min() + end_L.min()),
    )


def _answer(context, spans, n_best, null, threshold):
    entries = []  # (text, start logit, end logit), the best first, each text once
    if spans:
        characters_Nx2 = np.concatenate([s.characters_Nx2 for s in spans])
        logits_Nx2 = np.concatenate([s.logits_Nx2 for s in spans])
        seen = {''}  # a span of white space is no answer
        for n in np.argsort(-logits_Nx2.sum(1), kind='stable'):
            low, high = characters_Nx2[n]
            text = context[low:high].strip()
            if text not in seen:
                seen.add(text)
                entries.append((text, *map(float, logits_Nx2[n])))
                if len(entries) == n_best:
                    break
    span = entries[0][0] if entries else ''
    text, odds = span, None
    if null and spans:
        none = min((s.null for s in spans), key=sum)
        odds = sum(none) - (sum(entries[0][1:]) if entries else min(s.worst for s in spans))
        text = '' if odds > threshold else span
        entries = sorted([*entries, ('', *none)], key=lambda entry: -sum(entry[1:]))
    scores = np.array([sum(entry[1:]) for entry in entries])
    shares = np.exp(scores - scores.max()) if entries else scores
    shares = shares / shares.sum() if entries else shares
    candidates = [
        Candidate(shown, float(share), *logits)
        for (shown, *logits), share in zip(entries, shares, strict=True)
    ]
    return Answer(text, span, candidates, odds)


def span_loss(start_logits_BxL, end_logits_BxL, starts_B, ends_B, weights_B, lengths_B):
    """Half the cross-entropies of the answers' first and last places.

    The softmax runs over the whole row, question and [CLS] included. Google's code has the padding
    in it as well; here rows are padded to different lengths, on which the loss must not depend, so
    the padding is left out.

    Args:
        start_logits_BxL, end_logits_BxL: of all places. starts_B, ends_B: the right ones.
        weights_B: 0 for rows that do not count. lengths_B: places of each row that are no padding.

    Returns:
        (sum, weight): float32, the loss is their quotient.

    Source: Devlin et al. 2018, section 4.2.
    """
    real_BxL = jnp.arange(start_logits_BxL.shape[1]) < lengths_B[:, None]
    loss_B = jnp.zeros(len(starts_B), jnp.float32)
    for logits_BxL, places_B in ((start_logits_BxL, starts_B), (end_logits_BxL, ends_B)):
        logits_BxL = jnp.where(real_BxL, logits_BxL.astype(jnp.float32), HIDDEN)
        right_B = jnp.take_along_axis(logits_BxL, places_B[:, None], axis=1)[:, 0]
        loss_B += 0.5 * (jax.nn.logsumexp(logits_BxL, axis=1) - right_B)
    # A row that only fills the batch up may hold anything.
    loss_B = jnp.where(weights_B > 0, loss_B, 0)
    return jnp.sum(loss_B * weights_B), jnp.sum(weights_B)
