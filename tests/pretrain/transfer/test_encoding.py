"""Rows word by word, with a tokenizer whose tokens are the words; spans with a real one."""

import functools
import random
import re
import types

import numpy as np
import pytest

from pretrain.data import tokenizer
from pretrain.errors import UserError
from pretrain.model.config import TransformerConfig
from pretrain.transfer import encoding
from pretrain.transfer.squad import Question
from pretrain.transfer.task import Example, Span, Task

SPECIAL = ('[PAD]', '[EOS]', '[BOS]', '[CLS]', '[SEP]')


class Words:
    """A tokenizer whose tokens are the words between white space."""

    def __init__(self, **missing):
        self.ids = {name: i for i, name in enumerate(SPECIAL)}
        self.vocabulary = types.SimpleNamespace(
            **({'pad': 0, 'eos': 1, 'bos': None, 'cls': 3, 'sep': 4} | missing)
        )

    def encode_with_offsets(self, text):
        ids, starts, ends, at = [], [], [], 0
        for word in text.split():
            starts.append(text.index(word, at))
            ends.append(at := starts[-1] + len(word))
            ids.append(self.ids.setdefault(word, len(self.ids)))
        return tuple(np.array(x, np.int64) for x in (ids, starts, ends))

    def encode(self, text):
        return self.encode_with_offsets(text)[0]

    def said(self, ids):
        names = {i: name for name, i in self.ids.items()}
        return ' '.join(names[i] for i in ids.tolist())


def task(name='own', kind='classes', labels=('no', 'yes'), texts=('a', 'b'), benchmark='own'):
    return Task(name, name, benchmark, kind, labels, texts, (), lambda folder, split: [])


def superglue(name, texts=(), labels=('False', 'True'), kind='classes'):
    return task(name, kind, labels, texts, 'superglue')


def pair(a, b, label=None):
    return Example(0, {'a': a, 'b': b}, label)


def encoder(of_task, *examples, length=64, kinds=True):
    """[(words of a row, types, target, number of its example)] and the rows."""
    tokens = Words()
    made = encoding.encoder_rows(tokens, of_task, list(examples), length, kinds)
    assert all(row.ids_L.dtype == np.int32 for row in made)
    told = [
        (tokens.said(row.ids_L), None if row.types_L is None else row.types_L.tolist(),
         row.target, row.example) for row in made
    ]  # fmt: skip
    return told, made


def numbered(letter, count):
    return ' '.join(f'{letter}{i}' for i in range(count))


def test_one_text_and_two():
    told, made = encoder(task(), pair('x y', 'z', 'yes'), pair('', 'z', 'no'), pair('x', ''))
    assert told == [
        ('[CLS] x y [SEP] z [SEP]', [0, 0, 0, 0, 1, 1], 1, 0),
        ('[CLS] [SEP] z [SEP]', [0, 0, 1, 1], 0, 1),
        ('[CLS] x [SEP] [SEP]', [0, 0, 0, 1], -1, 2),
    ]
    assert all(row.spans_Sx2 is row.targets_K is None for row in made)
    assert made[0].types_L.dtype == np.int32
    told, _ = encoder(task(texts=('b',)), pair('x y', 'z w'), kinds=False)
    assert told == [('[CLS] z w [SEP]', None, -1, 0)]


def test_what_is_decided():
    """A class by its place among the labels, a number as it is, and -1 for what is not known."""
    three = task(labels=('c', 'a', 'b'))
    known = [encoding.target(three, pair('', '', label)) for label in ('a', 'b', 'c', None)]
    assert known == [1, 2, 0, -1]
    number = task(kind='number', labels=())
    assert [encoding.target(number, pair('', '', n)) for n in (0.0, 3.25, None)] == [0.0, 3.25, -1]


def popped(lengths, room, order=None):
    """Takes tokens one by one from the longest, of equal ones from the later one."""
    lengths = list(lengths)
    while sum(lengths) > room:
        longest = 0
        for i, length in enumerate(lengths):
            if length >= lengths[longest]:
                longest = i
        lengths[longest] -= 1
    return lengths


def test_the_longer_text_loses_its_end():
    rng = random.Random(0)
    for _ in range(200):
        first, second = rng.randrange(1, 15), rng.randrange(1, 15)
        length = rng.randrange(4, 35)
        kept = popped((first, second), length - 3)
        told, _ = encoder(task(), pair(numbered('a', first), numbered('b', second)), length=length)
        a, b = (numbered(letter, n) for letter, n in zip('ab', kept))
        known = ' '.join(f'[CLS] {a} [SEP] {b} [SEP]'.split())
        assert told[0][0] == known
        assert told[0][1] == [0] * (2 + kept[0]) + [1] * (1 + kept[1])
        assert len(known.split()) == min(length, first + second + 3)
    told, _ = encoder(task(texts=('a',)), pair(numbered('a', 20), ''), length=10)
    assert told[0][0] == f'[CLS] {numbered("a", 8)} [SEP]'
    # By hand: 5 and 4 into 6: 4 and 4, then the second, the first, and then they are equal.
    told, _ = encoder(task(), pair('a b c d e', 'v w x y'), length=9)
    assert told[0][0] == '[CLS] a b c [SEP] v w x [SEP]'


def test_multirc_shortens_the_passage_alone():
    multirc = superglue('multirc')
    fields = {
        'question': numbered('q', 3), 'answer': numbered('a', 4), 'paragraph': numbered('p', 30),
    }  # fmt: skip
    told, _ = encoder(multirc, Example((0, 1, 2), fields, 'True', group=(0, 1)), length=15)
    assert told == [
        ('[CLS] p0 p1 p2 p3 p4 q0 q1 q2 [SEP] a0 a1 a2 a3 [SEP]', [0] * 10 + [1] * 5, 1, 0)
    ]
    # What has no room without any passage loses the longest of the rest.
    told, _ = encoder(multirc, Example(0, fields), length=9)
    assert told[0][0] == '[CLS] q0 q1 q2 [SEP] a0 a1 a2 [SEP]'
    # Another benchmark's task of that name is read as it says.
    told, _ = encoder(task('multirc', texts=('answer', 'question')), Example(0, fields))
    assert told[0][0] == '[CLS] a0 a1 a2 a3 [SEP] q0 q1 q2 [SEP]'


def wic(first, second, word='go', label=None):
    """The marked word is the one in capitals."""
    spans = []
    for field, text in (('sentence1', first), ('sentence2', second)):
        [marked] = [w for w in text.split() if w.isupper()]
        spans.append(Span(field, text.index(marked), text.index(marked) + len(marked)))
    fields = {'sentence1': first, 'sentence2': second, 'word': word}
    return Example(0, fields, label, spans=tuple(spans))


def test_wic_has_its_word_in_front_and_marks_both():
    told, made = encoder(superglue('wic'), wic('we GO there', 'he WENT', label='False'))
    assert told == [('[CLS] go we GO there [SEP] he WENT [SEP]', [0, 0, 0, 0, 0, 0, 1, 1, 1], 0, 0)]
    assert made[0].spans_Sx2.tolist() == [[3, 3], [7, 7]]
    assert made[0].spans_Sx2.dtype == np.int32
    # A word of two tokens moves both marks.
    _, made = encoder(superglue('wic'), wic('we GO there', 'he WENT', word='go on'))
    assert made[0].spans_Sx2.tolist() == [[4, 4], [8, 8]]


def test_what_was_cut_away_is_marked_by_the_last_place_left():
    example = wic('a b c d e GO', 'WENT g h')
    told, made = encoder(superglue('wic'), example, length=10)
    assert told[0][0] == '[CLS] go a b c [SEP] WENT g h [SEP]'
    assert made[0].spans_Sx2.tolist() == [[4, 4], [6, 6]]
    told, made = encoder(superglue('wic'), example, length=4)  # nothing is left of either
    assert told[0][0] == '[CLS] go [SEP] [SEP]'
    assert (made[0].spans_Sx2 < 4).all()


def test_wsc_marks_noun_and_pronoun():
    text = 'the old man said that he was ill'
    spans = Span('text', 0, 11), Span('text', text.index('he was'), text.index('he was') + 2)
    fields = {'text': text, 'span1_text': 'The old man', 'span2_text': 'he'}
    wsc = superglue('wsc', ('text',))
    told, made = encoder(wsc, Example(0, fields, 'True', spans=spans))
    assert told == [(f'[CLS] {text} [SEP]', [0] * 10, 1, 0)]
    assert made[0].spans_Sx2.tolist() == [[1, 3], [6, 6]]
    # A span that is cut in the middle keeps its beginning.
    _, made = encoder(wsc, Example(0, fields, spans=spans), length=4)
    assert made[0].spans_Sx2.tolist() == [[1, 2], [2, 2]]


def copa(question='cause', label=None):
    choices = 'it rained', 'he fell'
    fields = {'premise': 'it was wet', 'question': question}
    return Example(0, fields | dict(zip(('choice1', 'choice2'), choices)), label, choices=choices)


def test_copa_has_two_rows_with_the_same_target():
    of_task = superglue('copa', ('premise', 'question'), ('choice1', 'choice2'), 'choice')
    told, _ = encoder(of_task, copa(label='choice2'), copa('effect', 'choice1'), copa())
    why, then = 'What was the cause of this?', 'What happened as a result?'
    first = [0] * 11
    assert told == [
        (f'[CLS] it was wet {why} [SEP] it rained [SEP]', [*first, 1, 1, 1], 1, 0),
        (f'[CLS] it was wet {why} [SEP] he fell [SEP]', [*first, 1, 1, 1], 1, 0),
        (f'[CLS] it was wet {then} [SEP] it rained [SEP]', [*first[1:], 1, 1, 1], 0, 1),
        (f'[CLS] it was wet {then} [SEP] he fell [SEP]', [*first[1:], 1, 1, 1], 0, 1),
        *[(f'[CLS] it was wet {why} [SEP] {c} [SEP]', [*first, 1, 1, 1], -1, 2)
          for c in ('it rained', 'he fell')],
    ]  # fmt: skip


def record(answers=(), choices=('Ann', 'Bob Lee', 'Eve')):
    fields = {'passage': numbered('p', 12), 'query': 'who saw @placeholder and @placeholder go'}
    label = answers[0] if answers else None
    return Example(0, fields, label, choices=choices, answers=answers)


def test_record_has_a_row_for_every_entity():
    of_task = superglue('record', ('passage', 'query'), (), 'entity')
    told, _ = encoder(of_task, record(('Eve', 'Ann')), record(), length=16)
    one, two = 'who saw Ann and Ann go', 'who saw Bob Lee and Bob Lee go'
    three = one.replace('Ann', 'Eve')
    passage = numbered('p', 7), numbered('p', 5)
    known = [
        f'[CLS] {passage[0]} [SEP] {one} [SEP]',
        f'[CLS] {passage[1]} [SEP] {two} [SEP]',
        f'[CLS] {passage[0]} [SEP] {three} [SEP]',
    ]
    assert [row[0] for row in told] == known * 2
    assert [row[2] for row in told] == [1, 0, 1, -1, -1, -1]
    assert [row[3] for row in told] == [0, 0, 0, 1, 1, 1]
    assert told[1][1] == [0] * 7 + [1] * 9


def decoder(of_task, *examples, length=64, **roles):
    tokens = Words(**roles)
    made = encoding.decoder_rows(tokens, of_task, list(examples), length)
    assert all(row.types_L is row.spans_Sx2 is row.targets_K is None for row in made)
    assert all(row.ids_L.dtype == np.int32 for row in made)
    return [(tokens.said(row.ids_L), row.target, row.example) for row in made]


def test_a_decoder_reads_the_prompt_and_an_eos():
    found = decoder(task(), pair('x y', 'z', 'yes'), pair('w', 'v'))
    assert found == [
        ('a: x y b: z label: [EOS]', 1, 0), ('a: w b: v label: [EOS]', -1, 1),
    ]  # fmt: skip
    told = decoder(task(), pair('x y', 'z', 'yes'), bos=2)
    assert told == [('[BOS] a: x y b: z label: [EOS]', 1, 0)]
    number = task(kind='number', labels=())
    assert decoder(number, pair('x', 'z', 2.5))[0][1] == 2.5


def test_what_a_decoder_has_no_room_for_goes_on_the_left():
    example = pair(numbered('a', 20), 'z', 'yes')
    assert decoder(task(), example, length=7)[0][0] == 'a17 a18 a19 b: z label: [EOS]'
    assert decoder(task(), example, length=7, bos=2)[0][0] == '[BOS] a18 a19 b: z label: [EOS]'
    whole = decoder(task(), example)[0][0]
    count = len(whole.split())
    assert decoder(task(), example, length=count)[0][0] == whole
    assert decoder(task(), example, length=count - 1)[0][0] == whole.split(' ', 1)[1]
    for length in (4, 5, 9):
        for roles in ({}, {'bos': 2}):
            told = decoder(task(), example, length=length, **roles)[0][0].split()
            assert len(told) == length
            assert told[-2:] == ['label:', '[EOS]']


def test_a_decoder_reads_each_choice_behind_the_question():
    of_task = superglue('copa', ('premise', 'question'), ('choice1', 'choice2'), 'choice')
    found = decoder(of_task, copa(label='choice2'))
    assert found == [
        ('it was wet because it rained [EOS]', 1, 0), ('it was wet because he fell [EOS]', 1, 0),
    ]  # fmt: skip
    of_task = superglue('record', ('passage', 'query'), (), 'entity')
    found = decoder(of_task, record(('Eve',)), length=12)
    assert [row[0] for row in found] == [
        'p7 p8 p9 p10 p11 who saw Ann and Ann go [EOS]',
        'p9 p10 p11 who saw Bob Lee and Bob Lee go [EOS]',
        'p7 p8 p9 p10 p11 who saw Eve and Eve go [EOS]',
    ]
    assert [row[1] for row in found] == [0, 0, 1]


def text(of_task, *examples, length=64, training=True):
    tokens = Words()
    made = encoding.text_rows(tokens, of_task, list(examples), length, training)
    assert all(row.target == -1 and row.types_L is None for row in made)
    assert all(row.ids_L.dtype == row.targets_K.dtype == np.int32 for row in made)
    return [(tokens.said(row.ids_L), tokens.said(row.targets_K), row.example) for row in made]


def test_text_to_text():
    rte = superglue('rte', ('premise', 'hypothesis'), ('entailment', 'not_entailment'))
    claim = lambda label: Example(0, {'premise': 'x y', 'hypothesis': 'z'}, label)  # noqa: E731
    read = 'rte hypothesis: z premise: x y [EOS]'
    examples = claim('entailment'), claim(None), claim('not_entailment')
    assert text(rte, *examples) == [
        (read, 'entailment [EOS]', 0), (read, 'not_entailment [EOS]', 2),
    ]  # fmt: skip
    assert text(rte, *examples, training=False) == [
        (read, 'entailment [EOS]', 0), (read, '<unk> [EOS]', 1), (read, 'not_entailment [EOS]', 2),
    ]  # fmt: skip
    assert text(rte, claim('entailment'), length=4) == [
        ('rte hypothesis: z [EOS]', 'entailment [EOS]', 0)
    ]
    assert text(rte, claim('entailment'), length=7)[0][0] == read  # as many as there are


def test_text_to_text_of_many_answers_is_trained_on_all():
    of_task = superglue('record', ('passage', 'query'), (), 'entity')
    given = record(('Eve', 'Bob Lee')), record()
    assert [row[1:] for row in text(of_task, *given)] == [('Eve [EOS]', 0), ('Bob Lee [EOS]', 0)]
    found = text(of_task, *given, training=False)
    assert [row[2] for row in found] == [0, 1]  # one each
    assert found[0][1] == 'Eve [EOS]'


def test_text_to_text_of_wsc_is_trained_on_the_right_nouns():
    def example(label):
        told = 'the man said he was ill'
        fields = {'text': told, 'span1_text': 'the man', 'span2_text': 'he'}
        return Example(0, fields, label, spans=(Span('text', 0, 7), Span('text', 13, 15)))

    given = [example(label) for label in ('False', 'True', None)]
    read = 'wsc: the man said *he* was ill [EOS]'
    assert text(superglue('wsc', ('text',)), *given) == [(read, 'the man [EOS]', 1)]
    assert len(text(superglue('wsc', ('text',)), *given, training=False)) == 3


def test_text_to_text_of_squad():
    squad = task('squad_2.0', 'span', (), ('question', 'context'), 'squad')
    questions = [
        Question('x', 'who?', 'Ann, Bob.', (('Bob.', 5), ('Ann', 0))),
        Question('y', 'who', 'Ann', (), True),
    ]
    read = 'question: who ? context: Ann , Bob . [EOS]'
    assert text(squad, *questions) == [
        (read, 'Bob . [EOS]', 0), ('question: who context: Ann [EOS]', '[EOS]', 1),
    ]  # fmt: skip
    assert text(squad, *questions, training=False)[0] == (read, 'Bob . [EOS]', 0)


def test_rows_are_no_longer_than_the_model_or_the_setting():
    of_task = task()  # 128 tokens
    learned = TransformerConfig(60, encoder_layers=1, width=8, heads=2, max_positions=20)
    rotary = TransformerConfig(
        60, encoder_layers=1, width=8, heads=2, max_positions=20, positions='rotary'
    )
    assert encoding.row_length(of_task, learned) == 20
    assert encoding.row_length(of_task, learned, 15) == 15
    assert encoding.row_length(of_task, learned, 50) == 20
    assert encoding.row_length(of_task, rotary) == 128
    assert encoding.row_length(of_task, rotary, 300) == 300
    for length in (3, -1):
        with pytest.raises(UserError, match=f'rows of {length} tokens .* transfer.length'):
            encoding.row_length(of_task, rotary, length)


def test_an_encoder_needs_cls_and_sep():
    for missing in ('cls', 'sep'):
        with pytest.raises(UserError, match=rf'an encoder needs .*\[{missing.upper()}\]') as error:
            encoding.encoder_rows(Words(**{missing: None}), task(), [pair('x', 'y')], 9, True)
        assert '\n' not in str(error.value)


WORDS = re.findall('[a-z]+', 'the cat sat on mat because it was warm a dog ran and glad house')
TEXT = [' '.join(random.Random(i).choices(WORDS, k=10)) for i in range(300)]


@functools.cache
def sentence_pieces():
    return tokenizer.train(TEXT, 310)


@functools.cache
def word_pieces():
    """As BERT's: small letters without accents, pieces within words marked by ##."""
    tokenizers = pytest.importorskip('tokenizers')
    from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

    from pretrain.data.fast_tokenizer import FastTokenizer

    made = tokenizers.Tokenizer(models.WordPiece(unk_token='[UNK]'))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    special = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]']
    trainer = trainers.WordPieceTrainer(vocab_size=80, special_tokens=special)
    made.train_from_iterator([*TEXT, 'zebra12 exito ox!'], trainer)
    return FastTokenizer(made.to_str().encode())


TOKENIZERS = {'sentence pieces': sentence_pieces, 'word pieces': word_pieces}


def plain(text):
    return re.sub(r'\s', '', text).lower().replace('é', 'e')


@pytest.mark.parametrize('kind', TOKENIZERS)
def test_marks_point_at_the_words(kind):
    """Words that the tokenizer knows and words that it must spell; accents, breaks, blanks."""
    tokens, rng = TOKENIZERS[kind](), random.Random(0)
    for _ in range(60):
        sentences, spans, marked = [], [], []
        for side in '12':
            words = [*rng.choices(WORDS, k=rng.randrange(1, 9)), 'zebra' + side, 'Éxito', 'ox!']
            rng.shuffle(words)
            at = rng.randrange(len(words))
            before = ''.join(w + rng.choice([' ', ' ', '  ', '\n']) for w in words[:at])
            sentences.append(before + ' '.join(words[at:]))
            spans.append(Span(f'sentence{side}', len(before), len(before) + len(words[at])))
            marked.append(words[at])
        fields = {'sentence1': sentences[0], 'sentence2': sentences[1], 'word': 'glad house'}
        example = Example(0, fields, spans=tuple(spans))
        [row] = encoding.encoder_rows(tokens, superglue('wic'), [example], 400, True)
        for (first, last), word, kind_of_row in zip(row.spans_Sx2, marked, (0, 1)):
            assert plain(tokens.decode(row.ids_L[first : last + 1])) == plain(word)
            assert plain(tokens.decode(row.ids_L[first + 1 : last + 1])) != plain(word)
            assert set(row.types_L[first : last + 1]) == {kind_of_row}
        assert row.ids_L[0] == tokens.vocabulary.cls
        assert (row.ids_L == tokens.vocabulary.sep).sum() == 2


@pytest.mark.parametrize('kind', TOKENIZERS)
def test_texts_of_one_side_are_parted_by_a_space(kind):
    tokens = TOKENIZERS[kind]()
    fields = {'question': 'dog ran', 'answer': 'the mat', 'paragraph': 'the cat'}
    [row] = encoding.encoder_rows(tokens, superglue('multirc'), [Example(0, fields)], 60, True)
    v = tokens.vocabulary
    known = [
        v.cls, *tokens.encode('the cat dog ran'), v.sep, *tokens.encode('the mat'), v.sep,
    ]  # fmt: skip
    assert row.ids_L.tolist() == known


@pytest.mark.parametrize('kind', TOKENIZERS)
def test_an_empty_text_is_no_tokens(kind):
    tokens = TOKENIZERS[kind]()
    v = tokens.vocabulary
    found = encoding.encoder_rows(tokens, task(), [pair('', ''), pair('the', '')], 60, True)
    the = tokens.encode('the').tolist()
    assert [row.ids_L.tolist() for row in found] == [
        [v.cls, v.sep, v.sep], [v.cls, *the, v.sep, v.sep],
    ]  # fmt: skip
