"""Rows of a local file, read a few at a time: the texts once, the image of one row when it is needed."""

from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from adallava.errors import InputError

Row = Mapping[str, Any]
"""Values by column, as JSON's or pyarrow's types; what cannot be read is a `values.Unreadable`."""

_TO_JSONL = ".to_json({jsonl!r}, orient='records', lines=True)"
_ADVICE = {
    ".csv": f": pandas writes it as one, by read_csv({{path!r}}){_TO_JSONL}",
    ".tsv": f": pandas writes it as one, by read_csv({{path!r}}, sep='\\t'){_TO_JSONL}",
    ".json": ": write one JSON object a line, without the list around them, to a .jsonl file",
}
"""What to do with a file that is not read, by its ending."""


class Rows(Protocol):
    """A file's rows, numbered from 0."""

    columns: tuple[str, ...]

    def read(
        self, columns: Sequence[str], image: str | None, wanted: Container[int], end: int | None
    ) -> dict[int, Row]:
        """Return rows by number, fewer if the file ends before.

        Args:
            columns: to return.
            image: a column of pictures, of which only the paths are returned, see `references.named_paths`.
            wanted: numbers of the rows.
            end: none of them is this one or a later one; None for all to the end of the file.
        """
        ...

    def where(self, row: int) -> str:
        """Return how to name a row that was read: with the file, and a number that its user can count to."""
        ...

    def picture(self, row: int, column: str) -> Any:
        """Return what `column` of one row that was read holds, see `references.PictureFolder.sources`.

        Raises:
            InputError: if the row cannot be read any more.
        """
        ...


def open_rows(path: Path) -> Rows:
    """Open a `.jsonl` or `.parquet` file.

    Raises:
        InputError: if it is missing, has another suffix, or cannot be read.
    """
    if path.is_dir():
        raise InputError(f"task {path} is a folder: name the .jsonl or .parquet file in it")
    if not path.is_file():
        raise InputError(f"task file {path} does not exist: check the path (the bundled task is 'scenes')")
    match path.suffix.lower():
        case ".jsonl":
            from .jsonl_rows import JsonlRows

            return JsonlRows(path)
        case ".parquet":
            from .parquet_rows import ParquetRows

            return ParquetRows(path)
    advice = _ADVICE.get(path.suffix.lower(), "").format(path=str(path), jsonl=str(path.with_suffix(".jsonl")))
    raise InputError(f"task file {path} is neither .jsonl nor .parquet{advice}")
