"""One process answers all."""

from collections.abc import Sequence
from pathlib import Path

from adallava.records import SampleRecord
from adallava.records.journal import Journal
from adallava.runs.executors.shares import clear_standings
from adallava.runs.observer import SweepObserver
from adallava.runs.units import Work, answer_units


class LocalExecutor:
    """This process, and no other."""

    def __init__(self, folder: Path) -> None:
        """Take the run folder."""
        self._folder = folder

    def run(self, work: Work, journal: Journal, observer: SweepObserver) -> None:
        """Answer unit after unit; see `Executor.run`."""

        def keep(records: Sequence[SampleRecord]) -> None:
            journal.append(records)
            observer.answered(len(records), sum(record.score is None for record in records))

        observer.begin(work.num_answers, len(journal.done))
        answer_units(work, journal.done, keep, observer)
        # What an earlier launch of several processes left, which did not get that far.
        clear_standings(self._folder)
        journal.gather()
