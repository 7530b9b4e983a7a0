"""The sweep: methods crossed with budgets over the same samples, into a run folder that can be resumed."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from adallava.analysis.comparisons import count_planned
from adallava.analysis.majority import ResponseScorer
from adallava.analysis.power import planning_line
from adallava.analysis.summary import summarise
from adallava.costs.roofline import hardware
from adallava.records import Results, Run
from adallava.records.journal import RESULTS_FILE, Journal, locked_folder, write_record
from adallava.runs.executors.executor_contract import MakeExecutor
from adallava.runs.executors.in_process import LocalExecutor
from adallava.runs.load_sweep import load_task_of
from adallava.runs.loading import resolve_methods
from adallava.runs.observer import SweepObserver
from adallava.runs.request import SweepRequest
from adallava.runs.task_figures import write_task_figures
from adallava.runs.timing import time_cells
from adallava.tasks import Task


@dataclass(frozen=True)
class SweepOutcome:
    """A finished sweep: what is in the run folder, and the task, for its images."""

    run: Run
    results: Results
    task: Task


@contextmanager
def run_sweep(
    request: SweepRequest, observer: SweepObserver | None = None, make_executor: MakeExecutor = LocalExecutor
) -> Iterator[SweepOutcome]:
    """Run what `request.output` does not hold yet, sum up, and hold the folder for what the caller adds to it.

    Safe to kill at any moment and call again, with any executor.

    Args:
        request: what to sweep.
        observer: hears how it goes.
        make_executor: makes who answers, of the request, its methods and its task.

    Raises:
        AdallavaError: for a mistake in the request; before anything runs, as far as it can be known by then.
        RunFolderError: if the folder holds another run, or another process writes it.
        ProcessEndedError: if another process that the sweep cannot do without fails or dies.
    """
    observer = observer or SweepObserver()
    methods, task = resolve_methods(request.config.methods), load_task_of(request)
    with locked_folder(request.output), make_executor(request, methods, task) as executor:
        described = executor.load(observer)
        if request.roofline is not None:
            hardware(request.roofline).peak(described.run.config.dtype)
        observer.note(planning_line(len(task.samples), count_planned(described.plans), task.num_pictures))
        with Journal(
            request.output, described.run, retry_failed=request.retry_failed, sha256_of_first=task.sha256_of_first
        ) as journal:
            executor.answer(journal, observer)
        run, sizes = journal.run, journal.run.config.timing_batch_sizes
        # Others have ended: nothing else of this sweep is on the device.
        timings = time_cells(request.output, described.plans, sizes, executor.time, observer)
        results = summarise(
            described.plans,
            [sample.id for sample in task.samples],
            journal.read_cell,
            run.config.seed,
            timings,
            described.prefixes,
            request.equivalence_margin,
            _scorer(task),
        )
        write_record(request.output / RESULTS_FILE, results)
        write_task_figures(request.output, task, described.plans, journal.read_cell)
        yield SweepOutcome(run, results, task)


def _scorer(task: Task) -> ResponseScorer:
    """Return what scores any response to a sample, by its id."""
    by_id, score = {sample.id: sample for sample in task.samples}, task.scorer()
    return lambda sample_id, response: score(by_id[sample_id], response)
