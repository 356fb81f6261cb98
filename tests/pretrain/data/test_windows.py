"""Windows against a plain list of all tokens, built from the texts themselves."""

import numpy as np
import pytest

from objectives.contract import PADDING
from pretrain.data import layout
from pretrain.data.windows import WindowReader
from pretrain.errors import UserError


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


@pytest.mark.parametrize('length', [5, 24, 100, 500])
@pytest.mark.parametrize('separator', [True, False])
def test_packed_windows_hold_every_document_once_and_whole(corpus, stream, length, separator):
    """A document longer than a window gives whole windows and one rest."""
    if not separator:
        stream = stream[stream[:, 0] != 1]
    reader = WindowReader(corpus, 'train', length, 'pack', separator)
    tokens, sentences, documents = reader.read(range(len(reader)))
    real = documents != PADDING
    stretches = []
    for row in range(len(reader)):
        n = real[row].sum()
        assert n
        assert real[row, :n].all()  # padding stands behind
        assert sentences[row, 0] == 0
        assert set(np.diff(sentences[row, :n])) <= {0, 1}
        edges = np.flatnonzero(np.diff(documents[row, :n], prepend=-1))
        for begin, end in zip(edges, [*edges[1:], n]):
            stretches.append((documents[row, begin], tokens[row, begin:end].tolist()))
            if begin:  # another document is another sentence
                assert sentences[row, begin] == sentences[row, begin - 1] + 1
    for number in range(corpus.total('train', 'documents')):
        text = stream[stream[:, 2] == number, 0].tolist()
        found = [body for owner, body in stretches if owner == number]
        expected = [text[at : at + length] for at in range(0, len(text), length)]
        if separator and len(expected[-1]) == 1:  # an eos alone is left out
            expected.pop()
        assert sorted(found) == sorted(expected)
    assert reader.padding == pytest.approx(1 - real.mean())
    # No two windows of a shard could be one.
    assert np.sum(real.sum(axis=1) <= length // 2) <= len(corpus.parts('train'))


def test_padding_is_that_of_the_windows(corpus):
    for cut in ('document', 'pack', 'stream'):
        reader = WindowReader(corpus, 'train', 40, cut, tail=True)
        documents = reader.read(range(len(reader)))[2]
        assert reader.padding == pytest.approx((documents == PADDING).mean())


def test_tables_are_made_once_and_read_again(corpus, monkeypatch):
    first = WindowReader(corpus, 'train', 37, 'pack')
    monkeypatch.setattr(layout, 'lay_out', None)
    again = WindowReader(corpus, 'train', 37, 'pack')
    for one, other in zip(first.read(range(len(first))), again.read(range(len(again)))):
        np.testing.assert_array_equal(one, other)


def test_a_disk_that_cannot_be_written_is_no_obstacle(corpus, monkeypatch):
    monkeypatch.setattr(layout, '_writable', lambda folder: False)
    reader = WindowReader(corpus, 'train', 41, 'pack')
    assert not list(corpus.folder.rglob('*pack-41*'))
    monkeypatch.undo()
    written = WindowReader(corpus, 'train', 41, 'pack')
    np.testing.assert_array_equal(reader.read([0, 3])[0], written.read([0, 3])[0])


def test_what_is_wrong_is_said(corpus):
    with pytest.raises(
        UserError, match=r'window of 10000000 tokens is longer than the train split'
    ):
        WindowReader(corpus, 'train', 10**7)
    with pytest.raises(UserError, match=r"data.cut='words' is not one of stream, document, pack"):
        WindowReader(corpus, 'train', 10, 'words')
