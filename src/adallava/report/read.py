"""Read a run folder back into records, or say what is wrong with it."""

from collections.abc import Iterator
from pathlib import Path
from typing import TextIO, TypeVar

from pydantic import BaseModel, ValidationError

from adallava.errors import RunFolderError
from adallava.records import Results, Run, SampleRecord

_RecordT = TypeVar("_RecordT", bound=BaseModel)


def read_run(run_folder: Path) -> Run:
    """Return `run.json`.

    Raises:
        RunFolderError: if the file is missing or is not a `Run`.
    """
    return _read(Run, run_folder / "run.json")


def read_results(run_folder: Path) -> Results:
    """Return `results.json`.

    Raises:
        RunFolderError: if the file is missing or is not a `Results`.
    """
    return _read(Results, run_folder / "results.json")


def read_samples(run_folder: Path) -> Iterator[SampleRecord]:
    """Yield the lines of `samples.jsonl` in file order; a run may have more of them than fit in memory.

    Raises:
        RunFolderError: if the file is missing, or a line is not a `SampleRecord`.
    """
    path = run_folder / "samples.jsonl"
    with _open(path) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                yield SampleRecord.model_validate_json(line)
            except ValidationError as error:
                raise RunFolderError(_complaint(f"line {number} of {path}", error)) from error


def _open(path: Path) -> TextIO:
    try:
        return path.open(encoding="utf-8")
    except OSError as error:
        raise RunFolderError(
            f"{path} cannot be read ({error.strerror}): give a run folder that a sweep has finished"
        ) from error


def _read(record: type[_RecordT], path: Path) -> _RecordT:
    with _open(path) as file:
        text = file.read()
    try:
        return record.model_validate_json(text)
    except ValidationError as error:
        raise RunFolderError(_complaint(str(path), error)) from error


def _complaint(where: str, error: ValidationError) -> str:
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"]) or "the whole"
    return (
        f"{where} is not what this version of adallava writes: {field}: {first['msg']}. "
        "Run the sweep again into a fresh folder, or use the version that wrote it"
    )
