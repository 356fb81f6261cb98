"""A corpus is sealed whole, and every byte that differs is found."""

import hashlib
import json
import shutil

import pytest


@pytest.fixture
def copy(corpus, tmp_path):
    """A copy of a corpus, to be changed; not of the seal that another test may have put there."""
    unsealed = shutil.ignore_patterns('sha256.json')
    return shutil.copytree(corpus, tmp_path / 'text-0123', ignore=unsealed)


def test_a_sealed_corpus_is_verified(launch, copy):
    code, out, err = launch('staging', 'seal', copy)
    assert code == 0, err
    text = (copy / 'sha256.json').read_bytes()
    digest = hashlib.sha256(text).hexdigest()
    assert digest in out
    listed = json.loads(text)['files']
    manifest = hashlib.sha256((copy / 'manifest.json').read_bytes()).hexdigest()
    assert listed['manifest.json'] == manifest
    assert {'shard-00000/train.tokens.npy', 'shard-00000/counts.npy'} <= set(listed)
    assert not any('.png' in name for name in listed)
    (copy / 'summary.png').write_bytes(b'another picture')
    code, out, err = launch('staging', 'verify', copy, f'--sha256={digest}')
    assert (code, out) == (0, f'launch-verified {digest}\n'), err
    assert launch('staging', 'seal', copy)[1].count(digest) == 1  # the list does not list itself


def test_every_difference_is_found(launch, refused, copy):
    refused('staging', [(['verify', copy], 'has no sha256.json: python -m launch.staging seal')])
    launch('staging', 'seal', copy)
    refused('staging', [(['verify', copy, '--sha256=00'], 'and not 00: stage it again')])
    tokens = copy / 'shard-00000' / 'train.tokens.npy'
    whole = tokens.read_bytes()
    tokens.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    refused('staging', [(['verify', copy], '1 files differ from what was sealed, the first: ')])
    tokens.unlink()
    refused('staging', [(['verify', copy], f'1 files are missing, the first: {str(tokens)!r}')])
    (copy / 'sha256.json').write_text('{')
    refused('staging', [(['verify', copy], 'is damaged')])


def test_what_is_wrong_is_said_in_one_line(refused, tmp_path):
    cases = [
        ([], 'say what to do: one of seal, verify'),
        (['seel', 'a'], 'did you mean seal?'),
        (['seal'], 'name the folder of a corpus'),
        (['seal', tmp_path], 'is no finished corpus'),
        (['verify', tmp_path / 'none'], 'has no sha256.json'),
        (['verify', 'a', 'b'], "unknown argument 'b'"),
    ]
    refused('staging', cases)
