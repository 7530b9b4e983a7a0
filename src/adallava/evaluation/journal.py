"""A run folder that survives being killed at any byte.

`samples.jsonl` only grows; a kill can tear its last line, which opening cuts off. `run.json`, `timings.jsonl` and
`results.json` appear whole or not at all. One launch at a time: the kernel's lock on `.lock` falls with the
process that held it. Of a launch of several processes (`shares.py`) the others append to `samples-<rank>.jsonl`, which
opening, and the end, move into `samples.jsonl`.
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

from .file_locks import without_writer

RUN_FILE = "run.json"
SAMPLES_FILE = "samples.jsonl"
TIMINGS_FILE = "timings.jsonl"
RESULTS_FILE = "results.json"
TASK_FIGURES_FILE = "task_figures.json"

AnswerKey = tuple[str, str, int]
"""What no two answers of a run share: cell, sample and draw."""

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
        run: what `run.json` says.
        records: everything written so far, in file order.
    """

    def __init__(self, folder: Path, run: Run, *, retry_failed: bool = False) -> None:
        """Start a run in `folder`, or go on with it if the folder holds the same run.

        Args:
            folder: locked by `locked_folder`.
            run: what is about to run. Of a run that the folder has already, what it says there stays, but for the batch
                sizes to time at, which decide no answer: those of both are kept.
            retry_failed: forget failed samples, so that they run again.

        Raises:
            RunFolderError: if the folder holds another run, naming what differs, or a damaged one.
        """
        self.folder = folder
        self._path = folder / SAMPLES_FILE
        self.run = _claim(folder, run)
        self.records = _read_untorn(self._path)
        if len(_by_key(self.records)) != len(self.records):
            raise RunFolderError(f"{self._path} holds an answer twice: give another --output")
        self.gather()
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
        append_durably(self._file, records)
        self.records.extend(records)

    def gather(self) -> None:
        """Move what other processes of a launch have answered into `samples.jsonl`, and drop their files.

        Of an answer that is there twice the one written first stays, whatever the two say: both are of the same model,
        sample and seed, and neither is better.

        Raises:
            RunFolderError: if one of them is still at work, as after its launcher alone was killed, or left damage.
        """
        for path in sorted(self.folder.glob(share_file(self.folder, "*").name)):
            with without_writer(path):
                known = {answer_key(record) for record in self.records}
                # Killed between the two steps below, a former call has moved them already.
                new = [record for key, record in _by_key(_read_untorn(path)).items() if key not in known]
                with self._path.open("ab") as file:
                    append_durably(file, new)
                path.unlink()
            self.records.extend(new)


def share_file(folder: Path, rank: int | str) -> Path:
    """Return the file that the process of this rank, other than 0, appends its answers to."""
    return folder / f"samples-{rank}.jsonl"


def append_durably(file: IO[bytes], records: Sequence[SampleRecord]) -> None:
    """Add lines to a file, and return when they are on disk."""
    file.write(b"".join(map(_line, records)))
    file.flush()
    os.fsync(file.fileno())


def read_answer_keys(folder: Path) -> set[AnswerKey]:
    """Return what `samples.jsonl` has answers of, while another process may be appending to it.

    Raises:
        RunFolderError: for a line that is not a `SampleRecord`.
    """
    path = folder / SAMPLES_FILE
    whole, _, _ = path.read_bytes().rpartition(b"\n")
    lines = whole.split(b"\n") if whole else []
    return {answer_key(_parse(path, number, line, SampleRecord)) for number, line in enumerate(lines, start=1)}


def answer_key(record: SampleRecord) -> AnswerKey:
    """Return the key of an answer."""
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


def _claim(folder: Path, run: Run) -> Run:
    existing = read_run(folder)
    if existing is None:
        if any(folder.glob("samples*.jsonl")) or (folder / RESULTS_FILE).exists():
            raise RunFolderError(f"{folder} holds results without {RUN_FILE}: give another --output")
        write_record(folder / RUN_FILE, run)
        return run
    differing = list(differences(existing, run))
    if differing:
        raise RunFolderError(
            f"{folder} holds another run, and the two are never mixed: {'; '.join(differing)}. "
            "Give another --output, or ask for the same run to resume it"
        )
    joined = _with_timing_of_both(existing, run)
    if joined != existing:
        write_record(folder / RUN_FILE, joined)
    return joined


def _with_timing_of_both(there: Run, asked: Run) -> Run:
    sizes = sorted({*there.config.timing_batch_sizes, *asked.config.timing_batch_sizes})
    return there.model_copy(update={"config": there.config.model_copy(update={"timing_batch_sizes": sizes})})


def differences(there: Run, asked: Run) -> Iterator[str]:
    """Name everything that decides answers and differs between two runs, with both values."""
    for name, old, new in _identity_pairs(there, asked):
        if old != new:
            yield f"{name} is {old!r} there and {new!r} now"


def _identity_pairs(there: Run, asked: Run) -> Iterable[tuple[str, Any, Any]]:
    old, new = (one.config.model_dump(exclude={"timing_batch_sizes"}) for one in (there, asked))
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
    return [_parse(path, number, line, SampleRecord) for number, line in enumerate(lines, start=1)]


def _by_key(records: Iterable[SampleRecord]) -> dict[AnswerKey, SampleRecord]:
    """Return the records in their order; of those with one key, the first."""
    first: dict[AnswerKey, SampleRecord] = {}
    for record in records:
        first.setdefault(answer_key(record), record)
    return first


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
