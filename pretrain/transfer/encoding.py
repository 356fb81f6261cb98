"""From examples to rows of token ids: for an encoder, for a decoder, and for text to text."""

import functools
from typing import NamedTuple

import numpy as np

from objectives import contract
from pretrain.errors import UserError
from pretrain.transfer import prompts, text_to_text
from pretrain.transfer.rows import TARGET_BUCKETS, Row

COPA_QUESTIONS = {
    'cause': 'What was the cause of this?',
    'effect': 'What happened as a result?',
}
PLACEHOLDER = '@placeholder'
SHORTEST = 4  # a token between [CLS] and two [SEP]


class Piece(NamedTuple):
    """A piece of text of one side of a pair.

    field: the example's field that it is, whole; '' where it is made. cut: whether it may be
    shortened before the others.
    """

    text: str
    field: str = ''
    cut: bool = True


def row_length(task, model, length=0):
    """Tokens that a row is cut to.

    Args:
        task: Task. model: TransformerConfig. length: 0: the task's own.

    Raises:
        UserError: so few that no text has room.
    """
    length = length or task.length
    length = min(length, model.max_positions) if model.positions == 'learned' else length
    if length < SHORTEST:
        raise UserError(f'rows of {length} tokens hold no text: set transfer.length higher')
    return length


def target(task, example):
    """The number that a head should give: a class, a float; -1 where the label is not known."""
    if example.label is None:
        return -1
    return example.label if task.kind == 'number' else task.labels.index(example.label)


def encoder_rows(tokens, task, examples, length, types):
    """Rows `[CLS] A [SEP] B [SEP]`, or `[CLS] A [SEP]` (BERT, section 3.1).

    Args:
        tokens: Tokenizer with cls and sep. task: Task. examples: list of Example.
        length: tokens of a row; what is longer loses the ends of its longest pieces.
        types: whether the model has segment embeddings: 0 for A, 1 for B.

    Returns:
        List of Row: one an example; of 'choice' and 'entity' one a choice.
    """
    vocabulary = tokens.vocabulary
    try:
        contract.require(vocabulary, cls='an encoder', sep='an encoder')
    except ValueError as error:
        raise UserError(str(error)) from None
    encode = functools.lru_cache(256)(tokens.encode_with_offsets)  # a passage has many questions
    rows = []
    for number, example in enumerate(examples):
        for sides, goal in _sides(task, example):
            encoded = [[_encode(encode, p, i) for i, p in enumerate(side)] for side in sides]
            _shorten(encoded, sides, length - 1 - len(sides))
            ids, kinds, places = [vocabulary.cls], [0], {}
            for kind, (side, pieces) in enumerate(zip(sides, encoded)):
                for piece, (own, starts, ends) in zip(side, pieces):
                    places[piece.field] = len(ids), len(own), starts, ends
                    ids += own
                ids.append(vocabulary.sep)
                kinds += [kind] * (len(ids) - len(kinds))
            rows.append(
                Row(
                    np.array(ids, np.int32),
                    np.array(kinds, np.int32) if types else None,
                    number,
                    goal,
                    _spans(example, places) if example.spans else None,
                )
            )
    return rows


def decoder_rows(tokens, task, examples, length):
    """Rows of the prompt's text and an eos, from whose place a head reads (GPT, section 3.3).

    What is too long loses its beginning, so that the question stays. Arguments and result as of
    `encoder_rows`.
    """
    vocabulary = tokens.vocabulary
    first = [] if vocabulary.bos is None else [vocabulary.bos]
    rows = []
    for number, example in enumerate(examples):
        made = prompts.prompt(task, example)
        if task.kind == 'entity':
            texts = [
                (made.context + text, _is_answer(example, entity))
                for text, entity in zip(made.choices, example.choices)
            ]
        else:
            ends = made.choices if task.kind == 'choice' else ('',)
            texts = [(made.context + end, target(task, example)) for end in ends]
        for text, goal in texts:
            ids = tokens.encode(text).tolist()[-(length - 1 - len(first)) :]
            row = np.array([*first, *ids, vocabulary.eos], np.int32)
            rows.append(Row(row, None, number, goal))
    return rows


def text_rows(tokens, task, examples, length, training):
    """Rows of T5's strings: the input and its eos, and what is to be said, with an eos.

    Args:
        tokens, task, examples, length: as of `encoder_rows`; what is too long loses its end.
        training: a row for each right answer, and none for examples that T5 does not train on.
    """
    eos = tokens.vocabulary.eos
    rows = []
    for number, example in enumerate(examples):
        if task.kind == 'span':
            asked = text_to_text.squad_inputs(example.question, example.context)
            texts = [text_to_text.squad_text(t) for t, _ in example.answers[:1]] or ['']
        elif training and not text_to_text.trains_on(task, example):
            continue
        else:
            asked = text_to_text.inputs(task, example)
            texts = text_to_text.targets(task, example)
        row = np.array([*tokens.encode(asked).tolist()[: length - 1], eos], np.int32)
        for text in texts if training else texts[:1]:
            # T5 cuts what is to be said as well; no official answer is so long.
            said = np.array(
                [*tokens.encode(text).tolist()[: TARGET_BUCKETS[-1] - 1], eos], np.int32
            )
            rows.append(Row(row, None, number, -1, targets_K=said))
    return rows


def _sides(task, example):
    """The pairs of texts that are read of an example, each with its target."""
    fields, goal = example.fields, target(task, example) if task.kind != 'entity' else None
    if task.kind == 'choice':
        question = COPA_QUESTIONS.get(fields['question'], fields['question'])
        first = (Piece(fields['premise'], 'premise'), Piece(question))
        return [((first, (Piece(text),)), goal) for text in example.choices]
    if task.kind == 'entity':
        passage = (Piece(fields['passage'], 'passage'),)
        return [
            (
                (passage, (Piece(fields['query'].replace(PLACEHOLDER, entity), cut=False),)),
                _is_answer(example, entity),
            )
            for entity in example.choices
        ]
    return [(_pair(task, fields), goal)]


def _pair(task, fields):
    if task.benchmark == 'superglue' and task.name == 'multirc':
        passage = Piece(fields['paragraph'], 'paragraph')
        return (passage, Piece(fields['question'], 'question', False)), (
            Piece(fields['answer'], 'answer', False),
        )
    if task.benchmark == 'superglue' and task.name == 'wic':
        return (Piece(fields['word'], 'word', False), Piece(fields['sentence1'], 'sentence1')), (
            Piece(fields['sentence2'], 'sentence2'),
        )
    return tuple((Piece(fields[name], name),) for name in task.texts)


def _is_answer(example, entity):
    return float(entity in example.answers) if example.answers else -1


def _encode(encode, piece, number):
    """(ids, starts, ends) of a piece; behind another of its side it begins with a space."""
    space = ' ' if number else ''
    ids, starts, ends = encode(space + piece.text)
    return ids.tolist(), starts - len(space), ends - len(space)


def _shorten(encoded, sides, room):
    """Takes tokens from the ends of the longest pieces, in place, until all fit."""
    lengths = {(s, p): len(e[0]) for s, side in enumerate(encoded) for p, e in enumerate(side)}
    allowed = [at for at in lengths if sides[at[0]][at[1]].cut]
    for chosen in (allowed, list(lengths)):
        while sum(lengths.values()) > room and any(lengths[at] for at in chosen):
            longest = max(lengths[at] for at in chosen)
            lengths[[at for at in chosen if lengths[at] == longest][-1]] -= 1
    for (s, p), length in lengths.items():
        del encoded[s][p][0][length:]


def _spans(example, places):
    """First and last place of each marked piece; what was cut away is the last place left."""
    made = []
    for span in example.spans:
        before, kept, starts, ends = places[span.field]
        touched = np.flatnonzero((ends > span.start) & (starts < span.end))
        first, last = (touched[0], touched[-1]) if len(touched) else (0, 0)
        made.append([before + min(place, max(kept - 1, 0)) for place in (first, last)])
    return np.array(made, np.int32)
