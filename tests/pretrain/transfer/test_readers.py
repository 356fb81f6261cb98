import json

import pytest

from pretrain.errors import UserError
from pretrain.transfer import glue, readers, snli, superglue

RTE = 'index\tsentence1\tsentence2\tlabel\n0\tA.\tB.\tentailment\n'
RTE_JSON = '{"premise": "A.", "hypothesis": "B.", "label": "entailment", "idx": 0}\n'


def put(folder, **files):
    """Writes files; `RTE__train_tsv` is RTE/train.tsv."""
    for name, text in files.items():
        *above, last = name.split('__')
        path = folder.joinpath(*above, '.'.join(last.rsplit('_', 1)))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def fault(call, *args):
    with pytest.raises(UserError) as caught:
        call(*args)
    assert '\n' not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize('folder', ['RTE', 'rte', 'Rte'])
@pytest.mark.parametrize('name', ['train_tsv', 'Train_TSV'])
def test_folders_and_files_are_found_in_any_case(tmp_path, folder, name):
    put(tmp_path, **{f'{folder}__{name}': RTE})
    assert glue.TASKS['rte'].read(tmp_path, 'train')[0].label == 'entailment'


@pytest.mark.parametrize('folder', ['SST-2', 'SST2', 'sst-2', 'SST'])
def test_other_spellings_of_a_folder(tmp_path, folder):
    put(tmp_path, **{f'{folder}__dev_tsv': 'sentence\tlabel\nfine \t1\n'})
    (example,) = glue.TASKS['sst2'].read(str(tmp_path), 'dev')
    assert (example.fields, example.label) == ({'sentence': 'fine'}, 'positive')


@pytest.mark.parametrize('place', ['AX.tsv', 'AX/AX.tsv', 'diagnostic/diagnostic.tsv'])
def test_the_diagnostic_set_has_many_places(tmp_path, place):
    path = tmp_path / place
    path.parent.mkdir(exist_ok=True)
    path.write_text('index\tsentence1\tsentence2\n0\tA.\tB.\n')
    (example,) = glue.TASKS['ax'].read(tmp_path, 'test')
    assert (example.fields, example.label) == ({'premise': 'A.', 'hypothesis': 'B.'}, None)


def test_available_names_the_splits_without_reading(tmp_path):
    put(tmp_path, RTE__train_tsv='rubbish', RTE__dev_tsv='', CoLA__test_tsv='x', SNLI__dev_tsv='')
    assert readers.available(tmp_path, glue.TASKS) == {'cola': ('test',), 'rte': ('train', 'dev')}
    assert readers.available(tmp_path, snli.TASKS) == {'snli': ('dev',)}


def test_raw_mrpc_is_available_only_with_its_list_of_pairs(tmp_path):
    put(tmp_path, MRPC__msr_paraphrase_train_txt='', MRPC__msr_paraphrase_test_txt='')
    assert readers.available(tmp_path, glue.TASKS) == {'mrpc': ('test',)}
    message = fault(glue.TASKS['mrpc'].read, tmp_path, 'dev')
    assert 'msr_paraphrase_train.txt with dev_ids.tsv' in message
    put(tmp_path, MRPC__dev_ids_tsv='')
    assert readers.available(tmp_path, glue.TASKS) == {'mrpc': ('train', 'dev', 'test')}


def test_rte_of_the_other_benchmark_is_refused(tmp_path):
    put(tmp_path / 'glue', RTE__train_tsv=RTE)
    put(tmp_path / 'superglue', RTE__train_jsonl=RTE_JSON)
    message = fault(glue.TASKS['rte'].read, tmp_path / 'superglue', 'train')
    assert 'looks like SuperGLUE (it holds RTE): GLUE is wanted' in message
    message = fault(superglue.TASKS['rte'].read, tmp_path / 'glue', 'train')
    assert 'looks like GLUE (it holds RTE): SuperGLUE is wanted' in message
    message = fault(readers.available, tmp_path / 'glue', superglue.TASKS)
    assert 'looks like GLUE' in message


def test_both_benchmarks_may_share_a_folder(tmp_path):
    put(tmp_path, RTE__train_tsv=RTE, RTE__train_jsonl=RTE_JSON)
    assert set(glue.TASKS['rte'].read(tmp_path, 'train')[0].fields) == {'sentence1', 'sentence2'}
    assert 'premise' in superglue.TASKS['rte'].read(tmp_path, 'train')[0].fields


@pytest.mark.parametrize(
    ('name', 'other'), [('train-v1.1.json', 'SQuAD'), ('snli_1.0_dev.jsonl', 'SNLI')]
)
def test_folders_of_single_files_are_known(tmp_path, name, other):
    (tmp_path / name).write_text('{}')
    assert f'looks like {other}' in fault(readers.available, tmp_path, glue.TASKS)


def test_a_folder_too_deep_or_too_high_is_named(tmp_path):
    put(tmp_path, glue__RTE__train_tsv=RTE)
    message = fault(glue.TASKS['rte'].read, tmp_path / 'glue' / 'RTE', 'train')
    assert f'the folder of one task: give the one above it, {tmp_path / "glue"}' in message
    assert f'give {tmp_path / "glue"}' in fault(readers.available, tmp_path, glue.TASKS)


def test_a_folder_that_is_none(tmp_path):
    assert 'is not there' in fault(readers.available, tmp_path / 'no', glue.TASKS)
    (tmp_path / 'file').write_text('')
    assert 'is a file, not a folder' in fault(glue.TASKS['rte'].read, tmp_path / 'file', 'train')
    assert 'holds no files of GLUE' in fault(readers.available, tmp_path, glue.TASKS)


def test_a_missing_file_is_named_with_what_is_there(tmp_path):
    put(tmp_path, RTE__train_tsv=RTE)
    message = fault(glue.TASKS['rte'].read, tmp_path, 'dev')
    assert 'there is no RTE/dev.tsv in' in message
    assert 'holds train.tsv' in message
    assert 'there is no CoLA/dev.tsv' in fault(glue.TASKS['cola'].read, tmp_path, 'dev')


def test_an_empty_split(tmp_path):
    put(tmp_path, RTE__train_tsv=RTE.split('\n')[0] + '\n', RTE__dev_tsv='')
    for split in ('train', 'dev'):
        assert f'the {split} split is empty' in fault(glue.TASKS['rte'].read, tmp_path, split)


def test_two_rows_of_one_index_in_a_file_that_a_server_scores(tmp_path):
    row = {'premise': 'a', 'hypothesis': 'b', 'idx': 4, 'label': 'neutral'}
    folder = tmp_path / 'CB'
    folder.mkdir()
    for file in ('train.jsonl', 'test.jsonl'):
        (folder / file).write_text(2 * f'{json.dumps(row)}\n')
    assert len(superglue.TASKS['cb'].read(tmp_path, 'train')) == 2
    with pytest.raises(UserError, match=r'test\.jsonl: idx 4 stands there twice'):
        superglue.TASKS['cb'].read(tmp_path, 'test')


def test_an_unknown_split(tmp_path):
    message = fault(glue.TASKS['mnli'].read, tmp_path, 'validation')
    assert "no split 'validation': choose from train, dev, dev_mismatched, test" in message
