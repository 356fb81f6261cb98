"""What is written is loaded by transformers' AutoTokenizer, with the same ids."""

import io
import json

import pytest
import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from pretrain.data import tokenizer
from pretrain.huggingface import tokenizer_files

transformers = pytest.importorskip(
    'transformers', reason='transformers is missing: pip install -e .[test,peers]'
)

pytestmark = pytest.mark.peers

TEXT = ['The city of Ankara lies in the hills. It was founded by 1200 BC, some say.'] * 3 + [
    f'Sentence number {i} of a text about numbers such as {i * i}.' for i in range(200)
]
HARD = [
    '', ' ', 'a  b\n\tc ﬁ', ' leading and trailing ', '\n\n\n', '\x00\x01\x7f',
    'e\u0301 \u200d \u202e',
    '[CLS] [MASK] </s> <pad> <unk> <0x41> <extra_id_0> [R]',
    'a[MASK]b</s>c<extra_id_99><|endoftext|>',
    '<0x41><0xE2> <0x0A <<0x20>> [[X]]', '\U0001f469\u200d\U0001f680', '日本語', 'x' * 3000, '\r\n',
    '\ufeff', '\u00a0\u3000', 'a\u2581b', 'The <extra_id_0> of  <extra_id_1>\n by [MASK] BC',
    "don't",
]  # fmt: skip


def ours():
    return tokenizer.train(TEXT, 309)


def like_t5():
    from sentencepiece import SentencePieceTrainer

    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT), model_writer=model, vocab_size=120, model_type='unigram',
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2, num_threads=1,
    )  # fmt: skip
    return tokenizer.Tokenizer(model.getvalue())


def bert(folder):
    made = tokenizers.Tokenizer(models.WordPiece(unk_token='[UNK]'))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]']
    made.train_from_iterator(
        [t.lower() for t in TEXT], trainers.WordPieceTrainer(vocab_size=200, special_tokens=special)
    )
    vocab = made.get_vocab()
    (folder / 'vocab.txt').write_text('\n'.join(sorted(vocab, key=vocab.get)) + '\n')


def gpt2(folder):
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=350, special_tokens=['<|endoftext|>'], initial_alphabet=alphabet
    )
    made.train_from_iterator(TEXT, trainer)
    model = json.loads(made.to_str())['model']
    (folder / 'vocab.json').write_text(json.dumps(model['vocab']))
    merges = '\n'.join(' '.join(pair) for pair in model['merges'])
    (folder / 'merges.txt').write_text(f'#version: 0.2\n{merges}\n')


def assert_same_ids(theirs, tokens):
    for text in [*HARD, *TEXT[:5]]:
        plain = theirs(text, add_special_tokens=False, split_special_tokens=True)['input_ids']
        assert plain == tokens.encode(text).tolist(), text
        prompt = theirs(text, add_special_tokens=False)['input_ids']
        assert prompt == tokens.encode(text, specials=True).tolist(), text


# The model_type of the config.json beside it decides with the tokenizer's class what is loaded.
@pytest.mark.parametrize('kind', ['bert', 'electra', 'distilbert', 't5', 'gpt2', 'llama', None])
@pytest.mark.parametrize('make', [ours, like_t5])
def test_sentencepiece(tmp_path, kind, make):
    tokens, length = make(), 77
    v = tokens.vocabulary
    family = {'t5': 'encoder_decoder', 'gpt2': 'decoder', 'llama': 'decoder'}.get(kind, 'encoder')
    tokenizer_files.write(tokens, tmp_path, family, length, types=kind != 'distilbert')
    if kind:
        config = transformers.AutoConfig.for_model(kind, vocab_size=v.size)
        config.save_pretrained(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert_same_ids(theirs, tokens)
    assert len(theirs) == v.size
    assert theirs.model_max_length == length
    assert (theirs.pad_token_id, theirs.eos_token_id, theirs.unk_token_id) == (v.pad, v.eos, v.unk)
    encoders = theirs.cls_token_id, theirs.sep_token_id, theirs.mask_token_id
    assert encoders == (v.cls, v.sep, v.mask)
    a, b = tokens.encode('The city').tolist(), tokens.encode('lies').tolist()
    both = theirs('The city', 'lies')
    if family == 'decoder':
        assert both['input_ids'] == [*a, *b]
    elif family == 'encoder_decoder' or v.cls is None:
        assert both['input_ids'] == [*a, v.eos, *b, v.eos]
    else:
        assert both['input_ids'] == [v.cls, *a, v.sep, *b, v.sep]
        if kind != 'distilbert':
            assert both['token_type_ids'] == [0] * (len(a) + 2) + [1] * (len(b) + 1)
    if kind in ('t5', 'gpt2', 'llama', 'distilbert'):
        assert 'token_type_ids' not in both
    assert theirs.decode(a) == 'The city'
    assert theirs.decode([*a, v.eos], skip_special_tokens=True) == 'The city'


@pytest.mark.parametrize('make', [bert, gpt2])
def test_files_of_a_checkpoint_in_and_out(tmp_path, make):
    """transformers reads the same files; what we write of them gives the same again."""
    made, out = tmp_path / 'in', tmp_path / 'out'
    made.mkdir()
    out.mkdir()
    make(made)
    tokens = tokenizer_files.read(made, {})
    classes = {bert: transformers.BertTokenizer, gpt2: transformers.GPT2Tokenizer}
    theirs = classes[make].from_pretrained(made)
    assert_same_ids(theirs, tokens)
    tokenizer_files.write(tokens, out, 'decoder', 512)
    written = transformers.AutoTokenizer.from_pretrained(out)
    assert_same_ids(written, tokens)
    assert written('the city', 'of')['input_ids'] == theirs('the city', 'of')['input_ids']
    assert written.eos_token == (None if make is bert else '<|endoftext|>')
    text = 'the city of ankara'
    assert written.decode(tokens.encode(text)) == theirs.decode(tokens.encode(text)) == text


@pytest.mark.parametrize('name', ['BertTokenizer', 'GPT2Tokenizer'])
def test_what_transformers_saves_is_read(tmp_path, name):
    """Its tokenizer.json, with a token added and a role given to it."""
    {'BertTokenizer': bert, 'GPT2Tokenizer': gpt2}[name](tmp_path)
    theirs = getattr(transformers, name).from_pretrained(tmp_path)
    theirs.add_special_tokens({'pad_token': '<|new|>'})
    theirs.add_tokens(['ankaran'])
    out = tmp_path / 'out'
    theirs.save_pretrained(out)
    tokens = tokenizer_files.read(out, {})
    assert tokens.vocabulary.pad == theirs.pad_token_id == theirs.convert_tokens_to_ids('<|new|>')
    assert tokens.vocabulary.size == len(theirs)
    assert_same_ids(theirs, tokens)
    text = 'an ankaran city'
    assert tokens.encode(text).tolist() == theirs(text, add_special_tokens=False)['input_ids']
