"""What an executor is: the units of a sweep go in, and when it returns, the journal has a record for each sample."""

from typing import Protocol

from adallava.records.journal import Journal
from adallava.runs.observer import SweepObserver
from adallava.runs.units import Work


class Executor(Protocol):
    """Answers what a journal does not hold yet. Every one gives the records of the local one."""

    def run(self, work: Work, journal: Journal, observer: SweepObserver) -> None:
        """Answer, and put all of it into the journal, which has one writer.

        Raises:
            ProcessEndedError: if another process of the sweep fails or dies.
            RunFolderError: if answers cannot be written.
        """
        ...
