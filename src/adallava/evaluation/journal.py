"""A run folder that survives being killed at any byte.

`samples.jsonl` only grows; a kill can tear its last line, which opening cuts off. `run.json`, `timings.jsonl` and
`results.json` appear whole or not at all. One process at a time: the kernel's lock on `.lock` falls with the
process that held it.
"""

import fcntl
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

from pydantic import BaseModel, ValidationError

from adallava.errors import RunFolderError
from adallava.records import Run, SampleRecord, TimingRecord

RUN_FILE = "run.json"
SAMPLES_FILE = "samples.jsonl"
TIMINGS_FILE = "timings.jsonl"
RESULTS_FILE = "results.json"
TASK_FIGURES_FILE = "task_figures.json"

_RecordT = TypeVar("_RecordT", bound=BaseModel)

_LOCK_FILE = ".lock"
_NUMERIC_VERSIONS = ("torch", "transformers")


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Create `folder` and hold it for this process alone.

    Raises:
        RunFolderError: if another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK_FILE).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunFolderError(
                f"another process is writing {folder}: wait for it, or give another --output"
            ) from None
        yield


class Journal:
    """The open `samples.jsonl` of a locked run folder: what is done, and a place for what comes next.

    Attributes:
        folder: the run folder.
        records: everything written so far, in file order.
    """

    def __init__(self, folder: Path, run: Run, *, retry_failed: bool = False) -> None:
        """Start a run in `folder`, or go on with it if the folder holds the same run.

        Args:
            folder: locked by `locked_folder`.
            run: what is about to run; kept as it is if the folder has its equal already.
            retry_failed: forget failed samples, so that they run again.

        Raises:
            RunFolderError: if the folder holds another run, naming what differs, or a damaged one.
        """
        self.folder = folder
        self._path = folder / SAMPLES_FILE
        _claim(folder, run)
        self.records = _read_untorn(self._path)
        if retry_failed and any(record.score is None for record in self.records):
            self.records = [record for record in self.records if record.score is not None]
            write_atomically(self._path, b"".join(map(_line, self.records)))
        self._file: IO[bytes] = self._path.open("ab")

    def __enter__(self) -> "Journal":
        """Return the journal itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the file; what was appended is on disk already."""
        self._file.close()

    def append(self, records: Sequence[SampleRecord]) -> None:
        """Add records and return when they are on disk."""
        self._file.write(b"".join(map(_line, records)))
        self._file.flush()
        os.fsync(self._file.fileno())
        self.records.extend(records)


def answer_key(record: SampleRecord) -> tuple[str, str, int]:
    """Return what no two answers of a run share: cell, sample and draw."""
    return record.cell, record.sample_id, record.draw


def write_atomically(path: Path, data: bytes) -> None:
    """Replace `path` by `data`: a reader, or a kill, meets the old file or the new one and never a part."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_record(path: Path, record: BaseModel) -> None:
    """Write `run.json` or `results.json` atomically."""
    write_atomically(path, record.model_dump_json(indent=2).encode() + b"\n")


def write_timings(folder: Path, timings: Sequence[TimingRecord]) -> None:
    """Replace `timings.jsonl` by the given lines, atomically."""
    write_atomically(folder / TIMINGS_FILE, b"".join(map(_line, timings)))


def read_timings(folder: Path) -> list[TimingRecord]:
    """Return the lines of `timings.jsonl`, without a torn last one; none if there is no such file.

    Raises:
        RunFolderError: for a line that is not a `TimingRecord`.
    """
    path = folder / TIMINGS_FILE
    whole = path.read_bytes().rpartition(b"\n")[0] if path.exists() else b""
    lines = whole.split(b"\n") if whole else []
    return [_parse(path, number, line, TimingRecord) for number, line in enumerate(lines, start=1)]


def read_run(folder: Path) -> Run | None:
    """Return the folder's `run.json`, or None if it has none.

    Raises:
        RunFolderError: if it cannot be read as one.
    """
    path = folder / RUN_FILE
    if not path.exists():
        return None
    try:
        return Run.model_validate_json(path.read_bytes())
    except (ValidationError, OSError) as error:
        raise RunFolderError(
            f"{path} is not a run of this version: {_first_line(error)}; give another --output"
        ) from None


def _claim(folder: Path, run: Run) -> None:
    existing = read_run(folder)
    if existing is None:
        if (folder / SAMPLES_FILE).exists() or (folder / RESULTS_FILE).exists():
            raise RunFolderError(f"{folder} holds results without {RUN_FILE}: give another --output")
        write_record(folder / RUN_FILE, run)
        return
    differing = list(differences(existing, run))
    if differing:
        raise RunFolderError(
            f"{folder} holds another run, and the two are never mixed: {'; '.join(differing)}. "
            "Give another --output, or ask for the same run to resume it"
        )


def differences(there: Run, asked: Run) -> Iterator[str]:
    """Name everything that decides answers and differs between two runs, with both values."""
    for name, old, new in _identity_pairs(there, asked):
        if old != new:
            yield f"{name} is {old!r} there and {new!r} now"


def _identity_pairs(there: Run, asked: Run) -> Iterable[tuple[str, Any, Any]]:
    old, new = there.config.model_dump(), asked.config.model_dump()
    yield from ((name, old[name], new[name]) for name in old)
    for name in ("adallava_version", "weights_sha256", "adapter_sha256", "scheduler_sha256", "task_sha256"):
        yield name, getattr(there.provenance, name), getattr(asked.provenance, name)
    for name in _NUMERIC_VERSIONS:
        yield f"{name} version", there.provenance.versions.get(name), asked.provenance.versions.get(name)


def _read_untorn(path: Path) -> list[SampleRecord]:
    """Read the records and cut a torn last line off the file."""
    if not path.exists():
        return []
    data = path.read_bytes()
    whole, _, torn = data.rpartition(b"\n")
    if torn:
        os.truncate(path, len(data) - len(torn))
    lines = whole.split(b"\n") if whole else []
    records = [_parse(path, number, line, SampleRecord) for number, line in enumerate(lines, start=1)]
    if len({answer_key(record) for record in records}) != len(records):
        raise RunFolderError(f"{path} holds an answer twice: give another --output")
    return records


def _parse(path: Path, number: int, line: bytes, kind: type[_RecordT]) -> _RecordT:
    try:
        return kind.model_validate_json(line)
    except ValidationError as error:
        raise RunFolderError(
            f"{path}, line {number} is not a {kind.__name__}: {_first_line(error)}; give another --output"
        ) from None


def _line(record: BaseModel) -> bytes:
    return record.model_dump_json().encode() + b"\n"


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
