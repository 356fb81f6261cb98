import random

import numpy as np
import pytest
import sentencepiece

from pretrain.data import tokenizer
from pretrain.errors import UserError

TEXT = [
    'The city of Ankara lies in the hills. It was founded long ago, some say by 1200 BC.\n\n'
    'Its river, the Çubuk, is small; « mais belle » wrote a traveller. 山 means mountain.'
] * 3 + [f'Sentence number {i} of a text about numbers such as {i * i}.' for i in range(200)]


@pytest.fixture(scope='module')
def small():
    return tokenizer.train(TEXT, 330)


def test_the_layout(small):
    v = small.vocabulary
    assert (v.pad, v.eos, v.unk, v.cls, v.sep, v.mask) == (0, 1, 2, 3, 4, 5)
    assert v.modes == {'R': 6, 'X': 7, 'S': 8}
    assert v.size == 430
    assert v.table_size == 512
    assert v.sentinels == tuple(range(429, 329, -1))
    assert len(v.bytes_V) == len(v.word_start_V) == 512
    assert not v.bytes_V[:9].any()
    assert not v.bytes_V[330:].any()
    assert (v.bytes_V[9 : 9 + 256] == 1).all()


def random_text(rng):
    planes = [
        (0, 0x250),
        (0, 0x250),
        (0x300, 0x370),
        (0x4E00, 0x9FFF),
        (0x1F300, 0x1F700),
        (0, 0x110000),
    ]
    low, high = rng.choice(planes)
    points = (rng.randrange(low, high) for _ in range(rng.randrange(40)))
    return ''.join(chr(p) for p in points if not 0xD800 <= p < 0xE000 and p != 0x2581)


HARD = [
    'a  b\n\tc ﬁ', ' leading and trailing ', '\n\n\n', '\x00\x01\x7f', 'e\u0301 \u200d \u202e',
    '[CLS] [MASK] </s> <pad> <unk> <0x41> <extra_id_0> [R]', '\U0001f469\u200d\U0001f680',
    '日本語のテキスト', 'x' * 5000, '\r\n', '\ufeff', '\u00a0\u3000',
]  # fmt: skip


def test_lines_are_encoded_apart_as_they_would_be_together(small):
    """Where a text is too short for near ties, the library says the same of it whole."""
    whole = sentencepiece.SentencePieceProcessor(model_proto=small.model)
    for text in [*HARD, 'a\n', '\n', '\n\n a \n\n', *TEXT[:5]]:
        assert small.encode(text).tolist() == whole.encode(text)
        ids, _ = small.encode_with_starts(text, [0])
        assert ids.tolist() == whole.encode(text)


def test_any_text_comes_back_and_makes_no_special_ids(small):
    rng = random.Random(0)
    v = small.vocabulary
    for text in [*HARD, *(random_text(rng) for _ in range(3000))]:
        ids = small.encode(text)
        assert small.decode(ids) == text
        assert not set(ids.tolist()) & {*range(9), *v.sentinels}
        assert v.bytes_V[ids].sum() == len(text.encode())


def test_only_the_block_that_stands_for_a_space_does_not_come_back(small):
    assert small.decode(small.encode('a\u2581b')) == 'a b'


def test_lone_surrogates_do_not_stop_it(small):
    assert small.decode(small.encode('a\ud800b')) == 'a?b'


def test_special_ids_are_shown(small):
    ids = [3, *small.encode('hi'), 429, 1, 505]
    assert small.decode(ids) == '<CLS>hi<extra_id_0></s><unused_505>'


@pytest.mark.parametrize('text', [' '.join(TEXT), 'é日本 Hello. 本World Çubuk. x', 'plain. words'])
def test_sentence_starts_are_mapped_without_changing_ids(small, text):
    starts = sorted(random.Random(1).sample(range(len(text)), 8))
    ids, tokens = small.encode_with_starts(text, starts)
    np.testing.assert_array_equal(ids, small.encode(text))
    # Independently: the token that covers a place's first byte, found by decoding bytes one by one.
    owner = [i for i, t in enumerate(ids) for _ in range(small.vocabulary.bytes_V[t])]
    expected = sorted({owner[len(text[:s].encode())] for s in starts})
    np.testing.assert_array_equal(tokens, expected)


def test_a_text_that_is_not_covered_byte_by_byte_is_mapped_too(small):
    text = 'One\u2581two. Three four.'
    ids, tokens = small.encode_with_starts(text, [0, 9])
    assert small.decode(ids[tokens[1] :]).strip() == 'Three four.'


def test_characters_of_tokens(small):
    """The expected ones by counting bytes; all of them together are the text."""
    rng = random.Random(3)
    for text in [*HARD, *TEXT[:3], '', *(random_text(rng) for _ in range(300))]:
        ids, starts, ends = small.encode_with_offsets(text)
        assert ids.dtype == starts.dtype == ends.dtype == np.int64
        assert ids.tolist() == small.encode(text).tolist()
        owner = [n for n, character in enumerate(text) for _ in character.encode()]
        stops = np.cumsum(small.vocabulary.bytes_V[ids]).tolist()
        assert starts.tolist() == [owner[stop] for stop in [0, *stops][: len(ids)]]
        assert ends.tolist() == [owner[stop - 1] + 1 for stop in stops]


def test_characters_of_a_text_that_is_not_covered_byte_by_byte(small):
    text = 'a\u2581山\n\u2581\ud800b'
    ids, starts, ends = small.encode_with_offsets(text)
    assert ids.tolist() == small.encode(text).tolist()
    cut = zip(starts.tolist(), ends.tolist(), strict=True)
    assert list(dict.fromkeys(cut)) == [(n, n + 1) for n in range(len(text))]


def test_characters_of_a_normalised_text():
    """As T5's: a space before the text, runs of spaces as one, ligatures in letters."""
    import io

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT), model_writer=model, vocab_size=120, model_type='unigram',
        minloglevel=2, pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
    )  # fmt: skip
    tokens = tokenizer.Tokenizer(model.getvalue())

    text = 'y  ﬁ \U0001f680e\u0301\u2026 '
    ids, starts, ends = tokens.encode_with_offsets(text)
    assert ids.tolist() == tokens.encode(text).tolist()
    shown = [(text[s:e], int(s)) for s, e in zip(starts, ends, strict=True)]
    assert shown == [
        ('', 0), ('y', 0), ('  ', 1), ('ﬁ', 3), ('ﬁ', 3), (' ', 4), ('\U0001f680e\u0301', 5),
        ('\u2026', 8), ('\u2026', 8), ('\u2026', 8),
    ]  # fmt: skip


def test_training_is_deterministic(small):
    assert tokenizer.train(TEXT, 330).model == small.model


def test_files_are_loaded_and_named_by_their_digest(small, tmp_path):
    path = tmp_path / 'tokenizer.model'
    path.write_bytes(small.model)
    assert tokenizer.load(path).digest == small.digest


def test_what_is_wrong_is_said(tmp_path):
    with pytest.raises(UserError, match=r'8192 pieces is too large.* to \d+ or less'):
        tokenizer.train(TEXT, 8192)
    with pytest.raises(UserError, match='260 pieces is too small'):
        tokenizer.train(TEXT, 260)
    with pytest.raises(UserError, match='No such file'):
        tokenizer.load(tmp_path / 'none.model')
    (tmp_path / 'bad.model').write_bytes(b'not a model')
    with pytest.raises(UserError, match='is no SentencePiece model'):
        tokenizer.load(tmp_path / 'bad.model')


def test_what_begins_a_word(small):
    """A space, a line's end or a tab does; the word behind a line's end goes with it."""
    starts = small.vocabulary.word_start_V
    ids = small.encode('The city\nof')
    text = [small.decode([i]) for i in ids]
    assert [t for t, i in zip(text, ids) if starts[i]] == [t for t in text if t[:1] in (' ', '\n')]
    assert any(t == '\n' for t in text)
    assert not starts[:9].any()
    assert not starts[330:].any()


def test_punctuation_is_that_of_berts_tokenizer(small):
    marks = small.vocabulary.punctuation_V
    alone = [small.decode([i]).strip() for i in small.encode('lies, « belle ». 山 1') if marks[i]]
    assert alone == [',', '«', '».'] or alone == [',', '«', '»', '.']
    assert not marks[:9].any()
    splits = [c for c in map(chr, range(33, 0x3000)) if tokenizer.is_punctuation(c)]
    assert {'$', '+', '<', '^', '`', '|', '~', '-', '«', '—', '…'} <= set(splits)
    assert not any(c.isalnum() or c.isspace() for c in splits)
    assert not {'€', '°', '×'} & set(splits)  # symbols beyond ASCII are none, as in BERT


def test_frequencies_are_those_of_a_unigram_model(small):
    v = small.vocabulary
    learned = np.flatnonzero(v.bytes_V > 0)[256:]
    # A unigram model's pieces share the whole probability; bytes and special ids have none of it.
    assert np.exp(v.log_frequency_V[learned]).sum() == pytest.approx(1, abs=0.02)
    common, rare = (v.log_frequency_V[small.encode(text)[0]] for text in (' number', '\u5c71'))
    assert common > rare
    assert v.log_frequency_V.min() == v.log_frequency_V[0] == v.log_frequency_V[-1]


def test_a_bpe_model_knows_no_frequencies():
    """Its scores are ranks."""
    import io

    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT), model_writer=model, vocab_size=120, model_type='bpe',
        minloglevel=2, pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
    )  # fmt: skip
    assert tokenizer.Tokenizer(model.getvalue()).vocabulary.log_frequency_V is None


def test_names_of_special_tokens_in_a_prompt(small):
    v = small.vocabulary
    encode = lambda text: small.encode(text, specials=True).tolist()  # noqa: E731
    plain = lambda text: small.encode(text).tolist()  # noqa: E731
    # A sentinel and [MASK] take the space before them: the piece that they replace had it.
    assert encode('The  <extra_id_0> city') == [*plain('The'), v.sentinels[0], *plain(' city')]
    assert encode('The [MASK] city') == [*plain('The'), v.mask, *plain(' city')]
    assert encode('a </s>[CLS] b') == [*plain('a '), v.eos, v.cls, *plain(' b')]
    assert encode('<extra_id_99><extra_id_9>') == [v.sentinels[99], v.sentinels[9]]
    assert encode('[R]<pad><unk>') == [v.modes['R'], v.pad, v.unk]
    for text in [*HARD[:5], 'The city', '<extra_id_100> [MASK ] </S> <0x41>']:
        assert encode(text) == plain(text)


def test_a_model_with_a_space_before_every_text(tmp_path):
    """As T5's: behind a sentinel the text begins anew, and its space is the model's own."""
    import io

    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT), model_writer=model, vocab_size=120, model_type='unigram',
        minloglevel=2, pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
    )  # fmt: skip
    tokens = tokenizer.Tokenizer(model.getvalue())
    v = tokens.vocabulary
    parts = [tokens.encode(text).tolist() for text in ('The', 'city is', 'small')]
    ids = tokens.encode('The <extra_id_0> city is\n<extra_id_1>small</s>', specials=True)
    a, b = v.sentinels[:2]
    assert ids.tolist() == [*parts[0], a, *parts[1], b, *parts[2], v.eos]
    assert v.bos is None


def test_a_folder_is_loaded_by_the_tokenizer_in_it(small, tmp_path):
    assert tokenizer.find(tmp_path) is None
    with pytest.raises(UserError, match=r'no tokenizer \(tokenizer\.model, tokenizer\.json'):
        tokenizer.load(tmp_path)
    (tmp_path / small.file).write_bytes(small.model)
    assert tokenizer.find(tmp_path) == tmp_path / 'tokenizer.model'
    assert tokenizer.load(tmp_path).digest == small.digest
