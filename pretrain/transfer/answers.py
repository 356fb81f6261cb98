"""How well an answer in words agrees with the right ones: SQuAD's normalisation, exact match, F1.

Two forms of F1 stand here because the official scripts differ on empty texts: SQuAD 1.1 (and T5,
and ReCoRD) give two empty texts 0, SQuAD 2.0 gives them 1, for there an empty answer says 'the
question has none'.
"""

import collections
import re
import string

from pretrain.errors import UserError

_WITHOUT_PUNCTUATION = str.maketrans('', '', string.punctuation)
_ARTICLES = re.compile(r'\b(?:a|an|the)\b')


def normalise(text: str) -> str:
    """Lower case, without ASCII punctuation and articles, words divided by single spaces.

    Source: SQuAD (Rajpurkar et al. 2016), section 6.1, and the official script of version 1.1.
    """
    text = text.lower().translate(_WITHOUT_PUNCTUATION)
    # A space in the article's place: deleting alone could join what stood on its two sides.
    return ' '.join(_ARTICLES.sub(' ', text).split())


def exact_match(prediction: str, answer: str) -> float:
    """1.0 if both texts are the same once normalised, otherwise 0.0."""
    return float(normalise(prediction) == normalise(answer))


def f1(prediction: str, answer: str) -> float:
    """F1 over the two bags of normalised words, in the form of SQuAD 1.1: 0 if either is empty."""
    predicted = collections.Counter(normalise(prediction).split())
    right = collections.Counter(normalise(answer).split())
    shared = (predicted & right).total()
    return 2 * shared / (predicted.total() + right.total()) if shared else 0.0


def f1_with_empty(prediction: str, answer: str) -> float:
    """As `f1`, in the form of SQuAD 2.0: where either text is empty, 1 if both are, otherwise 0."""
    if not normalise(prediction) or not normalise(answer):
        return exact_match(prediction, answer)
    return f1(prediction, answer)


def best_over(answers, prediction: str, measure) -> float:
    """The best of `measure(prediction, answer)` over the right answers (at least one)."""
    return max(measure(prediction, answer) for answer in answers)


def evaluate(gold, predictions, null_scores=None, null_threshold: float = 1.0) -> dict:
    """SQuAD's report, in percent, with the names and the arithmetic of the official script.

    The rules of 2.0 hold where a question without answers is in `gold` or null scores are given;
    otherwise those of 1.1, and the report has no splits.

    Args:
      gold: {question id: right answers}, an empty list where the question has none.
      predictions: {question id: text}, '' for 'no answer'. A question that is missing here counts
        as wrong (official 2.0 leaves it out of the mean instead), and `missing` counts them.
      null_scores: {question id: score}, higher where 'no answer' is likelier.
      null_threshold: a question with a null score above it counts as predicted to have no answer;
        1.0 as in the official script, float('inf') to take the predictions as they are. Only
        exact, f1 and the splits depend on it: the search for the best threshold does not.

    Returns:
      exact, f1, total, missing; for 2.0 the first three again as HasAns_* and NoAns_* (where there
      are such questions); with null scores best_exact, best_exact_thresh, best_f1, best_f1_thresh:
      the best that one threshold on null scores reaches, and that threshold.

    Raises:
      UserError: no questions; a prediction without a null score.

    Source: evaluate-v1.1.py and evaluate-v2.0.py of SQuAD (Rajpurkar et al. 2016; 2018).
    """
    if not gold:
        raise UserError('no questions to score: give a file that has some')
    answerable = {question: bool(answers) for question, answers in gold.items()}
    second = null_scores is not None or not all(answerable.values())
    exact, overlap = {}, {}
    for question, answers in gold.items():
        if question not in predictions:
            continue
        if second:
            answers = [answer for answer in answers if normalise(answer)] or ['']
        prediction = predictions[question]
        exact[question] = best_over(answers, prediction, exact_match)
        overlap[question] = best_over(answers, prediction, f1_with_empty if second else f1)

    cut_exact, cut_overlap = exact, overlap
    if null_scores is not None:
        without = [question for question in exact if question not in null_scores]
        if without:
            raise UserError(
                f'{len(without)} predictions have no null score, the first {without[0]!r}: '
                'give one for each question'
            )
        emptied = {
            question: float(not answerable[question])
            for question in exact
            if null_scores[question] > null_threshold
        }
        cut_exact, cut_overlap = exact | emptied, overlap | emptied

    def means(questions, prefix=''):
        total = len(questions)
        return {
            f'{prefix}exact': 100 * sum(cut_exact.get(name, 0.0) for name in questions) / total,
            f'{prefix}f1': 100 * sum(cut_overlap.get(name, 0.0) for name in questions) / total,
            f'{prefix}total': total,
        }

    report = means(list(gold)) | {'missing': len(gold) - len(exact)}
    if second:
        for prefix, wanted in (('HasAns_', True), ('NoAns_', False)):
            questions = [name for name in gold if answerable[name] == wanted]
            report |= means(questions, prefix) if questions else {}
    if null_scores is not None:
        for name, scores in (('exact', exact), ('f1', overlap)):
            best, threshold = _best_threshold(scores, predictions, null_scores, answerable)
            report |= {f'best_{name}': best, f'best_{name}_thresh': threshold}
    return report


def _best_threshold(scores, predictions, null_scores, answerable):
    """The best mean score (percent) over thresholds, and the first threshold that reaches it.

    The threshold starts below all null scores, so that every question is predicted to have no
    answer, and rises past one question after another; equal null scores are passed one by one, as
    the official script does.
    """
    score = best = sum(not answerable[question] for question in scores)
    threshold = 0.0
    for question in sorted(null_scores, key=null_scores.get):
        if question not in scores:
            continue
        if answerable[question]:
            score += scores[question]
        elif predictions[question]:
            score -= 1
        if score > best:
            best, threshold = score, null_scores[question]
    return 100 * best / len(answerable), threshold
