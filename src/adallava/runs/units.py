"""The units of work of a sweep: one cell, one draw, one batch. Any executor runs them; the journal has each once."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count

from adallava.records import SampleRecord
from adallava.records.answer_places import AnswerPlaces
from adallava.records.cells import CellPlan
from adallava.runs.observer import SweepObserver
from adallava.tasks import TaskSample


@dataclass(frozen=True)
class Unit:
    """One batch through one cell.

    Attributes:
        plan: the cell.
        draw: of a random method.
        place: number of the batch.
        turn: number of the cell and draw, over the whole sweep.
        missing: ids of the samples that have no answer yet.
    """

    plan: CellPlan
    draw: int
    place: int
    turn: int
    missing: frozenset[str]


@dataclass(frozen=True)
class Work:
    """All that a sweep is to answer.

    Attributes:
        plans: the cells, in order.
        batches: fixed, alike for all cells.
        answer: makes the records of one unit's whole batch: the answer to a sample never depends on what is missing.
    """

    plans: Sequence[CellPlan]
    batches: Sequence[Sequence[TaskSample]]
    answer: Callable[[Unit], Sequence[SampleRecord]]

    @property
    def num_answers(self) -> int:
        """How many records there are in the end."""
        return sum(plan.draws for plan in self.plans) * sum(map(len, self.batches))


def answer_units(
    work: Work,
    done: AnswerPlaces,
    keep: Callable[[Sequence[SampleRecord]], None],
    observer: SweepObserver,
    is_own: Callable[[Unit], bool] = lambda _: True,
) -> None:
    """Answer what is not done and one's own, unit by unit, and hand each unit's records to `keep`."""
    turns = count()
    for number, plan in enumerate(work.plans, start=1):
        observer.cell(plan.cell, number, len(work.plans))
        for draw, turn in zip(range(plan.draws), turns, strict=False):
            for unit in _pending(work, done, plan, draw, turn):
                if is_own(unit):
                    keep([record for record in work.answer(unit) if record.sample_id in unit.missing])


def _pending(work: Work, done: AnswerPlaces, plan: CellPlan, draw: int, turn: int) -> Iterator[Unit]:
    for place, batch in enumerate(work.batches):
        missing = frozenset(sample.id for sample in batch if (plan.cell, sample.id, draw) not in done)
        if missing:
            yield Unit(plan, draw, place, turn, missing)
