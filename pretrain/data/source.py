"""What every source of documents has: its files, its units of work, the documents of each."""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pretrain.data import files
from pretrain.data.bad_input import Tally

# Counts in the fingerprint: raise it when the same files give other documents than before.
EDITION = 2


class Unit(NamedTuple):
    """A piece of work: some stretches of files.

    split: 'train' or 'validation' where the source says which its documents belong to, else ''.
    """

    extents: tuple[files.Extent, ...]
    split: str


class Source:
    """Documents of one scheme.

    name: a short name for folders. size: bytes on disk of all files. place: what a config writes
    behind the scheme, in one word.
    """

    scheme = ''
    place = 'PATH'
    suffixes: tuple[str, ...] = ()

    def __init__(self, path: str, text_field: str, data_dir: str = ''):
        """Finds the files.

        Args:
          path: what stands behind the scheme. text_field: of records that have several.
          data_dir: of datasets that another library has prepared.
        """
        self.text_field, self.data_dir = text_field, data_dir
        self.path = self._locate(path)
        self.files = self._find()
        self.size = sum(file.size for file in self.files)
        self.name = f'{self.scheme}-{_slug(self.path)}'

    def _locate(self, path):
        return Path(path).expanduser()

    def _find(self):
        return files.find(self.path, self.suffixes)

    def check(self) -> None:
        """Raises files.Unreadable where a file cannot be opened or is of another kind."""
        for file in self.files:
            files.kind(file)

    def fingerprint(self) -> str:
        """Hex digest of all that decides which documents come: scheme, field, files."""
        facts = [EDITION, self.scheme, self.text_field, *(file[1:] for file in self.files)]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def split_of(self, file: files.File) -> str:
        """'train' or 'validation' where the file's name says it, else ''."""
        return ''

    def units(self, megabytes: float) -> list[Unit]:
        """Divides the source into units of about so many megabytes of text.

        Small files that follow each other are put together, large ones divided. It depends on the
        files alone.
        """
        target, units, held, size = megabytes * 1e6, [], [], 0.0

        def end():
            nonlocal held, size
            if held:
                units.append(Unit(tuple(held), self.split_of(held[0].file)))
            held, size = [], 0.0

        for file in self.files:
            try:
                extents, text = self.divide(file, target), self.text_bytes(file)
            except files.Unreadable:  # said, or counted, when it is to be read
                extents, text = [files.Extent(file, 0, None, file.size)], 0
            if held and (len(extents) > 1 or self.split_of(held[0].file) != self.split_of(file)):
                end()
            for extent in extents:
                held.append(extent)
                size += target if len(extents) > 1 else text
                if size >= target:
                    end()
        end()
        return units

    def divide(self, file: files.File, target: float) -> list[files.Extent]:
        """The extents of a file, each of about `target` bytes of text."""
        return files.divide(file, target)

    def text_bytes(self, file: files.File) -> float:
        """About how many bytes of text a file holds."""
        return file.size * files.RATIOS[files.kind(file)]

    def documents(self, unit: Unit, tally: Tally) -> Iterator[str]:
        """Every document of a unit as it stands in the source, in order.

        Those of white space only are left out.

        Args:
          unit: of `units`. tally: is told of what cannot be read, and how far the reading is.

        Raises:
          UserError: there is bad input, and the tally does not skip it.
        """
        for extent in unit.extents:
            try:
                if extent.file.size:
                    yield from self._documents(extent, tally)
                else:
                    tally.bad('empty_file', extent.file.path, 'an empty file')
            except files.Unreadable as error:
                tally.bad('unreadable', error.path, error.what)

    def _documents(self, extent: files.Extent, tally: Tally) -> Iterator[str]:
        """The documents that begin inside an extent."""
        raise NotImplementedError

    def clean(self, raw: str) -> str:
        """Plain paragraphs divided by blank lines; '' where the document should be dropped."""
        return raw if raw.strip() else ''


def _slug(path):
    stem = path.resolve().name
    while (shorter := re.sub(r'\.(?:txt|jsonl?|xml|gz|bz2)$', '', stem)) != stem:
        stem = shorter
    return re.sub(r'[^a-z0-9._]+', '-', stem.lower()).strip('-.') or 'source'
