"""A run folder that a sweep has finished, opened for the commands that read one."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from adallava.records import Results, Run, SampleRecord
from adallava.records.read import read_results, read_run, read_samples

from .streams import say


@dataclass(frozen=True)
class FinishedRun:
    """What a run folder says.

    Attributes:
        folder: as the caller named it.
        run: what was asked for.
        results: the cells, summed up.
    """

    folder: Path
    run: Run
    results: Results

    def samples(self) -> Iterator[SampleRecord]:
        """Yield its answers, in file order; see `read_samples`."""
        return read_samples(self.folder, partial(say, error=True))


def open_run(folder: Path) -> FinishedRun:
    """Open a run folder.

    Raises:
        RunFolderError: if `run.json` or `results.json`, which a sweep writes last, is missing or damaged.
    """
    return FinishedRun(folder, read_run(folder), read_results(folder))
