"""SuperGLUE: eight tasks and two diagnostic sets, as the official JSONL files have them.

Wang et al. 2019 (SuperGLUE: A Stickier Benchmark for General-Purpose Language Understanding
Systems). An index is the file's own `idx`, by which the server knows a row.
"""

import functools
import re

from pretrain.transfer import readers, tables, word_spans
from pretrain.transfer.task import Example, Span, Task

NLI = ('entailment', 'neutral', 'contradiction')
ENTAILMENT = ('entailment', 'not_entailment')
BOOLEAN = ('False', 'True')
JSON_BOOLEAN = {'False': False, 'True': True}
LOWER_CASE = {'False': 'false', 'True': 'true'}
ZERO_ONE = {'False': 0, 'True': 1}
HIGHLIGHT = '\n@highlight\n'  # stands between the article and each of its summary points
SENTENCE_END = ('.', '?', '!', '"', "'")
MULTIRC_TAG = r'</?(?:b|i|u|p|em|strong|span)(?:\s[^<>]*)?>'


def make(name, title, labels, texts, metrics, parse, **rest):
    """A Task of SuperGLUE.

    Args:
        parse: (records, label of a record or None, split) -> list of Example.
        rest: further fields of Task, and `files` (see readers.Reader).
    """
    files = rest.pop('files', FILES)
    spellings = rest.setdefault('spellings', {})
    spelt = {text: spellings.get(text, text) for text in labels}

    def label_of(record, split):
        """None in test, and where a diagnostic set has none."""
        if split == 'test' and not (rest.get('predicted_by') and 'label' in record):
            return None
        return tables.class_label(record.where, record.get('label'), spelt)

    def read(path, split):
        records = tables.read_records(path)
        return parse(records, functools.partial(label_of, split=split), split)

    return Task(
        name=name,
        title=title,
        benchmark='superglue',
        labels=labels,
        texts=texts,
        metrics=metrics,
        read=readers.Reader('superglue', (title,), files, read),
        splits=tuple(files),
        file=f'{title}.jsonl',
        **{'kind': 'classes'} | rest,
    )


FILES = {
    'train': ('train.jsonl',),
    'dev': ('val.jsonl', 'dev.jsonl', 'validation.jsonl'),
    'test': ('test.jsonl',),
}


def read_texts(records, label_of, split, fields):
    """Examples whose fields are texts; fields: {name: name in the file}."""
    return [
        Example(
            record.integer('idx'),
            {name: record.text(field) for name, field in fields.items()},
            label_of(record),
        )
        for record in records
    ]


def _texts(*fields, **renamed):
    return functools.partial(read_texts, fields={field: field for field in fields} | renamed)


def read_copa(records, label_of, split):
    """COPA: which of two sentences is the cause, or the effect, of the premise."""
    examples = _texts('premise', 'question', 'choice1', 'choice2')(records, label_of, split)
    for record, example in zip(records, examples):
        if example.fields['question'] not in ('cause', 'effect'):
            asked = tables.show(example.fields['question'])
            raise record.error(f"field 'question' is {asked}: it is 'cause' or 'effect'")
    return [e._replace(choices=(e.fields['choice1'], e.fields['choice2'])) for e in examples]


def without_html(text):
    """Line breaks of MultiRC's HTML become blanks, and its other tags go.

    Only tags that it uses are taken for one: a text may hold a '<' of its own.
    """
    text = re.sub(r'<br\s*/?>', ' ', text, flags=re.IGNORECASE)
    text = re.sub(MULTIRC_TAG, '', text, flags=re.IGNORECASE)
    return ' '.join(text.split())


def read_multirc(records, label_of, split):
    """MultiRC: one Example an answer; the answers of a question are judged together."""
    examples = []
    for record in records:
        passage = record.object('passage')
        p, paragraph = record.integer('idx'), without_html(passage.text('text'))
        for question in passage.objects('questions'):
            q, asked = question.integer('idx'), without_html(question.text('question'))
            for answer in question.objects('answers'):
                fields = {
                    'question': asked,
                    'answer': without_html(answer.text('text')),
                    'paragraph': paragraph,
                }
                index = (p, q, answer.integer('idx'))
                examples.append(Example(index, fields, label_of(answer), group=(p, q)))
    return examples


def read_record(records, label_of, split):
    """ReCoRD: one Example a query, whose choices are the entities that its passage marks.

    The label is the first of the answers that is one of the entities.
    """
    examples, faults, marks = [], [], 0
    for record in records:
        passage = record.object('passage')
        text = passage.text('text')
        entities = passage.objects('entities')
        spans = [_entity(entity, text) for entity in entities]
        marks += len(spans)
        faults += [
            entity.error(
                f'{entity.prefix}start and end mark {span!r}, which cuts a word of the text'
            )
            for entity, span in zip(entities, spans)
            if _cuts_a_word(text, entity.integer('start'), entity.integer('end') + 1)
        ]
        choices = tuple(dict.fromkeys(spans))
        if not choices:
            raise record.error("field 'passage.entities' is empty: there is nothing to choose from")
        joined = without_highlights(text)
        for qa in record.objects('qas'):
            query = qa.text('query')
            if '@placeholder' not in query:
                raise record.error(f'the query {tables.show(query)} holds no @placeholder')
            answers = ()
            if split != 'test':
                told = qa.objects('answers')
                answers = tuple(dict.fromkeys(a.text('text') for a in told))
                if not answers:
                    raise record.error(f'field {qa.prefix}answers is empty')
                marks += len(told)
                faults += [a.error(fault) for a in told if (fault := _misplaced(a, text))]
            label = next((a for a in answers if a in choices), answers[0] if answers else None)
            fields = {'query': query, 'passage': joined}
            examples.append(
                Example(qa.integer('idx'), fields, label, choices=choices, answers=answers)
            )
    if 2 * len(faults) > marks:  # a few are in every distribution; most are a shift
        raise faults[0]
    return examples


def _misplaced(answer, text):
    """What is wrong with the place of an answer; '' where nothing is, or none is told."""
    if 'start' not in answer:
        return ''
    start, end = answer.integer('start'), answer.integer('end')
    there, wanted = text[max(start, 0) : end + 1], answer.text('text')
    return '' if there == wanted else (
        f'at {answer.prefix}start {start}, end {end} stands {tables.show(there)}, not '
        f'{tables.show(wanted)}'
    )  # fmt: skip


def _cuts_a_word(text, start, end):
    """Whether text[start:end], not empty, begins or ends inside a word."""
    before = start and text[start - 1].isalnum() and text[start].isalnum()
    return bool(before) or (end < len(text) and text[end].isalnum() and text[end - 1].isalnum())


def _entity(entity, text):
    start, end = entity.integer('start'), entity.integer('end')  # the end is included
    if not 0 <= start <= end < len(text):
        raise entity.error(
            f'{entity.prefix}start {start}, end {end} are outside the text, which has '
            f'{len(text)} characters'
        )
    return text[start : end + 1]


def without_highlights(text):
    """A ReCoRD passage as running text: its summary points follow it as sentences."""
    first, *points = text.split(HIGHLIGHT)
    for point in points:
        first += (' ' if first.endswith(SENTENCE_END) else '. ') + point
    return first


def read_wic(records, label_of, split):
    """WiC: whether a word means the same in two sentences; both are marked."""
    examples = _texts('sentence1', 'sentence2', 'word')(records, label_of, split)
    marked, faults = [], []
    for record, example in zip(records, examples):
        spans = tuple(_marked(record, example, side) for side in '12')
        marked.append(example._replace(spans=spans))
        for side, span in zip('12', spans):
            held = example.fields[span.field][span.start : span.end]
            if not {*held.lower()} & {*example.fields['word'].lower()}:
                faults.append((record, side, held, example.fields['word']))
    if len(faults) > len(examples):  # of two marks an example
        record, side, held, word = faults[0]
        raise record.error(
            f'start{side} and end{side} mark {tables.show(held)}, no form of {tables.show(word)}; '
            f'{len(faults)} of {2 * len(examples)} marks of this file do so'
        )
    return marked


def _marked(record, example, side):
    """A marked word: any form of it may stand there (went for go), so its edges are what tells."""
    start, end = record.integer(f'start{side}'), record.integer(f'end{side}')
    field = f'sentence{side}'
    text = example.fields[field]
    if not 0 <= start < end <= len(text):
        raise record.error(
            f'start{side} {start}, end{side} {end} are outside {field}, which has {len(text)} '
            'characters (the end is not included)'
        )
    held = text[start:end]
    in_contraction = text[end:].startswith(("n't", 'n’t'))  # which is no part of the word
    if held != held.strip() or _cuts_a_word(text, start, len(text) if in_contraction else end):
        raise record.error(
            f'start{side} {start}, end{side} {end} do not match {field}: they mark '
            f'{tables.show(held)} in {tables.show(text)}, not a form of '
            f'{tables.show(example.fields["word"])}'
        )
    return Span(field, start, end)


def read_wsc(records, label_of, split):
    """WSC: whether a pronoun means a noun; span 1 is the noun, span 2 the pronoun."""
    examples, faults = [], []
    for record in records:
        text, target = record.text('text'), record.object('target')
        fields, spans = {'text': text}, []
        for side in '12':
            wanted, word = target.text(f'span{side}_text'), target.integer(f'span{side}_index')
            fields[f'span{side}_text'] = wanted
            start, end, agrees = word_spans.locate(text, wanted, word)
            if end == start:
                raise record.error(
                    f'target.span{side}_index {word} is outside the text, which has '
                    f'{len(text.split())} words, or span{side}_text {wanted!r} is empty'
                )
            if not agrees:
                faults.append((record, side, wanted, word, text.split()))
            spans.append(Span('text', start, end))
        index = record.integer('idx')
        examples.append(Example(index, fields, label_of(record), spans=tuple(spans)))
    if len(faults) > word_spans.TOLERATED * len(records):
        record, side, wanted, word, words = faults[0]
        there = words[word] if word < len(words) else 'nothing'
        raise record.error(
            f'target.span{side}_index {word} does not match span{side}_text {wanted!r}: the word '
            f'there is {there!r} (words are divided by blanks and counted from 0)'
        )
    return examples


def read_winogender(records, label_of, split):
    """AX-g: pairs that differ in a pronoun's gender and are judged together.

    Files of one distribution give both the same pair_id; in others every row has its own, and the
    pairs are neighbours, which share their hypothesis.
    """
    examples = _texts('premise', 'hypothesis')(records, label_of, split)
    ids = [record.integer('pair_id') if 'pair_id' in record else None for record in records]
    if all(pair is not None and ids.count(pair) == 2 for pair in ids):
        return [e._replace(group=pair) for e, pair in zip(examples, ids)]
    for i in range(0, len(examples), 2):
        pair = [example.fields['hypothesis'] for example in examples[i : i + 2]]
        if len(pair) < 2 or pair[0] != pair[1]:
            raise records[i].error(
                'a pair is two rows with one pair_id, or two that follow each other with the same '
                f'hypothesis; this row has no partner: {tables.show(pair[0])}'
            )
    return [e._replace(group=i // 2) for i, e in enumerate(examples)]


_NLI_TEXTS = ('premise', 'hypothesis')
_ALL = (
    make(
        'boolq',
        'BoolQ',
        BOOLEAN,
        ('passage', 'question'),
        ('accuracy',),
        _texts('passage', 'question'),
        spellings=JSON_BOOLEAN,
        submitted=LOWER_CASE,
        length=256,
    ),
    make('cb', 'CB', NLI, _NLI_TEXTS, ('accuracy', 'macro_f1'), _texts(*_NLI_TEXTS)),
    make(
        'copa',
        'COPA',
        ('choice1', 'choice2'),
        ('premise', 'question'),
        ('accuracy',),
        read_copa,
        kind='choice',
        spellings={'choice1': 0, 'choice2': 1},
        submitted={'choice1': 0, 'choice2': 1},
    ),
    make(
        'multirc',
        'MultiRC',
        BOOLEAN,
        ('paragraph', 'question', 'answer'),
        ('f1a', 'exact_groups'),
        read_multirc,
        spellings=ZERO_ONE,
        submitted=ZERO_ONE,
        length=256,
    ),
    make(
        'record',
        'ReCoRD',
        (),
        ('passage', 'query'),
        ('token_f1', 'token_exact'),
        read_record,
        kind='entity',
        length=384,
    ),
    make('rte', 'RTE', ENTAILMENT, _NLI_TEXTS, ('accuracy',), _texts(*_NLI_TEXTS)),
    make(
        'wic',
        'WiC',
        BOOLEAN,
        ('sentence1', 'sentence2'),
        ('accuracy',),
        read_wic,
        spellings=JSON_BOOLEAN,
        submitted=LOWER_CASE,
    ),
    make(
        'wsc',
        'WSC',
        BOOLEAN,
        ('text',),
        ('accuracy',),
        read_wsc,
        spellings=JSON_BOOLEAN,
        submitted={'False': 'False', 'True': 'True'},
    ),
    make(
        'axb',
        'AX-b',
        ENTAILMENT,
        _NLI_TEXTS,
        ('matthews',),
        _texts(premise='sentence1', hypothesis='sentence2'),
        predicted_by='rte',
        files={'test': ('AX-b.jsonl', 'test.jsonl')},
    ),
    make(
        'axg',
        'AX-g',
        ENTAILMENT,
        _NLI_TEXTS,
        ('accuracy', 'gender_parity'),
        read_winogender,
        predicted_by='rte',
        files={'test': ('AX-g.jsonl', 'test.jsonl')},
    ),
)
TASKS = {task.name: task for task in _ALL}
