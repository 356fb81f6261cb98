"""Windows against a plain list of all tokens, built from the texts themselves."""

import json
import shutil

import numpy as np
import pytest

from objectives.contract import PADDING
from pretrain.data.corpus import Corpus, WindowReader
from pretrain.data.sentences import sentence_starts
from pretrain.errors import UserError


@pytest.fixture
def stream(corpus, documents):
    """The training split as (token, sentence in corpus, document) with an eos after each document.

    In the order of the shards, which hold the documents in the order of the files.
    """
    out, sentence, number = [], -1, 0
    held_out = {text for text in documents if is_held_out(corpus, text)}
    for text in documents:
        if text in held_out:
            continue
        ids, starts = corpus.tokenizer.encode_with_starts(text, sentence_starts(text))
        for place, token in enumerate(ids):
            sentence += place in set(starts.tolist())
            out.append((int(token), sentence, number))
        out.append((1, sentence, number))
        number += 1
    assert number == corpus.total('train', 'documents')
    return np.array(out)


def is_held_out(corpus, text):
    import hashlib

    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, 'big') < 0.2 * 2**64


@pytest.mark.parametrize('length', [1, 7, 32, 333])
@pytest.mark.parametrize('separator', [True, False])
def test_stream_windows_are_slices_of_all_tokens(corpus, stream, length, separator):
    if not separator:
        stream = stream[stream[:, 0] != 1]
    reader = WindowReader(corpus, 'train', length, 'stream', separator)
    assert len(reader) == len(stream) // length
    tokens, sentences, documents = reader.read(range(len(reader)))
    whole = stream[: len(reader) * length].reshape(len(reader), length, 3)
    np.testing.assert_array_equal(tokens, whole[..., 0])
    np.testing.assert_array_equal(documents, whole[..., 2])
    np.testing.assert_array_equal(sentences, whole[..., 1] - whole[:, :1, 1])
    assert {a.dtype for a in (tokens, sentences, documents)} == {np.dtype(np.int32)}


def test_the_tail_is_a_padded_window(corpus, stream):
    reader = WindowReader(corpus, 'train', 100, tail=True)
    assert len(reader) == -(-len(stream) // 100)
    tokens, sentences, documents = reader.read([len(reader) - 1, -1])
    rest = len(stream) % 100
    assert rest
    np.testing.assert_array_equal(tokens[0, :rest], stream[-rest:, 0])
    assert (documents[0, rest:] == PADDING).all()
    assert (sentences[0, rest:] == PADDING).all()
    assert (tokens[0, rest:] == 0).all()
    assert (documents[1] == PADDING).all()


@pytest.mark.parametrize('length', [5, 24, 500])
@pytest.mark.parametrize('separator', [True, False])
def test_document_windows_keep_to_one_document_and_begin_at_sentences(
    corpus, stream, length, separator
):
    reader = WindowReader(corpus, 'train', length, 'document', separator)
    tokens, sentences, documents = reader.read(range(len(reader)))
    longest = np.bincount(stream[:, 1]).max()
    real = documents != PADDING
    assert (real.sum(axis=1) > 0).all()
    for row in range(len(reader)):
        n = real[row].sum()
        assert real[row, :n].all()  # padding stands behind
        assert (documents[row, :n] == documents[row, 0]).all()
        text = stream[stream[:, 2] == documents[row, 0]]
        body = tokens[row, :n].tolist()
        places = [i for i in range(len(text)) if text[i : i + n, 0].tolist() == body]
        if length > longest:
            assert any(i == 0 or text[i, 1] != text[i - 1, 1] for i in places)
        assert places
        assert sentences[row, 0] == 0
    if length == 500:  # every document fits: nothing is lost and eos is there when asked for
        assert len(reader) == corpus.total('train', 'documents')
        assert real.sum() == len(stream) - (0 if separator else corpus.total('train', 'documents'))
    # Every place of every document is read by some window (its eos may lack room).
    for document in np.unique(documents[real]):
        text = stream[(stream[:, 2] == document) & (stream[:, 0] != 1), 0]
        covered, reached = np.zeros(len(text), bool), 0
        for row in np.flatnonzero(documents[:, 0] == document):  # in the order of the text
            body = tokens[row][real[row] & (tokens[row] != 1)]
            places = [
                i for i in range(reached + 1) if np.array_equal(text[i : i + len(body)], body)
            ]
            covered[places[-1] : places[-1] + len(body)] = True
            reached = max(reached, places[-1] + len(body))
        assert covered.all()


def test_splits_do_not_overlap_and_all_is_both(corpus):
    readers = {s: WindowReader(corpus, s, 16, tail=True) for s in ('train', 'validation', 'all')}
    numbers = {s: set(np.unique(r.read(range(len(r)))[2])) - {PADDING} for s, r in readers.items()}
    count = {s: corpus.total(s, 'documents') for s in numbers}
    assert count['all'] == count['train'] + count['validation'] == 60
    assert 4 <= count['validation'] <= 22  # a fifth of 60
    assert numbers['all'] == set(range(60))


def test_counts_are_those_of_the_training_split(corpus, stream):
    tokens = stream[stream[:, 0] != 1, 0]
    np.testing.assert_array_equal(
        corpus.counts_V, np.bincount(tokens, minlength=corpus.tokenizer.vocabulary.table_size)
    )


def test_what_is_wrong_is_said(corpus, tmp_path):
    with pytest.raises(
        UserError, match=r'window of 10000000 tokens is longer than the train split'
    ):
        WindowReader(corpus, 'train', 10**7)
    with pytest.raises(UserError, match=r"data.cut='words' is not one of"):
        WindowReader(corpus, 'train', 10, 'words')
    with pytest.raises(UserError, match='no finished corpus'):
        Corpus(tmp_path)
    copy = shutil.copytree(corpus.folder, tmp_path / 'copy')
    manifest = json.loads((copy / 'manifest.json').read_text())
    manifest['tokenizer'] = '0' * 64
    (copy / 'manifest.json').write_text(json.dumps(manifest))
    with pytest.raises(UserError, match='is not the one its shards were made with'):
        Corpus(copy)


def test_a_damaged_corpus_is_refused(corpus, tmp_path):
    def copy(name):
        return shutil.copytree(corpus.folder, tmp_path / name)

    cut, none, short, missing, ids = map(copy, ('cut', 'none', 'short', 'missing', 'ids'))
    (cut / 'manifest.json').write_text((cut / 'manifest.json').read_text()[:300])
    (none / 'manifest.json').write_text('{}')
    tokens = short / 'shard-00000' / 'train.tokens.npy'
    tokens.write_bytes(tokens.read_bytes()[:-50])
    shutil.rmtree(missing / 'shard-00001')
    for folder in (cut, none, short, missing):
        with pytest.raises(UserError, match=r'is damaged .*delete the folder'):
            Corpus(folder)
    tokens = ids / 'shard-00000' / 'train.tokens.npy'
    tokens.write_bytes(tokens.read_bytes()[:-50] + b'\xff' * 50)
    reader = WindowReader(Corpus(ids), 'train', 16)
    with pytest.raises(UserError, match='it holds the id 65535'):
        reader.read(range(len(reader)))
