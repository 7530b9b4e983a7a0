"""Rows of a JSONL file: one JSON object a line, in UTF-8."""

import codecs
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adallava.errors import InputError
from adallava.records.jsonl import read_lines

from .json_text import decode_json
from .references import named_paths
from .rows import Row


@dataclass(frozen=True, slots=True)
class _Place:
    first_byte: int
    line: int


class JsonlRows:
    """One JSON object a line; blank lines are none. Only the lines' places are kept: inline images stay on disk."""

    def __init__(self, path: Path) -> None:
        """Read the rows for their columns: what only a later row has is a column, too.

        Raises:
            InputError: if there is none, or the first is not a JSON object.
        """
        self._path = path
        self._places: dict[int, _Place] = {}
        if next(self._lines(), None) is None:
            raise InputError(f"task file {path} has no rows")
        self.columns = tuple(dict.fromkeys(self._all_columns()))

    def read(
        self, columns: Sequence[str], image: str | None, wanted: Container[int], end: int | None
    ) -> dict[int, Row]:
        """Return the wanted rows; an absent value is None. See `Rows.read`."""
        rows: dict[int, Row] = {}
        for number, (place, data) in enumerate(self._lines()):
            if end is not None and number >= end:
                break
            if number in wanted:
                self._places[number] = place
                found = self._parse(place, data)
                row = {column: found.get(column) for column in columns}
                rows[number] = row if image is None else row | {image: named_paths(found.get(image))}
        return rows

    def where(self, row: int) -> str:
        """Return the file and the line, from 1."""
        return f"{self._path}, line {self._places[row].line}"

    def picture(self, row: int, column: str) -> Any:
        """Return what `column` of a row that was read holds."""
        place = self._places[row]
        with self._path.open("rb") as file:
            file.seek(place.first_byte)
            return self._parse(place, file.readline()).get(column)

    def _lines(self) -> Iterator[tuple[_Place, bytes]]:
        with self._path.open("rb") as file:
            for line in read_lines(file):
                if line.place == 0 and line.data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                    raise InputError(f"{self._path} is in UTF-16: save it as UTF-8")
                if line.data.removeprefix(codecs.BOM_UTF8).strip():
                    yield _Place(line.place, line.number), line.data

    def _all_columns(self) -> Iterator[str]:
        """Yield the columns of every row that can be read; `read` refuses the others, if they are asked for."""
        for number, (place, data) in enumerate(self._lines()):
            try:
                yield from self._parse(place, data)
            except InputError:
                if number == 0:
                    raise

    def _parse(self, place: _Place, data: bytes) -> dict[str, Any]:
        where = f"{self._path}, line {place.line}"
        try:
            row = decode_json(data.removeprefix(codecs.BOM_UTF8))
        except InputError as error:
            raise InputError(f"{where} {error}") from None
        if not isinstance(row, dict):
            raise InputError(f"{where} is a {type(row).__name__}, not an object of columns")
        return row
