"""Long documents are tokenised piece by piece, with the ids that they have as a whole."""

import numpy as np
import pytest
import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from pretrain.data import tokenizer, unit
from pretrain.data.fast_tokenizer import FastTokenizer
from pretrain.data.sentences import sentence_starts

LONG = 100


def byte_pairs(texts):
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=350, special_tokens=['<|endoftext|>'], initial_alphabet=alphabet
    )
    made.train_from_iterator(texts, trainer)
    return FastTokenizer(made.to_str().encode())


def word_pieces(texts):
    made = tokenizers.Tokenizer(models.WordPiece(unk_token='[UNK]'))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]']
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=special)
    made.train_from_iterator(texts, trainer)
    return FastTokenizer(made.to_str().encode())


@pytest.fixture(scope='module', params=['sentencepiece', byte_pairs, word_pieces])
def tokens(request, documents):
    if request.param == 'sentencepiece':
        return tokenizer.train(documents, 310)
    return request.param(documents)


def texts(documents):
    odd = '\n\n\n'.join(documents[:4]) + '\n \n  \tend  of it. \n\n'
    return [*documents[:20], ' '.join(documents).replace('\n', ' '), odd * 3]


def test_ids_and_sentences_are_those_of_the_whole(tokens, documents, monkeypatch):
    monkeypatch.setattr(unit, 'LONG', LONG)
    given = [('train', text) for text in texts(documents)]
    given = [*given, ('train', 'Short.'), ('validation', 'Two. Of them.'), ('train', 'x')] * 2
    found = list(unit._encode(tokens, iter(given)))
    assert [tuple(each[:2]) for each in found] == given
    for _, text, *encoded in found:
        ids, sentences = tokens.encode_with_starts(text, [0, *sentence_starts(text)[1:]])
        np.testing.assert_array_equal(encoded[0], ids)
        np.testing.assert_array_equal(encoded[1], sentences)
    assert sum(len(list(unit._pieces(text))) > 1 for _, text in given) > 20


def test_of_no_documents(tokens):
    assert list(unit._encode(tokens, [])) == []


@pytest.mark.parametrize('text', ['x' * 350, ' ' * 350, 'a' + ' ' * 250 + 'b' * 99, '\n' * 201])
def test_text_without_a_place_to_cut(tokens, text, monkeypatch):
    monkeypatch.setattr(unit, 'LONG', LONG)
    pieces = [text[begin:end] for begin, end in unit._pieces(text)]
    assert ''.join(pieces) == text
    assert all(0 < len(piece) <= LONG for piece in pieces)
    [(*_, ids, sentences)] = unit._encode(tokens, [('train', text)])
    if isinstance(tokens, tokenizer.Tokenizer):
        assert tokens.decode(ids) == text
        assert sentences[0] == 0
