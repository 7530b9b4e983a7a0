"""The units of work of a sweep: one cell, one draw, one batch. Any executor runs them; the journal has each once.

Which process answers a sample follows from fixed batches, alike for all cells; within its own, a process may put
samples together again for a cell (`Work.regroup`).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count

from adallava.records import SampleRecord
from adallava.records.answer_places import AnswerPlaces
from adallava.records.cells import CellPlan
from adallava.runs.observer import SweepObserver
from adallava.tasks import TaskSample

Batch = Sequence[TaskSample]


@dataclass(frozen=True)
class Unit:
    """One batch through one cell.

    Attributes:
        plan: the cell.
        draw: of a random method.
        batch: the samples that are answered together.
        missing: ids of those that have no answer yet.
    """

    plan: CellPlan
    draw: int
    batch: Batch
    missing: frozenset[str]


@dataclass(frozen=True)
class Work:
    """All that a sweep is to answer.

    Attributes:
        plans: the cells, in order.
        batches: fixed, alike for all cells.
        answer: makes the records of one unit's whole batch: the answer to a sample never depends on what is missing.
        regroup: returns a process's own batches as a cell's draw answers them: the same samples, always alike.
    """

    plans: Sequence[CellPlan]
    batches: Sequence[Batch]
    answer: Callable[[Unit], Sequence[SampleRecord]]
    regroup: Callable[[CellPlan, int, Sequence[Batch]], Sequence[Batch]]

    @property
    def num_answers(self) -> int:
        """How many records there are in the end."""
        return sum(plan.draws for plan in self.plans) * sum(map(len, self.batches))


def answer_units(
    work: Work,
    done: AnswerPlaces,
    keep: Callable[[Sequence[SampleRecord]], None],
    observer: SweepObserver,
    is_own: Callable[[int, int], bool] = lambda _place, _turn: True,
) -> None:
    """Answer what is not done and one's own, unit by unit, and hand each unit's records to `keep`.

    Args:
        work: of the sweep.
        done: answered already.
        keep: takes records.
        observer: hears of each cell.
        is_own: whether a fixed batch, by its number, is this process's, in the turn of a cell's draw, by its number.
    """
    turns = count()
    for number, plan in enumerate(work.plans, start=1):
        observer.cell(plan.cell, number, len(work.plans))
        for draw, turn in zip(range(plan.draws), turns, strict=False):
            own = [batch for place, batch in enumerate(work.batches) if is_own(place, turn)]
            for unit in _pending(work, done, plan, draw, own):
                keep([record for record in work.answer(unit) if record.sample_id in unit.missing])


def _pending(work: Work, done: AnswerPlaces, plan: CellPlan, draw: int, batches: Sequence[Batch]) -> Iterator[Unit]:
    def missing_of(batch: Batch) -> frozenset[str]:
        """Return the ids of a batch that have no answer yet."""
        return frozenset(sample.id for sample in batch if (plan.cell, sample.id, draw) not in done)

    if not any(map(missing_of, batches)):
        return
    for batch in work.regroup(plan, draw, batches):
        missing = missing_of(batch)
        if missing:
            yield Unit(plan, draw, batch, missing)
