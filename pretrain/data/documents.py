"""Documents out of a source: a Wikipedia dump, text files or JSON lines, each named by one string.

    wikipedia:excerpt        106 articles of the English Wikipedia that gensim's wheel carries
    wikipedia:PATH           a dump *pages-articles*.xml.bz2 (or .xml)
    text:PATH                a .txt file or a folder of them, also as .txt.gz
    jsonl:PATH               a .jsonl file or a folder of them, also as .jsonl.gz and C4's .json.gz

Sources are read in a stream, in constant memory, always in the same order. What is damaged is read
up to the damage, and the loss is written down.
"""

import difflib
import hashlib
import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import ParseError

from pretrain.data import files, wikipedia
from pretrain.errors import UserError

# A longer text file is cut, so that memory stays constant and one book has a held-out part.
PIECE = 100_000
# Counts in the fingerprint: raise it when the same files give other documents than before.
EDITION = 1
EXCERPT = 'enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2'


class Record(NamedTuple):
    """A document as it stands in the source.

    raw: its text, with markup where the source has any.
    position: bytes of the source's files consumed so far, as they lie on disk (compressed).
    """

    raw: str
    position: int


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
    if not colon or not path or scheme not in SCHEMES:
        known = ', '.join(f'{name}:PATH' for name in SCHEMES)
        raise UserError(
            f"data.source '{source}': a source is {known} or wikipedia:excerpt;"
            f" did you mean '{_guess(source)}'?"
        )
    opened = SCHEMES[scheme](path, text_field)
    opened.check()
    return opened


def _guess(source):
    scheme, _, path = source.partition(':')
    near = difflib.get_close_matches(scheme.lower(), SCHEMES, 1)
    if near:
        return f'{near[0]}:{path or ("excerpt" if near[0] == "wikipedia" else "PATH")}'
    if '.xml' in source:
        return f'wikipedia:{source}'
    return f'jsonl:{source}' if '.json' in source else f'text:{source}'


class Source:
    """Documents of one scheme.

    name: a short name for folders. size: bytes on disk of all files. losses: what could not be
    read, one line each; filled while records() runs, and begun anew by each call of it.
    """

    scheme = ''
    unit = 'documents'
    suffixes: tuple[str, ...] = ()

    def __init__(self, path: str, text_field: str):
        self.path, self.text_field = self._locate(path), text_field
        self.files = files.find(self.path, self.suffixes)
        self.size = sum(file.size for file in self.files)
        self.losses: list[str] = []
        self.name = f'{self.scheme}-{_slug(self.path)}'

    def _locate(self, path):
        return Path(path).expanduser()

    def check(self) -> None:
        """Raises UserError where a file cannot be opened or is of another kind."""
        for file in self.files:
            files.Content(file)

    def fingerprint(self) -> str:
        """Hex digest of all that decides which documents come: scheme, field, files."""
        facts = [EDITION, self.scheme, self.text_field, *(file[1:] for file in self.files)]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def records(self) -> Iterator[Record]:
        """Every document in order; those of white space only are left out.

        Raises:
          UserError: a file is not what it should be, or there is no document at all.
        """
        self.losses.clear()
        before, found = 0, False
        for file in self.files:
            content, count = files.Content(file), 0
            for raw in self._documents(content):
                count += 1
                found = True
                yield Record(raw, before + content.position)
            if content.damage:
                self.losses.append(
                    f'{file.path} {content.damage}: {count} {self.unit} read, the tail is lost'
                )
            before += file.size
        if not found:
            why = f' ({self.losses[0]})' if self.losses else ''
            raise UserError(f'{self.path}: no document in it{why}; name another source')

    def _documents(self, content: files.Content) -> Iterator[str]:
        """The documents of one file; what ends them early is written to content.damage."""
        raise NotImplementedError

    def clean(self, raw: str) -> str:
        """Plain paragraphs divided by blank lines; '' where the document should be dropped."""
        return raw if raw.strip() else ''


class TextSource(Source):
    """Plain text: a file is a document, a long file several, cut at paragraph ends."""

    scheme = 'text'
    suffixes = ('.txt', '.txt.gz')

    def _documents(self, content):
        held = ''
        for text in files.decoded(content):
            held += text
            # Half a piece more is awaited, so that the last piece is no stub.
            while len(held) > PIECE * 3 // 2:
                cut = _cut(held, PIECE)
                if held[:cut].strip():
                    yield held[:cut]
                held = held[cut:]
        cut = _cut(held, len(held) // 2) if len(held) > PIECE else len(held)
        yield from (part for part in (held[:cut], held[cut:]) if part.strip())


class JsonLinesSource(Source):
    """One JSON object a line, its text in one field."""

    scheme = 'jsonl'
    suffixes = ('.jsonl', '.jsonl.gz', '.json.gz')

    def _documents(self, content):
        for number, line, whole in files.lines(content):
            if not line.strip():
                continue
            where = f'{content.file.path}, line {number}'
            try:
                fields = json.loads(line)
            except (ValueError, RecursionError) as error:
                # A last line without its line end was cut off; any other is the user's to mend.
                if not whole:
                    content.damage = f'ends early in line {number}'
                    return
                raise UserError(f'{where}: no JSON ({error}); mend or delete the line') from None
            if not isinstance(fields, dict):
                raise UserError(f'{where}: no JSON object but {line[:40]}; mend or delete the line')
            text = fields.get(self.text_field)
            if not isinstance(text, str):
                what = 'no text in' if self.text_field in fields else 'no'
                raise UserError(
                    f"{where}: {what} field '{self.text_field}' (its fields: {', '.join(fields)});"
                    ' name the field that holds the text in data.text_field'
                )
            if text.strip():
                yield text.replace('\r\n', '\n')


class WikipediaSource(Source):
    """The articles of a MediaWiki dump."""

    scheme = 'wikipedia'
    unit = 'pages'

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
        content = files.Content(self.files[0])
        try:
            self.site = wikipedia.read_site(content)
        except (ValueError, ParseError) as error:
            raise UserError(
                f'{self.path}: no MediaWiki dump ({content.damage or error});'
                ' download a *pages-articles*.xml.bz2'
            ) from None

    def _documents(self, content):
        try:
            yield from wikipedia.pages(content, self.site)
        except ParseError as error:
            # Where the bytes ended early the XML does so too; that is said already.
            what = 'ends early' if error.code in _CUT_OFF else f'is broken XML ({error}), read'
            content.damage = content.damage or f'{what} {content.place()}'

    def clean(self, raw):
        return wikipedia.clean(raw, self.site)


# Of expat: no element found, unclosed token, partial character.
_CUT_OFF = (3, 5, 6)
SCHEMES = {each.scheme: each for each in (WikipediaSource, TextSource, JsonLinesSource)}


def _slug(path):
    stem = path.resolve().name
    while (shorter := re.sub(r'\.(?:txt|jsonl?|xml|gz|bz2)$', '', stem)) != stem:
        stem = shorter
    return re.sub(r'[^a-z0-9._]+', '-', stem.lower()).strip('-.') or 'source'


def _cut(text, near):
    """Where to cut: the last paragraph end in [near / 2, near], else line end, else space."""
    for mark in ('\n\n', '\n', ' '):
        found = text.rfind(mark, near // 2, near)
        if found >= 0:
            return found + len(mark)
    return near
