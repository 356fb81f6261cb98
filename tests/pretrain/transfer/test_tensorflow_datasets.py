import sys

import pytest

from pretrain.errors import UserError
from pretrain.transfer import glue, superglue
from pretrain.transfer import tensorflow_datasets as source

SST2 = glue.TASKS['sst2']


@pytest.fixture
def library():
    library = pytest.importorskip('tensorflow_datasets')
    pytest.importorskip('tensorflow_datasets.text')
    pytest.importorskip('importlib_resources')
    return library


def prepare(library, folder, name, rows, split='train'):
    """Prepares rows as the library does, without its download, in its own order."""
    builder = library.builder(f'glue/{name}', data_dir=str(folder), file_format='array_record')
    builder._split_generators = lambda manager: {split: enumerate(rows)}
    builder.download_and_prepare()


@pytest.mark.filterwarnings('ignore')
def test_labels_go_through_their_names_and_rows_come_back_in_order(library, tmp_path):
    rows = [
        {'sentence': f'caf\u00e9 {n} ', 'label': ['negative', 'positive', -1][n % 3], 'idx': n}
        for n in range(20)
    ]
    prepare(library, tmp_path, 'sst2', rows)
    examples = source.read(SST2, 'train', tmp_path)
    assert [e.index for e in examples] == list(range(20))
    assert [e.label for e in examples[:3]] == ['negative', 'positive', None]
    assert examples[7].fields == {'sentence': 'caf\u00e9 7'}


@pytest.mark.filterwarnings('ignore')
def test_scores_are_the_decimals_of_the_file(library, tmp_path):
    rows = [{'sentence1': 'a', 'sentence2': 'b', 'label': 3.8, 'idx': 0}]
    prepare(library, tmp_path, 'stsb', rows, 'validation')
    assert source.read(glue.TASKS['stsb'], 'dev', tmp_path)[0].label == 3.8


def test_what_is_not_prepared_is_said_with_the_command(library, tmp_path):
    with pytest.raises(UserError, match=r'has not prepared glue/sst2 in .*download_and_prepare'):
        source.read(SST2, 'train', tmp_path)


def test_superglue_needs_the_official_files(tmp_path):
    with pytest.raises(UserError, match='gives RTE only with TensorFlow: fetch the official'):
        source.read(superglue.TASKS['rte'], 'train', tmp_path)


def test_a_missing_library_is_said_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'tensorflow_datasets', None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[tfds\]'"):
        source.read(SST2, 'train', tmp_path)
