"""Mixtures: rates by hand, every window once an epoch, and an order that is a function of place."""

import numpy as np
import pytest

from objectives.contract import PADDING
from pretrain.data import loader, mixture
from pretrain.data.corpus import Corpus
from pretrain.data.mixture import BLOCK, MixedReader, Mixture
from pretrain.data.preparation import Work, prepare_all
from pretrain.data.windows import WindowReader
from pretrain.errors import UserError


@pytest.fixture(scope='module')
def folders(recipe, documents, tmp_path_factory):
    other = tmp_path_factory.mktemp('other')
    for i, text in enumerate(documents[:25]):
        (other / f'{i:03d}.txt').write_text(text[::-1])
    recipes = {recipe: 3.0, recipe._replace(source=f'text:{other}'): 1.0}
    return prepare_all(recipes, tmp_path_factory.mktemp('mixed'), Work(1))


@pytest.fixture(scope='module')
def corpora(folders):
    return [Corpus(folder) for folder in folders]


@pytest.fixture(scope='module')
def reader(corpora):
    readers = {str(i): WindowReader(corpus, 'train', 16) for i, corpus in enumerate(corpora)}
    return MixedReader(readers, [7_500, 2_500])


def test_rates():
    sizes = [100, 400, 10_000]
    three = lambda *a: mixture.rates(*a).tolist()  # noqa: E731
    assert three([1, 2, 1], sizes, 'weights', 1.0, 0) == [0.25, 0.5, 0.25]
    expected = [100 / 10_500, 400 / 10_500, 10_000 / 10_500]
    assert three([1, 1, 1], sizes, 'size', 1.0, 0) == pytest.approx(expected)
    # Raffel et al.: r = min(e, K) / sum of them; by temperature, to the power of 1 / T first.
    assert three([1, 1, 1], sizes, 'size', 1.0, 500) == pytest.approx([0.1, 0.4, 0.5])
    assert three([1, 1, 1], sizes, 'size', 2.0, 0) == pytest.approx([10 / 130, 20 / 130, 100 / 130])
    assert three([2, 1, 1], sizes, 'size', 2.0, 400) == pytest.approx([20 / 60, 20 / 60, 20 / 60])
    assert three([1, 1, 1], sizes, 'size', 1e9, 0) == pytest.approx([1 / 3] * 3)


def test_rates_are_fair_in_every_block():
    assert mixture.places_of([1 / 3, 1 / 3, 1 / 3]).tolist() == [3334, 3333, 3333]
    assert mixture.places_of([0.99994, 0.00006]).tolist() == [9999, 1]
    with pytest.raises(UserError, match='source 2 has a share of 1e-05'):
        mixture.places_of([0.99999, 0.00001])


def owners(reader, numbers):
    return (numbers >= len(reader.readers['0'])).astype(int)


def test_every_window_of_each_corpus_comes_once_in_its_epoch(reader):
    positions = np.arange(3 * BLOCK)
    numbers = reader.numbers(positions, 5)
    of = owners(reader, numbers)
    assert np.bincount(of).tolist() == [22_500, 7_500]
    first = len(reader.readers['0'])
    for owner, size in ((0, first), (1, len(reader) - first)):
        read = numbers[of == owner] - owner * first
        assert len(read) > 2 * size
        for begin in range(0, len(read), size):  # epochs as the run meets them, in blocks or over
            epoch = np.sort(read[begin : begin + size])
            if len(epoch) == size:
                np.testing.assert_array_equal(epoch, np.arange(size))
            else:
                assert len(np.unique(epoch)) == len(epoch)


def test_blocks_epochs_seeds_and_corpora_differ(reader):
    positions = np.arange(BLOCK)
    one = reader.numbers(positions, 5)
    assert (
        owners(reader, one) == owners(reader, reader.numbers(positions + BLOCK, 5))
    ).mean() < 0.7
    assert (one == reader.numbers(positions, 6)).mean() < 0.1
    np.testing.assert_array_equal(one, reader.numbers(positions, 5))
    shuffled = np.random.default_rng(0).permutation(positions)
    np.testing.assert_array_equal(one[shuffled], reader.numbers(shuffled, 5))


def test_stretches_of_a_run_have_the_rates_about(reader):
    share = owners(reader, reader.numbers(np.arange(4 * BLOCK), 5)).reshape(-1, 1000).mean(axis=1)
    assert abs(share.mean() - 0.25) < 1e-9
    assert np.all(abs(share - 0.25) < 0.06)  # 4.4 standard deviations of a drawing of 1,000


def test_what_is_read_is_what_the_corpora_hold(reader):
    numbers = np.array([3, len(reader) - 1, -1, 0, len(reader.readers['0'])])
    tokens, sentences, documents = reader.read(numbers)
    one, two = reader.readers.values()
    np.testing.assert_array_equal(tokens[[0, 3]], one.read([3, 0])[0])
    np.testing.assert_array_equal(tokens[[1, 4]], two.read([len(two) - 1, 0])[0])
    np.testing.assert_array_equal(sentences[[1, 4]], two.read([len(two) - 1, 0])[1])
    np.testing.assert_array_equal(documents[[1, 4]] - one.documents, two.read([len(two) - 1, 0])[2])
    assert (documents[2] == PADDING).all()
    every = reader.read(range(len(reader)))[2]
    assert len(np.unique(every)) <= reader.documents
    assert reader.padding == 0


def test_the_loader_reads_a_mixture_on_any_number_of_processes(reader):
    whole = loader.Loader(reader, 7, 6, slice(0, 6), 9_990)
    parts = [loader.Loader(reader, 7, 6, slice(i, i + 2), 9_990, workers=0) for i in (0, 2, 4)]
    for _ in range(4):  # over the edge of a block
        expected = next(whole)
        found = [next(part) for part in parts]
        for name in expected._fields:
            joined = np.concatenate([getattr(part, name) for part in found])
            np.testing.assert_array_equal(joined, getattr(expected, name))
    whole.close()


def test_a_process_may_have_no_rows(reader):
    assert [array.shape for array in reader.read(np.array([], np.int64))] == [(0, 16)] * 3


def test_a_mixture_of_corpora(corpora):
    mixed = Mixture(corpora, [3, 1])
    assert list(mixed.corpora) == list(mixed.shares)
    assert list(mixed.shares.values()) == [0.75, 0.25]
    assert mixed.tokenizer.digest == corpora[1].tokenizer.digest
    assert mixed.total('all', 'documents') == 85
    assert mixed.digest != Mixture(corpora, [2, 1]).digest
    assert mixed.digest != Mixture(corpora[::-1], [1, 3]).digest
    shares = mixed.counts_V / mixed.counts_V.sum()
    one, two = (corpus.counts_V / corpus.counts_V.sum() for corpus in corpora)
    np.testing.assert_allclose(shares, 0.75 * one + 0.25 * two)
    assert len(Mixture([corpora[0], corpora[0]], [1, 1]).corpora) == 2
    with pytest.raises(UserError, match="'wieghts' is not one of weights, size"):
        Mixture(corpora, [1, 1], 'wieghts')
    with pytest.raises(UserError, match=r'data\.temperature=0\.0 must'):
        Mixture(corpora, [1, 1], 'size', 0.0)
