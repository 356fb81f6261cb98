"""The files of a source of documents, read in stretches, unpacked, and in lines.

A file is read from the middle as well as from its start, so that many processes share it: plain
files by seeking, bzip2 by its blocks (bzip2.py), gzip, which only reads from its start, by dropping
what comes before. An extent owns the records that begin inside of it, and reads on past its end
until the last of them is whole: the records of a file's extents are those of the file.
"""

import itertools
import math
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pretrain.data import bzip2
from pretrain.data.bad_input import Damaged, Tally
from pretrain.errors import UserError

CHUNK = 1 << 16
MOST_AT_ONCE = 1 << 20
LONGEST_LINE = 16_000_000  # bytes; a longer one is no text that anyone wrote
# Text in a megabyte of file, roughly: by it files are divided into extents.
RATIOS = {'plain': 1, 'gz': 3, 'bz2': 4}
# Each extent of a gzip file unpacks all that stands before it.
MOST_OF_GZ = 8


LFS = b'version https://git-lfs'  # how a pointer of git-lfs begins


class Unreadable(UserError):
    """A file that cannot be opened, or is not what its name says."""

    def __init__(self, path, what):
        super().__init__(f'{path}: {what}')
        self.path, self.what = path, what


class File(NamedTuple):
    """One file of a source.

    path: where it lies. relative: its name below the source's path. size: bytes. modified: ns.
    """

    path: str
    relative: str
    size: int
    modified: int


class Extent(NamedTuple):
    """A stretch of a file.

    begin, end: byte offsets in what the file unpacks to; of bzip2, in the file itself. Other
        kinds of files count what they like (rows). end: None: up to the file's end.
    weight: bytes of the file, about, that reading it takes: for progress.
    """

    file: File
    begin: int
    end: int | None
    weight: int


def find(path: Path, suffixes: tuple[str, ...], prefix: str = '') -> list[File]:
    """The file at `path`, or those below the folder, sorted by name.

    Args:
      path: a file of any name, or a folder.
      suffixes: the names' ends that count in a folder; () where a folder is no source at all.
      prefix: how names begin that count in a folder.

    Returns:
      The files; hidden ones, those in hidden folders and in folders that are links are left out.

    Raises:
      UserError: there is nothing to read.
    """
    if not path.exists():
        raise UserError(f'{path}: no such file or folder; check the path of the source')
    ends = ', '.join(prefix + '*' * bool(prefix) + suffix for suffix in suffixes)
    found = [(path, path.name)]
    if path.is_dir():
        if not suffixes:
            raise UserError(f'{path}: a folder; name one file in it')
        names = sorted(
            name
            for each in path.rglob('*')
            if each.name.endswith(suffixes)
            and each.name.startswith(prefix)
            and not re.search(r'(?:^|/)\.', name := each.relative_to(path).as_posix())
            and not each.is_dir()
        )
        if not names:
            what = 'is named' if prefix else 'ends in'
            raise UserError(f'{path}: no file in it {what} {ends}; name another folder, or a file')
        found = [(path / name, name) for name in names]
    files = []
    for each, name in found:
        try:
            status = each.stat()
        except OSError as error:
            raise UserError(f'{each}: {error.strerror}; mend or remove it') from None
        files.append(File(str(each), name, status.st_size, status.st_mtime_ns))
    if not any(file.size for file in files):
        what = f'holds only empty files ({ends})' if path.is_dir() else 'is empty'
        raise UserError(f'{path}: {what}; name a source with text')
    return files


def kind(file: File) -> str:
    """'plain', 'gz' or 'bz2', by the first bytes; UserError where they belie the name."""
    try:
        with open(file.path, 'rb') as opened:
            head = opened.read(len(LFS))
    except OSError as error:
        what = f'cannot be read ({error.strerror}); mend its rights, or leave it out'
        raise Unreadable(file.path, what) from None
    if head == LFS:
        raise Unreadable(file.path, 'a pointer of git-lfs, not the file: git lfs pull')
    found = {b'BZh': 'bz2', b'\x1f\x8b': 'gz'}
    found = next((name for magic, name in found.items() if head.startswith(magic)), 'plain')
    suffix = file.path.rpartition('.')[2]
    if suffix in ('gz', 'bz2') and suffix != found and file.size:
        what = f'no {suffix} file, it begins with {head[:3]!r}; download it again, or rename it'
        raise Unreadable(file.path, what)
    return found


def divide(file: File, target: float) -> list[Extent]:
    """The extents of a file, each of about `target` bytes of text."""
    packed = kind(file)
    text = file.size * RATIOS[packed]
    parts = max(1, round(text / target))
    if packed == 'gz':
        parts = min(parts, MOST_OF_GZ)
    length = file.size if packed == 'bz2' else text
    cuts = [length * part // parts for part in range(parts)]
    return [
        Extent(file, begin, end, file.size // parts)
        for begin, end in zip(cuts, [*cuts[1:], None], strict=True)
    ]


class Content:
    """The bytes from an extent's beginning to its file's end, unpacked, in chunks.

    No chunk lies on both sides of the extent's end: `owned` is the number of bytes before it once a
    chunk beyond it was given out, and infinite as long as none was. What cannot be unpacked ends
    the bytes and is said to the tally, by the one extent in which it lies.
    """

    def __init__(self, extent: Extent, tally: Tally):
        self.extent, self.tally = extent, tally
        self.file, self.owned = extent.file, math.inf
        self.damaged = False

    def __iter__(self) -> Iterator[bytes]:
        begin, end = self.extent.begin, self.extent.end
        read = {'plain': self._plain, 'gz': self._gz, 'bz2': self._bz2}[kind(self.file)]
        given = 0
        with open(self.file.path, 'rb', buffering=0) as opened:
            for offset, chunk in read(opened, begin):
                if end is not None and offset >= end:
                    self.owned = min(self.owned, given)
                given += len(chunk)
                yield chunk

    def _plain(self, opened, begin):
        end = self.extent.end or math.inf
        opened.seek(begin)
        while chunk := opened.read(CHUNK):
            if begin < end:
                self.tally.advance(len(chunk))
            yield from _split(begin, chunk, end)
            begin += len(chunk)

    def _gz(self, opened, begin):
        end = self.extent.end or math.inf
        stream, offset, position = zlib.decompressobj(wbits=31), 0, 0
        while chunk := opened.read(CHUNK):
            position += len(chunk)
            if begin <= offset < end:
                self.tally.advance(len(chunk))
            try:
                while True:
                    if stream.eof:
                        # Several files put together are one.
                        if not chunk.strip(b'\0'):
                            break
                        stream = zlib.decompressobj(wbits=31)
                    # Bounded, as a megabyte of one letter packs into a thousand bytes.
                    unpacked = stream.decompress(chunk, MOST_AT_ONCE)
                    chunk = stream.unused_data if stream.eof else stream.unconsumed_tail
                    kept = unpacked[max(0, begin - offset) :]
                    offset += len(unpacked)
                    if kept:
                        yield from _split(offset - len(kept), kept, end)
                    if not (chunk or stream.eof or len(unpacked) == MOST_AT_ONCE):
                        break
            except zlib.error:
                self._damage(offset, f'damaged at byte {position}')
                return
        if not stream.eof:
            self._damage(offset, 'cut off')

    def _bz2(self, opened, begin):
        end = self.extent.end or math.inf
        last = begin
        try:
            for offset, content in bzip2.blocks(opened, begin, self.file.size):
                if last < end:
                    self.tally.advance(min(offset, end) - last)
                    last = offset
                yield offset, content
            if last < end:
                self.tally.advance(min(end, self.file.size) - last)
        except EOFError:
            self._damage(self.file.size, 'cut off')
        except Damaged as error:
            self._damage(error.offset, f'damaged at byte {error.offset}')

    def _damage(self, offset, what):
        self.damaged = True
        begin, end = self.extent.begin, self.extent.end
        if offset >= begin and (end is None or offset < end):
            self.tally.bad('cut_off' if what == 'cut off' else 'damaged', self.file.path, what)


def _split(offset, chunk, end):
    """The chunk, in two where the extent's end lies inside of it."""
    if offset < end < offset + len(chunk):
        yield offset, chunk[: end - offset]
        offset, chunk = end, chunk[end - offset :]
    yield offset, chunk


class Where(NamedTuple):
    """The place of an extent's line; `str` of it reads the file, so only messages ask for it."""

    extent: Extent
    index: int  # from 1, among the lines of the extent

    def __str__(self):
        number = self.index
        if self.extent.begin:
            before = Content(self.extent._replace(begin=0, end=self.extent.begin), Tally(skip=True))
            inside = itertools.takewhile(lambda _: before.owned == math.inf, before)
            # The first line to end inside of the extent is that of the extent before.
            number += sum(chunk.count(b'\n') for chunk in inside) + 1
        return f'{self.extent.file.path}, line {number}'


class Line(NamedTuple):
    """where: its place. text: without its end. whole: whether a line end stands behind it."""

    where: Where
    text: str
    whole: bool


def lines(content: Content) -> Iterator[Line]:
    """The lines that begin inside an extent, as text; bad ones are said to the tally, left out.

    The line that begins exactly at the extent's end is this extent's, and the one at its beginning
    the one's before, which needs no look at the byte before.
    """
    for index, data, size in _runs(content):
        for line in _lines(content, index, data, size):
            # Without this mark the first line of a file would differ by what wrote it.
            first = line.where.index == 1 and not content.extent.begin
            yield line._replace(text=line.text.removeprefix('\ufeff')) if first else line


def texts(content: Content) -> Iterator[str]:
    """The lines that `lines` gives, with their ends, many in one string; line ends as '\\n'."""
    first = not content.extent.begin
    for index, data, size in _runs(content):
        try:
            if data is None or b'\0' in data:
                raise ValueError
            text = data.decode()
        except ValueError:  # one of them is bad
            found = _lines(content, index, data, size)
            text = ''.join(line.text + '\n' * line.whole for line in found)
        text = text.removeprefix('\ufeff') if first else text
        first = False
        yield text.replace('\r\n', '\n')


def _runs(content):
    """Yields (number of the first line, bytes of whole lines, their size) in an extent.

    One line that is too long comes alone, without its bytes.
    """
    index, begun = 1, 0  # begun: bytes given out before the line that is being read
    rest, size = [], 0  # of that line
    skipping = content.extent.begin > 0
    for chunk in content:
        beyond = content.owned < math.inf
        while chunk:
            if skipping:
                stop = chunk.find(b'\n') + 1
                begun += stop or len(chunk)
                chunk, skipping = chunk[stop:] if stop else b'', not stop
                continue
            if begun > content.owned:
                return
            # A line that began in another chunk comes alone, and so does the last one.
            stop = (chunk.find(b'\n') if size or beyond else chunk.rfind(b'\n')) + 1
            taken, chunk = (chunk[:stop], chunk[stop:]) if stop else (chunk, b'')
            size += len(taken)
            if size <= LONGEST_LINE:
                rest.append(taken)
            if stop:
                data = b''.join(rest) if size <= LONGEST_LINE else None
                yield index, data, size
                index += 1 if data is None else data.count(b'\n')
                begun += size
                rest, size = [], 0
    # Where the file is damaged its last line is cut, and lost with what follows.
    if size and not content.damaged:
        yield index, b''.join(rest) if size <= LONGEST_LINE else None, size


def _lines(content, index, data, size):
    """The lines of a run, from the number `index` on."""
    tally, at = content.tally, index
    if data is None:
        megabytes = f'{size / 1e6:.0f} MB, over {LONGEST_LINE / 1e6:.0f}'
        tally.bad('long_line', Where(content.extent, at), f'a line of {megabytes}')
        return
    pieces = data.split(b'\n')
    whole = not pieces[-1]
    if whole:
        pieces.pop()
    for place, piece in enumerate(pieces):
        where = Where(content.extent, index + place)
        if piece.find(b'\0') >= 0:
            tally.bad('nul', where, f'a NUL byte, at byte {piece.find(0)} of the line')
            continue
        try:
            text = piece.decode()
        except UnicodeDecodeError as error:
            tally.bad('no_utf8', where, f'no UTF-8, at byte {error.start} of the line')
            continue
        yield Line(where, text, whole or place + 1 < len(pieces))


def head(file: File) -> Iterator[bytes]:
    """The bytes of a file from its start, as far as they can be read."""
    return iter(Content(Extent(file, 0, None, 0), Tally(skip=True)))
