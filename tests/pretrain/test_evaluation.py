"""The loss on held-out text, against plain loops over its windows."""

import collections
import functools
import math
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import bert, gpt, t5
from objectives import contract, next_sentence
from pretrain import assembly, corpora, evaluation, meshes, train_step
from pretrain.data import loader
from pretrain.data.corpus import Corpus
from pretrain.data.preparation import Recipe, Work, prepare
from pretrain.data.shards import shard_folder
from pretrain.data.windows import WindowReader

WORDS = ['the', 'of', 'city', 'river', 'hill', 'small', 'old', 'people', 'year', 'war', 'water']


@pytest.fixture(scope='module')
def corpus(tmp_path_factory):
    """Fifty short documents, about a third of them held out."""
    rng, folder = random.Random(1), tmp_path_factory.mktemp('text')
    for i in range(50):
        sentences = [' '.join(rng.choices(WORDS, k=rng.randrange(3, 9))) + '.' for _ in range(6)]
        (folder / f'{i}.txt').write_text(' '.join(sentences))
    recipe = Recipe(
        source=f'text:{folder}', text_field='text', tokenizer='', vocabulary_size=300,
        tokenizer_megabytes=1.0, validation_fraction=0.3, shard_megabytes=0.004,
    )  # fmt: skip
    return Corpus(prepare(recipe, tmp_path_factory.mktemp('cache'), Work(1)))


@pytest.fixture(scope='module')
def reader(corpus):
    """Windows of the shortest length with which neither the last one nor the last batch is full."""
    stream = corpus.total('validation', 'tokens') + corpus.total('validation', 'documents')
    length = next(w for w in range(17, 40) if stream % w > 1 and -(-stream // w) % 8)
    return WindowReader(corpus, 'validation', length, tail=True)


def mesh(devices):
    return meshes.make_mesh('data=-1', jax.devices()[:devices])


def windows_of(reader, count):
    """(targets, which of them are real) of one window after the other."""
    for number in range(count):
        tokens, _, documents = reader.read([number])
        yield tokens[0, 1:], documents[0, 1:] != contract.PADDING


def fake_step(params, windows):
    """Loss that is a function of the target alone: sqrt(id) nats, and a second term of half."""
    targets, real = windows.tokens_BxW[:, 1:], windows.documents_BxW[:, 1:] != contract.PADDING
    weights = np.asarray(real, np.float64)
    nats, weight = (weights * np.sqrt(targets)).sum(), weights.sum()
    loss = contract.Loss(
        terms={
            'cross_entropy': contract.Term(nats, weight),
            # A term of its own weight: one a row that holds anything.
            'rows': contract.Term(3.0 * real.any(1).sum(), real.any(1).sum(), 0.5),
        },
        metrics={'even': contract.Mean((weights * (targets % 2 == 0)).sum(), weight)},
    )
    weight_V = np.zeros(512)
    np.add.at(weight_V, np.asarray(targets), weights)
    return loss, weight_V


def plain_loop(reader, count):
    nats, even, total = 0.0, 0, 0
    for targets, real in windows_of(reader, count):
        for target in targets[real]:
            nats += math.sqrt(target)
            even += target % 2 == 0
            total += 1
    return nats / total, even / total, total


def test_the_corpus_is_one_that_can_tell(reader):
    """Several shards, a last window that is not full, a last batch that is not full."""
    assert len(reader.corpus.manifest['shards']) > 1
    assert len(reader) > 16
    assert len(reader) % 8 != 0
    *_, (_, real) = windows_of(reader, len(reader))
    assert 0 < real.sum() < reader.length - 1


@pytest.mark.parametrize(('batch', 'devices'), [(1, 1), (5, 1), (8, 8), (1000, 8)])
def test_mean_over_all_windows(reader, batch, devices):
    nats, even, total = plain_loop(reader, len(reader))
    scores = evaluation.evaluate(fake_step, None, reader, batch, mesh(devices))
    assert scores['cross_entropy'] == pytest.approx(nats, rel=1e-12)
    assert scores['even'] == pytest.approx(even, rel=1e-12)
    assert scores['rows'] == 3.0
    assert scores['loss'] == pytest.approx(nats + 0.5 * 3.0, rel=1e-12)
    assert scores['perplexity'] == pytest.approx(math.exp(nats), rel=1e-9)
    assert scores['predicted'] == total
    assert 'unigram' not in scores
    assert {type(value) for value in scores.values()} == {float}


@pytest.mark.parametrize(('windows', 'read'), [(1, 1), (8, 8), (11, 11), (1000, None), (0, None)])
def test_limit_of_windows(reader, windows, read):
    """The first of the shuffle, not of the split."""
    count = read or len(reader)
    numbers = loader.for_evaluation(reader, 0, count, slice(0, count), count).numbers_B
    assert len(set(numbers.tolist())) == count
    nats, total = 0.0, 0
    for number in numbers:
        tokens, _, documents = reader.read([number])
        targets = tokens[0, 1:][documents[0, 1:] != contract.PADDING]
        nats, total = nats + np.sqrt(targets).sum(), total + len(targets)
    nats /= total
    batches = []  # none is made of padding alone
    scores = evaluation.evaluate(
        fake_step, None, reader, 8, mesh(8), windows, progress=lambda b: batches.append(len(b)) or b
    )
    assert batches == [math.ceil((read or len(reader)) / 8)]
    assert scores['predicted'] == total
    assert scores['cross_entropy'] == pytest.approx(nats, rel=1e-12)


def test_progress_is_told_of_each_batch(reader):
    seen = []

    def progress(batches):
        assert len(batches) == math.ceil(len(reader) / 8)  # a bar needs the total
        for batch in batches:
            seen.append(batch)
            yield batch

    evaluation.evaluate(fake_step, None, reader, 8, mesh(8), progress=progress)
    assert len(seen) == math.ceil(len(reader) / 8)


def test_sums_do_not_drift(reader):
    """In float32, 2^24 + 1 is 2^24."""
    sums = iter([2.0**24, *[1.0] * 1000])

    def step(params, windows):
        one = jnp.float32(next(sums))
        loss = contract.Loss({'cross_entropy': contract.Term(one, jnp.float32(1))}, {})
        return loss, jnp.zeros(512).at[5].set(one)

    scores = evaluation.evaluate(step, None, reader, 1, mesh(1))
    assert scores['cross_entropy'] == (2.0**24 + len(reader) - 1) / len(reader)
    assert scores['predicted'] == 2.0**24 + len(reader) - 1


def test_nothing_to_predict_is_no_division_by_zero(reader):
    def step(params, windows):
        zero = jnp.float32(0)
        loss = contract.Loss({'other': contract.Term(zero, zero)}, {'a': contract.Mean(zero, zero)})
        return loss, jnp.zeros(512)

    scores = evaluation.evaluate(step, None, reader, 8, mesh(8), unigram_V=np.zeros(400))
    assert scores == {'loss': 0.0, 'other': 0.0, 'a': 0.0, 'predicted': 0.0}


def training_tokens(corpus):
    """The tokens of the training split, and in how many documents, from the files themselves."""
    tokens, documents = [], 0
    for number in range(len(corpus.manifest['shards'])):
        folder = shard_folder(corpus.folder, number)
        tokens += np.load(folder / 'train.tokens.npy').tolist()
        documents += len(np.load(folder / 'train.documents.npy'))
    return tokens, documents


def test_unigram_frequencies_by_hand(corpus):
    """Causal windows of the whole split: the eos is counted in them, pieces in the corpus."""
    tokens, documents = training_tokens(corpus)
    counts = collections.Counter(tokens)
    vocabulary = corpus.tokenizer.vocabulary
    eos, ids = vocabulary.eos, vocabulary.size
    assert documents > 5
    assert counts[eos] == 0  # the separators are not in the shards
    config = gpt.get_config('tiny,smoke')
    objective = assembly.make_objective(config, vocabulary)
    reader = corpora.open_windows(config, corpus, 'train', objective)
    assert len(reader) <= evaluation.SAMPLED
    log_p_V = evaluation.unigram(corpus, objective, reader)
    assert log_p_V.shape == (ids,)
    np.testing.assert_allclose(np.exp(log_p_V).sum(), 1, rtol=1e-12)

    targets = np.concatenate([reader.read([i])[0][0, 1:] for i in range(len(reader))])
    special = np.flatnonzero(vocabulary.bytes_V[:ids] == 0)
    drawn = {i: (targets == i).sum() + 1 for i in special}
    assert drawn[eos] > 5
    share = {i: n / (len(targets) + len(special)) for i, n in drawn.items()}
    left = 1 - sum(share.values())
    total = sum(counts.values()) + ids - len(special)
    for i in range(ids):
        p = share[i] if i in share else left * (counts[i] + 1) / total
        assert log_p_V[i] == pytest.approx(math.log(p), rel=1e-9)


def test_sentinels_are_as_frequent_as_the_objective_makes_them(corpus):
    """Not one in millions, which would put any model below the line."""
    config = t5.get_config('tiny,smoke')
    vocabulary = corpus.tokenizer.vocabulary
    objective = assembly.make_objective(config, vocabulary)
    reader = corpora.open_windows(config, corpus, 'train', objective)
    log_p_V = evaluation.unigram(corpus, objective, reader)
    # 34 raw tokens make 5 of noise in 2 spans: 8 targets, of which the first is sentinel 0.
    rows, special = len(reader), (vocabulary.bytes_V[: vocabulary.size] == 0).sum()
    assert reader.length == 34
    expected = (rows + 1) / (8 * rows + special)
    for i in (*vocabulary.sentinels[:2], vocabulary.eos):
        assert math.exp(log_p_V[i]) == pytest.approx(expected, rel=1e-9)
    assert expected > 0.05


@pytest.mark.parametrize('batch', [8, 16])
def test_random_texts_come_from_other_documents_in_evaluation_too(corpus, batch):
    """Neighbours of a split are of one document: in their order a batch would hold no other."""
    config = bert.get_config('tiny,smoke')
    config.objective.update(length=11, overhang=0)  # several windows a document
    objective = assembly.make_objective(config, corpus.tokenizer.vocabulary)
    reader = corpora.open_windows(config, corpus, 'validation', objective)
    neighbours = reader.read(range(batch))[2][:, 0]
    assert len(set(neighbours.tolist())) < batch / 2
    for first in range(0, len(reader) // batch * batch, batch):
        windows = loader.for_evaluation(reader, first, batch, slice(0, batch), len(reader))
        documents = windows.documents_BxW[:, 0]
        partner = np.asarray(next_sentence.partners(jnp.asarray(documents)))
        assert (documents[partner] != documents).all()


def test_a_model_and_frequencies_on_the_same_tokens(corpus, reader):
    """A real step, on eight devices and on one, against the logits of single windows."""
    vocabulary = corpus.tokenizer.vocabulary
    config = gpt.get_config('tiny,smoke')
    config.objective.length = reader.length - 1
    # Weights that are large enough for losses far from the uniform one.
    config.model.update(decoder_layers=1, stddev=0.3)
    learner = assembly.make_learner(config, vocabulary)
    params = jax.jit(lambda: train_step.init_state(learner)['params'])()
    step = jax.jit(functools.partial(train_step.evaluation_step, learner))
    unigram_V = evaluation.unigram(corpus, learner.objective, reader)

    module = learner.transformers['model']
    logits_of = jax.jit(
        lambda tokens_1xL: module.apply({'params': params['model']}, contract.Inputs(tokens_1xL))
    )
    nats, frequency_nats, right, bytes_, total = 0.0, 0.0, 0, 0, 0
    for number in range(len(reader)):
        tokens, _, documents = reader.read([number])
        logits_LxV = np.asarray(logits_of(tokens[:, :-1]), np.float64)[0]
        for place in range(reader.length - 1):
            if documents[0, place + 1] == contract.PADDING:
                continue
            target, logits_V = tokens[0, place + 1], logits_LxV[place]
            nats += math.log(np.exp(logits_V).sum()) - logits_V[target]
            frequency_nats -= unigram_V[target]
            right += logits_V.argmax() == target
            bytes_ += vocabulary.bytes_V[target]
            total += 1

    for batch, devices in ((8, 8), (7, 1)):
        scores = evaluation.evaluate(
            step, params, reader, batch, mesh(devices), unigram_V=unigram_V
        )
        assert scores['loss'] == pytest.approx(nats / total, rel=1e-5)
        assert scores['cross_entropy'] == scores['loss']
        assert scores['accuracy'] == pytest.approx(right / total)
        assert scores['bits_per_byte'] == pytest.approx(nats / math.log(2) / bytes_, rel=1e-5)
        assert scores['unigram'] == pytest.approx(frequency_nats / total, rel=1e-9)
        assert scores['predicted'] == total
    assert abs(nats / total - math.log(vocabulary.table_size)) > 0.1


def test_perplexity():
    assert evaluation.perplexity(math.log(20)) == pytest.approx(20)
    assert evaluation.perplexity(0.0) == 1.0
    assert evaluation.perplexity(699.0) < math.inf
    assert evaluation.perplexity(750.0) == math.inf  # math.exp would raise
    assert evaluation.perplexity(1e6) == math.inf
    assert evaluation.perplexity(math.inf) == math.inf
