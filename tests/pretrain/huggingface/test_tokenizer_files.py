"""Tokenizers read from and written into folders in the Hugging Face layout."""

import json

import pytest
import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from pretrain.data import tokenizer
from pretrain.data.fast_tokenizer import FastTokenizer
from pretrain.errors import UserError
from pretrain.huggingface import tokenizer_files, unigram

TEXT = ['The city of Ankara lies in the hills. It was founded by 1200 BC, some say.'] * 3 + [
    f'Sentence number {i} of a text about numbers such as {i * i}.' for i in range(200)
]
TEXT += ['The river runs north through fields of wheat, and in the valley a mill stands still.'] * 3
HARD = [
    '', ' ', 'a  b\n\tc ﬁ', ' leading and trailing ', '\n\n\n', '\x00\x01\x7f',
    'e\u0301 \u200d \u202e',
    '[CLS] [MASK] </s> <pad> <unk> <0x41> <extra_id_0> [R]', 'a[MASK]b</s>c<extra_id_99>[S]',
    '<0x41><0xE2> <0x0A <<0x20>> [[X]]', '\U0001f469\u200d\U0001f680', '日本語', 'x' * 3000, '\r\n',
    '\ufeff', '\u00a0\u3000', 'a\u2581b', 'The city of <extra_id_1> by [MASK] BC',
]  # fmt: skip
SPECIAL = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]']


@pytest.fixture(scope='module')
def sentencepiece():
    return tokenizer.train(TEXT, 320)


@pytest.fixture(scope='module')
def word_pieces():
    made = tokenizers.Tokenizer(models.WordPiece(unk_token='[UNK]'))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=SPECIAL)
    made.train_from_iterator([t.lower() for t in TEXT], trainer)
    return made


@pytest.fixture(scope='module')
def byte_pairs():
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ['<|endoftext|>']
    made.train_from_iterator(
        TEXT, trainers.BpeTrainer(vocab_size=350, special_tokens=special, initial_alphabet=alphabet)
    )
    return made


@pytest.fixture
def bert(tmp_path, word_pieces):
    """A folder with vocab.txt alone."""
    vocab = word_pieces.get_vocab()
    (tmp_path / 'vocab.txt').write_text('\n'.join(sorted(vocab, key=vocab.get)) + '\n')
    return tmp_path


@pytest.fixture
def gpt2(tmp_path, byte_pairs):
    """A folder with vocab.json and merges.txt."""
    model = json.loads(byte_pairs.to_str())['model']
    (tmp_path / 'vocab.json').write_text(json.dumps(model['vocab']))
    merges = '\n'.join(' '.join(pair) for pair in model['merges'])
    (tmp_path / 'merges.txt').write_text(f'#version: 0.2\n{merges}\n')
    return tmp_path


def library(folder):
    return tokenizers.Tokenizer.from_file(str(folder / 'tokenizer.json'))


def test_gpt2s_files(gpt2, byte_pairs):
    tokens = tokenizer_files.read(gpt2, {'eos_token_id': 0, 'bos_token_id': 5})
    name = '<|endoftext|>'
    assert tokens.roles == {'eos': name, 'bos': name}  # 5 is an ordinary piece
    assert tokens.vocabulary.bos is None
    for text in [*HARD, *TEXT[:3]]:
        assert tokens.encode(text).tolist() == byte_pairs.encode(text).ids
        assert tokens.decode(tokens.encode(text)) == text


def test_a_list_of_word_pieces(bert, word_pieces):
    tokens = tokenizer_files.read(bert, {})
    assert tokens.vocabulary.mask == 4
    assert tokens.encode('THE Cíty').tolist() == word_pieces.encode('the city').ids
    facts = tokens.library_file
    assert tokenizers.Tokenizer.from_str(json.dumps(facts)).encode('the', 'of').tokens[0] == '[CLS]'
    (bert / 'tokenizer_config.json').write_text('{"do_lower_case": false}')
    assert tokenizer_files.read(bert, {}).encode('THE').tolist() != tokens.encode('THE').tolist()


def test_a_config_names_a_published_tokenizer_by_its_folder_or_file(bert, gpt2, byte_pairs):
    # Both lists lie in the one folder of this test.
    by_file = tokenizer.load(bert / 'vocab.txt')
    assert by_file.vocabulary.mask == 4
    ids = byte_pairs.encode('the city').ids
    for name in ('vocab.json', 'merges.txt'):
        assert tokenizer.load(gpt2 / name).encode('the city').tolist() == ids
    folder = tokenizer.load(bert)
    assert folder.digest == by_file.digest
    (gpt2 / 'vocab.json').rename(gpt2 / 'encoder.json')
    (gpt2 / 'merges.txt').rename(gpt2 / 'vocab.bpe')
    assert tokenizer.load(gpt2 / 'vocab.bpe').encode('the city').tolist() == ids
    (gpt2 / 'encoder.json').unlink()
    with pytest.raises(UserError, match=r"one half of a tokenizer, '.*encoder\.json' is not there"):
        tokenizer.load(gpt2 / 'vocab.bpe')


def test_the_files_beside_tokenizer_json_name_its_special_tokens(bert, tmp_path):
    tokens = tokenizer_files.read(bert, {})
    folder = tmp_path / 'saved'
    folder.mkdir()
    (folder / 'tokenizer.json').write_text(json.dumps(tokens.library_file))
    assert tokenizer.load(folder).roles['eos' if 'eos' in tokens.roles else 'sep'] == '[SEP]'
    (folder / 'tokenizer_config.json').write_text('{"sep_token": "[CLS]"}')
    assert tokenizer.load(folder).roles['sep'] == '[CLS]'
    (folder / 'tokenizer_config.json').unlink()
    (folder / 'config.json').write_text('{"sep_token_id": 2}')
    assert tokenizer_files.read(folder).roles['sep'] == '[CLS]'


def test_capitals_in_the_list_say_that_case_is_kept(bert):
    with open(bert / 'vocab.txt', 'a') as file:
        file.write('THE\n')
    tokens = tokenizer_files.read(bert, {})
    assert tokens.encode('THE').tolist() == [tokens.vocabulary.size - 1]


def test_added_tokens_beside_a_list(bert):
    size = tokenizer_files.read(bert, {}).vocabulary.size
    (bert / 'added_tokens.json').write_text(json.dumps({'<new>': size + 1, 'ankaran': size}))
    (bert / 'special_tokens_map.json').write_text(
        '{"mask_token": {"content": "<new>", "lstrip": true}}'
    )
    tokens = tokenizer_files.read(bert, {})
    assert tokens.vocabulary.mask == size + 1
    assert tokens.encode('ankaran')[0] == size
    added = {a['content']: a for a in tokens.library_file['added_tokens']}
    assert added['<new>']['lstrip']
    assert not added['ankaran']['special']
    (bert / 'added_tokens.json').write_text(json.dumps({'<new>': size + 7}))
    with pytest.raises(UserError, match='do not follow'):
        tokenizer_files.read(bert, {})


def test_roles_from_the_files_then_the_config_then_the_names(gpt2, byte_pairs):
    facts = json.loads(byte_pairs.to_str())
    plain = {'single_word': False, 'lstrip': False, 'rstrip': False, 'normalized': False}
    names = ['<a>', '<b>', '<c>', '</s>']
    facts['added_tokens'] += [
        {'id': 350 + i, 'content': name, 'special': True} | plain for i, name in enumerate(names)
    ]
    (gpt2 / 'tokenizer.json').write_text(json.dumps(facts))
    config = {'eos_token_id': [352], 'pad_token_id': 351}
    read = lambda: tokenizer_files.read(gpt2, config).vocabulary  # noqa: E731
    assert (read().eos, read().pad) == (352, 351)
    (gpt2 / 'tokenizer_config.json').write_text('{"eos_token": "<b>", "pad_token": null}')
    assert (read().eos, read().pad) == (351, 351)
    (gpt2 / 'special_tokens_map.json').write_text('{"eos_token": {"content": "<a>"}}')
    assert (read().eos, read().pad) == (350, 351)
    config.clear()
    (gpt2 / 'tokenizer_config.json').unlink()
    (gpt2 / 'special_tokens_map.json').unlink()
    assert read().eos == 353


def test_only_a_sentencepiece_model_that_normalises_nothing_comes_before_tokenizer_json(
    tmp_path, sentencepiece, bert
):
    (tmp_path / 'spiece.model').write_bytes(sentencepiece.model)
    (bert / 'vocab.txt').unlink()
    assert tokenizer_files.read(tmp_path, {}).model == sentencepiece.model
    tokenizer_files.write(sentencepiece, tmp_path, 'decoder', 9)
    assert tokenizer_files.read(tmp_path, {}).model == sentencepiece.model
    (tmp_path / 'spiece.model').write_bytes(nfkc(TEXT).model)
    assert tokenizer_files.read(tmp_path, {}).file == 'tokenizer.json'


def nfkc(texts):
    """As T5's: NFKC, a space before every text, no bytes."""
    import io

    from sentencepiece import SentencePieceTrainer

    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=model, vocab_size=120, model_type='unigram',
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2, num_threads=1,
    )  # fmt: skip
    return tokenizer.Tokenizer(model.getvalue())


def specials_of(vocabulary):
    v = vocabulary
    return {v.pad, v.eos, v.cls, v.sep, v.mask, *(v.modes or {}).values(), *v.sentinels} - {None}


@pytest.mark.parametrize('brackets', [False, True])
def test_our_model_is_written_with_the_same_ids(tmp_path, sentencepiece, brackets):
    """Whether the letters of the names '[CLS]' and '<0x41>' are in the vocabulary or not."""
    tokens = sentencepiece
    if brackets:
        tokens = tokenizer.train([*TEXT, *['[CLASSES] <0xABCDEF> [MASK] </s>'] * 30], 328)
    tokenizer_files.write(tokens, tmp_path, 'encoder', 512)
    theirs, v = library(tmp_path), tokens.vocabulary
    assert theirs.get_vocab_size() == v.size
    for text in [*HARD, *TEXT[:5], '\n'.join(TEXT)]:
        theirs.encode_special_tokens = True
        raw = theirs.encode(text, add_special_tokens=False).ids
        assert raw == tokens.encode(text).tolist(), text
        assert theirs.decode(raw) == text.replace('\u2581', ' ')
        assert not specials_of(v) & set(raw)
        theirs.encode_special_tokens = False
        ids = theirs.encode(text, add_special_tokens=False).ids
        assert ids == tokens.encode(text, specials=True).tolist(), text
    assert theirs.token_to_id('<extra_id_0>') == v.sentinels[0]
    assert theirs.encode('a', 'b').ids == [
        v.cls, *tokens.encode('a'), v.sep, *tokens.encode('b'), v.sep,
    ]  # fmt: skip


def test_a_model_like_t5s_is_written_with_the_same_ids(tmp_path):
    tokens = nfkc(TEXT)
    tokenizer_files.write(tokens, tmp_path, 'encoder_decoder', 512)
    theirs = library(tmp_path)
    for text in [*HARD, *TEXT[:5]]:
        theirs.encode_special_tokens = True
        raw = theirs.encode(text, add_special_tokens=False).ids
        assert raw == tokens.encode(text).tolist(), text
        theirs.encode_special_tokens = False
        ids = theirs.encode(text, add_special_tokens=False).ids
        assert ids == tokens.encode(text, specials=True).tolist(), text
    assert theirs.encode('a').ids == [*tokens.encode('a'), 1]
    assert theirs.decode(tokens.encode('The city')) == 'The city'


def test_what_is_written_around_a_text(tmp_path, sentencepiece):
    text = sentencepiece.encode('a').tolist()
    for family, around in (
        ('encoder', [3, *text, 4]), ('encoder_decoder', [*text, 1]), ('decoder', text),
    ):  # fmt: skip
        tokenizer_files.write(sentencepiece, tmp_path, family, 77)
        assert library(tmp_path).encode('a').ids == around
        said = json.loads((tmp_path / 'tokenizer_config.json').read_text())
        assert said['model_max_length'] == 77
        assert said['mask_token'] == '[MASK]'
        assert ('token_type_ids' in said['model_input_names']) == (family == 'encoder')
    tokenizer_files.write(sentencepiece, tmp_path, 'encoder', 77, types=False)
    said = json.loads((tmp_path / 'tokenizer_config.json').read_text())
    assert 'token_type_ids' not in said['model_input_names']


def test_an_imported_tokenizer_comes_out_as_it_was(bert, tmp_path):
    tokens = tokenizer_files.read(bert, {})
    tokenizer_files.write(tokens, tmp_path, 'decoder', 512)
    assert library(tmp_path).encode('the').tokens[0] == '[CLS]'  # its own, not the family's
    again = tokenizer_files.read(tmp_path, {})
    assert again.digest == tokens.digest
    assert isinstance(again, FastTokenizer)


def test_what_is_wrong_is_said(gpt2, bert, byte_pairs, tmp_path):
    def says(what, folder=tmp_path, **config):
        with pytest.raises(UserError, match=what) as error:
            tokenizer_files.read(folder, config)
        assert '\n' not in str(error.value)

    empty = tmp_path / 'empty'
    empty.mkdir()
    says('json, vocab.txt, vocab.json with merges.txt, or spiece.model.*--tokenizer=', empty)
    says('no tokenizer', tmp_path / 'none')
    (empty / 'vocab.json').write_text('{}')
    says('no tokenizer', empty)
    (empty / 'spiece.model').write_bytes(b'cut')
    says('spiece.model', empty)
    (tmp_path / 'tokenizer.json').write_text(byte_pairs.to_str()[:-30])
    says('tokenizer.json.*damaged')
    (tmp_path / 'tokenizer.json').write_text('[1]')
    says('tokenizer.json.*no JSON object')
    (tmp_path / 'tokenizer.json').write_text('{"model": {"vocab": 3}}')
    says('tokenizer.json')
    (tmp_path / 'tokenizer.json').unlink()
    (tmp_path / 'tokenizer_config.json').write_text('{')
    says('tokenizer_config.json.*damaged')
    (tmp_path / 'tokenizer_config.json').unlink()
    (tmp_path / 'vocab.txt').write_bytes(b'[UNK]\n\xff\xfe\n')
    says('vocab.txt.*damaged')
    (tmp_path / 'vocab.txt').write_text('a\nb\n')
    says('vocab.txt')
    (tmp_path / 'vocab.txt').unlink()
    merges = (tmp_path / 'merges.txt').read_text()
    (tmp_path / 'merges.txt').write_text(merges + 'abc\n')
    says('merges.txt.*damaged')
    (tmp_path / 'merges.txt').write_text(merges + 'qq zz\n')
    says('vocab.json')


def test_a_bpe_model_of_sentencepiece_is_not_written(tmp_path):
    import io

    from sentencepiece import SentencePieceTrainer

    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT), model_writer=model, vocab_size=120, model_type='bpe',
        minloglevel=2, pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
    )  # fmt: skip
    with pytest.raises(UserError, match='only if it is a unigram'):
        unigram.convert(tokenizer.Tokenizer(model.getvalue()))
