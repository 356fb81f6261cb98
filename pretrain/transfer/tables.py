"""Rows of TSV and JSONL files as benchmarks distribute them, checked value by value.

Every mistake is a UserError that names the file, the line, the value and the mend.
"""

import difflib
import json
import math
import re
from pathlib import Path
from typing import NamedTuple

from pretrain.errors import UserError

SHOWN = 60  # characters of a value that an error shows


class Row(NamedTuple):
    """A line of a table: its number in the file (from 1), its row (from 0), {column: text}."""

    line: int
    row: int
    values: dict


def show(value):
    """A value as an error shows it: quoted, in one line, not too long."""
    text = repr(value)
    quote = text[0] if isinstance(value, str) else ''
    return text if len(text) <= SHOWN else f'{text[:SHOWN]}...{quote}'


def without_surrogates(text):
    """A text of JSON in which halves of surrogate pairs, which no file takes, are replaced."""
    return text if text.isascii() else re.sub('[\ud800-\udfff]', '\ufffd', text)


def read_lines(path):
    """The lines of a UTF-8 file, without their ends, nor those that are empty at its end.

    Only a line feed, with or without a carriage return before it, ends a line: texts hold
    characters (U+0085, U+2028) at which str.splitlines would cut.

    Raises:
        UserError: there is no such file, or it is no UTF-8.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f'cannot read {str(path)!r}: {error.strerror}') from None
    data = data.removeprefix(b'\xef\xbb\xbf')  # the byte order mark of Windows
    try:
        text = data.decode('utf-8')
    except UnicodeDecodeError as error:
        line = data.count(b'\n', 0, error.start) + 1
        raise UserError(
            f'{path}, line {line}: byte 0x{data[error.start]:02x} is no UTF-8: '
            'convert the file to UTF-8, or fetch it again'
        ) from None
    lines = [line.removesuffix('\r') for line in text.split('\n')]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def read_table(path, columns, header=True, broken=None, short=False):
    """The rows of a TSV file, without any quoting, as these benchmarks write them.

    Args:
        path: of the file.
        columns: {name: the column's name in the header, or several of which one is there}; with
            header=False {name: its number, from 0}.
        header: whether the first line names the columns.
        short: a row may end before the header does, behind all of these columns.
        broken: list to which the numbers of lines with too few or too many columns are added,
            and these rows are left out; None: such a row is a mistake.

    Returns:
        List of Row, whose values have the names of `columns`.

    Raises:
        UserError: a column is not there, or a row has too few or too many of them.
    """
    lines = read_lines(path)
    if not lines:
        return []
    names, first = lines[0].split('\t'), int(header)
    width = len(names)
    if header:
        places = {name: _column(path, names, wanted) for name, wanted in columns.items()}
    else:
        places = columns
        if max(places.values()) >= width:
            raise UserError(
                f'{path}, line 1: too few columns, {width}: column number '
                f'{max(places.values())} (from 0) is wanted: {show(lines[0])}'
            )
    least = max(places.values()) + 1 if short else width
    rows = []
    for number, line in enumerate(lines[first:], first + 1):
        cells = line.split('\t')
        if least <= len(cells) <= width:
            values = {name: cells[place] for name, place in places.items()}
            rows.append(Row(number, number - first - 1, values))
        elif broken is not None:
            broken.append(number)
        else:
            many = 'few' if len(cells) < width else 'many'
            raise UserError(
                f'{path}, line {number}: too {many} columns, {len(cells)} instead of {width}: '
                f'{show(line)} (a tab or a line break inside a text?)'
            )
    return rows


def _column(path, names, wanted):
    wanted = (wanted,) if isinstance(wanted, str) else tuple(wanted)
    for name in wanted:
        if name in names:
            return names.index(name)
    near = sorted(names, key=lambda n: -difflib.SequenceMatcher(None, n, wanted[0]).ratio())
    shown = ', '.join(show(name) for name in near[:16])
    raise UserError(
        f'{path}, line 1: there is no column {" or ".join(map(repr, wanted))}: there are {shown}'
    )


class Record:
    """An object of a JSONL file, whose fields are taken out with their type checked.

    where: 'FILE, line 3'. values: the object. prefix: path of the object inside its line.
    """

    def __init__(self, where, values, prefix=''):
        self.where, self.values, self.prefix = where, values, prefix

    def __contains__(self, name):
        return name in self.values

    def error(self, text):
        """The UserError that says where this object stands, and `text`."""
        return UserError(f'{self.where}: {text}')

    def get(self, name):
        """A field of any type.

        Raises:
            UserError: there is no such field.
        """
        if name not in self.values:
            near = sorted(
                self.values, key=lambda key: -difflib.SequenceMatcher(None, key, name).ratio()
            )
            shown = ', '.join(show(key) for key in near[:16]) or 'no field at all'
            raise self.error(f'there is no field {self.prefix + name!r}: there are {shown}')
        return self.values[name]

    def text(self, name):
        """A field that is a text; half a surrogate pair, which no tokenizer takes, is replaced."""
        return without_surrogates(self._typed(name, str, 'a text'))

    def integer(self, name):
        """A field that is a whole number, or a text of its digits (idx of some distributions)."""
        value = self.get(name)
        if isinstance(value, str) and re.fullmatch('[0-9]{1,18}', value):
            return int(value)
        return self._typed(name, int, 'a whole number')

    def object(self, name):
        """A field that is an object, as a Record."""
        value = self._typed(name, dict, 'an object')
        return Record(self.where, value, f'{self.prefix}{name}.')

    def objects(self, name):
        """A field that is a list of objects, as Records."""
        values = self._typed(name, list, 'a list')
        records = []
        for i, value in enumerate(values):
            if not isinstance(value, dict):
                raise self.error(f'field {self.prefix}{name}[{i}] is {show(value)}, not an object')
            records.append(Record(self.where, value, f'{self.prefix}{name}[{i}].'))
        return records

    def _typed(self, name, kind, words):
        value = self.get(name)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self.error(f'field {self.prefix + name!r} is {show(value)}, not {words}')
        return value


def read_records(path):
    """The objects of a JSONL file as Records, one a line; blank lines are left out.

    Raises:
        UserError: a line does not parse, or is no object.
    """
    records = []
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        where = f'{path}, line {number}'
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            what = str(error)
            if hasattr(error, 'pos'):
                what = f'{error.msg.removesuffix(" starting at")} at character {error.pos}'
            raise UserError(
                f'{where} does not parse as JSON ({what}): {show(line)}; every line is one object'
            ) from None
        if not isinstance(value, dict):
            raise UserError(f'{where} is no JSON object but {show(value)}: every line is one')
        records.append(Record(where, value))
    return records


def class_label(where, value, spellings):
    """The label that a file's spelling of it means.

    Args:
        where: 'FILE, line 3'. value: as the file has it. spellings: {label: its spelling}.

    Raises:
        UserError: no label is spelt so, or it has another type.
    """
    for label, spelling in spellings.items():
        if type(value) is type(spelling) and value == spelling:  # JSON's true is not 1
            return label
    known = ', '.join(json.dumps(spelling) for spelling in spellings.values())
    raise UserError(f'{where}: the label {show(value)} is not one of {known}')


def number(where, value, low, high):
    """A score as a float.

    Args:
        where: 'FILE, line 3'. value: a number, or a text of one. low, high: its range.

    Raises:
        UserError: it is no number, or out of its range.
    """
    try:
        score = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        score = math.nan
    if math.isnan(score):
        raise UserError(f'{where}: the score {show(value)} is no number')
    if not low <= score <= high:
        raise UserError(f'{where}: the score {show(value)} is not between {low:g} and {high:g}')
    return score
