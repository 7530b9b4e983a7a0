"""Read what lmms-eval wrote of its samples, in the forms of its versions: a line each, or one document of all."""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from adallava.errors import InputError
from adallava.records.regular_files import open_regular

Row = dict[str, Any]

MAX_UNPACKED_BYTES = 2**30
"""Of a gzipped file, which may hold a thousand times its size."""


def read_rows(path: Path) -> tuple[list[Row], object]:
    """Return the rows of a file, gzipped or not, and the `model_args` that a document of an older version holds.

    Raises:
        InputError: for a file that is neither lines of JSON objects, nor a list of them, nor has one under `logs`.
    """
    text = _read_text(path)
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return list(_parse_lines(path, text)), None
    if isinstance(document, dict) and isinstance(document.get("logs"), list):
        arguments = document.get("args")
        return _checked(path, document["logs"]), arguments.get("model_args") if isinstance(arguments, dict) else None
    return _checked(path, document if isinstance(document, list) else [document]), None


def _read_text(path: Path) -> str:
    try:
        with open_regular(path) as file:
            return (_unpacked(path, file) if path.suffix == ".gz" else file.read()).decode()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not text: {error}") from error


def _unpacked(path: Path, file: IO[bytes]) -> bytes:
    data = gzip.GzipFile(fileobj=file).read(MAX_UNPACKED_BYTES + 1)
    if len(data) > MAX_UNPACKED_BYTES:
        raise InputError(
            f"{path} unpacks to more than {MAX_UNPACKED_BYTES} bytes: if that is meant, unpack it yourself (gunzip)"
        )
    return data


def _parse_lines(path: Path, text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path} is not a JSONL file: line {number}: {error}") from error
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number}: not a samples line of lmms-eval, but a {type(row).__name__}")
        yield row


def _checked(path: Path, rows: list[Any]) -> list[Row]:
    if not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path} is not a samples file of lmms-eval: its entries are not objects")
    return rows


def responses_of(row: Row) -> list[str]:
    """Return what the model wrote: several, if a sample was asked several times.

    That is `resps` where there is one: lmms-eval leaves it out where its filters changed nothing, and a filter that
    writes "[invalid]" for an empty answer hides that it was empty. Versions differ in how deep they nest.

    Raises:
        KeyError: for a row with neither.
    """
    value = row["resps"] if "resps" in row else row["filtered_resps"]
    found = list(_leaves(value))
    return [str(one) for one in found] if found and all(isinstance(one, str) for one in found) else [_first(found)]


def _leaves(value: object) -> Iterator[object]:
    if isinstance(value, list):
        for one in value:
            yield from _leaves(one)
    else:
        yield value


def _first(found: list[object]) -> str:
    # Log-likelihoods are pairs of a number and whether it was the likeliest.
    return str(found[0]) if found else ""


def question_of(row: Row) -> str | None:
    """Return the prompt's text: `input`, or in older versions the first of `arguments`."""
    prompt = row.get("input")
    if isinstance(prompt, str):
        return prompt
    value = row.get("arguments")
    while isinstance(value, list | dict) and value:
        value = next(iter(value.values() if isinstance(value, dict) else value))
    return value if isinstance(value, str) else None


def score_of(row: Row, not_metrics: frozenset[str]) -> float | None:
    """Return the first metric that is a number, or keeps one as `score` for its aggregation (POPE, MME)."""
    for key, value in row.items():
        number = value.get("score") if isinstance(value, dict) else value
        if key not in not_metrics and isinstance(number, int | float):
            return float(number)
    return None
