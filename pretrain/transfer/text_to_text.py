"""Every task as T5 was given it: one string in, one string out.

The strings are those of T5's released preprocessing (Raffel et al. 2020, appendix D), which a
published checkpoint knows by heart: `<name> <key>: <text> <key>: <text>`, keys in alphabetical
order but for MultiRC and WiC. What T5 cleans (MultiRC's HTML, ReCoRD's highlights) the readers of
the files have cleaned already, for every cast. T5 has no SNLI; it is cast as MNLI is, under its own
name. A task of one's own follows the same rule with its name and its fields.

WSC: T5 marks the pronoun with asterisks, is trained on the examples whose noun is right, and tells
the noun. WNLI: T5 is not trained on it and finds a noun in the hypothesis by rules that were tried
on its two evaluation splits alone; here it is a pair of sentences like any other, with the labels
as targets, so that its own examples can be trained on.

SQuAD's questions are no Examples: `squad_inputs` and `squad_text` work on their texts.
"""

import math
import re

import numpy as np

UNKNOWN = '<unk>'  # the target of an example without a label
LEVELS = 25  # steps between the lowest and the highest number that is told (STS-B: 0.2)

_NAMES = {'ax': 'mnli', 'axb': 'rte', 'axg': 'rte'}  # diagnostics, under the name of their task
_KEYS = {
    'multirc': ('question', 'answer', 'paragraph'),
    'wic': ('sentence1', 'sentence2', 'word'),
}
# T5's list of words that do not count when two nouns are compared.
_DETERMINERS = frozenset({
    'a', 'an', 'few', 'her', 'his', 'each', 'every', 'many', 'much', 'my', 'our', 'some', 'that',
    'the', 'their', 'these', 'this', 'those', 'which', 'whose', 'your',
})  # fmt: skip


def inputs(task, example):
    """What the encoder reads.

    Args:
        task: Task. example: Example.
    """
    fields, name = example.fields, t5_name(task)
    if name == 'wsc':
        return f'wsc: {mark_pronoun(example)}'
    if name == 'record':
        return (
            f'record query: {fields["query"]} entities: {", ".join(example.choices)} '
            f'passage: {fields["passage"]}'
        )
    texts = (f'{key}: {fields[key]}' for key in _KEYS.get(name, sorted(fields)))
    return ' '.join([name or task.name, *texts])


def target(task, example):
    """What the decoder is to tell: the first of `targets`."""
    return targets(task, example)[0]


def targets(task, example):
    """All right targets; each is a row to train on (ReCoRD has one an answer).

    Args:
        task: Task. example: Example.

    Returns:
        Tuple of one or more strings: '<unk>' where the label is not known, but WSC's noun always:
        `trains_on` says whether it is the right one.
    """
    if t5_name(task) == 'wsc':
        return (example.fields['span1_text'],)
    if task.kind == 'entity' and example.answers:
        return example.answers
    if example.label is None:
        return (UNKNOWN,)
    return (_spell(task, example.label) if task.kind == 'number' else example.label,)


def trains_on(task, example):
    """Whether an example is trained on: it has a label, and that of WSC is 'True'."""
    if t5_name(task) == 'wsc':
        return example.label == 'True'
    return example.label is not None or bool(example.answers)


def labels(task, example):
    """All strings among which the target is, for ranking them by their probability.

    Returns:
        Tuple of strings: of classes in the order of task.labels, of a number from the lowest on
        (STS-B: 26), of ReCoRD the entities. None for WSC: the data name one noun of each text,
        so there is nothing to rank it against; what the decoder tells freely is parsed.
    """
    if t5_name(task) == 'wsc':
        return None
    if task.kind == 'number':
        levels = np.linspace(task.low, task.high, LEVELS + 1)
        return tuple(_spell(task, level) for level in levels)
    return tuple(example.choices) if task.kind == 'entity' else task.labels


def parse(task, example, text):
    """What a text from the decoder says.

    Args:
        task: Task. example: Example that was read. text: str, without special tokens.

    Returns:
        One of task.labels, or '' if the text is none of them, which every metric counts as wrong;
        of a number a float, 1 below the lowest (STS-B: -1.0) if it is none; of ReCoRD the text.
        WSC: 'True' or 'False', whether the text names the example's noun.
    """
    text = text.strip()
    if t5_name(task) == 'wsc':
        return str(same_noun(text, example.fields['span1_text']))
    if task.kind == 'number':
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        return number if math.isfinite(number) else task.low - 1.0
    return text if task.kind == 'entity' or text in task.labels else ''


def t5_name(task):
    """The name that T5 calls a benchmark's task by; '' for a task of one's own."""
    return '' if task.benchmark == 'own' else _NAMES.get(task.name, task.name)


def same_noun(text, noun):
    """T5's rule: the words of one are all among those of the other, determiners and case aside.

    A possessive ("Bob's hat") is never the same as a text without one ("Bob").
    """
    told, known = (
        [word for word in s.strip().lower().split(' ') if word not in _DETERMINERS]
        for s in (text, noun)
    )
    if any("'" in word for word in told) != any("'" in word for word in known):
        return False
    # An empty text is the empty word, not the empty set, which would be part of every noun.
    told, known = set(told) or {''}, set(known) or {''}
    return told <= known or known <= told


def mark_pronoun(example):
    """WSC's text with asterisks around the pronoun, which stands between spaces as in T5."""
    text, (_, start, end) = example.fields['text'], example.spans[1]
    before, after = text[:start], text[end:]
    before += ' ' if before and not before[-1].isspace() else ''
    after = ' ' + after if after and not after[0].isspace() else after
    return f'{before}*{text[start:end]}*{after}'


def squad_inputs(question, context):
    """SQuAD as T5 reads it: `question: ... context: ...`."""
    return f'question: {squad_text(question)} context: {squad_text(context)}'


def squad_text(text):
    """A text of SQuAD with spaces around every character but letters, digits and _ of ASCII.

    Accented letters are thus set apart too, as in T5. Targets are spelt this way, and so must be
    the answers that what is told is scored against. T5 leaves spaces at the ends; its tokenizer
    drops them, ours would keep them, so they are dropped here.
    """
    return re.sub(r'[ \t\n\f\r]+', ' ', re.sub(r'(\W)', r' \1 ', text, flags=re.ASCII)).strip(' ')


def _spell(task, number):
    """A number as text: the nearest of 26 levels, halves to the even one (STS-B: '2.4' of 2.5)."""
    # float32 as in T5, and times 5, not divided by 0.2: both decide which side of a half it is.
    steps = np.float32(LEVELS / (task.high - task.low))
    level = np.clip(np.round(np.float32(number - task.low) * steps), 0, LEVELS)
    decimals = max(1, math.ceil(math.log10(LEVELS / (task.high - task.low))))
    return f'{task.low + float(level) / float(steps):.{decimals}f}'
