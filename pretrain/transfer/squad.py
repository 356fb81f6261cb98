"""SQuAD's files: questions about paragraphs, answered by a span of them or, in 2.0, by none.

One JSON file a split holds articles of paragraphs of questions. An answer is its text and the
character of the paragraph at which it begins. The test sets are not public.
"""

import json
from pathlib import Path
from typing import NamedTuple

from pretrain.errors import UserError
from pretrain.transfer import readers, tables

VERSIONS = ('1.1', '2.0')
SPLITS = ('train', 'dev')


class Question(NamedTuple):
    """A question about a paragraph.

    id: what predictions are filed under.
    question, context: the question and the paragraph.
    answers: ((text, first character), ...), all accepted; () of an impossible question.
    impossible: the paragraph does not answer it (2.0).
    """

    id: str
    question: str
    context: str
    answers: tuple[tuple[str, int], ...]
    impossible: bool = False


def find(data_dir, version):
    """The files of a version in a folder.

    Args:
        data_dir: the folder that holds them. version: '1.1' or '2.0'.

    Returns:
        {split: path} of those that are there: train-v1.1.json, or else the one file whose name
        begins like it (train-v1.1-part.json).

    Raises:
        UserError: several files could be a split; there is no such version or folder.
    """
    if version not in VERSIONS:
        raise UserError(f'SQuAD has no version {version!r}: choose one of {", ".join(VERSIONS)}')
    found, folder = {}, Path(data_dir).expanduser()
    fault = readers.wrong_folder(folder, 'squad')
    if fault:
        raise UserError(fault)
    for split in SPLITS:
        name = f'{split}-v{version}'
        exact = folder / f'{name}.json'
        paths = [exact] if exact.is_file() else sorted(folder.glob(f'{name}*.json'))
        if len(paths) > 1:
            raise UserError(
                f'{str(folder)!r} holds {len(paths)} files for {name}.json '
                f'({", ".join(p.name for p in paths)}): leave one, or name one {name}.json'
            )
        if paths:
            found[split] = paths[0]
    return found


def read(path, version=None):
    """Reads a file.

    Args:
        path: a JSON file as distributed. version: '1.1' refuses questions without an answer.

    Returns:
        List of Question in the file's order. What 2.0 calls plausible answers is left out. That an
        answer stands where the file says is checked for the file as a whole; `aligned` checks each.

    Raises:
        UserError: it is no such file, lacks something, has an id twice, or most answers do not
            stand where it says.
    """
    name, questions, seen = repr(str(path)), [], set()
    for a, article in enumerate(_articles(path), 1):
        where = f'{name}: article {a}'
        for p, paragraph in enumerate(_value(article, 'paragraphs', list, where), 1):
            place = f'{where}, paragraph {p}'
            context = _value(paragraph, 'context', str, place)
            for q, qa in enumerate(_value(paragraph, 'qas', list, place), 1):
                made = _question(qa, context, f'{name}: question', f'{place}, question {q}')
                at = f'{name}: question {made.id!r}'
                if made.id in seen:
                    raise UserError(f'{at} stands there twice: give each question its own id')
                if not made.answers and (version == '1.1' or not made.impossible):
                    raise UserError(
                        f'{at} has no answer'
                        + (': only SQuAD 2.0 has such' if made.impossible else
                           ', yet its is_impossible is not true')
                    )  # fmt: skip
                seen.add(made.id)
                questions.append(made)
    if not questions:
        raise UserError(f'{name} holds no question: fetch it again')
    wrong = [(q, m) for q in questions if (m := misplaced(q))]
    answered = sum(bool(q.answers) for q in questions)
    if 2 * len(wrong) > answered:
        raise UserError(
            f'{name}: offsets do not match the text in {len(wrong)} of {answered} questions; the '
            f'first: {wrong[0][0].id!r}, {wrong[0][1]}'
        )
    return questions


def aligned(questions, path, skip_misaligned=True):
    """The questions to train on: those whose first answer stands where the file says.

    Args:
        questions: list of Question, as read from `path`.
        skip_misaligned: leave the others out, as Google's code does; else they are an error.

    Returns:
        (questions, ids of those left out).

    Raises:
        UserError: one does not, and `skip_misaligned` is not set.
    """
    kept, skipped = [], []
    for question in questions:
        wrong = misplaced(question)
        if wrong and not skip_misaligned:
            raise UserError(f'{str(path)!r}: question {question.id!r}: {wrong}')
        (skipped.append(question.id) if wrong else kept.append(question))
    return kept, skipped


def misplaced(question):
    """What is wrong with the place of the first answer, in words; '' where nothing is."""
    if not question.answers:
        return ''
    text, start = question.answers[0]
    if not text.strip():
        return f'its answer is {text!r}, which is no text'
    if not 0 <= start < len(question.context):
        return (
            f'answer_start={start} lies outside the context of {len(question.context)} characters'
        )
    there = question.context[start : start + len(text)]
    return '' if there == text else f'at answer_start={start} stands {there!r}, not {text!r}'


def _articles(path):
    name = repr(str(path))
    try:
        content = Path(path).read_text(encoding='utf-8-sig')
    except OSError as error:
        raise UserError(f'{name} cannot be read ({error.strerror})') from None
    except UnicodeDecodeError as error:
        raise UserError(f'{name} is no UTF-8 text (byte {error.start}): fetch it again') from None
    if not content.strip():
        raise UserError(f'{name} is empty: fetch it again')
    try:
        facts = json.loads(content)
    except ValueError as error:
        line = f' line {error.lineno}' if hasattr(error, 'lineno') else ''
        raise UserError(f'{name}{line} does not parse: {getattr(error, "msg", error)}') from None
    except RecursionError:
        raise UserError(f'{name} does not parse: it nests too deeply') from None
    articles = facts.get('data') if isinstance(facts, dict) else None
    if not isinstance(articles, list) or not all(
        isinstance(a, dict) and 'paragraphs' in a for a in articles
    ):
        raise UserError(
            f'{name} is no file of SQuAD, {{"data": [{{"paragraphs": ...}}, ...]}}: '
            'another benchmark?'
        )
    return articles


def _question(qa, context, known, place):
    """The Question of one entry; `place` says where it stands, until its id is known."""
    key = _value(qa, 'id', str, place)
    place = f'{known} {key!r}'
    impossible = qa.get('is_impossible', False)
    if not isinstance(impossible, bool):
        raise UserError(f'{place}: is_impossible={impossible!r} must be true or false')
    answers = []
    for answer in _value(qa, 'answers', list, place):
        text, start = _value(answer, 'text', str, place), _value(answer, 'answer_start', int, place)
        answers.append((text, start))
    text = _value(qa, 'question', str, place)
    return Question(key, text, context, () if impossible else tuple(answers), impossible)


def _value(entry, key, kind, place):
    """entry[key], which must be of that kind."""
    if not isinstance(entry, dict):
        raise UserError(f'{place} holds {entry!r:.50} where {{"{key}": ...}} should stand')
    if key not in entry:
        raise UserError(f'{place} has no {key!r}')
    value = entry[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        shown = {str: 'a text', int: 'a whole number', list: 'a list'}[kind]
        raise UserError(f'{place}: {key}={value!r:.50} must be {shown}')
    return tables.without_surrogates(value) if kind is str else value
