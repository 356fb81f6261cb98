"""The files of a source of documents: found, decompressed and decoded in a stream.

Damage in the middle of a file (it ends early, a block is broken) is no error here: the stream ends,
and says why. That a file is of another kind than it should be is the user's to mend.
"""

import bz2
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pretrain.errors import UserError

CHUNK = 1 << 16
BYTE_ORDER_MARK = '\ufeff'


class File(NamedTuple):
    """One file of a source.

    path: where it lies. relative: its name below the source's path. size: bytes. modified: ns.
    """

    path: str
    relative: str
    size: int
    modified: int


def find(path: Path, suffixes: tuple[str, ...]) -> list[File]:
    """The file at `path`, or those below the folder, sorted by name.

    Args:
      path: a file of any name, or a folder.
      suffixes: the names' ends that count in a folder; () where a folder is no source at all.

    Returns:
      The files that are not empty; hidden ones in a folder are left out.

    Raises:
      UserError: there is nothing to read.
    """
    if not path.exists():
        raise UserError(f'{path}: no such file or folder; check the path of the source')
    ends = ', '.join(suffixes)
    found = [(path, path.name)]
    if path.is_dir():
        if not suffixes:
            raise UserError(f'{path}: a folder; name one file in it')
        names = sorted(
            each.relative_to(path).as_posix()
            for each in path.rglob('*')
            if each.name.endswith(suffixes) and not each.name.startswith('.') and each.is_file()
        )
        if not names:
            raise UserError(f'{path}: no file in it ends in {ends}; name another folder, or a file')
        found = [(path / name, name) for name in names]
    files = []
    for each, name in found:
        status = each.stat()
        if status.st_size:
            files.append(File(str(each), name, status.st_size, status.st_mtime_ns))
    if not files:
        what = f'holds only empty files ({ends})' if path.is_dir() else 'is empty'
        raise UserError(f'{path}: {what}; name a source with text')
    return files


class Content:
    """A file's bytes, decompressed (.bz2 and .gz by their first bytes).

    position: bytes of the file consumed so far. damage: why the bytes ended early, or ''.
    """

    def __init__(self, file: File):
        """Looks at the first bytes; UserError where they cannot be read or belie the name."""
        self.file, self.position, self.damage = file, 0, ''
        self._decompressor = None
        try:
            with open(file.path, 'rb') as opened:
                head = opened.read(3)
        except OSError as error:
            raise UserError(
                f'{file.path}: cannot be read ({error.strerror}); mend its rights, or leave it out'
            ) from None
        for magic, suffix, decompressor in (
            (b'BZh', '.bz2', bz2.BZ2Decompressor),
            (b'\x1f\x8b', '.gz', lambda: zlib.decompressobj(wbits=31)),
        ):
            if head.startswith(magic):
                self._decompressor = decompressor
            elif file.path.endswith(suffix):
                raise UserError(
                    f'{file.path}: no {suffix[1:]} file, it begins with {head!r};'
                    ' download it again, or rename it'
                )

    def __iter__(self) -> Iterator[bytes]:
        self.position, self.damage = 0, ''
        stream = self._decompressor and self._decompressor()
        with open(self.file.path, 'rb', buffering=0) as opened:
            while chunk := opened.read(CHUNK):
                self.position += len(chunk)
                if stream is None:
                    yield chunk
                    continue
                try:
                    while chunk:
                        if stream.eof:
                            # Large dumps are many compressed streams, one after the other.
                            if not chunk.strip(b'\0'):
                                break
                            stream = self._decompressor()
                        content = stream.decompress(chunk)
                        chunk = stream.unused_data
                        if content:
                            yield content
                except (OSError, zlib.error):
                    self.damage = f'is damaged {self.place()}'
                    return
        if stream is not None and not stream.eof:
            self.damage = f'ends early {self.place()}'

    def place(self) -> str:
        """Where the reading stands, in words."""
        return f'at byte {self.position} of {self.file.size}'


def decoded(content: Content) -> Iterator[str]:
    """Text out of UTF-8, in pieces: without a byte order mark, line ends as '\\n'.

    Raises:
      UserError: NUL bytes or no UTF-8, with the offset of the byte in the decompressed file.
    """
    rest, offset = b'', 0  # offset: of the first byte of rest
    carried, first = '', True
    for chunk in content:
        data = rest + chunk
        if (nul := data.find(b'\0')) >= 0:
            raise _binary(content, offset + nul, 'a NUL byte')
        try:
            text, used = data.decode(), len(data)
        except UnicodeDecodeError as error:
            # The first bytes of a character may wait for the next chunk.
            if error.end < len(data) or error.reason != 'unexpected end of data':
                raise _binary(content, offset + error.start, 'no UTF-8') from None
            text, used = data[: error.start].decode(), error.start
        rest, offset = data[used:], offset + used
        if first and text:
            text, first = text.removeprefix(BYTE_ORDER_MARK), False
        text = carried + text
        carried = '\r' if text.endswith('\r') else ''
        text = text.removesuffix('\r').replace('\r\n', '\n')
        if text:
            yield text
    if rest and not content.damage:
        raise _binary(content, offset, 'no UTF-8')
    if carried:
        yield carried


def lines(content: Content) -> Iterator[tuple[int, str, bool]]:
    """(number from 1, text, whether its line end is there) of every line; errors as of decoded.

    Where the file is damaged its last line, which is cut off, is left out.
    """
    number, offset, rest = 1, 0, []
    for chunk in content:
        *whole, last = chunk.split(b'\n')
        for line in whole:
            data = b''.join([*rest, line])
            rest = []
            yield number, _line(content, data, offset, number), True
            number, offset = number + 1, offset + len(data) + 1
        rest.append(last)
    data = b''.join(rest)
    if data and not content.damage:
        yield number, _line(content, data, offset, number), False


def _line(content, data, offset, number):
    if (nul := data.find(b'\0')) >= 0:
        raise _binary(content, offset + nul, f'a NUL byte in line {number}')
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise _binary(content, offset + error.start, f'no UTF-8 in line {number}') from None
    return text.removeprefix(BYTE_ORDER_MARK) if number == 1 else text


def _binary(content, offset, what):
    return UserError(
        f'{content.file.path}: no text ({what}, at byte {offset});'
        ' save it as UTF-8, or leave it out'
    )
