"""The command on mixtures and on packed windows."""

import json
import random
import re

import pytest

from objectives.contract import PADDING
from pretrain import run_log
from pretrain.data.corpus import Corpus
from pretrain.data.windows import WindowReader


@pytest.fixture(scope='module')
def sources(tmp_path_factory):
    """Two folders of texts that differ in their words."""
    folder = tmp_path_factory.mktemp('sources')
    rng = random.Random(0)
    for name in 'ab':
        (folder / name).mkdir()
        words = [''.join(rng.choices('abcdefghijklmnop', k=rng.randrange(2, 8))) for _ in range(90)]
        for i in range(20):
            sentences = (' '.join(rng.choices(words, k=8)).capitalize() for _ in range(40))
            (folder / name / f'{i}.txt').write_text('. '.join(sentences))
    return [f'text:{folder}/{name}' for name in 'ab']


def test_a_mixture_has_a_loss_for_each_source_and_goes_on_as_it_is(call, small, sources, tmp_path):
    def flags(weight):
        return [
            *small, f'--workdir={tmp_path}/run', '--config.data.vocabulary_size=320',
            f'--config.data.mixture=(({sources[0]!r}, {weight}), ({sources[1]!r}, 1.0))',
        ]  # fmt: skip

    done = call('train', *flags(3.0))
    assert done.returncode == 0, done.stderr
    assert '75.00% of the windows' in done.stdout
    assert 'loss on text-a' in done.stdout
    last = run_log.read_rows(tmp_path / 'run')[-1]
    mean = 0.75 * last['validation_loss_text-a'] + 0.25 * last['validation_loss_text-b']
    assert last['validation_loss'] == pytest.approx(mean, rel=1e-6)
    assert last['validation_loss'] == pytest.approx(last['validation_cross_entropy'], rel=1e-6)
    changed = call('train', *flags(2.0))
    assert changed.returncode == 2
    assert 'data.mixture was' in changed.stderr
    scored = call(
        'evaluate', '--benchmark=text', f'--checkpoint={tmp_path}/run', f'--out={tmp_path}/s.json'
    )
    assert scored.returncode == 0, scored.stderr
    scores = json.loads((tmp_path / 's.json').read_text())
    assert scores['loss_text-b'] == pytest.approx(last['validation_loss_text-b'], rel=1e-5)
    assert scores['source'] == ' and '.join(sources)


def test_a_source_without_held_out_text_is_said(call, small, sources, tmp_path):
    alone = tmp_path / 'alone'
    alone.mkdir()
    (alone / '0.txt').write_text('One document and no other. ' * 52)  # not held out, by its hash
    done = call(
        'train', *small, f'--workdir={tmp_path}/run', '--config.data.vocabulary_size=320',
        f'--config.data.mixture=(({sources[0]!r}, 1.0), ("text:{alone}", 3.0))',
        '--config.objective.length=16', '--config.steps=2', '--config.sample.tokens=0',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert 'warning: no document of text-alone is held out: the validation loss is that' in (
        done.stdout
    )
    last = run_log.read_rows(tmp_path / 'run')[-1]
    assert last['validation_loss_text-a'] == last['validation_loss']
    # 4 of its windows are read for each of the other's, by their lengths.
    assert re.search(r'epochs: [\d.]+ of text-a, [\d.]+ of text-alone', done.stdout)


def test_another_batch_size_goes_on_with_the_next_window(call, small, tmp_path):
    """At a learning rate of 0 the loss of a step tells which windows it read."""
    flags = [*small, '--config.optimizer.learning_rate=0.0', '--config.log.every=1']
    flags.append('--config.sample.tokens=0')

    def train(name, batch, steps):
        done = call(
            'train', *flags, f'--workdir={tmp_path}/{name}', f'--config.batch_size={batch}',
            f'--config.steps={steps}', '--accept_changes',
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return {row['step']: row['loss'] for row in run_log.read_rows(tmp_path / name)}

    train('run', 8, 4)
    found = train('run', 16, 6)  # windows 32 to 63, which a run of 16 reads in steps 3 and 4
    expected = train('other', 16, 4)
    assert [found[5], found[6]] == pytest.approx([expected[3], expected[4]], rel=1e-6)


def test_packed_windows_train(call, small, tmp_path):
    done = call(
        'train', *small, f'--workdir={tmp_path}/run', '--config.data.cut=pack',
        '--config.objective.separate_documents=True', '--config.data.workers=0',
        '--config.sample.tokens=0',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    shown = re.search(r'of ([\d,]+) windows of 33 tokens a step, .* ([\d.]+)% padding', done.stdout)
    corpus = Corpus(re.search(r'^corpus: (.*?),', done.stdout, re.M)[1])
    documents = WindowReader(corpus, 'train', 33, 'pack').read(range(int(shown[1])))[2]
    assert 100 * (documents == PADDING).mean() == pytest.approx(float(shown[2]), abs=0.051)
    rows = run_log.read_rows(tmp_path / 'run')
    assert rows[-1]['loss'] < rows[0]['loss']


def test_a_mixture_that_is_none_is_said(refused, small, sources, tmp_path):
    a, b = sources
    cases = {
        f'(({a!r}, 1.0), ({a!r}, 2.0))': 'twice: add the weights up',
        f'(({a!r}, 1.0), ({b!r}, 0.0))': 'the weight 0.0 of',
        f'({a!r}, {b!r})': 'each is (source, weight)',
        f'(({a!r}, 1.0), ({b!r}, 1e-6))': 'source 2 has a share of 1e-06',
    }
    flags = [*small, f'--workdir={tmp_path}/run', '--config.data.vocabulary_size=320']
    mixed = [([*flags, f'--config.data.mixture={m}'], says) for m, says in cases.items()]
    refused('train', mixed)
    assert not (tmp_path / 'run').exists()
