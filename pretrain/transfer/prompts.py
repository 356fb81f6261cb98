"""Every task as a decoder is asked: a text that each of the possible answers could continue.

The wording is our own. Whatever is asked, `context + choice` is the whole text and is tokenised as
one; a choice brings its leading space with it. Solved examples in front of the query make it
few-shot (Brown et al. 2020, section 2).
"""

import re
from typing import NamedTuple

import numpy as np

from pretrain.errors import UserError
from pretrain.transfer import text_to_text


class Prompt(NamedTuple):
    """A question with its possible answers.

    context: what all choices share.
    choices: how the text goes on, one for each of `values`.
    values: what each choice stands for: task.labels, the texts of ReCoRD's entities, or the
        numbers from the lowest to the highest, whose mean by probability is the prediction.
    """

    context: str
    choices: tuple[str, ...]
    values: tuple


_PAIR = 'Sentence 1: {sentence1}\nSentence 2: {sentence2}\n'
_CLAIM = 'Text: {text}\nClaim: {claim}\nGoing by the text, is the claim '
_NO_YES = {'False': 'no', 'True': 'yes'}
_THREE = (
    _CLAIM + 'True, False or Neither?\nAnswer:',
    {'entailment': 'True', 'neutral': 'Neither', 'contradiction': 'False'},
)
_TWO = (
    _CLAIM + 'True or False?\nAnswer:',
    {'entailment': 'True', 'not_entailment': 'False'},
)
# Of each task the skeleton of its context and the word that stands for each label.
SKELETONS = {
    'cola': (
        '{sentence}\nIs this a sensible English sentence?\nAnswer:',
        {'unacceptable': 'no', 'acceptable': 'yes'},
    ),
    'sst2': ('Review: {sentence}\nSentiment:', {'negative': 'negative', 'positive': 'positive'}),
    'mrpc': (
        _PAIR + 'Do both sentences mean the same?\nAnswer:',
        {'not_equivalent': 'no', 'equivalent': 'yes'},
    ),
    'qqp': (
        'Question 1: {question1}\nQuestion 2: {question2}\n'
        'Do both questions ask the same?\nAnswer:',
        {'not_duplicate': 'no', 'duplicate': 'yes'},
    ),
    'stsb': (_PAIR + 'How alike are they, from 0 (not at all) to 5 (the same)?\nAnswer:', {}),
    'mnli': _THREE,
    'ax': _THREE,
    'snli': _THREE,
    'cb': _THREE,
    'qnli': (
        'Question: {question}\nText: {sentence}\nDoes the text answer the question?\nAnswer:',
        {'entailment': 'yes', 'not_entailment': 'no'},
    ),
    'rte': _TWO,
    'wnli': _TWO,
    'axb': _TWO,
    'axg': _TWO,
    'boolq': ('Passage: {passage}\nQuestion: {question}\nAnswer:', _NO_YES),
    'multirc': (
        'Passage: {paragraph}\nQuestion: {question}\nCandidate: {answer}\n'
        'Is the candidate correct?\nAnswer:',
        _NO_YES,
    ),
    'wic': (
        _PAIR + 'Does "{word}" have the same meaning in both sentences?\nAnswer:',
        _NO_YES,
    ),
    'wsc': (
        'Text: {marked}\nDoes "*{pronoun}*" refer to "{span1_text}"?\nAnswer:',
        _NO_YES,
    ),
}


def prompt(task, example):
    """The question of an example.

    COPA: the premise and `because` or `therefore`; the choices go on from there, with a small
    letter at their beginning. ReCoRD: the passage and the query up to its placeholder; a choice is
    an entity and the rest of the query, all of which is scored.

    Args:
        task: Task, of one's own: its fields, one a line. example: Example.

    Returns:
        Prompt.
    """
    if task.kind == 'choice':
        return _copa(task, example)
    if task.kind == 'entity':
        return _record(example, tuple(example.choices))
    if task.benchmark == 'own':
        context, words = _own(task, example), {label: label for label in task.labels}
    else:
        skeleton, words = SKELETONS[task.name]
        context = skeleton.format(**_filling(task.name, example))
    if task.kind == 'number':
        values = tuple(np.linspace(task.low, task.high, 6).tolist())
        return Prompt(context, tuple(f' {value:g}' for value in values), values)
    return Prompt(context, tuple(f' {words[label]}' for label in task.labels), task.labels)


def solved(task, example):
    """A question with its right answer behind it: one shot of a few-shot prompt.

    Args:
        task: Task. example: Example with a label. Of a number the nearest choice is told.
    """
    if task.kind == 'entity':
        asked = _record(example, (example.label,))
        return asked.context + asked.choices[0]
    asked = prompt(task, example)
    if task.kind == 'number':
        right = int(np.argmin(np.abs(np.array(asked.values) - example.label)))
    else:
        right = asked.values.index(example.label)
    return asked.context + asked.choices[right]


def few_shot(shots, query):
    """The context of a query behind solved examples, a blank line between any two.

    Args:
        shots: texts of `solved`; none: the context as it is.
        query: Prompt; its choices stay the same.

    Returns:
        The context. The query begins at len(context) - len(query.context) of it.
    """
    return '\n\n'.join([*shots, query.context])


def draw_shots(examples, count, seed, query, query_index=0, per_query=False):
    """Draws the examples that stand in front of a query, without replacement.

    None has the query's texts, whichever split it comes from, and all have a label. What is drawn
    depends on the arguments alone, not on what was drawn before.

    Args:
        examples: list of Example, the train split.
        count: how many.
        seed: int.
        query: Example.
        query_index: its number in its split.
        per_query: each query has its own shots; else all have those of the seed, but that one
            which is the query itself gives way to another.

    Returns:
        List of Examples, in the order in which they stand.

    Raises:
        UserError: there are fewer such examples than asked for.
    """
    number = query_index + 1 if per_query else 0
    key = np.array([seed % 2**64, number], np.uint64)
    random = np.random.Generator(np.random.Philox(key=key))
    shots, seen = [], set()
    own = _texts(query)
    while len(shots) < count:
        if count > len(examples) or len(seen) == len(examples):
            left = len(examples) if count > len(examples) else len(shots)
            raise UserError(
                f'{count} shots are more than the {left} labelled examples of the train split '
                'that are not the query: ask for fewer'
            )
        i = int(random.integers(len(examples)))
        if i not in seen and examples[i].label is not None and _texts(examples[i]) != own:
            shots.append(examples[i])
        seen.add(i)
    return shots


def normaliser(task):
    """What the log-probability of a choice is divided by: 'none', 'tokens' or 'bytes'.

    COPA's and ReCoRD's choices are clauses of any length: a sum over their tokens would prefer the
    short ones, so the default is the mean a token (Brown et al. 2020, section 2.4). 'bytes' would
    be right to compare models with different tokenizers. The words for labels are short answers
    to a question, and their probability is the answer; divided, a word of two tokens would win
    because the second follows from the first.
    """
    return 'tokens' if task.kind in ('choice', 'entity') else 'none'


def _filling(name, example):
    """What stands in the fields of a skeleton."""
    filling = {key: text.strip() for key, text in example.fields.items()}
    for first, second in (('premise', 'hypothesis'), ('sentence1', 'sentence2')):
        if first in filling and second in filling:
            filling |= {'text': filling[first], 'claim': filling[second]}
            break
    if name == 'boolq':  # its questions were typed into a search engine
        filling['question'] = filling['question'].rstrip('? ') + '?'
    elif name == 'wsc':
        _, start, end = example.spans[1]
        filling['pronoun'] = example.fields['text'][start:end]
        filling['marked'] = text_to_text.mark_pronoun(example).strip()
    return filling


def _own(task, example):
    """The context of a task of one's own: its fields, one a line; its labels come as they are."""
    fields = (*task.texts, *sorted(set(example.fields) - set(task.texts)))
    return '\n'.join([*(f'{field}: {example.fields[field].strip()}' for field in fields), 'label:'])


def _copa(task, example):
    fields = example.fields
    word = {'cause': 'because', 'effect': 'therefore'}[fields['question']]
    premise = fields['premise'].strip().rstrip('.')
    choices = tuple(f' {_small(choice.strip())}' for choice in example.choices)
    return Prompt(f'{premise} {word}', choices, task.labels)


def _small(text):
    """With a small letter at its beginning, but for the word I."""
    return text if re.match(r'I\b', text) else text[:1].lower() + text[1:]


def _record(example, entities):
    passage = example.fields['passage'].strip()
    before, placeholder, after = example.fields['query'].strip().partition('@placeholder')
    if not placeholder:
        raise UserError(f'the query of example {example.index} has no @placeholder')
    # The space before an entity is its own: tokenizers join the two.
    shared = before.rstrip()
    choices = (
        before[len(shared) :] + entity + after.replace('@placeholder', entity)
        for entity in entities
    )
    return Prompt(f'{passage}\n{shared}', tuple(choices), entities)


def _texts(example):
    return {key: text.strip() for key, text in example.fields.items()}
