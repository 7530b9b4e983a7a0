"""The figures that a task computes over all of its responses, cell by cell, beside this project's own summary."""

from collections.abc import Sequence
from pathlib import Path

from adallava.records import SampleRecord, TaskFigures
from adallava.tasks import Task

from .journal import TASK_FIGURES_FILE, write_record


def write_task_figures(folder: Path, task: Task, records: Sequence[SampleRecord]) -> None:
    """Write `task_figures.json` for a task that has such figures, from the recorded responses.

    Of several draws the first is taken: a figure over a whole cell has no mean over draws that says the same. Failed
    samples are left out, as in the summary.
    """
    if task.aggregate is None:
        return
    responses: dict[str, dict[str, str]] = {}
    for record in records:
        if record.score is not None and record.draw == 0:
            responses.setdefault(record.cell, {})[record.sample_id] = record.response
    order = [sample.id for sample in task.samples]
    cells = {}
    for cell, by_id in responses.items():
        # In the task's order, whatever order a resumed run answered in.
        cells[cell] = task.aggregate({sample_id: by_id[sample_id] for sample_id in order if sample_id in by_id})
    write_record(folder / TASK_FIGURES_FILE, TaskFigures(task=task.name, cells=cells))
