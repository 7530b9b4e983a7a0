"""The JSON files of a checkpoint, read within limits: a stranger wrote them."""

import json
import math
from pathlib import Path
from typing import Any

from adallava.errors import CheckpointError

MAX_JSON_BYTES = 256 * 1024 * 1024
"""Of one file; the largest published tokenizer.json has about 35 MB."""

MAX_DEPTH = 64
"""Of lists and objects in each other; a tokenizer.json has about 10."""

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
"""What Git leaves in a file's place where Git LFS is not installed."""


def check_regular(path: Path) -> None:
    """Refuse what is there and no regular file: a pipe or a device would be waited on, or never end.

    Raises:
        CheckpointError: naming it.
    """
    if path.exists() and not path.is_file():
        raise CheckpointError(f"{path} is not a regular file (a folder, a pipe or a device): only files are read")


def check_pointer(path: Path) -> None:
    """Refuse what Git leaves in a large file's place.

    Raises:
        CheckpointError: naming the command that fetches the file; or it is not a regular file.
    """
    check_regular(path)
    with path.open("rb") as file:
        if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
            raise CheckpointError(f"{path} is a pointer of Git LFS, not the file itself: run `git lfs pull` there")


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON file's object.

    Raises:
        CheckpointError: if it is missing, damaged, too large, or no regular file.
    """
    try:
        check_pointer(path)
        if path.stat().st_size > MAX_JSON_BYTES:
            raise CheckpointError(f"{path} has {path.stat().st_size} bytes: no JSON file of a model has so many")
        value = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except FileNotFoundError as error:
        raise CheckpointError(f"folder {str(path.parent)!r} has no {path.name}") from error
    except RecursionError as error:
        raise CheckpointError(f"{path} is damaged: it is nested too deeply") from error
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} is damaged: it holds no object")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"it holds {name}, which is not a JSON number")


def walk_json(path: Path, value: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return every value of an object, each with its keys and places joined by dots.

    Raises:
        CheckpointError: if it is nested deeper than any real file, or holds a number that is not finite (1e999).
    """
    found: list[tuple[str, Any]] = []
    waiting: list[tuple[str, Any, int]] = [("", value, 0)]
    while waiting:
        where, outer, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise CheckpointError(f"{path} is damaged: it is nested deeper than {MAX_DEPTH}")
        for key, inner in outer.items() if isinstance(outer, dict) else enumerate(outer):
            name = f"{where}.{key}" if where else str(key)
            if isinstance(inner, float) and not math.isfinite(inner):
                raise CheckpointError(f"{path} is damaged: {name} is {inner}, no finite number")
            found.append((name, inner))
            if isinstance(inner, dict | list):
                waiting.append((name, inner, depth + 1))
    return found
