"""One process answers all."""

from collections.abc import Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Self

from adallava.records import SampleRecord
from adallava.records.journal import Journal
from adallava.runs.executors.shares import clear_standings
from adallava.runs.load_sweep import Described, LoadedSweep, begin_hashing, load_sweep
from adallava.runs.observer import SweepObserver
from adallava.runs.request import SweepRequest
from adallava.runs.timing import TimedSize
from adallava.runs.units import answer_units
from adallava.tasks import Task


class LocalExecutor:
    """This process, and no other."""

    def __init__(self, request: SweepRequest, methods: Mapping[str, bool], task: Task) -> None:
        """Take what is asked for, its methods (`resolve_methods`) and its task."""
        self._request, self._methods, self._task = request, methods, task
        self._loaded: LoadedSweep | None = None

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing else was started."""

    @property
    def loaded(self) -> LoadedSweep:
        """What `load` has loaded."""
        assert self._loaded is not None
        return self._loaded

    def load(self, observer: SweepObserver) -> Described:
        """Load the model here; see `Executor.load`."""
        begin_hashing(self._request.config.model)
        self._loaded = load_sweep(self._request, observer, self._task, self._methods)
        return self._loaded.describe()

    def answer(self, journal: Journal, observer: SweepObserver) -> None:
        """Answer unit after unit; see `Executor.answer`."""
        work = self.loaded.work()
        observer.begin(work.num_answers, len(journal.done))
        answer_units(work, journal.done, partial(keep_answers, journal, observer), observer)
        # What an earlier launch of several processes left, which did not get that far.
        clear_standings(self._request.output)
        journal.gather()

    def time(self, batch_size: int) -> TimedSize:
        """Time every cell at a batch size; see `Executor.time`."""
        return self.loaded.time(batch_size)


def keep_answers(journal: Journal, observer: SweepObserver, records: Sequence[SampleRecord]) -> None:
    """Write a unit's records into the journal, and say so."""
    journal.append(records)
    observer.answered(len(records), sum(record.score is None for record in records))
