"""The sweep: methods crossed with budgets over the same samples, into a run folder that can be resumed."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import ceil
from pathlib import Path

from adallava.analysis.comparisons import count_planned
from adallava.analysis.majority import ResponseScorer
from adallava.analysis.power import planning_line
from adallava.analysis.summary import summarise
from adallava.costs.parts import ModelCosts
from adallava.costs.roofline import hardware, weight_counts
from adallava.errors import InputError
from adallava.measuring.provenance import collect_provenance
from adallava.model import AdaLlava
from adallava.pipeline.prompt_limit import device_memory_bytes, max_prompt_tokens
from adallava.records import FULL_METHOD, Results, Run, RunConfig, SampleRecord
from adallava.records.cells import CellPlan, cells_of
from adallava.records.journal import RESULTS_FILE, Journal, locked_folder, read_done, write_record
from adallava.runs.answering import Answerer, answer_batch
from adallava.runs.batches import BatchStore, prepare_batch
from adallava.runs.executors.executor_contract import Executor
from adallava.runs.executors.in_process import LocalExecutor
from adallava.runs.executors.processes import ProcessesExecutor, answer_share
from adallava.runs.executors.shares import Share
from adallava.runs.loading import (
    check_drops,
    drawing_at_random,
    load_costs,
    load_decoding,
    load_models,
    load_schedulers,
    make_answerers,
    methods_ignoring_budget,
    prefix_lengths,
    resolve_config,
    resolve_methods,
)
from adallava.runs.observer import SweepObserver
from adallava.runs.plan_order import sort_by_plan
from adallava.runs.ranks import ONE_PROCESS, Ranks
from adallava.runs.request import SweepRequest
from adallava.runs.task_figures import write_task_figures
from adallava.runs.timing import time_cells
from adallava.runs.units import Batch, Unit, Work
from adallava.scheduling.scheduler_contract import has_free_token
from adallava.tasks import Task, load_task


@dataclass(frozen=True)
class SweepOutcome:
    """A finished sweep: what is in the run folder, and the task, for its pictures."""

    run: Run
    results: Results
    task: Task


@dataclass(frozen=True)
class LoadedSweep:
    """What every process of a sweep has loaded.

    Attributes:
        task: the samples and their scores.
        models: by method, the full-token model first.
        schedulers: by name.
        plans: the cells, in order.
        answerers: by `CellPlan.runner`.
        store: the batches.
        config: what was asked for, resolved.
        costs: of the model's parts, for FLOPs; None where these cannot be counted.
    """

    task: Task
    models: Mapping[str, AdaLlava]
    schedulers: Mapping[str, AdaLlava]
    plans: tuple[CellPlan, ...]
    answerers: Mapping[str, Answerer]
    store: BatchStore
    config: RunConfig
    costs: ModelCosts | None


@contextmanager
def run_sweep(
    request: SweepRequest, observer: SweepObserver | None = None, ranks: Ranks = ONE_PROCESS
) -> Iterator[SweepOutcome]:
    """Run what `request.output` does not hold yet, sum up, and hold the folder for what the caller writes beside.

    Safe to kill at any moment and call again. With several processes this is rank 0's; the others call `join_sweep`.

    Raises:
        AdallavaError: for a mistake in the request; before anything runs, whatever can be told by then.
        RunFolderError: if the folder holds another run, or another process writes it.
        ProcessEndedError: if another process of the launch fails or dies.
    """
    observer = observer or SweepObserver()
    methods, task = resolve_methods(request.config.methods), _load_task(request)
    with locked_folder(request.output):
        loaded = _load(request, methods, task, observer)
        run = describe_run(request, loaded)
        if request.roofline is not None:
            hardware(request.roofline).peak(run.config.dtype)
        observer.note(planning_line(len(task.samples), count_planned(loaded.plans), task.num_pictures))
        with Journal(
            request.output, run, retry_failed=request.retry_failed, sha256_of_first=task.sha256_of_first
        ) as journal:
            _executor(request.output, ranks).run(_work(loaded), journal, observer)
        run, sizes = journal.run, journal.run.config.timing_batch_sizes
        # The other processes have ended: nothing else of this sweep is on the device.
        timings = time_cells(
            request.output,
            loaded.answerers,
            loaded.plans,
            sizes,
            task.samples,
            loaded.store.prepare,
            observer,
            loaded.models[FULL_METHOD].device,
        )
        ids = [sample.id for sample in task.samples]
        prefixes = prefix_lengths(loaded.schedulers)
        results = summarise(
            loaded.plans,
            ids,
            journal.read_cell,
            run.config.seed,
            timings,
            prefixes,
            request.equivalence_margin,
            _scorer(task),
        )
        write_record(request.output / RESULTS_FILE, results)
        write_task_figures(request.output, task, loaded.plans, journal.read_cell)
        yield SweepOutcome(run, results, task)


def join_sweep(request: SweepRequest, share: Share, ranks: Ranks) -> None:
    """Answer this process's share of a sweep that rank 0 leads with `run_sweep`.

    Args:
        request: the same as the leader's, but for the device.
        share: of this process, entered.
        ranks: of this process.

    Raises:
        AdallavaError: for a mistake in the request.
        ProcessEndedError: if the leader ends first.
    """
    silent = SweepObserver()
    loaded = _load(request, resolve_methods(request.config.methods), _load_task(request), silent)
    share.begin()
    answer_share(_work(loaded), read_done(request.output), share, ranks)


def _load(request: SweepRequest, methods: Mapping[str, bool], task: Task, observer: SweepObserver) -> LoadedSweep:
    models = load_models(request, methods, observer)
    schedulers = load_schedulers(request, models[FULL_METHOD])
    models = check_drops(models, schedulers, methods, observer)
    decoding = load_decoding(request, models[FULL_METHOD], observer)
    costs = load_costs(request, models[FULL_METHOD], observer)
    drawing = drawing_at_random(models, schedulers)
    config = resolve_config(request.config, task, models, schedulers, decoding)
    plans = cells_of(
        config,
        methods_ignoring_budget(models),
        # Where tokens are drawn, every method draws.
        drawing=drawing | models.keys() if decoding.samples else drawing,
        with_token=[name for name, model in schedulers.items() if has_free_token(model.scheduler)],
    )
    assert config.max_new_tokens is not None
    full = models[FULL_METHOD]
    limit = max_prompt_tokens(
        full.base.config,
        config.max_new_tokens,
        rows=min(config.batch_size, len(task.samples)) * decoding.num_beams,
        eager=config.attn_implementation == "eager",
        memory_bytes=device_memory_bytes(full.device),
    )
    if limit is not None:
        observer.note(
            f"a prompt may have {limit.tokens} tokens, vision tokens included; a longer one is a failed sample"
        )
    prepare = partial(prepare_batch, full.processor, question_suffix=config.question_suffix, limit=limit)
    store = BatchStore(task.samples, config.batch_size, prepare)
    batches = sum(plan.draws for plan in plans) * ceil(len(task.samples) / config.batch_size)
    if full.prepare_for(batches * config.max_new_tokens):
        observer.note("the LLM's layers are compiled: this sweep is long enough to repay it")
    answerers = make_answerers(config, models, schedulers, task, costs)
    return LoadedSweep(task, models, schedulers, plans, answerers, store, config, costs)


def describe_run(request: SweepRequest, loaded: LoadedSweep) -> Run:
    """Return `run.json`: what was asked for, resolved, and what it runs on."""
    models, schedulers = loaded.models, loaded.schedulers
    full = models[FULL_METHOD]
    provenance = collect_provenance(
        weights_sha256=full.weights_sha256,
        adapter_sha256={name: m.adapter_sha256 for name, m in models.items() if m.adapter_sha256 is not None},
        scheduler_sha256={name: m.scheduler_sha256 for name, m in schedulers.items() if m.scheduler_sha256 is not None},
        weight_counts={} if loaded.costs is None else weight_counts(loaded.costs),
        model_files_sha256=full.settings_sha256,
        task_sha256=loaded.task.sha256,
        command=request.command,
    )
    return Run(config=loaded.config, provenance=provenance)


def _executor(folder: Path, ranks: Ranks) -> Executor:
    return LocalExecutor(folder) if ranks.world_size == 1 else ProcessesExecutor(folder, ranks)


def _scorer(task: Task) -> ResponseScorer:
    """Return what scores any response to a sample, by its id."""
    by_id, score = {sample.id: sample for sample in task.samples}, task.scorer()
    return lambda sample_id, response: score(by_id[sample_id], response)


def _load_task(request: SweepRequest) -> Task:
    config = request.config
    task = load_task(
        config.task,
        split=config.split,
        limit=config.limit,
        columns=config.columns,
        metric=config.metric,
        include_path=request.include_path,
        sample=config.sample,
        seed=config.seed,
        allow_outside=request.allow_outside,
    )
    if task.aggregate is not None and config.question_suffix:
        raise InputError(f"task {task.name} words its own questions: leave --question-suffix out")
    return task


def _work(loaded: LoadedSweep) -> Work:
    """Return what is to be answered, and how."""
    warm: set[str] = set()

    def answer(unit: Unit) -> Sequence[SampleRecord]:
        answerer = loaded.answerers[unit.plan.runner]
        if unit.plan.runner not in warm:
            # Unrecorded: a method's first batch also pays for allocations and lazy imports.
            answer_batch(answerer, unit.plan, unit.draw, loaded.store, unit.batch)
            warm.add(unit.plan.runner)
        # A batch that a kill cut in two runs whole: its answers must not depend on where it was cut.
        return answer_batch(answerer, unit.plan, unit.draw, loaded.store, unit.batch)

    def regroup(plan: CellPlan, draw: int, batches: Sequence[Batch]) -> Sequence[Batch]:
        return sort_by_plan(loaded.answerers[plan.runner], plan, draw, batches, loaded.store)

    return Work(loaded.plans, loaded.store.batches, answer, regroup)
