"""Workers on the hosts of a Ray cluster answer; this process alone holds the run folder, and no model.

What a worker is given is at least once answered; the journal makes it once: of two answers the first stays.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from adallava.errors import InputError
from adallava.records.journal import AnswerLine, Journal, answer_lines
from adallava.records.run_identity import differences
from adallava.runs.answering import failed_record
from adallava.runs.executors.executor_contract import ProcessEndedError
from adallava.runs.executors.leases import LeaseBook
from adallava.runs.executors.ray_cluster import LOCAL, RayLaunch, connected, describe_cluster, import_ray
from adallava.runs.executors.ray_crew import Crew, Heard, Member
from adallava.runs.executors.ray_worker import Arrival
from adallava.runs.executors.shares import clear_standings
from adallava.runs.load_sweep import Described
from adallava.runs.observer import SweepObserver
from adallava.runs.request import SweepRequest
from adallava.runs.timing import TimedSize
from adallava.tasks import Task

ASKED_AHEAD = 2
"""Leases that a worker holds: while one is answered and its answers travel, the next is there."""

POLL_S = 1.0
"""Between two looks at the cluster, where nothing comes back."""

ALONE_S = 900.0
"""How long a sweep waits for a worker when it has none, as when the last host is gone and another is to come."""

STRAGGLER_S = 300.0
"""How long the last leases are waited for before somebody idle answers them, too."""


class RayExecutor:
    """Leads a sweep on a Ray cluster."""

    def __init__(
        self,
        request: SweepRequest,
        methods: Mapping[str, bool],
        task: Task,
        *,
        launch: RayLaunch,
        prepare_process: Callable[[], None] = lambda: None,
    ) -> None:
        """Take what any executor does, and where the cluster is.

        Args:
            request: what to sweep.
            methods: of `resolve_methods`.
            task: the samples.
            launch: where.
            prepare_process: is called in each worker's process first; importable there.

        Raises:
            InputError: for a device by its number: Ray gives each worker its own.
        """
        device = request.config.device
        if device not in (None, "cpu", "cuda"):
            raise InputError(f"--device {device} with --executor ray: Ray gives each worker its GPU; give cuda or cpu")
        self._request, self._task, self._launch, self._prepare = request, task, launch, prepare_process
        self._exit = ExitStack()
        self._crew: Crew | None = None
        self._described: Described | None = None
        self._reported: set[str] = set()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the workers, and leave the cluster."""
        for member in list(self._crew.members if self._crew is not None else ()):
            self.crew.dismiss(member)
        self._exit.close()

    @property
    def crew(self) -> Crew:
        """The workers."""
        assert self._crew is not None
        return self._crew

    def load(self, observer: SweepObserver) -> Described:
        """Connect, begin workers, and take from the first that has loaded what the sweep is; see `Executor.load`."""
        self._connect(observer)
        deadline = time.monotonic() + ALONE_S
        refused = ""
        while self._described is None:
            self.crew.grow()
            for heard in self.crew.hear(POLL_S):
                self._note_coming_and_going(heard, observer)
                refused = refused or heard.gone or (heard.arrival.refused if heard.arrival else "")
            if self._described is None and self.crew.stuck:
                raise InputError(refused)
            if self._described is None and time.monotonic() > deadline:
                raise ProcessEndedError(f"no worker has begun within {ALONE_S:.0f} s: is the cluster busy?")
        return self._described

    def _connect(self, observer: SweepObserver) -> None:
        alone = self._launch.address == LOCAL
        import_ray()
        if alone:
            observer.note("starting a Ray cluster on this machine for this sweep; --address joins a running one")
        ray = self._exit.enter_context(connected(self._launch, self._request.output))
        if not alone:
            observer.note(f"Ray cluster: {describe_cluster(ray, self._launch, self._request.config.device)}")
        self._crew = Crew(ray, self._launch, self._request, self._prepare)

    def answer(self, journal: Journal, observer: SweepObserver) -> None:
        """Hand out leases until every answer is in the journal; see `Executor.answer`."""
        assert self._described is not None
        clear_standings(self._request.output)
        plans, ids = self._described.plans, [sample.id for sample in self._task.samples]
        observer.begin(sum(plan.draws for plan in plans) * len(ids), len(journal.done))
        book = LeaseBook(plans, ids, self._described.run.config.batch_size, journal.done)
        shown, alone_since, heard_at = -1, time.monotonic(), time.monotonic()
        while not book.over:
            self.crew.grow()
            shown = self._hand_out(book, shown, observer, copies=time.monotonic() - heard_at > STRAGGLER_S)
            heard = list(self.crew.hear(POLL_S))
            heard_at = time.monotonic() if heard else heard_at
            self._take_in(heard, book, journal, observer)
            alone_since = time.monotonic() if any(m.ready for m in self.crew.members) else alone_since
            if self.crew.stuck:
                raise ProcessEndedError("no worker is left, and every host has been left out, as said above")
            if time.monotonic() - alone_since > ALONE_S:
                raise ProcessEndedError(f"no worker is left, and none has begun within {ALONE_S:.0f} s")
        self.crew.dismiss_all_but_one()

    def time(self, batch_size: int) -> TimedSize:
        """Have one worker time every cell, the others ended; see `Executor.time`."""
        if not self.crew.members:
            raise ProcessEndedError("no worker is left to time the cells: run the same command again")
        timed: TimedSize = self.crew.time(batch_size)
        return timed

    def _hand_out(self, book: LeaseBook, shown: int, observer: SweepObserver, *, copies: bool) -> int:
        """Give every worker what it can take; return the number of the cell that was shown last."""
        assert self._described is not None
        plans = self._described.plans
        ready = [member for member in self.crew.members if member.ready]
        # Whoever is loading will answer elsewhere, too; but nobody waits for that for ever.
        several = len({member.node_id for member in self.crew.members}) > 1 and not copies
        # Round by round: at the end nobody holds two while another holds none.
        for depth in range(1, ASKED_AHEAD + 1):
            for member in ready:
                place = member.node_id if several else None
                lease = book.take(member, place) if len(member.asked) < depth else None
                if lease is None and copies and not member.asked:
                    slow = next((other for other in ready if other.asked), None)
                    lease = None if slow is None else book.take_copy(member, slow)
                if lease is None:
                    continue
                if lease.plan > shown:
                    shown = lease.plan
                    observer.cell(plans[shown].cell, shown + 1, len(plans))
                self.crew.ask(member, lease)
        return shown

    def _take_in(self, heard: list[Heard], book: LeaseBook, journal: Journal, observer: SweepObserver) -> None:
        """Put what came back into the journal, all of it in one write, and give out again what did not."""
        assert self._described is not None
        lines = [line for one in heard for line in self._believed(one, book, observer)]
        for one in heard:
            self._note_coming_and_going(one, observer)
            if one.gone:
                book.leave(one.member)
            elif one.failed and one.lease is not None:
                book.lose(one.member, one.lease)
                self._once(
                    observer, f"a worker on {one.member.host} failed at a batch, which goes out again: {one.failed}"
                )
        for lease in book.failed:
            plan = self._described.plans[lease.plan]
            why = f"WorkerEnded: it failed or ended {lease.losses} times while it answered this sample"
            samples = self._task.samples[lease.start : lease.stop]
            lines += answer_lines(failed_record(plan, lease.draw, sample, why) for sample in samples)
        book.failed.clear()
        new = journal.append_new(lines)
        if new:
            observer.answered(len(new), sum(line.failed for line in new))
        for one in heard:
            if one.lease is not None and not one.failed:
                book.settle(one.lease)

    def _believed(self, heard: Heard, book: LeaseBook, observer: SweepObserver) -> Sequence[AnswerLine]:
        """Return what came back, but for samples that failed where another host may see more: an image, or a GPU."""
        member, lease = heard.member, heard.lease
        failed = frozenset(line.key[1] for line in heard.lines if line.failed)
        if lease is None:
            return ()
        if failed and lease.doubted is None and self.crew.has_others_than(member.node_id):
            book.doubt(lease, failed, member.node_id)
            return [line for line in heard.lines if not line.failed]
        if lease.doubted not in (None, member.node_id) and len(failed) < len(heard.lines):
            there = self.crew.host_of(lease.doubted)
            self._once(observer, f"{member.host} answered samples that failed on {there}: does that one lack images?")
        return heard.lines

    def _note_coming_and_going(self, heard: Heard, observer: SweepObserver) -> None:
        member = heard.member
        if heard.gone:
            self._once(observer, f"a worker on {member.host} is gone, and what it was at goes to others: {heard.gone}")
        if heard.arrival is not None:
            self._check_arrival(member, heard.arrival, observer)

    def _check_arrival(self, member: Member, arrival: Arrival, observer: SweepObserver) -> None:
        """Take a worker, or leave it out: nobody may answer with another model than the first."""
        others = ""
        if arrival.described is not None:
            for note in arrival.notes:
                self._once(observer, note)
            self._described = self._described or arrival.described
            others = "; ".join(differences(self._described.run, arrival.described.run))
        if arrival.described is None or others:
            why = arrival.refused or f"it would run another sweep: {others}"
            self._once(observer, f"host {arrival.host} is left out: {why}")
            self.crew.dismiss(member, node_too=True)

    def _once(self, observer: SweepObserver, message: str) -> None:
        if message not in self._reported:
            self._reported.add(message)
            observer.note(message)
