"""A line of a file of records as a record, or what is wrong with it and what to do, alike for all readers."""

import json
import re
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from adallava.errors import RunFolderError

_RecordT = TypeVar("_RecordT", bound=BaseModel)

_ID = re.compile(rb'"sample_id":("(?:[^"\\]|\\.)*")')


def parse_line(path: Path, number: int, data: bytes, kind: type[_RecordT], context: str | None = None) -> _RecordT:
    """Return the record that a line holds.

    Args:
        path: of the file.
        number: of the line in it, from 1.
        data: the line.
        kind: of record.
        context: of reading it, such as `sample.WITHOUT_PATCHES`.

    Raises:
        RunFolderError: if it holds none: it is another's, damaged, or of a newer version.
    """
    try:
        return kind.model_validate_json(data, context=context)
    except ValidationError as error:
        raise RunFolderError(
            f"line {number} of {path} is not a {kind.__name__} of this version: {what_is_wrong(error)}. Remove that "
            "line: the others stay valid, and the same sweep continues with what is missing"
        ) from error


def what_is_wrong(error: ValidationError) -> str:
    """Return the first thing that is, and where in the record."""
    first = error.errors(include_url=False, include_input=False)[0]
    # What ran is not a field of a line: its own fields are.
    field = ".".join(str(part) for part in first["loc"] if part != "ran") or "the whole"
    return f"{field}: {first['msg']}"


def id_of(line: bytes) -> str | None:
    """Return whose answer a line is, without reading the rest of it; None where it does not say so plainly."""
    found = _ID.search(line)
    if found is None:
        return None
    try:
        return str(json.loads(found[1]))
    except ValueError:
        return None
