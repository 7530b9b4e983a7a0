"""Who answers what, where workers come and go: the batches of a sweep as leases, each given back, lost, or cut smaller.

Plain bookkeeping of one process, without a model, a clock's reading or a network: the executor asks and tells.
"""

from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace

from adallava.records.answer_places import AnswerPlaces
from adallava.records.cells import CellPlan

SORTED_BATCHES = 8
"""Batches of a lease whose worker sorts their samples by plan (`plan_order`): too few leave nothing to sort."""

AS_IT_IS = 1
"""Times that a lost lease is handed out again whole: whoever held it may have died of something else."""

GIVEN_UP = 3
"""Times that a lease of a single sample is lost before the sample has failed."""

WorkerId = Hashable
Place = Hashable
"""What workers share that see the same files."""


@dataclass(frozen=True)
class Lease:
    """Samples of the task, in a row, through one cell.

    Attributes:
        plan: number of the cell, from 0.
        draw: of a method that draws.
        start: the first sample, by its number in the task.
        stop: the one after the last.
        missing: ids of those that have no answer yet.
        losses: how often it, or what it was cut from, was lost while a worker was at it.
        doubted: the place where all of it failed, if another is to try; None if not.
    """

    plan: int
    draw: int
    start: int
    stop: int
    missing: frozenset[str]
    losses: int = 0
    doubted: Place | None = None


class LeaseBook:
    """Every lease of a sweep, made when it is its turn: cell after cell, draw after draw.

    A worker is given the batches again that it had in the cells before, which it holds prepared; only those of a worker
    that is slower, or gone, go to others.
    """

    def __init__(self, plans: Sequence[CellPlan], ids: Sequence[str], batch_size: int, done: AnswerPlaces) -> None:
        """Take the cells, the ids of the task's samples, and what is answered already, which is read as it grows."""
        self._plans, self._ids, self._batch_size, self._done = plans, ids, batch_size, done
        self._turns = self._make_turns()
        self._again: deque[Lease] = deque()
        self._free: deque[Lease] = deque()
        self._kept_for: dict[WorkerId, deque[Lease]] = {}
        self._home: dict[int, WorkerId] = {}
        self._held: dict[WorkerId, deque[Lease]] = {}
        self.failed: list[Lease] = []
        """Leases of one sample that were lost too often: whoever takes them out of here says so in a record."""

    @property
    def over(self) -> bool:
        """Whether nothing is left to hand out, and nobody holds anything."""
        return not any(self._held.values()) and not self.failed and not self._has_pending()

    def take(self, worker: WorkerId, place: Place | None = None) -> Lease | None:
        """Return the next lease for a worker, which holds it from now on; None if all are taken.

        Args:
            worker: who asks.
            place: where it is; None where there is no other, and it takes what failed there, too.
        """
        lease = self._next_for(worker, place)
        if lease is not None:
            self._held.setdefault(worker, deque()).append(lease)
        return lease

    def take_copy(self, worker: WorkerId, of: WorkerId) -> Lease | None:
        """Return the lease that another worker is at, to be answered twice; None if that one holds none."""
        held = self._held.get(of)
        if not held or held[0] in self._held.get(worker, ()):
            return None
        self._held.setdefault(worker, deque()).append(held[0])
        return held[0]

    def settle(self, lease: Lease) -> None:
        """Note that a lease's answers are in the journal, whoever else may still be at them."""
        for held in self._held.values():
            if lease in held:
                held.remove(lease)

    def doubt(self, lease: Lease, failed: frozenset[str], place: Place) -> None:
        """Have samples of a lease that failed at one place answered at another, before they count as failed."""
        self._again.append(replace(lease, missing=failed, doubted=place))

    def holds(self, worker: WorkerId, lease: Lease) -> bool:
        """Return whether the answers of a lease are still waited for from a worker."""
        return lease in self._held.get(worker, ())

    def lose(self, worker: WorkerId, lease: Lease) -> None:
        """Note that a worker has failed at a lease: it is to be answered again, at last in smaller parts."""
        held = self._held.get(worker, deque())
        if lease not in held:
            return
        held.remove(lease)
        if any(lease in other for other in self._held.values()):
            return
        self._again.extend(self._parts(replace(lease, losses=lease.losses + 1)))

    def leave(self, worker: WorkerId) -> None:
        """Note that a worker is gone: what it was at is lost, and what it had not begun is as it was."""
        held = self._held.get(worker, deque())
        if held:
            self.lose(worker, held[0])
        others = [other for name, other in self._held.items() if name != worker]
        self._again.extend(lease for lease in held if not any(lease in other for other in others))
        self._held.pop(worker, None)
        self._free.extend(self._kept_for.pop(worker, ()))
        self._home = {start: name for start, name in self._home.items() if name != worker}

    def _parts(self, lease: Lease) -> list[Lease]:
        size = lease.stop - lease.start
        if lease.losses <= AS_IT_IS:
            return [lease]
        if size == 1:
            if lease.losses < GIVEN_UP:
                return [lease]
            self.failed.append(lease)
            return []
        # Of several batches, between two of them.
        middle = lease.start + (size // self._batch_size // 2 * self._batch_size or size // 2)
        parts = [self._part(lease, lease.start, middle), self._part(lease, middle, lease.stop)]
        return [part for part in parts if part.missing]

    def _part(self, lease: Lease, start: int, stop: int) -> Lease:
        missing = lease.missing.intersection(self._ids[start:stop])
        # What can be cut further need not be tried again first; a single sample is tried once more.
        losses = AS_IT_IS if stop - start > 1 else lease.losses
        return replace(lease, start=start, stop=stop, missing=missing, losses=losses)

    def _next_for(self, worker: WorkerId, place: Place | None) -> Lease | None:
        for lease in self._again:
            if place is None or lease.doubted != place:
                self._again.remove(lease)
                return lease
        if not self._has_fresh():
            return None
        own = self._kept_for.get(worker)
        if own:
            return own.popleft()
        if self._free:
            lease = self._free.popleft()
            self._home.setdefault(lease.start, worker)
            return lease
        # From the end of whoever has most left: what its holder comes to last.
        return max(self._kept_for.values(), key=len).pop()

    def _has_pending(self) -> bool:
        """Return whether a lease is there that nobody holds."""
        return bool(self._again) or self._has_fresh()

    def _has_fresh(self) -> bool:
        """Return whether there is one that nobody has held, beginning the next turn if this one is used up."""
        while not (self._free or any(self._kept_for.values())):
            turn = next(self._turns, None)
            if turn is None:
                return False
            for lease in turn:
                home = self._home.get(lease.start)
                (self._free if home is None else self._kept_for.setdefault(home, deque())).append(lease)
        return True

    def _make_turns(self) -> Iterator[list[Lease]]:
        for number, plan in enumerate(self._plans):
            sorts = plan.scheduler is not None and plan.latency is not None and not plan.latency.is_full
            size = self._batch_size * (SORTED_BATCHES if sorts else 1)
            for draw in range(plan.draws):
                yield list(self._leases(number, draw, size))

    def _leases(self, plan: int, draw: int, size: int) -> Iterator[Lease]:
        cell = self._plans[plan].cell
        for start in range(0, len(self._ids), size):
            ids = self._ids[start : start + size]
            missing = frozenset(id_ for id_ in ids if (cell, id_, draw) not in self._done)
            if missing:
                yield Lease(plan, draw, start, start + len(ids), missing)
