"""Tokenizers of the `tokenizers` library, trained here."""

import json
import random

import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from configs import gpt
from pretrain import run_folder
from pretrain.data import preparation, tokenizer
from pretrain.data.corpus import Corpus
from pretrain.data.fast_tokenizer import FastTokenizer, with_roles
from pretrain.errors import UserError

TEXT = [
    'The city of Ankara lies in the hills. It was founded long ago, some say by 1200 BC.\n\n'
    'Its river, the Çubuk, is small; « mais belle » wrote a traveller. 山 means mountain.'
] * 3 + [f'Sentence number {i} of a text about numbers such as {i * i}.' for i in range(200)]

HARD = [
    '', ' ', 'a  b\n\tc ﬁ', ' leading and trailing ', '\n\n\n', '\x00\x01\x7f',
    'e\u0301 \u200d \u202e',
    '[CLS] [MASK] </s> <pad> <unk> <0x41> <extra_id_0> [R]', 'a[MASK]b</s>c<|endoftext|>d<s>',
    '\U0001f469\u200d\U0001f680', '日本語のテキスト', 'x' * 5000, '\r\n', '\ufeff', '\u00a0\u3000',
    '\uffff 0', '\u2581', 'ÀÉ İı ß', 'a\ud800b',
]  # fmt: skip


def byte_level():
    """As GPT-2's."""
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ['<|endoftext|>']
    made.train_from_iterator(
        TEXT, trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
    )
    made.add_tokens([tokenizers.AddedToken('  ', normalized=False)])
    return made


def word_pieces():
    """As BERT's uncased one; its files come with truncation and padding."""
    made = tokenizers.Tokenizer(models.WordPiece(unk_token='[UNK]'))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    special = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]']
    made.train_from_iterator(
        TEXT, trainers.WordPieceTrainer(vocab_size=300, special_tokens=special)
    )
    made.post_processor = processors.BertProcessing(('[SEP]', 3), ('[CLS]', 2))
    made.enable_truncation(4)
    made.enable_padding(length=9)
    return made


def unigram():
    """As T5's: names of special tokens stand among the pieces, with the best of all scores."""
    trained = tokenizers.Tokenizer(models.Unigram())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator(TEXT, trainers.UnigramTrainer(vocab_size=200, show_progress=False))
    pieces = json.loads(trained.to_str())['model']['vocab']
    special = ['<pad>', '</s>', '<unk>']
    sentinels = ['<extra_id_2>', '<extra_id_1>', '<extra_id_0>']
    vocab = [*((n, 0.0) for n in special), *map(tuple, pieces), *((n, 0.0) for n in sentinels)]
    made = tokenizers.Tokenizer(models.Unigram(vocab, unk_id=2))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    strips = [tokenizers.AddedToken(n, lstrip=True, rstrip=True, special=True) for n in sentinels]
    made.add_special_tokens([*special, *strips])
    return made


def llama():
    """As Llama 2's: BPE over U+2581, bytes for what is unknown, <s> before every text."""
    trained = tokenizers.Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=200, show_progress=False))
    model = json.loads(trained.to_str())['model']
    names = ['<unk>', '<s>', '</s>', *(f'<0x{b:02X}>' for b in range(256)), *model['vocab']]
    made = tokenizers.Tokenizer(
        models.BPE(
            {name: i for i, name in enumerate(names)}, [tuple(m) for m in model['merges']],
            unk_token='<unk>', byte_fallback=True, fuse_unk=True,
        )
    )  # fmt: skip
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend('\u2581'), normalizers.Replace(' ', '\u2581')]
    )
    made.decoder = decoders.Sequence(
        [
            decoders.Replace('\u2581', ' '),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(' ', 1, 0),
        ]
    )
    made.post_processor = processors.TemplateProcessing(
        single='<s> $A', pair='<s> $A <s> $B', special_tokens=[('<s>', 1)]
    )
    made.add_special_tokens(['<unk>', '<s>', '</s>'])
    return made


MAKERS = {'bytes': byte_level, 'words': word_pieces, 'unigram': unigram, 'llama': llama}


@pytest.fixture(scope='module')
def library():
    """The library's own tokenizers."""
    return {name: make() for name, make in MAKERS.items()}


@pytest.fixture(scope='module')
def ours(library):
    return {name: FastTokenizer(made.to_str().encode()) for name, made in library.items()}


def test_roles_and_sizes(ours):
    v = ours['bytes'].vocabulary
    assert (v.size, v.table_size, v.pad, v.eos, v.unk) == (401, 512, 0, 0, None)
    assert (v.cls, v.sep, v.mask, v.modes, v.sentinels, v.bos) == (None,) * 6
    v = ours['words'].vocabulary
    assert (v.pad, v.unk, v.cls, v.sep, v.mask, v.eos, v.bos) == (0, 1, 2, 3, 4, 3, None)
    v = ours['unigram'].vocabulary
    assert (v.pad, v.eos, v.unk, v.bos) == (0, 1, 2, None)
    assert v.sentinels == (v.size - 1, v.size - 2, v.size - 3)
    v = ours['llama'].vocabulary
    assert (v.unk, v.bos, v.eos, v.pad) == (0, 1, 2, 2)


def test_bos_counts_only_where_the_tokenizer_adds_it(library):
    facts = json.loads(library['llama'].to_str())
    bare = FastTokenizer(json.dumps(facts | {'post_processor': None}).encode())
    assert bare.vocabulary.bos is None


def test_roles_are_kept_in_the_file_and_covered_by_its_digest(library, ours):
    facts = json.loads(library['bytes'].to_str())
    roles = {'eos': '<|endoftext|>', 'mask': '<|endoftext|>', 'sep': 'not there'}
    kept = FastTokenizer(with_roles(facts, roles))
    assert kept.vocabulary.mask == 0
    assert kept.vocabulary.sep is None
    assert kept.digest != ours['bytes'].digest
    assert json.loads(kept.model)['roles'] == roles
    assert 'roles' not in kept.library_file
    tokenizers.Tokenizer.from_str(json.dumps(kept.library_file))


def random_text(rng):
    low, high = rng.choice([(0, 0x250), (0x300, 0x370), (0x4E00, 0x9FFF), (0, 0x110000)])
    points = (rng.randrange(low, high) for _ in range(rng.randrange(30)))
    return ''.join(chr(p) for p in points if not 0xD800 <= p < 0xE000)


@pytest.mark.parametrize('kind', MAKERS)
def test_raw_text_makes_no_special_ids(ours, kind):
    rng = random.Random(0)
    tokens, v = ours[kind], ours[kind].vocabulary
    special = {v.bos, v.cls, v.sep, v.mask, v.eos, v.pad, *(v.sentinels or ())}
    for text in [*HARD, *TEXT[:5], *(random_text(rng) for _ in range(300))]:
        ids = tokens.encode(text)
        assert ids.dtype == np.int64
        assert not set(ids.tolist()) & special, text
        if kind == 'bytes':
            assert v.bytes_V[ids].sum() == len(text.encode('utf-8', 'replace'))
            assert tokens.decode(ids) == text.replace('\ud800', '?')


@pytest.mark.parametrize('kind', MAKERS)
def test_ids_are_the_librarys(library, ours, kind):
    theirs = library[kind]
    theirs.no_truncation()
    theirs.no_padding()
    for text in [*HARD[:-1], *TEXT[:5]]:
        prompt = theirs.encode(text, add_special_tokens=False).ids
        assert ours[kind].encode(text, specials=True).tolist() == prompt
        if not any(mark in text for mark in ('[', '<')):
            assert ours[kind].encode(text).tolist() == prompt


def test_names_of_special_tokens_in_a_prompt(ours):
    mask, sentinels = ours['words'].vocabulary.mask, ours['unigram'].vocabulary.sentinels
    assert mask in ours['words'].encode('the [MASK] of', specials=True)
    ids = ours['unigram'].encode('The <extra_id_0> city <extra_id_1> of', specials=True)
    assert [i for i in ids if i in sentinels] == [*sentinels[:2]]
    parts = [ours['unigram'].encode(t).tolist() for t in ('The', 'city', 'of')]
    assert ids.tolist() == [*parts[0], sentinels[0], *parts[1], sentinels[1], *parts[2]]


def test_what_begins_a_word_and_how_many_bytes_it_has(ours):
    v = ours['bytes'].vocabulary
    pieces = [ours['bytes'].decode([i]) for i in range(v.size)]
    for i, piece in enumerate(pieces[1:], 1):
        if '\ufffd' not in piece:
            assert v.bytes_V[i] == len(piece.encode()), piece
            assert v.word_start_V[i] == (piece[0] in ' \t\n\v\f\r'), piece
    assert v.bytes_V[[0, *range(v.size, v.table_size)]].sum() == 0
    assert (v.bytes_V[1 : v.size] > 0).all()
    v, encode = ours['words'].vocabulary, ours['words'].encode
    assert v.word_start_V[encode('founded')].tolist() == [True] + [False] * (
        len(encode('founded')) - 1
    )
    assert v.bytes_V[encode('Founded, long')].sum() == len('founded,long')
    v, encode = ours['unigram'].vocabulary, ours['unigram'].encode
    ids = encode('city of number')
    assert v.bytes_V[ids].sum() == len(' city of number')
    assert v.word_start_V[ids].sum() == 3
    v, encode = ours['llama'].vocabulary, ours['llama'].encode
    assert v.bytes_V[encode('日本')].sum() == len(' 日本'.encode())


def test_punctuation(ours):
    for tokens in ours.values():
        marks = tokens.vocabulary.punctuation_V
        assert marks[tokens.encode('.')[-1]]
        assert marks[tokens.encode('a,')[-1]]
        assert not marks[tokens.encode('the')].any()
        assert not marks[tokens.vocabulary.eos]


def test_frequencies_are_known_of_a_unigram_model_alone(ours):
    assert [n for n, t in ours.items() if t.vocabulary.log_frequency_V is not None] == ['unigram']
    v = ours['unigram'].vocabulary
    learned = np.flatnonzero(v.bytes_V > 0)
    assert np.exp(v.log_frequency_V[learned]).sum() == pytest.approx(1, abs=0.05)
    assert v.log_frequency_V[0] == v.log_frequency_V[-1] == v.log_frequency_V.min()


@pytest.mark.parametrize('kind', MAKERS)
def test_sentence_starts_are_mapped_without_changing_ids(ours, kind):
    text = 'É Ünder 日本 Hello. Wörld Çubuk. \U0001f680x the  [MASK] city</s> of'
    if kind == 'unigram':  # knows no other characters
        text = 'The  city of Çubuk, is small; « mais belle » 山 means'
    starts = [i for i, c in enumerate(text) if i == 0 or (text[i - 1] == ' ' and c != ' ')]
    ids, tokens = ours[kind].encode_with_starts(text, starts)
    assert ids.tolist() == ours[kind].encode(text).tolist()
    if kind == 'words':  # independently: of what stands before a word all tokens stand before it
        expected = [len(ours[kind].encode(text[:start])) for start in starts]
    else:  # the token that covers the place's first byte; but for GPT-2's a space leads
        lead = '' if kind == 'bytes' else ' '
        owner = [i for i, t in enumerate(ids) for _ in range(ours[kind].vocabulary.bytes_V[t])]
        assert len(owner) == len((lead + text).encode())
        expected = [0] + [owner[len((lead + text[:start]).encode())] for start in starts[1:]]
    assert tokens.tolist() == expected


@pytest.mark.parametrize('kind', MAKERS)
def test_characters_of_tokens(ours, kind):
    """The expected ones by counting bytes; of pieces that normalise, by what is in them."""
    tokens, rng = ours[kind], random.Random(4)
    for text in [*HARD, *TEXT[:3], *(random_text(rng) for _ in range(100))]:
        ids, starts, ends = tokens.encode_with_offsets(text)
        assert ids.dtype == starts.dtype == ends.dtype == np.int64
        assert ids.tolist() == tokens.encode(text).tolist()
        if kind == 'bytes':
            owner = [n for n, c in enumerate(text) for _ in c.encode('utf-8', 'replace')]
            stops = np.cumsum(tokens.vocabulary.bytes_V[ids]).tolist()
            assert starts.tolist() == [owner[stop] for stop in [0, *stops][: len(ids)]]
            assert ends.tolist() == [owner[stop - 1] + 1 for stop in stops]
        elif kind != 'words':
            covered = {n for s, e in zip(starts, ends, strict=True) for n in range(s, e)}
            assert covered == set(range(len(text)))
    if kind == 'words':
        text = 'The  CITY, of Çubuk\u200d, 山 ﬁ'
        ids, starts, ends = tokens.encode_with_offsets(text)
        shown = [text[s:e] for s, e in zip(starts, ends, strict=True)]
        assert ''.join(shown) == 'TheCITY,ofÇubuk,山ﬁ'
        read = [tokens.decode([i]).removeprefix('##') for i in ids]
        assert shown[-1] == 'ﬁ'
        assert [s.lower().replace('ç', 'c') for s in shown[:-1]] == read[:-1]


def test_special_ids_are_shown(ours):
    tokens = ours['unigram']
    v = tokens.vocabulary
    ids = [0, *tokens.encode('the city'), v.sentinels[0], 1, v.size + 3]
    assert tokens.decode(ids) == f'<pad> the city<extra_id_0></s><unused_{v.size + 3}>'


def test_either_kind_is_loaded_from_a_file_or_a_folder(ours, tmp_path):
    (tmp_path / 'any.name').write_bytes(ours['words'].model)
    assert tokenizer.load(tmp_path / 'any.name').digest == ours['words'].digest
    (tmp_path / ours['words'].file).write_bytes(ours['words'].model)
    assert tokenizer.load(tmp_path).digest == ours['words'].digest
    assert tokenizer.find(tmp_path).name == 'tokenizer.json'


def test_what_is_wrong_is_said(library, tmp_path):
    path = tmp_path / 'tokenizer.json'
    facts = json.loads(library['words'].to_str())
    bad = {
        'that the tokenizers library reads': [
            b'{', b'{}', b'{"model": 3}', json.dumps(facts).encode()[:-40],
            json.dumps(facts | {'new': 1}).encode(),
        ],
        'no token that ends a text': [json.dumps(facts | {'roles': {}}).encode()],
    }  # fmt: skip
    del facts['model']['vocab']['[UNK]']
    bad['that the tokenizers library reads'].append(json.dumps(facts).encode())
    for says, contents in bad.items():
        for content in contents:
            path.write_bytes(content)
            with pytest.raises(UserError, match=says) as error:
                tokenizer.load(path)
            assert str(path) in str(error.value)
            assert '\n' not in str(error.value)
    with pytest.raises(UserError, match='holds no tokenizer'):
        tokenizer.load(tmp_path.parent)


def test_a_corpus_and_a_run_keep_it_under_its_own_name(ours, tmp_path):
    (tmp_path / 'given.json').write_bytes(ours['words'].model)
    (tmp_path / 'text.txt').write_text('\n\n\n'.join(TEXT))
    recipe = preparation.Recipe(
        source=f'text:{tmp_path / "text.txt"}', text_field='text',
        tokenizer=str(tmp_path / 'given.json'), vocabulary_size=0, tokenizer_megabytes=1,
        validation_fraction=0.0, shard_megabytes=1,
    )  # fmt: skip
    corpus = Corpus(preparation.prepare(recipe, tmp_path / 'cache', preparation.Work(1)))
    assert (corpus.folder / 'tokenizer.json').read_bytes() == ours['words'].model
    assert not (corpus.folder / 'tokenizer.model').exists()
    ids = corpus.tokenizer.encode('\n\n\n'.join(TEXT))
    assert corpus.total('all', 'tokens') == len(ids)
    run_folder.write(tmp_path / 'run', gpt.get_config('tiny,smoke'), corpus.tokenizer)
    assert (tmp_path / 'run' / 'tokenizer.json').read_bytes() == ours['words'].model
    run_folder.check_own_tokenizer(tmp_path / 'run', corpus)
    run_folder.check_other_tokenizer(tmp_path / 'run', corpus.tokenizer)
    with pytest.raises(UserError, match=r'set data.tokenizer=.*run/tokenizer\.json'):
        run_folder.check_other_tokenizer(tmp_path / 'run', ours['bytes'])
