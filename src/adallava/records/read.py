"""Read a run folder back into records, or say what is wrong with it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TypeVar

from pydantic import BaseModel, ValidationError

from adallava.errors import RunFolderError
from adallava.records import Results, Run, SampleRecord
from adallava.records.answer_places import AnswerPlaces, answer_key
from adallava.records.jsonl import read_lines
from adallava.records.lines import id_of, parse_line, what_is_wrong
from adallava.records.regular_files import open_regular
from adallava.records.sample import WITHOUT_PATCHES

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


def read_samples(
    run_folder: Path,
    tell: Callable[[str], None] = lambda _: None,
    only: frozenset[str] | None = None,
    *,
    patches: bool = True,
) -> Iterator[SampleRecord]:
    """Yield the answers of `samples.jsonl` in file order; a run may have more of them than fit in memory.

    Args:
        run_folder: of a finished run.
        tell: called with a line to say: that the same line is there twice, and is read once.
        only: ids of the samples to read; None for all.
        patches: read which each kept, too.

    Raises:
        RunFolderError: if the file is missing, its last line is torn, a line is not a `SampleRecord`, or two lines hold
            one answer and differ.
    """
    path, places, repeated = run_folder / "samples.jsonl", AnswerPlaces(), 0
    with _open(path) as file:
        for line in read_lines(file):
            if line.blank:
                continue
            if line.torn:
                raise RunFolderError(
                    f"line {line.number} of {path} is torn, as after a kill: run the same sweep again, it continues "
                    "where it stopped"
                )
            # What does not say whose it is goes on, to be reported.
            if only is not None and (id_ := id_of(line.data)) is not None and id_ not in only:
                continue
            record = parse_line(path, line.number, line.data, SampleRecord, None if patches else WITHOUT_PATCHES)
            if places.add(answer_key(record), line.place):
                yield record
            elif _line_at(path, places.place(answer_key(record))) == line.data:
                repeated += 1
            else:
                raise RunFolderError(
                    f"line {line.number} of {path} is another answer to what a line before it answers ({record.cell}, "
                    f"{record.sample_id}, draw {record.draw}): remove the one that is not of this run"
                )
    if repeated:
        tell(f"note: {repeated} lines of {path} are there twice, and were read once")


def _line_at(path: Path, place: int) -> bytes:
    with _open(path) as file:
        file.seek(place)
        return file.readline()


def _open(path: Path) -> IO[bytes]:
    try:
        return open_regular(path)
    except OSError as error:
        raise RunFolderError(
            f"{path} cannot be read ({error.strerror}): give a run folder that a sweep has finished"
        ) from error


def _read(record: type[_RecordT], path: Path) -> _RecordT:
    with _open(path) as file:
        data = file.read()
    try:
        return record.model_validate_json(data)
    except ValidationError as error:
        raise RunFolderError(
            f"{path} is not what this version of adallava writes: {what_is_wrong(error)}. "
            "Run the sweep again into a fresh folder, or use the version that wrote it"
        ) from error
