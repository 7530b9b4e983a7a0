"""Rows of a parquet file, with the names of its classes where Hugging Face's `datasets` has written them along."""

import json
import re
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet

from adallava.errors import InputError

from .json_text import decode_json
from .parquet_statistics import has_all
from .references import named_paths
from .rows import Row
from .values import Unreadable, describe

_WHOLE_NUMBER = re.compile("-?[0-9]{1,9}")

_TEXTS_AT_ONCE = 1024
_PICTURES_AT_ONCE = 32

_LISTS = (pyarrow.types.is_list, pyarrow.types.is_large_list, pyarrow.types.is_fixed_size_list)

_READING_ERRORS = (pyarrow.ArrowException, OSError)
_CONVERTING_ERRORS = (pyarrow.ArrowException, ValueError, OverflowError)
"""Of one value: text that is not UTF-8, nanoseconds, a year beyond 9999."""


class ParquetRows:
    """A parquet file. Images are read forwards in small batches: a row group may be larger than memory."""

    def __init__(self, path: Path) -> None:
        """Read the schema; raise `InputError` if the file is not parquet."""
        self._path = path
        try:
            self._file = pyarrow.parquet.ParquetFile(path)
            schema = self._file.schema_arrow
            self.columns = tuple(schema.names)
        except (*_READING_ERRORS, ValueError) as error:
            raise InputError(f"task file {path} is not readable parquet: {_one_line(error)}") from None
        if self._file.metadata.num_rows == 0:
            raise InputError(f"task file {path} has no rows")
        self._features = _hugging_face_features(schema, path)
        leaves = self._file.schema
        self._json = {leaf.path for leaf in map(leaves.column, range(len(leaves))) if leaf.logical_type.type == "JSON"}
        self._batches: Iterator[Any] = iter(())
        self._column = ""
        self._window: list[Any] = []
        self._window_start = 0

    def read(
        self, columns: Sequence[str], image: str | None, wanted: Container[int], end: int | None
    ) -> dict[int, Row]:
        """Return the wanted rows. See `Rows.read`."""
        names = list(dict.fromkeys(columns))
        for name in (*names, *([] if image is None else [image])):
            if self.columns.count(name) != 1:
                raise InputError(
                    f"{self._path} has {self.columns.count(name) or 'no'} columns named {name!r}: name each once"
                )
        rows: dict[int, dict[str, Any]] = {}
        for start, batch in self._all_batches(names, _TEXTS_AT_ONCE, end):
            places = [place for place in range(batch.num_rows) if start + place in wanted]
            values = {name: self._texts(batch, name, places) if places else [] for name in names}
            for number, place in enumerate(places):
                rows[start + place] = {name: column[number] for name, column in values.items()}
        if image is not None:
            for start, batch in (
                self._all_batches([image], _PICTURES_AT_ONCE, end) if self._may_name_files(image) else ()
            ):
                for place, value in enumerate(self._values(batch, image)):
                    if start + place in rows:
                        rows[start + place][image] = named_paths(value)
        return dict(rows)

    def where(self, row: int) -> str:
        """Return the file and the row, from 0."""
        return f"{self._path}, row {row}"

    def picture(self, row: int, column: str) -> Any:
        """Return what `column` of a row holds; cheap for rows asked for in order."""
        try:
            value = self._value(row, column)
        except _READING_ERRORS as error:
            raise InputError(f"{self.where(row)} cannot be read: {_one_line(error)}") from None
        if isinstance(value, Unreadable):
            raise InputError(f"{self.where(row)}: column {column!r} {value.reason}")
        return value

    def _all_batches(self, columns: Sequence[str], size: int, end: int | None) -> Iterator[tuple[int, Any]]:
        """Yield batches, each with the number of its first row."""
        start = 0
        try:
            for batch in self._file.iter_batches(batch_size=size, columns=list(columns)):
                if end is not None and start >= end:
                    return
                yield start, batch
                start += batch.num_rows
        except _READING_ERRORS as error:
            raise InputError(f"task file {self._path} is damaged after row {start}: {_one_line(error)}") from None

    def _texts(self, batch: Any, name: str, places: Sequence[int]) -> list[Any]:
        feature = self._features.get(name)
        # Arrow's own take has no kernel for some types, such as views.
        values = self._values(batch, name)
        return [_with_names(values[place], feature) for place in places]

    def _values(self, batch: Any, name: str) -> list[Any]:
        column = self._one_column(batch, name)
        return [_as_stored(value, column.type, name in self._json) for value in _plain(column)]

    def _one_column(self, batch: Any, name: str) -> Any:
        places = batch.schema.get_all_field_indices(name)
        if len(places) != 1:
            raise InputError(f"{self._path} has {len(places) or 'no'} columns named {name!r}: name each once")
        return batch.column(places[0])

    def _may_name_files(self, image: str) -> bool:
        """Return False for images that are all bytes, which are read only when they are needed."""
        kind, leaf = self._file.schema_arrow.field(image).type, image
        if any(is_list(kind) for is_list in _LISTS):
            kind, leaf = kind.value_type, f"{image}.list.{kind.value_field.name}"
        if pyarrow.types.is_struct(kind):
            return not has_all(self._path, f"{leaf}.bytes")
        return not any(
            is_bytes(kind)
            for is_bytes in (
                pyarrow.types.is_binary,
                pyarrow.types.is_large_binary,
                pyarrow.types.is_fixed_size_binary,
            )
        )

    def _value(self, row: int, column: str) -> Any:
        if row < self._window_start or column != self._column:
            self._rewind(row, column)
        while row >= self._window_start + len(self._window):
            self._window_start += len(self._window)
            batch = next(self._batches, None)
            if batch is None:
                raise InputError(f"{self.where(row)} is not there: the file ends before, or has changed")
            self._window = self._values(batch, column)
        return self._window[row - self._window_start]

    def _rewind(self, row: int, column: str) -> None:
        metadata = self._file.metadata
        start, group = 0, 0
        while group < metadata.num_row_groups - 1 and row >= start + metadata.row_group(group).num_rows:
            start += metadata.row_group(group).num_rows
            group += 1
        groups = list(range(group, metadata.num_row_groups))
        self._batches = self._file.iter_batches(
            batch_size=_PICTURES_AT_ONCE, row_groups=groups, columns=[column], use_threads=False
        )
        self._column, self._window, self._window_start = column, [], start


def _plain(column: Any) -> list[Any]:
    """Return a column's values as Python's; `Unreadable` for each that has none."""
    try:
        return list(column.to_pylist())
    except _CONVERTING_ERRORS:
        return [_plain_value(scalar) for scalar in column]


def _plain_value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError as error:
        return Unreadable(f"holds text that is not UTF-8 (at byte {error.start}): write it again")
    except _CONVERTING_ERRORS:
        return Unreadable(f"holds a {scalar.type} that no type of Python can hold: write it as text")


def _as_stored(value: Any, kind: Any, is_json: bool = False) -> Any:
    """Return a value as the file means it: what JSON says, and floats as wide as they are there.

    Python's floats, being wider, have other digits.
    """
    if value is None or isinstance(value, Unreadable):
        return value
    if is_json or getattr(kind, "extension_name", "") == "arrow.json":
        return _of_json(value)
    if pyarrow.types.is_float16(kind) or pyarrow.types.is_float32(kind):
        return (np.float16 if pyarrow.types.is_float16(kind) else np.float32)(value)
    if pyarrow.types.is_dictionary(kind):
        return _as_stored(value, kind.value_type)
    if isinstance(value, list) and hasattr(kind, "value_type"):
        return [_as_stored(item, kind.value_type) for item in value]
    if isinstance(value, dict) and pyarrow.types.is_struct(kind):
        return {name: _as_stored(item, kind.field(name).type) for name, item in value.items()}
    return value


def _of_json(text: str | bytes) -> Any:
    try:
        return decode_json(text)
    except InputError as error:
        return Unreadable(str(error))


def _hugging_face_features(schema: Any, path: Path) -> dict[str, Any]:
    """Return what `datasets` says of the columns, none if it did not write the file.

    Raises:
        InputError: if that cannot be read: labels would be taken for numbers.
    """
    text = (schema.metadata or {}).get(b"huggingface")
    if text is None:
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path}: its metadata 'huggingface', which names classes, cannot be read: {_one_line(error)}"
        ) from None
    for name in ("info", "features"):
        if not isinstance(found, dict):
            break
        found = found.get(name) or {}
    if not isinstance(found, dict):
        raise InputError(f"{path}: its metadata 'huggingface' has {describe(found)} where the columns' types should be")
    return found


def _with_names(value: Any, feature: Any) -> Any:
    """Return a value with the names of its classes, wherever `datasets` says that a number is a class.

    Args:
        value: as stored.
        feature: `{"_type": "ClassLabel", "names": [...]}`; a list of such (`[...]`, or `{"feature": ...}` of a
            Sequence, List or LargeList); or of a struct by field.
    """
    if isinstance(feature, list):
        feature = {"feature": feature[0]} if feature else None
    if value is None or not isinstance(feature, dict):
        return value
    if feature.get("_type") == "ClassLabel":
        return _class_name(value, feature.get("names"))
    if "feature" in feature and isinstance(value, list):
        return [_with_names(item, feature["feature"]) for item in value]
    if "feature" in feature and isinstance(value, dict) and isinstance(feature["feature"], dict):
        # A Sequence of structs is stored as a struct of lists.
        return {name: _with_names(item, [feature["feature"].get(name)]) for name, item in value.items()}
    if isinstance(value, dict):
        return {name: _with_names(item, feature.get(name)) for name, item in value.items()}
    return value


def _class_name(label: Any, names: Any) -> Any:
    """Return the name of a class, given by number or, as `datasets` takes it too, by its name or number as text."""
    if not isinstance(names, list) or isinstance(label, Unreadable) or (isinstance(label, str) and label in names):
        return label
    label = _class_number(label)
    if isinstance(label, str):
        return Unreadable(f"holds {label[:80]!r}, which is not one of the {len(names)} classes that the file names")
    if not isinstance(label, int):
        return label
    if label == -1:  # what `datasets` writes where there is no label
        return None
    if not 0 <= label < len(names):
        return Unreadable(f"holds class {label}, and the file names {len(names)} classes, from 0")
    return names[label]


def _class_number(label: Any) -> Any:
    if isinstance(label, float | np.floating) and label.is_integer():
        return int(label)  # pandas makes integers floats where one is missing
    return int(label) if isinstance(label, str) and _WHOLE_NUMBER.fullmatch(label) else label


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
