"""The command on mixtures and on packed windows."""

import json
import random

import pytest

from pretrain import run_log


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


def test_packed_windows_train(call, small, tmp_path):
    done = call(
        'train', *small, f'--workdir={tmp_path}/run', '--config.data.cut=pack',
        '--config.objective.separate_documents=True', '--config.data.workers=0',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert '% padding' in done.stdout
    rows = run_log.read_rows(tmp_path / 'run')
    assert rows[-1]['loss'] < rows[0]['loss']


def test_a_mixture_that_is_none_is_said(call_many, small, sources, tmp_path):
    a, b = sources
    cases = {
        f'(({a!r}, 1.0), ({a!r}, 2.0))': 'twice: add the weights up',
        f'(({a!r}, 1.0), ({b!r}, 0.0))': 'the weight 0.0 of',
        f'({a!r}, {b!r})': 'each is (source, weight)',
        f'(({a!r}, 1.0), ({b!r}, 1e-6))': 'source 2 has a share of 1e-06',
    }
    flags = [*small, f'--workdir={tmp_path}/run', '--config.data.vocabulary_size=320']
    calls = [[*flags, f'--config.data.mixture={mixture}'] for mixture in cases]
    for says, (code, _, err) in zip(cases.values(), call_many('train', calls), strict=True):
        assert code == 2, err
        said = [line for line in err.splitlines() if line.startswith('error: ')]
        assert len(said) == 1, err
        assert says in said[0]
    assert not (tmp_path / 'run').exists()
