"""The command that shows a corpus and its windows."""

import re

import numpy as np
import pytest


@pytest.fixture(scope='module')
def done(call, small, tmp_path_factory):
    folder = tmp_path_factory.mktemp('page')
    path = folder / 'look.html'
    bert = ['--config=configs/bert.py:smoke', *small[1:], f'--html={path}']
    bert.append(f'--config.data.cache={folder}')
    done = call('look', *bert, '--documents=2', '--windows=2', '--config.data.vocabulary_size=450')
    assert done.returncode == 0, done.stderr
    return done.stdout, path


def test_shows_documents_windows_and_frequencies(done):
    shown, path = done
    assert len(re.findall(r'document \d+ of the training split, \d+ tokens', shown)) == 2
    assert re.search(r'next_sentence, steps 1 to 20: [\d,]+ windows of \d+ tokens, ', shown)
    assert len(re.findall(r'^  reads  ', shown, re.M)) == 2
    assert len(re.findall(r'^  label  ', shown, re.M)) == 2
    assert re.search(r'\[<MASK> -> [^\]]', shown)
    assert '\x1b' not in shown  # no terminal
    tokens = [np.load(file) for file in path.parent.glob('*/shard-*/train.tokens.npy')]
    counts = np.bincount(np.concatenate(tokens))
    table = re.findall(r'^ +(\d+) +(\d+) +([\d,]+) +([\d.]+)%', shown, re.M)
    assert len(table) == 40
    for rank, i, times, share in table:
        assert int(times.replace(',', '')) == counts[int(i)] == sorted(counts)[-int(rank)]
        assert float(share) == pytest.approx(100 * counts[int(i)] / counts.sum(), abs=6e-4)
    assert f'page: {path}' in shown
    text = path.read_text()
    assert text.startswith('<!doctype html>')
    assert '&lt;MASK&gt;' in text


def test_colours_when_they_are_asked_for(call, small, tmp_path):
    flags = [*small, '--colour=always', '--documents=1', '--windows=1', f'--html={tmp_path}/a/b']
    done = call('look', *flags)
    assert done.returncode == 0, done.stderr
    assert '\x1b[1m' in done.stdout
    assert (tmp_path / 'a' / 'b').exists()


def test_what_is_wrong_is_said_in_one_line(refused, small):
    cases = [
        ([*small, '--documents=-1'], '--documents=-1'),
        ([*small, '--colour=red'], '--colour=red is not one of'),
        ([*small, '--html=/proc/none/x'], "--html: cannot write '/proc/none/x'"),
        ([], '--config is missing'),
    ]
    refused('look', cases)
