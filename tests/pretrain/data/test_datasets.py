"""Parquet files and tensorflow-datasets' folders, made here in each of its formats."""

import json

import numpy as np
import pytest
from tensorboardX.record_writer import RecordWriter

import pretrain.data.parquet
from pretrain.data import tfrecord
from pretrain.data.bad_input import Tally
from pretrain.data.documents import open_source
from pretrain.errors import UserError

parquet = pytest.importorskip('pyarrow.parquet')
tfds = pytest.importorskip('tensorflow_datasets')
TEXTS = [f'Document {i}: größe — {"word " * (i % 7)}.' for i in range(60)]


def texts(source, megabytes=1000.0, tally=None):
    tally = tally or Tally()
    return [text for unit in source.units(megabytes) for text in source.documents(unit, tally)]


def write_parquet(path, rows, group=7):
    import pyarrow

    table = pyarrow.table({'url': ['u'] * len(rows), 'text': rows})
    parquet.write_table(table, path, row_group_size=group)


def test_parquet(tmp_path):
    write_parquet(tmp_path / 'b.parquet', TEXTS[40:])
    write_parquet(tmp_path / 'a.parquet', TEXTS[:40], 100)
    source = open_source(f'parquet:{tmp_path}')
    for megabytes in (1.0, 0.0005, 1e-6):
        assert texts(source, megabytes) == TEXTS
    assert [len(source.units(m)) for m in (1.0, 1e-6)] == [1, 4]
    read = []
    texts(source, 1e-6, Tally(advance=read.append))
    assert sum(read) == pytest.approx(source.size, abs=10)


def test_parquet_that_is_wrong(tmp_path):
    write_parquet(tmp_path / 'a.parquet', ['one', None, 'three'])
    source = f'parquet:{tmp_path}/a.parquet'
    with pytest.raises(UserError, match=r'a.parquet, row 2: no text'):
        texts(open_source(source))
    tally = Tally(skip=True)
    assert texts(open_source(source), tally=tally) == ['one', 'three']
    assert tally.counts == {'no_text': 1}
    with pytest.raises(UserError, match=r"no column 'body' \(its columns: url, text\)"):
        open_source(source, 'body')
    write_parquet(tmp_path / 'n.parquet', [1, 2])
    with pytest.raises(UserError, match=r"column 'text' holds int64, not text"):
        open_source(f'parquet:{tmp_path}')


def test_a_cut_parquet_file_stops_or_is_skipped(tmp_path):
    for name in 'abc':
        write_parquet(tmp_path / f'{name}.parquet', [name, 'x'])
    data = (tmp_path / 'b.parquet').read_bytes()
    (tmp_path / 'b.parquet').write_bytes(data[:-20])
    with pytest.raises(UserError, match=r'b.parquet: no whole parquet file'):
        open_source(f'parquet:{tmp_path}')
    tally = Tally(skip=True)
    source = open_source(f'parquet:{tmp_path}', skip=True)
    assert texts(source, tally=tally) == ['a', 'x', 'c', 'x']
    assert tally.counts == {'unreadable': 1}


def test_a_row_that_is_no_utf8_is_alone(tmp_path):
    import pyarrow

    rows = [f'row {i}'.encode() for i in range(100)]
    rows[10] = b'\xff'
    # As a string, which nothing that writes files checks.
    column = pyarrow.array(rows, pyarrow.binary()).view(pyarrow.string())
    parquet.write_table(pyarrow.table({'text': column}), tmp_path / 'a.parquet')
    source = open_source(f'parquet:{tmp_path}/a.parquet')
    with pytest.raises(UserError, match=r'a.parquet, row 11: no UTF-8, at byte 0'):
        texts(source)
    tally = Tally(skip=True)
    assert len(texts(source, tally=tally)) == 99
    assert tally.counts == {'no_utf8': 1}


def test_long_rows_are_read_few_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrain.data.parquet, 'AT_ONCE', 50_000)
    write_parquet(tmp_path / 'a.parquet', [f'{i:03d}' * 7_000 for i in range(40)], 40)
    asked = []
    opened = parquet.ParquetFile.iter_batches

    def iter_batches(self, batch, *arguments):
        asked.append(batch)
        return opened(self, batch, *arguments)

    monkeypatch.setattr(parquet.ParquetFile, 'iter_batches', iter_batches)
    assert len(texts(open_source(f'parquet:{tmp_path}'))) == 40
    assert 1 <= max(asked) <= 40
    (tmp_path / 'a.parquet').unlink()
    rng = np.random.default_rng(0)
    write_parquet(tmp_path / 'b.parquet', [rng.bytes(20_000).hex() for _ in range(40)], 40)
    asked.clear()
    assert len(texts(open_source(f'parquet:{tmp_path}'))) == 40
    assert asked == [1]


class Small(tfds.core.GeneratorBasedBuilder):
    """A dataset of texts, with and without a validation split."""

    VERSION = tfds.core.Version('1.2.0')
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name='en', version='1.2.0')]  # noqa: RUF012

    def _info(self):
        features = tfds.features.FeaturesDict({
            'text': tfds.features.Text(), 'title': tfds.features.Text(),
        })  # fmt: skip
        return self.dataset_info_from_configs(features=features)

    def _split_generators(self, manager):
        return {
            'train': self._generate_examples(TEXTS[:50]),
            'validation': self._generate_examples(TEXTS[50:]),
        }

    def _generate_examples(self, rows):
        for number, text in enumerate(rows):
            yield number, {'text': text, 'title': 't'}


@pytest.mark.parametrize('file_format', ['array_record', 'parquet'])
def test_what_the_library_prepared(tmp_path, file_format):
    Small(config='en', data_dir=str(tmp_path), file_format=file_format).download_and_prepare()
    source = open_source('tfds:small/en:1.2.0', data_dir=str(tmp_path))
    assert source.name == 'tfds-small-en'
    whole = texts(source)
    assert sorted(whole[:50]) == sorted(TEXTS[:50])
    assert sorted(whole[50:]) == sorted(TEXTS[50:])
    assert [unit.split for unit in source.units(1.0)] == ['train', 'validation']
    # The library writes parquet of so few rows in one group.
    assert len(source.units(0.0005)) > (4 if file_format == 'array_record' else 1)
    assert texts(source, 0.0005) == whole
    assert texts(open_source('tfds:small/en', data_dir=str(tmp_path))) == whole
    with pytest.raises(UserError, match=r"no text in field 'body' \(its fields: text, title"):
        texts(open_source('tfds:small/en', 'body', str(tmp_path)))


@pytest.fixture
def tfrecords(tmp_path, example):
    """A dataset as the library prepares it by default."""
    folder = tmp_path / 'small' / 'en' / '1.2.0'
    folder.mkdir(parents=True)
    splits = [{'name': 'train', 'shardLengths': ['25', '35']}]
    info = {'fileFormat': 'tfrecord', 'splits': splits, 'name': 'small'}
    (folder / 'dataset_info.json').write_text(json.dumps(info))
    for part, rows in enumerate((TEXTS[:25], TEXTS[25:])):
        writer = RecordWriter(str(folder / f'small-train.tfrecord-0000{part}-of-00002'))
        for text in rows:
            writer.write(example(text=text.encode(), index=3))
        writer.close()
    return folder


def test_tfrecords(tfrecords, tmp_path):
    source = open_source('tfds:small/en:1.2.0', data_dir=str(tmp_path))
    assert texts(source) == TEXTS
    for megabytes in (0.001, 0.0001):
        assert texts(source, megabytes) == TEXTS
    assert {unit.split for unit in source.units(0.001)} == {''}
    assert len(source.units(0.0001)) > 10
    with pytest.raises(UserError, match=r"no text in field 'body' \(its fields: index, text;"):
        texts(open_source('tfds:small/en', 'body', str(tmp_path)))


def test_a_dataset_that_lacks_files_or_rows_is_refused(tfrecords, tmp_path):
    (tfrecords / 'small-train.tfrecord-00000-of-00002').unlink()
    with pytest.raises(UserError, match=r'1 files .* where its dataset_info.json has 2: copy'):
        open_source('tfds:small/en:1.2.0', data_dir=str(tmp_path))
    made = tmp_path / 'made'
    Small(config='en', data_dir=str(made), file_format='parquet').download_and_prepare()
    path = made / 'small' / 'en' / '1.2.0' / 'dataset_info.json'
    info = json.loads(path.read_text())
    info['splits'][0]['shardLengths'] = ['3000']
    path.write_text(json.dumps(info))
    with pytest.raises(UserError, match=r'split holds 50 documents, where .* has 3,000'):
        open_source('tfds:small/en:1.2.0', data_dir=str(made))


def test_damaged_array_records(tmp_path):
    Small(config='en', data_dir=str(tmp_path), file_format='array_record').download_and_prepare()
    folder = tmp_path / 'small' / 'en' / '1.2.0'
    path = next(folder.glob('*-train.array_record*'))
    data = bytearray(path.read_bytes())
    data[100:300] = bytes(200)
    path.write_bytes(bytes(data))
    source = open_source('tfds:small/en:1.2.0', data_dir=str(tmp_path))
    with pytest.raises(UserError, match=r'train record \d+: damaged \('):
        texts(source)
    tally = Tally(skip=True)
    found = texts(source, tally=tally)
    assert tally.counts['damaged'] + len(found) == 60
    assert tally.counts['damaged'] > 0


def test_long_and_odd_records(tfrecords, tmp_path, example, monkeypatch):
    path = tfrecords / 'small-train.tfrecord-00000-of-00002'
    writer = RecordWriter(str(path))
    odd = example(text=b'x', body=b'y').replace(b'text', b'\xff\xfe\xff\xfe')
    for row in (example(text=b'one'), example(text=b'x' * 5000), odd, example(text=b'two')):
        writer.write(row)
    writer.close()
    monkeypatch.setattr(tfrecord, 'LONGEST', 4000)
    tally = Tally(skip=True)
    found = texts(open_source('tfds:small/en', data_dir=str(tmp_path)), tally=tally)
    assert found == ['one', 'two', *TEXTS[25:]]
    assert tally.counts == {'long_record': 1, 'no_text': 1}


def test_damaged_tfrecords(tfrecords, tmp_path):
    path = tfrecords / 'small-train.tfrecord-00000-of-00002'
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(bytes(data[:-3]))
    source = open_source('tfds:small/en:1.2.0', data_dir=str(tmp_path))
    with pytest.raises(UserError, match='the record at byte 0: its checksum is wrong'):
        texts(source)
    for megabytes in (1.0, 0.0002):
        tally = Tally(skip=True)
        assert texts(source, megabytes, tally) == TEXTS[1:24] + TEXTS[25:]
        assert tally.counts == {'damaged': 1, 'cut_off': 1}


def test_what_is_not_prepared_is_said_with_the_command(tfrecords, tmp_path):
    def message(name):
        with pytest.raises(UserError) as caught:
            open_source(name, data_dir=str(tmp_path))
        assert '\n' not in str(caught.value)
        return str(caught.value)

    said = message('tfds:c4/en:3.1.0')
    assert f'{tmp_path}/c4/en holds no prepared 3.1.0' in said
    assert "t.builder('c4/en:3.1.0'" in said
    assert 'about 305 GB' in said
    other = message('tfds:lm1b:1.1.0')
    assert 'catalog' in other
    assert 'jsonl:' in other
    assert 'data.source=c4:FOLDER' in said
    assert 'data.source=wikipedia:PATH' in message('tfds:wikipedia/20230601.en')
    assert 'holds no prepared 9.0.0; it has 1.2.0' in message('tfds:small/en:9.0.0')
    (tfrecords / 'dataset_info.json').write_text('{}')
    assert 'no finished dataset' in message('tfds:small/en')


def test_fingerprints_tell_versions_apart(tfrecords, tmp_path):
    one = open_source('tfds:small/en', data_dir=str(tmp_path)).fingerprint()
    path = tfrecords / 'small-train.tfrecord-00001-of-00002'
    path.write_bytes(path.read_bytes() + b'x')
    assert open_source('tfds:small/en', data_dir=str(tmp_path)).fingerprint() != one
    assert np.isfinite(open_source('tfds:small/en', data_dir=str(tmp_path)).size)


def test_hugging_face(tmp_path_factory, monkeypatch):
    datasets = pytest.importorskip('datasets')
    folder = tmp_path_factory.mktemp('hub')  # the library reads splits off the names of folders
    monkeypatch.setattr(datasets.config, 'HF_DATASETS_CACHE', tmp_path_factory.mktemp('cache'))
    for name, rows in (('train', TEXTS[:50]), ('validation', TEXTS[50:])):
        write_parquet(folder / f'{name}.parquet', rows)
    source = open_source(f'huggingface:{folder}')
    assert source.name == f'huggingface-{folder.name}'
    for megabytes in (1.0, 0.001):
        assert texts(source, megabytes) == TEXTS
    assert [unit.split for unit in source.units(1.0)] == ['train', 'validation']
    assert len(source.units(0.001)) > 3
    assert source.fingerprint() == open_source(f'huggingface:{folder}').fingerprint()
    with pytest.raises(UserError, match="no column 'body'"):
        open_source(f'huggingface:{folder}', 'body')
    with pytest.raises(UserError, match=r'datasets cannot load it \('):
        open_source(f'huggingface:{folder}/none')
