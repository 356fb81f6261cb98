"""The sha256 manifest finds every kind of damage to a checkpoint's files, and only damage."""

import hashlib
import json
import subprocess

import pytest

from pretrain import manifest


@pytest.fixture
def folder(tmp_path):
    (tmp_path / 'params' / 'd').mkdir(parents=True)
    (tmp_path / 'optimizer').mkdir()
    (tmp_path / 'params' / 'd' / 'ab12').write_bytes(bytes(range(256)) * 40)
    (tmp_path / 'params' / 'empty').write_bytes(b'')
    (tmp_path / 'optimizer' / 'state').write_bytes(b'moments')
    manifest.write(tmp_path)
    return tmp_path


def test_lists_size_and_sha256_of_every_file(folder):
    files = json.loads((folder / 'manifest.json').read_text())['files']
    assert sorted(files) == ['optimizer/state', 'params/d/ab12', 'params/empty']
    assert files['params/d/ab12']['size'] == 10240
    told = subprocess.run(
        ['sha256sum', folder / 'params' / 'd' / 'ab12'], capture_output=True, text=True, check=True
    )
    assert files['params/d/ab12']['sha256'] == told.stdout.split()[0]
    assert files['params/empty']['sha256'] == hashlib.sha256().hexdigest()
    assert not list(folder.glob('*.tmp'))


def test_whole_folder_has_no_fault(folder):
    assert manifest.fault(folder) is None


def test_a_file_that_nothing_lists_is_no_fault(folder):
    (folder / 'params' / '.nfs0001').write_bytes(b'left by the file system')
    (folder / '_CHECKPOINT_METADATA').write_bytes(b'written later')
    assert manifest.fault(folder) is None


@pytest.mark.parametrize('bit', [0, 7, 10240 * 8 - 1])
def test_flipped_bit(folder, bit):
    path = folder / 'params' / 'd' / 'ab12'
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    assert manifest.fault(folder) == 'params/d/ab12: sha256 differs'


def test_cut_and_missing_files(folder):
    path = folder / 'params' / 'd' / 'ab12'
    path.write_bytes(path.read_bytes()[:-1])
    assert manifest.fault(folder) == 'params/d/ab12: 10239 bytes instead of 10240'
    path.unlink()
    assert manifest.fault(folder) == 'params/d/ab12: No such file or directory'


def test_no_manifest(folder):
    (folder / 'manifest.json').unlink()
    assert manifest.fault(folder) == 'no manifest.json'


@pytest.mark.parametrize(
    'text', ['', '{', '[]', '{}', '{"files": 3}', '{"files": {"a": {}}}', '\0']
)
def test_damaged_manifest(folder, text):
    (folder / 'manifest.json').write_text(text)
    assert manifest.fault(folder) == 'manifest.json is not readable'


def test_bytes_that_are_no_text_in_the_manifest(folder):
    (folder / 'manifest.json').write_bytes(b'\xff\xfe\x80')
    assert manifest.fault(folder) == 'manifest.json is not readable'


def test_only_the_items_asked_for_are_checked(folder):
    (folder / 'optimizer' / 'state').write_bytes(b'nothing')
    assert manifest.fault(folder, items=('params',)) is None
    assert (
        manifest.fault(folder, items=('params', 'optimizer')) == 'optimizer/state: sha256 differs'
    )


def test_writing_again_replaces_the_manifest(folder):
    (folder / 'optimizer' / 'state').write_bytes(b'other')
    assert manifest.fault(folder)
    manifest.write(folder)
    assert manifest.fault(folder) is None


def test_the_digest_of_an_item_stands_for_its_files_alone(folder):
    before = manifest.item_digest(folder, 'params')
    (folder / 'optimizer' / 'state').write_bytes(b'other moments')
    manifest.write(folder)
    assert manifest.item_digest(folder, 'params') == before
    assert manifest.item_digest(folder, 'optimizer') != before
    (folder / 'params' / 'empty').write_bytes(b'x')
    manifest.write(folder)
    assert manifest.item_digest(folder, 'params') != before
