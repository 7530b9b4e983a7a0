"""A run folder that survives being killed at any byte.

`samples.jsonl` only grows; a kill can tear its last line, which opening cuts off. `run.json`, `timings.jsonl` and
`results.json` appear whole or not at all. One launch at a time: the kernel's lock on `.lock` falls with the
process that held it. Of a launch of several processes (`shares.py`) the others append to `samples-<rank>.jsonl`, which
opening, and the end, move into `samples.jsonl`. Answers are never all in memory: only their places are kept.
"""

import fcntl
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

from pydantic import BaseModel, ValidationError

from adallava.errors import RunFolderError
from adallava.records import Run, SampleRecord, TimingRecord
from adallava.records.answer_places import AnswerKey, AnswerPlaces, answer_key
from adallava.records.durable import PARTIAL_SUFFIX, append_durably, close_file, make_folder, write_atomically, writing
from adallava.records.file_locks import without_writer
from adallava.records.jsonl import Line, read_lines
from adallava.records.lines import parse_line
from adallava.records.regular_files import check_regular, open_regular, read_regular
from adallava.records.run_identity import at_limit_of, differences, extends, joined
from adallava.records.sample import WITHOUT_PATCHES

RUN_FILE = "run.json"
SAMPLES_FILE = "samples.jsonl"
TIMINGS_FILE = "timings.jsonl"
RESULTS_FILE = "results.json"
TASK_FIGURES_FILE = "task_figures.json"
REPORT_FILE = "report.html"

_RecordT = TypeVar("_RecordT", bound=BaseModel)

_LOCK_FILE = ".lock"
_CHUNK_BYTES = 2**16


@dataclass(frozen=True, slots=True)
class AnswerLine:
    """An answer as a line of `samples.jsonl`, made by whoever answered and written by whoever holds the folder.

    Attributes:
        key: of the answer.
        failed: whether it has no score.
        data: the line, its end among it.
    """

    key: AnswerKey
    failed: bool
    data: bytes


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Create `folder` and hold it for this process alone.

    Raises:
        RunFolderError: if another process holds it.
    """
    make_folder(folder)
    check_regular(folder / _LOCK_FILE)
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
        done: which answers are on disk, but for those that others of a launch have written since the last `gather`.
    """

    def __init__(
        self,
        folder: Path,
        run: Run,
        *,
        retry_failed: bool = False,
        sha256_of_first: Callable[[int], str | None] | None = None,
    ) -> None:
        """Start a run in `folder`, or go on with it if the folder holds the same run.

        Args:
            folder: locked by `locked_folder`.
            run: what is about to run. Of a run that the folder has already, what it says there stays, but for a larger
                limit, which extends it, and the batch sizes to time at, which decide no answer: those of both are kept.
            retry_failed: forget failed samples, so that they run again.
            sha256_of_first: what the run's `task_sha256` would be at a smaller limit; by default the same.

        Raises:
            RunFolderError: if the folder holds another run, naming what differs, or a damaged one.
        """
        self.folder = folder
        self._path = folder / SAMPLES_FILE
        self.run = _claim(folder, run, sha256_of_first or (lambda _: run.provenance.task_sha256))
        _drop_unfinished(folder)
        _cut_torn_line(self._path)
        self.done = self._find_answers()
        self.gather()
        if retry_failed and _forget_failed(self._path):
            self.done = self._find_answers()
        self._file: IO[bytes] = self._path.open("ab")

    def __enter__(self) -> "Journal":
        """Return the journal itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the file; what was appended is on disk already."""
        close_file(self._file)

    def append(self, records: Sequence[SampleRecord]) -> None:
        """Add records and return when they are on disk.

        Raises:
            RunFolderError: if they cannot be written.
        """
        self._append(answer_lines(records))

    def append_new(self, lines: Sequence[AnswerLine]) -> list[AnswerLine]:
        """Add the lines whose answers are not there yet, and return those when they are on disk.

        Raises:
            RunFolderError: if they cannot be written.
        """
        first = {line.key: line for line in reversed(lines)}
        new = [line for line in lines if line.key not in self.done and first[line.key] is line]
        if new:
            self._append(new)
        return new

    def _append(self, lines: Sequence[AnswerLine]) -> None:
        place = self._file.seek(0, os.SEEK_END)
        append_durably(self._file, [line.data for line in lines])
        for line in lines:
            self.done.add(line.key, place)
            place += len(line.data)

    def read_cell(self, cell: str) -> list[SampleRecord]:
        """Return the answers of one cell, in file order, without the patches that each kept.

        The journal may be closed by then.
        """
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            return [self._read_at(file, place) for place in self.done.of_cell(cell)]

    def gather(self) -> None:
        """Move what other processes of a launch have answered into `samples.jsonl`, and drop their files.

        Of an answer that is there twice the one written first stays, whatever the two say: both are of the same model,
        sample and seed, and neither is better.

        Raises:
            RunFolderError: if one of them is still at work, as after its launcher alone was killed, or left damage, or
                their answers cannot be written.
        """
        for path in share_files(self.folder):
            with without_writer(path):
                _cut_torn_line(path)
                with writing(self._path, "ab") as file:
                    append_durably(file, self._new_lines(path, file.seek(0, os.SEEK_END)))
                path.unlink()

    def _find_answers(self) -> AnswerPlaces:
        """Read through `samples.jsonl` once.

        Raises:
            RunFolderError: if a line is not an answer, or an answer is there twice.
        """
        done = AnswerPlaces()
        for line, record in _read_answers(self._path):
            if not done.add(answer_key(record), line.place):
                raise RunFolderError(
                    f"line {line.number} of {self._path} holds an answer twice ({record.cell}, {record.sample_id}): "
                    "remove that line"
                )
        return done

    def _new_lines(self, path: Path, place: int) -> Iterator[bytes]:
        """Yield the lines of a share to write from byte `place` on: those of answers not there yet."""
        for line, record in _read_answers(path):
            # Killed between moving and dropping a file, a former call has moved some already.
            if self.done.add(answer_key(record), place):
                yield line.data
                place += len(line.data)

    def _read_at(self, file: IO[bytes], place: int) -> SampleRecord:
        file.seek(place)
        return SampleRecord.model_validate_json(file.readline(), context=WITHOUT_PATCHES)


def share_file(folder: Path, rank: int) -> Path:
    """Return the file that the process of this rank, other than 0, appends its answers to."""
    return folder / f"samples-{rank}.jsonl"


def share_files(folder: Path) -> list[Path]:
    """Return those of all ranks that are there; a user's own `samples-backup.jsonl` is none."""
    found = {path: path.stem.removeprefix("samples-") for path in folder.glob("samples-*.jsonl")}
    return sorted(path for path, rank in found.items() if rank.isascii() and rank.isdigit())


def answer_lines(records: Iterable[SampleRecord]) -> list[AnswerLine]:
    """Return the lines that answers are written as."""
    return [AnswerLine(answer_key(record), record.score is None, _line(record)) for record in records]


def record_lines(records: Iterable[BaseModel]) -> Iterator[bytes]:
    """Yield the lines that records are written as."""
    return map(_line, records)


def read_done(folder: Path) -> AnswerPlaces:
    """Return what `samples.jsonl` has answers of, while another process may be appending to it.

    Raises:
        RunFolderError: for a line that is not a `SampleRecord`.
    """
    done = AnswerPlaces()
    for line, record in _read_answers(folder / SAMPLES_FILE):
        done.add(answer_key(record), line.place)
    return done


def write_record(path: Path, record: BaseModel) -> None:
    """Write `run.json` or `results.json` atomically.

    Raises:
        RunFolderError: if it cannot be written.
    """
    write_atomically(path, [record.model_dump_json(indent=2).encode() + b"\n"])


def write_timings(folder: Path, timings: Sequence[TimingRecord]) -> None:
    """Replace `timings.jsonl` by the given lines, atomically.

    Raises:
        RunFolderError: if it cannot be written.
    """
    write_atomically(folder / TIMINGS_FILE, record_lines(timings))


def read_timings(folder: Path) -> list[TimingRecord]:
    """Return the lines of `timings.jsonl`, without a torn last one; none if there is no such file.

    Raises:
        RunFolderError: for a line that is not a `TimingRecord`.
    """
    path = folder / TIMINGS_FILE
    whole = read_regular(path).rpartition(b"\n")[0] if path.exists() else b""
    lines = whole.split(b"\n") if whole else []
    return [parse_line(path, number, line, TimingRecord) for number, line in enumerate(lines, start=1) if line.strip()]


def find_run(folder: Path) -> Run | None:
    """Return the folder's `run.json`, or None if it has none.

    Raises:
        RunFolderError: if it cannot be read as one.
    """
    path = folder / RUN_FILE
    if not path.exists():
        return None
    try:
        return Run.model_validate_json(read_regular(path))
    except (ValidationError, OSError) as error:
        raise RunFolderError(
            f"{path} is not a run of this version: {_first_line(error)}; give another --output"
        ) from None


def _drop_unfinished(folder: Path) -> None:
    """Drop what a kill has left of files that this run may not write again, as it does `results.json`."""
    for name in (RUN_FILE, SAMPLES_FILE, TIMINGS_FILE, TASK_FIGURES_FILE, REPORT_FILE):
        (folder / f"{name}{PARTIAL_SUFFIX}").unlink(missing_ok=True)


def _claim(folder: Path, run: Run, sha256_of_first: Callable[[int], str | None]) -> Run:
    existing = find_run(folder)
    if existing is None:
        if share_files(folder) or any((folder / name).exists() for name in (SAMPLES_FILE, TIMINGS_FILE, RESULTS_FILE)):
            raise RunFolderError(f"{folder} holds results without {RUN_FILE}: give another --output")
        write_record(folder / RUN_FILE, run)
        return run
    differing = list(differences(existing, at_limit_of(existing, run, sha256_of_first)))
    if differing:
        raise RunFolderError(
            f"{folder} holds another run, and the two are never mixed: {'; '.join(differing)}. "
            "Give another --output, or ask for the same run to resume it"
        )
    if extends(existing, run):
        # First, so that no kill leaves the figures of fewer samples next to the run of more.
        for name in (REPORT_FILE, TASK_FIGURES_FILE, RESULTS_FILE):
            (folder / name).unlink(missing_ok=True)
    now = joined(existing, run)
    if now != existing:
        write_record(folder / RUN_FILE, now)
    return now


def _read_answers(path: Path) -> Iterator[tuple[Line, SampleRecord]]:
    """Yield the whole lines of a file of answers, and what they say but for patches; none if it is not there."""
    if not path.exists():
        return
    with open_regular(path) as file:
        for line in read_lines(file):
            if line.torn:
                # What follows, if anything by now, would be the rest of it.
                return
            if line.blank:
                continue
            yield line, parse_line(path, line.number, line.data, SampleRecord, WITHOUT_PATCHES)


def _cut_torn_line(path: Path) -> None:
    """Cut a last line without its end off a file."""
    if not path.exists():
        return
    with open_regular(path) as file:
        size = whole = file.seek(0, os.SEEK_END)
        while whole:
            start = max(0, whole - _CHUNK_BYTES)
            file.seek(start)
            ended = file.read(whole - start).rfind(b"\n") + 1
            whole = start + ended
            if ended:
                break
    if whole < size:
        os.truncate(path, whole)


def _forget_failed(path: Path) -> bool:
    """Leave the failed answers out of a file, and return whether there were any."""
    if not any(record.score is None for _, record in _read_answers(path)):
        return False
    write_atomically(path, (line.data for line, record in _read_answers(path) if record.score is not None))
    return True


def _line(record: BaseModel) -> bytes:
    return record.model_dump_json().encode() + b"\n"


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
