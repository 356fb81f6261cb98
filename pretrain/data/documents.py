"""Documents out of a source: a Wikipedia dump, text files or JSON lines, each named by one string.

    wikipedia:excerpt        103 articles of the English Wikipedia that gensim's wheel carries
    wikipedia:PATH           a dump *pages-articles*.xml.bz2 (or .xml, .xml.gz), or a folder of them
    c4:PATH                  the folder of c4-train.*.json.gz, as published
    text:PATH                a .txt file or a folder of them, also as .txt.gz
    jsonl:PATH               a .jsonl file or a folder of them, also as .jsonl.gz and .json.gz
    parquet:PATH             a .parquet file or a folder of them
    tfds:NAME/CONFIG:VERSION what tensorflow-datasets has prepared in data.data_dir, in any format
    huggingface:NAME:CONFIG  what the datasets library loads, by name or from a local folder

A source divides its files into units of work, by their sizes alone, so that any number of processes
can share them; the documents of a unit are read in a stream, in constant memory, and are always the
same ones in the same order.
"""

import difflib
import importlib.util
import json
from pathlib import Path
from xml.etree.ElementTree import ParseError

from pretrain.data import files, wikipedia, wikipedia_dump
from pretrain.data.datasets import HuggingFaceSource, ParquetSource, TfdsSource
from pretrain.data.source import Source
from pretrain.errors import UserError

# A longer text file is cut, so that memory stays constant and one book has a held-out part.
PIECE = 100_000
EXCERPT = 'enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2'


def open_source(
    source: str, text_field: str = 'text', data_dir: str = '', skip: bool = False
) -> Source:
    """Opens a source of documents and checks it as far as that is quick.

    Args:
      source: scheme and path, such as 'text:books'; see the top of this file.
      text_field: the field of JSON lines and of other records that holds the text.
      data_dir: where tensorflow-datasets keeps what it has prepared; '' for its usual place.
      skip: leave it to the reading to find, and count, files that cannot be opened.

    Returns:
      A Source, ready to be read.

    Raises:
      UserError: unknown scheme, no such path, nothing to read there, or files of another kind.
    """
    scheme, colon, path = source.partition(':')
    if not colon or not path or scheme not in SCHEMES:
        known = ', '.join(f'{name}:{each.place}' for name, each in SCHEMES.items())
        raise UserError(
            f"data.source '{source}': a source is {known} or wikipedia:excerpt;"
            f" did you mean '{_guess(source)}'?"
        )
    opened = SCHEMES[scheme](path, text_field, data_dir)
    try:
        opened.check()
    except files.Unreadable:
        if not skip:
            raise
    return opened


def _guess(source):
    scheme, _, path = source.partition(':')
    near = difflib.get_close_matches(scheme.lower(), SCHEMES, 1)
    if near:
        return f'{near[0]}:{path or ("excerpt" if near[0] == "wikipedia" else "PATH")}'
    if '.xml' in source:
        return f'wikipedia:{source}'
    return f'jsonl:{source}' if '.json' in source else f'text:{source}'


class TextSource(Source):
    """Plain text: a file is a document, a long file several, cut at paragraph ends."""

    scheme = 'text'
    suffixes = ('.txt', '.txt.gz')

    def _documents(self, extent, tally):
        held, size = [], 0
        for text in files.texts(files.Content(extent, tally)):
            held.append(text)
            size += len(text)
            # Half a piece more is awaited, so that the last piece is no stub.
            while size > PIECE * 3 // 2:
                text = ''.join(held)
                cut = _cut(text, PIECE)
                if text[:cut].strip():
                    yield text[:cut]
                held = [text[cut:]]
                size = len(held[0])
        text = ''.join(held)
        cut = _cut(text, len(text) // 2) if len(text) > PIECE else len(text)
        yield from (part for part in (text[:cut], text[cut:]) if part.strip())


class JsonLinesSource(Source):
    """One JSON object a line, its text in one field."""

    scheme = 'jsonl'
    suffixes = ('.jsonl', '.jsonl.gz', '.json.gz')

    def _documents(self, extent, tally):
        for where, line, whole in files.lines(files.Content(extent, tally)):
            if not line.strip():
                continue
            try:
                fields = json.loads(line)
            except (ValueError, RecursionError) as error:
                # A last line without its line end was cut off.
                kind, what = ('no_json', 'no JSON') if whole else ('cut_off', 'cut off')
                tally.bad(kind, where, f'{what} ({error})')
                continue
            text = fields.get(self.text_field) if isinstance(fields, dict) else None
            if isinstance(text, str):
                if text.strip():
                    yield text.replace('\r\n', '\n')
            elif not isinstance(fields, dict):
                tally.bad('no_json', where, f'no JSON object but {line[:40]}')
            else:
                what = 'no text in' if self.text_field in fields else 'no'
                tally.bad(
                    'no_text', where,
                    f"{what} field '{self.text_field}' (its fields: {', '.join(fields)}; name the "
                    'field that holds the text in data.text_field)',
                )  # fmt: skip


class C4Source(JsonLinesSource):
    """C4 as published: c4-train.00000-of-01024.json.gz and so on, with a validation split."""

    scheme = 'c4'
    suffixes = ('.json.gz',)

    def _find(self):
        found = files.find(self.path, self.suffixes, 'c4-')
        found = [file for file in found if self.split_of(file)]
        self._pointers = {file for file in found if _is_pointer(file)}
        return [file for file in found if file not in self._pointers]

    def check(self):
        if self._pointers:
            count = len(self._pointers)
            print(f'{self.path}: {count:,} files are left out, which git lfs has not pulled')
        if not any(self.split_of(file) == 'train' for file in self.files):
            raise UserError(
                f'{self.path}: no c4-train.*.json.gz in it; name the folder of C4 as published '
                '(its files are named c4-train.00000-of-01024.json.gz and so on)'
            )
        super().check()

    def split_of(self, file):
        word = Path(file.path).name.partition('.')[0].removeprefix('c4-')
        return word if word in ('train', 'validation') else ''


class WikipediaSource(Source):
    """The articles of a MediaWiki dump."""

    scheme = 'wikipedia'
    suffixes = ('.xml', '.xml.bz2', '.xml.gz')

    def _locate(self, path):
        if path != 'excerpt':
            return super()._locate(path)
        # Looked up, not imported: gensim's test module takes seconds to load.
        gensim = importlib.util.find_spec('gensim')
        if gensim is None:
            raise UserError(
                "'wikipedia:excerpt' lies in gensim, which is not installed; pip install gensim"
            )
        return Path(gensim.origin).parent / 'test' / 'test_data' / EXCERPT

    def check(self):
        if self.path.name == EXCERPT:
            self.name = 'wikipedia-excerpt'
        first = next((file for file in self.files if _opens(file)), self.files[0])
        files.kind(first)
        try:
            self.site = wikipedia_dump.read_site(files.head(first))
        except (ValueError, ParseError) as error:
            raise UserError(
                f'{first.path}: no MediaWiki dump ({error}); download a *pages-articles*.xml.bz2'
            ) from None
        super().check()

    def _documents(self, extent, tally):
        for where, page in wikipedia_dump.pages(files.Content(extent, tally)):
            try:
                text = wikipedia_dump.article(page, self.site)
            except ParseError as error:
                tally.bad('no_xml', where, f'a page that is broken XML ({error})')
                continue
            if text:
                yield text

    def clean(self, raw):
        return wikipedia.clean(raw, self.site)


SCHEMES = {
    each.scheme: each
    for each in (
        WikipediaSource, C4Source, TextSource, JsonLinesSource, ParquetSource, TfdsSource,
        HuggingFaceSource,
    )
}  # fmt: skip


def _opens(file):
    try:
        files.kind(file)
    except files.Unreadable:
        return False
    return file.size > 0


def _is_pointer(file):
    if file.size > 1000:
        return False
    with open(file.path, 'rb') as opened:
        return opened.read(len(files.LFS)) == files.LFS


def _cut(text, near):
    """Where to cut: the last paragraph end in [near / 2, near], else line end, else space."""
    for mark in ('\n\n', '\n', ' '):
        found = text.rfind(mark, near // 2, near)
        if found >= 0:
            return found + len(mark)
    return near
