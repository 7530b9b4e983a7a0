"""What an actor of Ray is: a process with the model, that answers leases and holds no file of the run folder."""

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from adallava.errors import AdallavaError
from adallava.records.journal import AnswerLine, answer_lines
from adallava.runs.batches import describe_error
from adallava.runs.executors.leases import Lease
from adallava.runs.load_sweep import Described, LoadedSweep, begin_hashing, load_sweep
from adallava.runs.observer import SweepObserver
from adallava.runs.request import SweepRequest
from adallava.runs.timing import TimedSize
from adallava.runs.units import Unit, Work


@dataclass(frozen=True)
class Arrival:
    """A worker that has loaded, or was refused.

    Attributes:
        host: its name.
        described: what the sweep is there; None if it was refused.
        notes: what a person should know.
        refused: why it cannot answer.
    """

    host: str
    described: Described | None
    notes: tuple[str, ...] = ()
    refused: str = ""


@dataclass
class _Notes(SweepObserver):
    lines: list[str] = field(default_factory=list)

    def note(self, message: str) -> None:
        """Keep a note, to be said where the sweep is led."""
        self.lines.append(message)


class RayWorker:
    """One model on one device. The methods are called one after the other."""

    def __init__(self, request: SweepRequest, folder: str, prepare_process: Callable[[], None]) -> None:
        """Load nothing yet.

        Args:
            request: what to sweep.
            folder: that relative paths are meant from; itself relative to where Ray has started this process.
            prepare_process: is called before torch has loaded a model.
        """
        self._request, self._folder, self._prepare_process = request, folder, prepare_process
        self._loaded: LoadedSweep | None = None
        self._work: Work | None = None

    def load(self) -> Arrival:
        """Load the task and the model. A mistake is reported, not raised: it is read where the sweep is led."""
        with suppress(OSError):  # Of another host, which has none such: what is not found is said by name.
            os.chdir(self._folder)
        self._prepare_process()
        notes = _Notes()
        try:
            begin_hashing(self._request.config.model)
            self._loaded = load_sweep(self._request, notes)
            described = self._loaded.describe()
        except (AdallavaError, OSError) as error:
            said = str(error) if isinstance(error, AdallavaError) else describe_error(error)
            return Arrival(socket.gethostname(), None, tuple(notes.lines), said)
        self._work = self._loaded.work()
        return Arrival(socket.gethostname(), described, tuple(notes.lines))

    def answer(self, lease: Lease) -> list[AnswerLine]:
        """Answer the samples of a lease that have no answer yet, batch by batch."""
        assert self._loaded is not None
        assert self._work is not None
        plan, size = self._loaded.plans[lease.plan], self._loaded.config.batch_size
        samples = self._loaded.task.samples[lease.start : lease.stop]
        batches = [samples[i : i + size] for i in range(0, len(samples), size)]
        lines: list[AnswerLine] = []
        for batch in self._work.regroup(plan, lease.draw, batches) if len(batches) > 1 else batches:
            missing = lease.missing & {sample.id for sample in batch}
            if missing:
                records = self._work.answer(Unit(plan, lease.draw, batch, missing))
                lines += answer_lines(record for record in records if record.sample_id in missing)
        return lines

    def time(self, batch_size: int) -> TimedSize:
        """Time every cell at a batch size."""
        assert self._loaded is not None
        return self._loaded.time(batch_size)
