"""What an executor is: the units of a sweep go in, and when it returns, the journal has a record for each sample."""

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Protocol, Self

from adallava.errors import AdallavaError
from adallava.records.journal import Journal
from adallava.runs.load_sweep import Described
from adallava.runs.observer import SweepObserver
from adallava.runs.request import SweepRequest
from adallava.runs.timing import TimedSize
from adallava.tasks import Task


class ProcessEndedError(AdallavaError, RuntimeError):
    """Another process of the same sweep, which it cannot do without, has failed or died."""


class Executor(Protocol):
    """Answers what a journal does not hold yet. Every one gives the records of the local one.

    A context: what it has started ends with it.
    """

    def __enter__(self) -> Self:
        """Return itself."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End what it has started."""
        ...

    def load(self, observer: SweepObserver) -> Described:
        """Load the model, wherever it is to answer, and return what the sweep is. Called once, before all else.

        Raises:
            AdallavaError: for a mistake in the request.
            ProcessEndedError: if nothing could be started.
        """
        ...

    def answer(self, journal: Journal, observer: SweepObserver) -> None:
        """Answer, and put all of it into the journal, which has one writer.

        Raises:
            ProcessEndedError: if another process that it cannot do without fails or dies.
            RunFolderError: if answers cannot be written.
        """
        ...

    def time(self, batch_size: int) -> TimedSize:
        """Time every cell at a batch size, when all answers are there."""
        ...


MakeExecutor = Callable[[SweepRequest, Mapping[str, bool], Task], Executor]
"""Of what is asked for, its methods and its task."""
