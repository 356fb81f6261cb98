"""What a task is: its examples, its labels as strings, its metrics. Families of models come later.

Labels are kept as strings from the file to the submission, because every codebase numbers them in
another order; a number stands for a label only inside a head, in the order of `Task.labels`.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

SPLITS = ('train', 'dev', 'test')


class Span(NamedTuple):
    """A marked piece of one of an example's texts: characters `start` to `end` (not included)."""

    field: str
    start: int
    end: int


class Example(NamedTuple):
    """One thing to decide.

    index: what the submission calls it: a row number, an idx; of MultiRC (passage, question,
        answer).
    fields: {name: text}, with the names that T5's inputs have ({'premise': ..., ...}).
    label: one of the task's labels; a float for a regression; None where it is not known. Of
        ReCoRD one of `answers`.
    group: examples of one group are judged together (MultiRC: (passage, question); AX-g: the
        pair); None: each for itself.
    spans: marked pieces of the texts (WiC: the word in both sentences; WSC: noun, pronoun).
    choices: texts of which one is right (COPA: two; ReCoRD: the entities); () otherwise.
    answers: all right answers (ReCoRD); () otherwise.
    """

    index: int | tuple
    fields: dict
    label: str | float | None = None
    group: tuple | int | None = None
    spans: tuple[Span, ...] = ()
    choices: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Task:
    """A task and what must be known of it to train, score and submit.

    name: as a config names it ('sst2'). title: as leaderboards do ('SST-2').
    benchmark: 'glue', 'superglue', 'snli', or 'own' (a task by config alone).
    kind: 'classes' (one of `labels`), 'number' (a float between low and high), 'choice' (one of
        two texts: COPA), 'entity' (one of any number of texts: ReCoRD).
    labels: strings, in the order of the head's outputs; the last is the positive class of F1.
        Of 'choice' ('choice1', 'choice2'); () for the others.
    texts: names of the fields that an encoder reads as its first and second text.
    metrics: names of functions in metrics.METRICS; the task's score is their mean.
    read: (folder of the benchmark, split) -> list of Example, in the file's order.
    splits: those that the benchmark has, in the order of SPLITS ('dev_mismatched' besides them).
    spellings: {label: how the files spell it}; a label that is not in it is spelt as it is.
    submitted: {label: what the submission writes, a string or an int}; as spellings otherwise.
    file: of the submission ('SST-2.tsv'), '' where there is none.
    predicted_by: the task whose model predicts this one (AX: 'mnli'); '' where it has its own.
    length: tokens that a row is cut to.
    low, high: of a number.
    """

    name: str
    title: str
    benchmark: str
    kind: str
    labels: tuple[str, ...]
    texts: tuple[str, ...]
    metrics: tuple[str, ...]
    read: Callable[[str, str], list]
    splits: tuple[str, ...] = SPLITS
    spellings: dict = dataclasses.field(default_factory=dict)
    submitted: dict = dataclasses.field(default_factory=dict)
    file: str = ''
    predicted_by: str = ''
    length: int = 128
    low: float = 0.0
    high: float = 5.0
