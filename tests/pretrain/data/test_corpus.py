"""A corpus is opened whole, or refused."""

import json
import shutil

import numpy as np
import pytest

from pretrain.data.corpus import Corpus
from pretrain.data.windows import WindowReader
from pretrain.errors import UserError


def test_counts_are_those_of_the_training_split(corpus, stream):
    tokens = stream[stream[:, 0] != 1, 0]
    np.testing.assert_array_equal(
        corpus.counts_V, np.bincount(tokens, minlength=corpus.tokenizer.vocabulary.table_size)
    )


def test_what_is_wrong_is_said(corpus, tmp_path):
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
    last = Corpus(ids).parts('train')[0][3] - 1
    for read in (lambda: reader.read(range(len(reader))), lambda: Corpus(ids).document(last)):
        with pytest.raises(UserError, match='it holds the id 65535'):
            read()


def test_a_damaged_array_is_refused_when_it_is_read(corpus, tmp_path):
    def copy(name, change):
        folder = shutil.copytree(corpus.folder, tmp_path / name)
        path = folder / 'shard-00000' / f'{name}.npy'
        path.write_bytes(change(path.read_bytes()))
        return Corpus(folder)

    header = copy('train.documents', lambda content: b'x' * 128 + content[128:])
    content = copy('train.sentences', lambda content: content)
    numbers = copy('train.tokens', lambda content: content[:128][::-1] + content[128:])
    counts = copy('counts', lambda content: content[:40])
    for reads in (
        lambda: header.document(0),
        lambda: WindowReader(numbers, 'train', 16).read([0]),
        lambda: counts.counts_V,
    ):
        with pytest.raises(UserError, match=r'is damaged .*prepare it again'):
            reads()
    assert content.document(0).size
    places = content.folder / 'shard-00000' / 'train.documents.npy'
    for number in (10**15, -5):  # of the right size, and no places of documents
        array = np.load(places)
        array[1:] = number
        np.save(places, array)
        reader = WindowReader(Corpus(content.folder), 'train', 16)
        with pytest.raises(UserError, match=r'is damaged: .*prepare it again'):
            reader.read(range(len(reader)))


def test_a_table_that_points_nowhere_is_refused(corpus, tmp_path):
    copy = Corpus(shutil.copytree(corpus.folder, tmp_path / 'copy'))
    WindowReader(copy, 'train', 16, 'pack')
    (path,) = (copy.folder / 'shard-00000').glob('train.windows-pack-16-*.npy')
    table = np.load(path)
    spans = table[0] + 3
    for change in (lambda span: span * 0, lambda span: span + 10**7):
        changed = np.concatenate([table[:spans], change(table[spans:])])
        path.unlink()
        np.save(path, changed)
        with pytest.raises(UserError, match='is damaged: shard 0 holds no text from'):
            WindowReader(copy, 'train', 16, 'pack').read([0])
