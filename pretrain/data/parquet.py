"""Parquet files as rows of bytes, in memory that does not grow with them (pyarrow)."""

import importlib
from collections.abc import Iterator

from pretrain.data import files
from pretrain.data.bad_input import Damaged
from pretrain.errors import UserError

ROWS = 256  # read at once, at most
AT_ONCE = 8_000_000  # bytes read at once, about


def open_file(file: files.File):
    """pyarrow's ParquetFile.

    Raises:
      files.Unreadable: it is no whole parquet file.
      UserError: pyarrow is not there.
    """
    try:
        parquet = importlib.import_module('pyarrow.parquet')
    except ImportError:
        raise UserError("parquet files need pyarrow: pip install -e '.[parquet]'") from None
    try:
        return parquet.ParquetFile(file.path)
    except (OSError, ValueError) as error:
        what = f'no whole parquet file ({str(error).splitlines()[0]}); download it again'
        raise files.Unreadable(file.path, f'{what}, or leave it out') from None


def check(file: files.File, column: str) -> None:
    """Raises UserError where a file has no such column of text; files.Unreadable as open_file."""
    schema = open_file(file).schema_arrow
    if column not in schema.names:
        raise UserError(
            f"{file.path}: no column '{column}' (its columns: {', '.join(schema.names)}); "
            'name the one that holds the text in data.text_field'
        )
    kind = str(schema.field(column).type)
    if not any(word in kind for word in ('string', 'binary')):
        raise UserError(
            f"{file.path}: column '{column}' holds {kind}, not text; name the one that holds the "
            'text in data.text_field'
        )


def sizes(file: files.File, column: str) -> list[int]:
    """Bytes of the column in each row group, unpacked."""
    opened = open_file(file)
    groups = range(opened.metadata.num_row_groups)
    return [sum(_bytes(opened.metadata.row_group(group), column)) for group in groups]


def count(file: files.File) -> int:
    """Number of rows."""
    return open_file(file).metadata.num_rows


def _bytes(group, column):
    chunks = (group.column(number) for number in range(group.num_columns))
    return [c.total_uncompressed_size for c in chunks if c.path_in_schema.split('.')[0] == column]


def rows(
    file: files.File, column: str, begin: int, end: int
) -> Iterator[tuple[int, int, bytes | None]]:
    """The rows of row groups begin .. end - 1.

    Args:
      file: of one column of text or bytes. column: its name. begin, end: numbers of row groups.

    Yields:
      (number of the row in the file from 1, rows of the groups in all, its bytes or None).

    Raises:
      Damaged: the offset is the number of the row.
    """
    opened = open_file(file)
    binary = importlib.import_module('pyarrow').large_binary()
    metadata = opened.metadata
    counts = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    number, total = sum(counts[:begin]), sum(counts[begin:end])
    for group in range(begin, end):
        size = sum(_bytes(metadata.row_group(group), column)) / max(1, counts[group])
        batch = max(1, min(ROWS, int(AT_ONCE / max(1, size))))
        try:
            for found in opened.iter_batches(batch, [group], [column]):
                # As bytes: a string that is no UTF-8 would take its whole batch with it.
                for value in found.column(0).cast(binary):
                    number += 1
                    yield number, total, value.as_py()
        except (OSError, ValueError):
            raise Damaged(number + 1) from None
