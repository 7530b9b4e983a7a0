"""Rows of a local file, read a few at a time: the texts once, the picture of one row when it is needed."""

import base64
import binascii
import json
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import pyarrow
import pyarrow.parquet

from adallava.errors import InputError

Row = dict[str, Any]

_BASE64 = re.compile(r"[A-Za-z0-9+/]{64,}={0,2}")
_ROWS_AT_ONCE = 32


class Rows(Protocol):
    """A file's rows."""

    columns: tuple[str, ...]

    def read(self, columns: Sequence[str], limit: int | None) -> list[Row]:
        """Return the named columns of the first `limit` rows."""
        ...

    def picture(self, row: int, column: str) -> Path | bytes:
        """Return what `column` of one row holds: a path or the encoded bytes.

        Raises:
            InputError: if it holds neither.
        """
        ...


def open_rows(path: Path) -> Rows:
    """Open a `.jsonl` or `.parquet` file.

    Raises:
        InputError: if it is missing, has another suffix, or cannot be read.
    """
    if not path.is_file():
        raise InputError(f"task file {path} does not exist, and no bundled task has that name")
    match path.suffix.lower():
        case ".jsonl":
            return JsonlRows(path)
        case ".parquet":
            return ParquetRows(path)
    raise InputError(f"task file {path} is neither .jsonl nor .parquet")


class JsonlRows:
    """One JSON object a line. Only the lines' places are kept, so that inline pictures stay on disk."""

    def __init__(self, path: Path) -> None:
        """Read the first row for its columns; raise `InputError` if there is none."""
        self._path = path
        self._offsets: list[int] = []
        first = next(self._objects(), None)
        if first is None:
            raise InputError(f"task file {path} has no rows")
        self.columns = tuple(first[1])

    def read(self, columns: Sequence[str], limit: int | None) -> list[Row]:
        """Return the named columns of the first `limit` rows; an absent value is None."""
        self._offsets, rows = [], []
        for offset, row in islice(self._objects(), limit):
            self._offsets.append(offset)
            rows.append({column: row.get(column) for column in columns})
        return rows

    def picture(self, row: int, column: str) -> Path | bytes:
        """Return the path or the decoded base64 bytes that `column` of a row read before holds."""
        with self._path.open("rb") as file:
            file.seek(self._offsets[row])
            value = json.loads(file.readline()).get(column)
        return picture_source(value, self._path.parent)

    def _objects(self) -> Iterator[tuple[int, Row]]:
        offset = 0
        with self._path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield offset, self._object(line, number)
                offset += len(line)

    def _object(self, line: bytes, number: int) -> Row:
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(f"{self._path}, line {number} is not JSON: {error}") from None
        if not isinstance(row, dict):
            raise InputError(f"{self._path}, line {number} is a {type(row).__name__}, not an object of columns")
        return row


class ParquetRows:
    """A parquet file. Pictures are read forwards in small batches: a row group may be larger than memory."""

    def __init__(self, path: Path) -> None:
        """Read the schema; raise `InputError` if the file is not parquet."""
        self._path = path
        try:
            self._file = pyarrow.parquet.ParquetFile(path)
        except (pyarrow.ArrowException, OSError) as error:
            raise InputError(f"task file {path} is not readable parquet: {error}") from None
        self.columns = tuple(self._file.schema_arrow.names)
        if self._file.metadata.num_rows == 0:
            raise InputError(f"task file {path} has no rows")
        self._batches: Iterator[Any] = iter(())
        self._column = ""
        self._window: list[Any] = []
        self._window_start = 0

    def read(self, columns: Sequence[str], limit: int | None) -> list[Row]:
        """Return the named columns of the first `limit` rows."""
        batches = self._file.iter_batches(batch_size=1024, columns=list(dict.fromkeys(columns)))
        rows = (row for batch in batches for row in batch.to_pylist())
        try:
            return list(islice(rows, limit))
        except (pyarrow.ArrowException, OSError) as error:
            raise InputError(f"task file {self._path} is damaged: {error}") from None

    def picture(self, row: int, column: str) -> Path | bytes:
        """Return the path or bytes that `column` of a row holds; cheap for rows asked for in order."""
        try:
            value = self._value(row, column)
        except (pyarrow.ArrowException, OSError) as error:
            raise InputError(f"{self._path}, row {row} cannot be read: {error}") from None
        return picture_source(value, self._path.parent)

    def _value(self, row: int, column: str) -> Any:
        if row < self._window_start or column != self._column:
            self._rewind(row, column)
        while row >= self._window_start + len(self._window):
            self._window_start += len(self._window)
            self._window = next(self._batches).column(0).to_pylist()
        return self._window[row - self._window_start]

    def _rewind(self, row: int, column: str) -> None:
        metadata = self._file.metadata
        start, group = 0, 0
        while row >= start + metadata.row_group(group).num_rows:
            start += metadata.row_group(group).num_rows
            group += 1
        groups = list(range(group, metadata.num_row_groups))
        self._batches = self._file.iter_batches(
            batch_size=_ROWS_AT_ONCE, row_groups=groups, columns=[column], use_threads=False
        )
        self._column, self._window, self._window_start = column, [], start


def picture_source(value: Any, folder: Path) -> Path | bytes:
    """Read an image column's value by the Hugging Face convention, paths relative to `folder`.

    A value is a path, raw bytes, `{"bytes": ..., "path": ...}` with either set, or base64 text: a `data:`
    URL, or at least 64 base64 characters (which include no dot, as nearly every file name does).

    Raises:
        InputError: for anything else, a URL, or base64 that does not decode.
    """
    if isinstance(value, dict):
        inline = value.get("bytes")
        if isinstance(inline, str):  # JSON has no bytes
            return _from_base64(inline)
        value = inline or value.get("path")
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str) or not value:
        raise InputError(f"the image column holds {str(value)[:80]!r}: give a path, bytes or base64 text")
    if "://" in value[:16]:
        raise InputError(f"image {value[:80]!r} is a URL: pictures are read from disk only")
    if value.startswith("data:"):
        return _from_base64(value.partition(",")[2])
    if _BASE64.fullmatch(value):
        return _from_base64(value)
    return folder / value


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise InputError(f"the image column's base64 text does not decode: {error}") from None
