"""Documents out of what other libraries wrote: parquet files, tensorflow-datasets' folders."""

import importlib
import itertools
import json
import re
from pathlib import Path

from pretrain.data import files, parquet, tfrecord
from pretrain.data.bad_input import Damaged
from pretrain.data.source import Source
from pretrain.errors import UserError

TFDS_DIR = '~/tensorflow_datasets'
ROWS = 64  # of a dataset of the `datasets` library, read at once
# What a user should know before the library begins to prepare it. The counts of documents are the
# published ones, the sizes those of the files that the documents are published in.
UNKNOWN = (
    'its size stands in the catalog of tensorflow-datasets; the same text as files is read too: '
    'data.source=jsonl:, parquet: or text:'
)
KNOWN = {
    'c4/en': (
        'it has 364,868,892 documents, about 305 GB as .json.gz, and the library makes it out of '
        'Common Crawl with Apache Beam: the published c4-train.*.json.gz are far easier, '
        'data.source=c4:FOLDER'
    ),
    'wikipedia/20230601.en': (
        'about 20 GB of text; a dump *pages-articles*.xml.bz2 of about 24 GB does as well, '
        'data.source=wikipedia:PATH'
    ),
}
KNOWN |= {'c4': KNOWN['c4/en']}


class ParquetSource(Source):
    """The rows of parquet files, their text in one column."""

    scheme = 'parquet'
    suffixes = ('.parquet',)

    @property
    def column(self):
        """Name of the column that is read."""
        return self.text_field

    def check(self):
        for file in self.files:
            if file.size:
                parquet.check(file, self.column)

    def divide(self, file, target):
        sizes = parquet.sizes(file, self.column) if file.size else []
        extents, begin = [], 0
        for group in range(len(sizes)):
            if sum(sizes[begin : group + 1]) >= target or group + 1 == len(sizes):
                weight = file.size * sum(sizes[begin : group + 1]) // max(1, sum(sizes))
                extents.append(files.Extent(file, begin, group + 1, weight))
                begin = group + 1
        return extents or [files.Extent(file, 0, 0, 0)]

    def text_bytes(self, file):
        return sum(parquet.sizes(file, self.column)) if file.size else 0

    def _documents(self, extent, tally):
        path, done, seen = extent.file.path, 0, 0
        if extent.end is None:  # it could not be opened; it raises what is wrong
            parquet.check(extent.file, self.column)
        try:
            for number, total, value in parquet.rows(
                extent.file, self.column, extent.begin, extent.end
            ):
                seen += 1
                tally.advance(extent.weight * seen // total - done)
                done = extent.weight * seen // total
                text = self._text(value, f'{path}, row {number}', tally)
                if text is not None and text.strip():
                    yield text.replace('\r\n', '\n')
        except Damaged as error:
            tally.bad('damaged', f'{path}, row {error.offset}', 'damaged, the rest is lost')

    def _text(self, value, where, tally):
        """The text of a row, or None where there is none, which the tally is told."""
        if value is None:
            tally.bad('no_text', where, 'no text')
            return None
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            tally.bad('no_utf8', where, f'no UTF-8, at byte {error.start} of the text')
            return None


class TfdsSource(ParquetSource):
    """A dataset that tensorflow-datasets has prepared: nothing is downloaded.

    Its tfrecord and parquet files are read here, as records of tf.train.Example, its array_record
    files by the library, by number, whichever file a record stands in.
    """

    scheme = 'tfds'
    place = 'NAME/CONFIG:VERSION'
    column = 'data'  # of its parquet files: an Example a row

    def _locate(self, path):
        name, _, version = path.partition(':')
        base = Path(self.data_dir or TFDS_DIR).expanduser() / name
        there = [
            each.name for each in base.glob('*') if re.fullmatch(r'\d+\.\d+\.\d+', each.name)
        ] if base.is_dir() else []  # fmt: skip
        if (version and version not in there) or not there:
            held = f'; it has {", ".join(sorted(there))}' if there else ''
            raise UserError(
                f"data.source 'tfds:{path}': {base} holds no prepared "
                f'{version or "version of it"}{held}; name its data.data_dir, or prepare it: '
                'python -c "import tensorflow_datasets as t, tensorflow_datasets.text; '
                f"t.builder('{path}', data_dir='{self.data_dir or TFDS_DIR}', "
                "file_format='array_record').download_and_prepare()\" "
                f'({KNOWN.get(name, UNKNOWN)})'
            )
        return base / (version or max(there, key=lambda v: tuple(map(int, v.split('.')))))

    def _find(self):
        path = self.path / 'dataset_info.json'
        try:
            info = json.loads(path.read_text())
            self.format = info.get('fileFormat', 'tfrecord')
            self._counts = {s['name']: list(map(int, s['shardLengths'])) for s in info['splits']}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f'{path}: cannot be read ({error}); the folder is no finished dataset of '
                'tensorflow-datasets: prepare it again'
            ) from None
        found = []
        for split in ('train', 'validation'):
            if split not in self._counts:
                continue
            of_split = sorted(self.path.glob(f'*-{split}.{self.format}*'))
            if len(of_split) != len(self._counts[split]):
                raise UserError(
                    f'{self.path}: {len(of_split)} files *-{split}.{self.format}*, where its '
                    f'dataset_info.json has {len(self._counts[split])}: copy the others, or '
                    'prepare it again'
                )
            stats = [(each, each.stat()) for each in of_split]
            if self.format != 'array_record':
                found += [
                    files.File(str(each), each.name, stat.st_size, stat.st_mtime_ns)
                    for each, stat in stats
                ]
            else:
                size = sum(stat.st_size for _, stat in stats)
                latest = max(stat.st_mtime_ns for _, stat in stats)
                found.append(files.File(str(self.path), split, size, latest))
        if not found:
            raise UserError(
                f'{self.path}: it has no train and no validation split ({", ".join(self._counts)})'
            )
        return found

    def check(self):
        self.name = f'{self.scheme}-' + '-'.join(
            re.sub(r'[^a-z0-9.]+', '-', part.lower()) for part in self.path.parts[-3:-1]
        )
        if self.format == 'array_record':
            self._data_source(self.files[0].relative)
        elif self.format == 'parquet':
            super().check()
            self._check_rows()
        elif self.format != 'tfrecord':
            raise UserError(
                f'{self.path}: its files are {self.format}, and tfrecord, array_record and parquet '
                "are read: prepare it again with file_format='array_record'"
            )

    def _check_rows(self):
        # The library's writer of parquet is known to lose rows (4.9.10).
        for split, counts in self._counts.items():
            there = sum(parquet.count(file) for file in self.files if self._split(file) == split)
            if split in ('train', 'validation') and there != sum(counts):
                raise UserError(
                    f'{self.path}: the {split} split holds {there:,} documents, where its '
                    f'dataset_info.json has {sum(counts):,}: prepare it again with '
                    "file_format='array_record'"
                )

    def split_of(self, file):
        if not any(self._split(each) == 'validation' for each in self.files):
            return ''
        return self._split(file)

    def _split(self, file):
        if self.format == 'array_record':
            return file.relative
        return file.relative.partition('.')[0].rpartition('-')[2]

    def divide(self, file, target):
        if self.format == 'parquet':
            return super().divide(file, target)
        parts, length = max(1, round(file.size / target)), file.size
        if self.format == 'array_record':
            length = len(self._data_source(file.relative))
        else:  # each passes over the records before its own
            parts = min(parts, files.MOST_OF_GZ)
        cuts = [length * part // parts for part in range(parts + 1)]
        return [
            files.Extent(file, begin, end, file.size // parts)
            for begin, end in itertools.pairwise(cuts)
        ]

    def text_bytes(self, file):
        return super().text_bytes(file) if self.format == 'parquet' else file.size

    def _documents(self, extent, tally):
        if self.format == 'parquet':
            yield from super()._documents(extent, tally)
            return
        read = self._records if self.format == 'tfrecord' else self._numbered
        for text in read(extent, tally):
            if text is not None and text.strip():
                yield text.replace('\r\n', '\n')

    def _records(self, extent, tally):
        path, last = extent.file.path, extent.begin
        with open(path, 'rb') as opened:
            try:
                for offset, size, data in tfrecord.records(opened, extent.begin, extent.end):
                    tally.advance(offset - last)
                    last = offset
                    where = f'{path}, the record at byte {offset}'
                    if size > tfrecord.LONGEST:
                        tally.bad('long_record', where, f'a record of {size / 1e6:.0f} MB, over 16')
                    elif data is None:
                        tally.bad('damaged', where, 'its checksum is wrong')
                    else:
                        yield self._text(data, where, tally)
            except EOFError:
                if extent.end == extent.file.size:
                    tally.bad('cut_off', path, 'cut off')
            except Damaged as error:
                if error.offset >= extent.begin:
                    what = f'damaged at byte {error.offset}, the rest is lost'
                    tally.bad('damaged', path, what)

    def _text(self, value, where, tally):
        try:
            text = tfrecord.text_of(value, self.text_field)
            keys = '' if text is not None else ', '.join(tfrecord.keys_of(value))
        except (ValueError, TypeError) as error:
            tally.bad('no_record', where, f'no tf.train.Example of text ({error})')
            return None
        if text is None:
            tally.bad('no_text', where, self._no_field(keys))
        return text

    def _numbered(self, extent, tally):
        source = self._data_source(extent.file.relative)
        count, done = max(1, extent.end - extent.begin), 0
        for number in range(extent.begin, extent.end):
            where = f'{self.path}, {extent.file.relative} record {number}'
            share = extent.weight * (number + 1 - extent.begin) // count
            tally.advance(share - done)
            done = share
            try:
                record = source[number]
            except (RuntimeError, OSError, ValueError, IndexError) as error:
                tally.bad('damaged', where, f'damaged ({_first_line(error)})')
                continue
            text = record.get(self.text_field)
            if not isinstance(text, bytes):
                tally.bad('no_text', where, self._no_field(', '.join(record)))
                continue
            try:
                yield text.decode()
            except UnicodeDecodeError as error:
                tally.bad('no_utf8', where, f'no UTF-8, at byte {error.start} of the text')

    def _no_field(self, keys):
        return (
            f"no text in field '{self.text_field}' (its fields: {keys}; name the field that holds "
            'the text in data.text_field)'
        )

    def _data_source(self, split):
        try:
            library = importlib.import_module('tensorflow_datasets')
        except ImportError as error:
            raise UserError(
                f"tensorflow-datasets cannot be imported ({error}): pip install -e '.[tfds]'"
            ) from None
        try:
            return library.builder_from_directory(str(self.path)).as_data_source(split)
        except (OSError, ValueError, RuntimeError) as error:  # NotImplementedError is one
            raise UserError(
                f'{self.path}: tensorflow-datasets cannot read it '
                f'({type(error).__name__}: {_first_line(error)})'
            ) from None


def _first_line(error):
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class HuggingFaceSource(Source):
    """A dataset of the `datasets` library, by name or local folder: it fetches what it lacks."""

    scheme = 'huggingface'
    place = 'NAME:CONFIG'

    def _locate(self, path):
        name, _, config = path.partition(':')
        library = self._library()
        try:
            loaded = library.load_dataset(name, config or None)
        except Exception as error:  # the library's own errors have no class in common
            raise UserError(
                f"data.source 'huggingface:{path}': datasets cannot load it "
                f'({type(error).__name__}: {_first_line(error)})'
            ) from None
        self._splits = {
            entry['filename']: split
            for split in ('train', 'validation')
            for entry in (loaded[split].cache_files if split in loaded else ())
        }
        if not self._splits:
            held = ', '.join(loaded)
            raise UserError(
                f"data.source 'huggingface:{path}': no split train or validation in it, but {held}"
            )
        names = next(iter(loaded.values())).column_names
        if self.text_field not in names:
            raise UserError(
                f"data.source 'huggingface:{path}': no column '{self.text_field}' (its columns: "
                f'{", ".join(names)}); name the one that holds the text in data.text_field'
            )
        return Path(name)

    def _find(self):
        stats = {path: Path(path).stat() for path in self._splits}
        # The library's own names for its files are digests, the times those of its cache.
        return [
            files.File(path, f'{self._splits[path]}/{Path(path).name}', stat.st_size, 0)
            for path, stat in stats.items()
        ]

    def check(self):
        """All is checked when the library loads it."""

    def split_of(self, file):
        return self._splits[file.path] if 'validation' in self._splits.values() else ''

    def divide(self, file, target):
        rows = len(self._library().Dataset.from_file(file.path))
        parts = max(1, min(rows, round(file.size / target)))
        cuts = [rows * part // parts for part in range(parts + 1)]
        return [
            files.Extent(file, begin, end, file.size // parts)
            for begin, end in itertools.pairwise(cuts)
        ]

    def text_bytes(self, file):
        return file.size

    def _documents(self, extent, tally):
        opened = self._library().Dataset.from_file(extent.file.path)
        opened = opened.select_columns([self.text_field])
        done = 0
        for begin in range(extent.begin, extent.end, ROWS):
            rows = opened[begin : min(begin + ROWS, extent.end)][self.text_field]
            for number, text in enumerate(rows, begin):
                if isinstance(text, str):
                    if text.strip():
                        yield text.replace('\r\n', '\n')
                else:
                    tally.bad('no_text', f'{extent.file.path}, row {number}', 'no text')
            share = extent.weight * (begin + len(rows) - extent.begin)
            share //= extent.end - extent.begin
            tally.advance(share - done)
            done = share

    def _library(self):
        try:
            return importlib.import_module('datasets')
        except ImportError:
            raise UserError(
                "'huggingface:' needs the datasets library: pip install -e '.[huggingface]'"
            ) from None
