"""Documents out of a source: a Wikipedia dump, text files or JSON lines, each named by one string.

    wikipedia:excerpt        106 articles of the English Wikipedia that gensim's wheel carries
    wikipedia:PATH           a dump *pages-articles*.xml.bz2 (or .xml)
    text:PATH                a .txt file or a folder of them, also as .txt.gz
    jsonl:PATH               a .jsonl file or a folder of them, also as .jsonl.gz and C4's .json.gz

Sources are read in a stream, in constant memory, always in the same order. What is damaged is read
up to the damage, and the loss is written down.
"""

import bz2
import difflib
import hashlib
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import ParseError

from pretrain.data import wikipedia
from pretrain.errors import UserError

# A longer text file is cut, so that memory stays constant and one book has a held-out part.
PIECE = 100_000
CHUNK = 1 << 16
# Counts in the fingerprint: raise it when the same files give other documents than before.
EDITION = 1
EXCERPT = 'enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2'
BYTE_ORDER_MARK = '\ufeff'


class Record(NamedTuple):
    """A document as it stands in the source.

    raw: its text, with markup where the source has any.
    position: bytes of the source's files consumed so far, as they lie on disk (compressed).
    """

    raw: str
    position: int


class File(NamedTuple):
    """One file of a source; relative: its name below the source's path, for the fingerprint."""

    path: str
    relative: str
    size: int
    modified: int


def open_source(source: str, text_field: str = 'text') -> 'Source':
    """Opens a source of documents and checks it as far as that is quick.

    Args:
      source: scheme and path, such as 'text:books'; see the top of this file.
      text_field: the field of JSON lines that holds the text.

    Returns:
      A Source, ready to be read.

    Raises:
      UserError: unknown scheme, no such path, nothing to read there, or files of another kind.
    """
    scheme, colon, path = source.partition(':')
    if not colon or scheme not in SCHEMES:
        known = ', '.join(f'{name}:' for name in SCHEMES)
        near = difflib.get_close_matches(scheme.lower(), SCHEMES, 1) if colon else []
        guess = f'{near[0]}:{path}' if near else _guess(source)
        raise UserError(
            f"data.source '{source}': a source is one of {known} and a path; did you mean '{guess}'?"
        )
    if not path:
        raise UserError(f"data.source '{source}': a path must follow '{scheme}:'")
    opened = SCHEMES[scheme](scheme, path, text_field)
    opened.check()
    return opened


def _guess(source):
    name = source.lower()
    if '.xml' in name or 'wiki' in name:
        return f'wikipedia:{source}' if '.xml' in name else 'wikipedia:excerpt'
    return f'jsonl:{source}' if '.json' in name else f'text:{source}'


class Source:
    """Documents of one scheme.

    name: a short name for folders. size: bytes on disk of all files. losses: what could not be
    read, one line each; filled while records() runs, and begun anew by each call of it.
    """

    suffixes: tuple[str, ...] = ()

    def __init__(self, scheme: str, path: str, text_field: str):
        self.scheme, self.text_field = scheme, text_field
        self.path = self._locate(path)
        self.files = _find(scheme, self.path, self.suffixes)
        self.size = sum(file.size for file in self.files)
        self.losses: list[str] = []
        self.name = f'{scheme}-{_slug(self.path)}'

    def _locate(self, path):
        return Path(path).expanduser()

    def check(self) -> None:
        """Raises UserError where a file cannot be opened or is of another kind."""
        for file in self.files:
            Bytes(file)

    def fingerprint(self) -> str:
        """Hex digest of all that decides which documents come: scheme, field, files."""
        facts = [EDITION, self.scheme, self.text_field, *(file[1:] for file in self.files)]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def records(self) -> Iterator[Record]:
        """Every document in order; those of white space only are left out.

        Raises:
          UserError: a file is not what it should be, or no document was found at all.
        """
        self.losses.clear()
        before, found = 0, False
        for file in self.files:
            content = Bytes(file)
            count = 0
            try:
                for raw in self._documents(content):
                    count += 1
                    found = True
                    yield Record(raw, before + content.position)
            except Damage as damage:
                content.damage = str(damage)
            if content.damage:
                self.losses.append(f'{file.path} {content.damage.format(count=count)}')
            before += file.size
        if not found:
            why = f' ({self.losses[0]})' if self.losses else ''
            raise UserError(
                f"'{self.scheme}:{self.path}' holds no document{why}; name another source"
            )

    def _documents(self, content: 'Bytes') -> Iterator[str]:
        raise NotImplementedError

    def clean(self, raw: str) -> str:
        """Plain paragraphs divided by blank lines; '' where the document should be dropped."""
        return raw if raw.strip() else ''


class TextSource(Source):
    """Plain text: a file is a document, a long file several, cut at paragraph ends."""

    suffixes = ('.txt', '.txt.gz')

    def _documents(self, content):
        held = ''
        for text in _decoded(content):
            held += text
            # Half a piece more is awaited, so that the last piece is no stub.
            while len(held) > PIECE * 3 // 2:
                cut = _cut(held, PIECE)
                if held[:cut].strip():
                    yield held[:cut]
                held = held[cut:]
        if len(held) > PIECE:
            cut = _cut(held, len(held) // 2)
            yield from (part for part in (held[:cut], held[cut:]) if part.strip())
        elif held.strip():
            yield held


class JsonLinesSource(Source):
    """One JSON object a line, its text in one field."""

    suffixes = ('.jsonl', '.jsonl.gz', '.json.gz')

    def _documents(self, content):
        path = content.file.path
        for number, line, whole in _lines(content):
            if not line.strip():
                continue
            try:
                fields = json.loads(line)
            except (ValueError, RecursionError) as error:
                # A last line without its line end was cut off; any other is the user's to mend.
                if not whole:
                    raise Damage(
                        f'ends early, in line {number}: {{count}} documents read, the tail is lost'
                    ) from None
                raise UserError(
                    f'{path}, line {number}: no valid JSON ({error}); mend the line'
                ) from None
            if not isinstance(fields, dict) or not isinstance(fields.get(self.text_field), str):
                there = (
                    ', '.join(fields) if isinstance(fields, dict) else f'a {type(fields).__name__}'
                )
                raise UserError(
                    f"{path}, line {number}: no text in field '{self.text_field}' (there: {there});"
                    ' set data.text_field to the field that holds the text'
                )
            text = fields[self.text_field].replace('\r\n', '\n')
            if text.strip():
                yield text


class WikipediaSource(Source):
    """The articles of a MediaWiki dump."""

    def _locate(self, path):
        if path != 'excerpt':
            return super()._locate(path)
        try:
            from gensim.test.utils import datapath
        except ImportError:
            raise UserError(
                "'wikipedia:excerpt' lies in gensim, which is not installed; pip install gensim"
            ) from None
        return Path(datapath(EXCERPT))

    def check(self):
        if self.path.name == EXCERPT:
            self.name = 'wikipedia-excerpt'
        content = Bytes(self.files[0])
        try:
            self.site = wikipedia.read_site(content)
        except (ValueError, ParseError, Damage) as error:
            reason = (content.damage or str(error)).format(count=0)
            raise UserError(
                f'{self.path}: no MediaWiki dump ({reason}); download a *pages-articles*.xml.bz2'
            ) from None

    def _documents(self, content):
        try:
            yield from wikipedia.pages(content, self.site)
        except ParseError as error:
            if not content.damage:
                what = (
                    'ends early'
                    if content.position == content.file.size
                    else f'is broken ({error})'
                )
                content.damage = (
                    f'{what} at byte {content.position} of {content.file.size}:'
                    ' {count} pages read, the tail is lost'
                )

    def clean(self, raw):
        return wikipedia.clean(raw, self.site)


SCHEMES = {'wikipedia': WikipediaSource, 'text': TextSource, 'jsonl': JsonLinesSource}


def _find(scheme, path, suffixes):
    """The files of a source, sorted by name; hidden ones are left out."""
    looked_for = ', '.join(suffixes)
    if not path.exists():
        hint = "; 'wikipedia:excerpt' needs no file" if scheme == 'wikipedia' else ''
        raise UserError(f'{path}: no such file or folder; check the path after {scheme}:{hint}')
    if path.is_dir():
        if not suffixes:
            raise UserError(
                f'{path} is a folder; name one dump file *pages-articles*.xml.bz2 in it'
            )
        names = sorted(
            found.relative_to(path).as_posix()
            for found in path.rglob('*')
            if found.name.endswith(suffixes) and not found.name.startswith('.') and found.is_file()
        )
        if not names:
            raise UserError(
                f'{path}: no file ends in {looked_for}; name another folder or one file'
            )
        paths = [(path / name, name) for name in names]
    else:
        paths = [(path, path.name)]
    files = []
    for each, name in paths:
        status = each.stat()
        if status.st_size:
            files.append(File(str(each), name, status.st_size, status.st_mtime_ns))
    if not files:
        what = 'is empty' if len(paths) == 1 else f'holds only empty files ({looked_for})'
        raise UserError(f'{path} {what}; name a source with text')
    return files


def _slug(path):
    stem = path.resolve().name
    while (shorter := re.sub(r'\.(?:txt|jsonl?|xml|gz|bz2)$', '', stem)) != stem:
        stem = shorter
    return re.sub(r'[^a-z0-9._]+', '-', stem.lower()).strip('-.') or 'source'


class Damage(Exception):
    """A file that cannot be read on; the message may hold {count}, the documents read."""


class Bytes:
    """A file's bytes, decompressed, in chunks.

    position: bytes of the file consumed. damage: why the chunks ended early, or ''.
    """

    def __init__(self, file: File):
        self.file, self.position, self.damage = file, 0, ''
        try:
            with open(file.path, 'rb') as opened:
                head = opened.read(3)
        except OSError as error:
            raise UserError(f'{file.path}: cannot be read ({error.strerror})') from None
        self._new = None
        for magic, suffix, new in (
            (b'BZh', '.bz2', bz2.BZ2Decompressor),
            (b'\x1f\x8b', '.gz', lambda: zlib.decompressobj(wbits=31)),
        ):
            if head.startswith(magic):
                self._new = new
            elif file.path.endswith(suffix) and not magic.startswith(head):
                raise UserError(
                    f'{file.path}: ends in {suffix} but is no {suffix[1:]} file (it begins with'
                    f' {head!r}); download it again or rename it'
                )

    def __iter__(self) -> Iterator[bytes]:
        self.position = 0
        decompressor = self._new and self._new()
        with open(self.file.path, 'rb', buffering=0) as opened:
            while chunk := opened.read(CHUNK):
                self.position += len(chunk)
                if decompressor is None:
                    yield chunk
                    continue
                try:
                    while chunk:
                        if decompressor.eof:
                            # Large dumps are many compressed streams, one after the other.
                            if not chunk.strip(b'\0'):
                                break
                            decompressor = self._new()
                        content = decompressor.decompress(chunk)
                        chunk = decompressor.unused_data
                        if content:
                            yield content
                except (OSError, zlib.error):
                    self._say('is damaged')
                    return
        if decompressor is not None and not decompressor.eof:
            self._say('ends early')

    def _say(self, what):
        self.damage = f'{what} at byte {self.position} of {self.file.size}: {{count}} pages read, the tail is lost'


def _decoded(content):
    """Text out of UTF-8, with '\\n' for '\\r\\n' and without a byte order mark."""
    rest, offset = b'', 0  # offset: of the first byte of rest
    carried, first = '', True
    for chunk in content:
        data = rest + chunk
        if (nul := data.find(b'\0')) >= 0:
            raise _binary(content, offset + nul, 'a NUL byte')
        try:
            text, used = data.decode(), len(data)
        except UnicodeDecodeError as error:
            # Up to three bytes of a character may wait for the next chunk.
            if error.end < len(data) or error.reason != 'unexpected end of data':
                raise _binary(content, offset + error.start, 'no UTF-8') from None
            used = error.start
            text = data[:used].decode()
        rest, offset = data[used:], offset + used
        if first and text:
            text, first = text.removeprefix(BYTE_ORDER_MARK), False
        text = carried + text
        carried = '\r' if text.endswith('\r') else ''
        text = (text[:-1] if carried else text).replace('\r\n', '\n')
        if text:
            yield text
    if rest and not content.damage:
        raise _binary(content, offset, 'no UTF-8')
    if carried:
        yield carried


def _binary(content, offset, what):
    return UserError(
        f'{content.file.path}: no text ({what} at byte {offset}); save it as UTF-8 or leave it out'
    )


def _cut(text, near):
    """The last paragraph end up to `near`, else line end, else space, if not before its half."""
    for mark in ('\n\n', '\n', ' '):
        found = text.rfind(mark, near // 2, near)
        if found >= 0:
            return found + len(mark)
    return near


def _lines(content):
    """(number from 1, text, whether its line end is there) of every line."""
    number, offset, rest = 1, 0, []
    for chunk in content:
        *lines, last = chunk.split(b'\n')
        for line in lines:
            data = b''.join([*rest, line])
            rest = []
            yield number, _text(content, data, offset, number), True
            number, offset = number + 1, offset + len(data) + 1
        rest.append(last)
    data = b''.join(rest)
    # After damage the last line is part of what is lost.
    if data and not content.damage:
        yield number, _text(content, data, offset, number), False


def _text(content, data, offset, number):
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise _binary(content, offset + error.start, f'line {number} is no UTF-8') from None
    if '\0' in text:
        raise _binary(content, offset + data.find(b'\0'), f'a NUL byte in line {number}')
    return text.removeprefix(BYTE_ORDER_MARK) if number == 1 else text
