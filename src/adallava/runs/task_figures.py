"""The figures that a task computes over all of its responses, cell by cell, next to this project's own summary."""

from collections.abc import Callable, Sequence
from pathlib import Path

from adallava.records import SampleRecord, TaskFigures
from adallava.records.cells import CellPlan
from adallava.records.journal import TASK_FIGURES_FILE, write_record
from adallava.tasks import Task


def write_task_figures(
    folder: Path, task: Task, plans: Sequence[CellPlan], read_cell: Callable[[str], Sequence[SampleRecord]]
) -> None:
    """Write `task_figures.json` for a task that has such figures, from the recorded responses.

    Of several draws the first is taken: a figure over a whole cell has no mean over draws that says the same. Failed
    samples are left out, as in the summary.
    """
    if task.aggregate is None:
        return
    order = [sample.id for sample in task.samples]
    cells = {}
    for plan in plans:
        records = [record for record in read_cell(plan.cell) if record.score is not None and record.draw == 0]
        if records:
            by_id = {record.sample_id: record.response for record in records}
            # In the task's order, whatever order a resumed run answered in.
            cells[plan.cell] = task.aggregate({id_: by_id[id_] for id_ in order if id_ in by_id})
    write_record(folder / TASK_FIGURES_FILE, TaskFigures(task=task.name, cells=cells))
