"""What every process that answers for a sweep loads: the task, the model with each method, the cells, the batches."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from math import ceil

from adallava.checkpoints.weights_hash import begin_weights_sha256
from adallava.costs.parts import ModelCosts
from adallava.costs.roofline import weight_counts
from adallava.errors import AdallavaError, InputError
from adallava.families import weights_folder
from adallava.measuring.provenance import collect_provenance
from adallava.model import AdaLlava
from adallava.pipeline.prompt_limit import device_memory_bytes, max_prompt_tokens
from adallava.processors.stock_processor import folder_or_id_of
from adallava.records import FULL_METHOD, Run, RunConfig, SampleRecord
from adallava.records.cells import CellPlan, cells_of
from adallava.runs.answering import Answerer, answer_batch
from adallava.runs.batches import BatchStore, prepare_batch
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
from adallava.runs.request import SweepRequest
from adallava.runs.timing import TimedSize, time_size
from adallava.runs.units import Batch, Unit, Work
from adallava.scheduling.scheduler_contract import has_free_token
from adallava.tasks import Task, load_task


@dataclass(frozen=True)
class Described:
    """What a sweep is, to whoever leads it and holds no model.

    Attributes:
        run: `run.json`: what was asked for, resolved, and what it runs on.
        plans: the cells, in order.
        prefixes: how many first layers always run with each scheduler.
    """

    run: Run
    plans: tuple[CellPlan, ...]
    prefixes: dict[str, int]


@dataclass(frozen=True)
class LoadedSweep:
    """What a process has loaded.

    Attributes:
        request: what was asked for.
        task: the samples and their scores.
        models: by method, the full-token model first.
        schedulers: by name.
        plans: the cells, in order.
        answerers: by `CellPlan.runner`.
        store: the batches.
        config: what was asked for, resolved.
        costs: of the model's parts, for FLOPs; None where these cannot be counted.
    """

    request: SweepRequest
    task: Task
    models: Mapping[str, AdaLlava]
    schedulers: Mapping[str, AdaLlava]
    plans: tuple[CellPlan, ...]
    answerers: Mapping[str, Answerer]
    store: BatchStore
    config: RunConfig
    costs: ModelCosts | None

    def describe(self) -> Described:
        """Return what the sweep is; reads the weights' files for their hash."""
        full = self.models[FULL_METHOD]
        adapters = {name: m.adapter_sha256 for name, m in self.models.items() if m.adapter_sha256 is not None}
        schedulers = {name: m.scheduler_sha256 for name, m in self.schedulers.items() if m.scheduler_sha256 is not None}
        provenance = collect_provenance(
            weights_sha256=full.weights_sha256,
            adapter_sha256=adapters,
            scheduler_sha256=schedulers,
            weight_counts={} if self.costs is None else weight_counts(self.costs),
            model_files_sha256=full.settings_sha256,
            task_sha256=self.task.sha256,
            command=self.request.command,
        )
        return Described(Run(config=self.config, provenance=provenance), self.plans, prefix_lengths(self.schedulers))

    def work(self) -> Work:
        """Return what is to be answered, and how."""
        warm: set[str] = set()

        def answer(unit: Unit) -> Sequence[SampleRecord]:
            """Answer a unit's whole batch."""
            answerer = self.answerers[unit.plan.runner]
            if unit.plan.runner not in warm:
                # Unrecorded: a method's first batch also pays for allocations and lazy imports.
                answer_batch(answerer, unit.plan, unit.draw, self.store, unit.batch)
                warm.add(unit.plan.runner)
            # A batch that a kill cut in two runs whole: its answers must not depend on where it was cut.
            return answer_batch(answerer, unit.plan, unit.draw, self.store, unit.batch)

        def regroup(plan: CellPlan, draw: int, batches: Sequence[Batch]) -> Sequence[Batch]:
            """Return the batches of a cell's draw; see `sort_by_plan`."""
            return sort_by_plan(self.answerers[plan.runner], plan, draw, batches, self.store)

        return Work(self.plans, self.store.batches, answer, regroup)

    def time(self, batch_size: int) -> TimedSize:
        """Time every cell at a batch size."""
        device = self.models[FULL_METHOD].device
        return time_size(self.answerers, self.plans, batch_size, self.task.samples, self.store.prepare, device)


def load_sweep(
    request: SweepRequest, observer: SweepObserver, task: Task | None = None, methods: Mapping[str, bool] | None = None
) -> LoadedSweep:
    """Load what a request names.

    Args:
        request: what to sweep.
        observer: hears what a person should know.
        task: if it is loaded already.
        methods: of `resolve_methods`, if it was asked already.

    Raises:
        AdallavaError: for a mistake in the request.
    """
    methods = resolve_methods(request.config.methods) if methods is None else methods
    task = load_task_of(request) if task is None else task
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
    store = _make_store(config, task, models[FULL_METHOD], decoding.num_beams, observer)
    assert config.max_new_tokens is not None
    batches = sum(plan.draws for plan in plans) * ceil(len(task.samples) / config.batch_size)
    if models[FULL_METHOD].prepare_for(batches * config.max_new_tokens):
        observer.note("the LLM's layers are compiled: this sweep is long enough to repay it")
    answerers = make_answerers(config, models, schedulers, task, costs)
    return LoadedSweep(request, task, models, schedulers, plans, answerers, store, config, costs)


def begin_hashing(model: str) -> None:
    """Begin to hash the weights while they, and all else, are loaded: `LoadedSweep.describe` asks for the hash.

    Of a hub id that is not here yet there is nothing to hash; what else is wrong with a folder, loading says.
    """
    with suppress(AdallavaError, OSError):
        begin_weights_sha256(weights_folder(folder_or_id_of(model)))


def load_task_of(request: SweepRequest) -> Task:
    """Return the task that a request names.

    Raises:
        AdallavaError: if there is none, or it words its own questions and a suffix is asked for.
    """
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
        raise InputError(f"task {task.name} makes its own questions: leave --question-suffix out")
    return task


def _make_store(config: RunConfig, task: Task, full: AdaLlava, num_beams: int, observer: SweepObserver) -> BatchStore:
    assert config.max_new_tokens is not None
    limit = max_prompt_tokens(
        full.base.config,
        config.max_new_tokens,
        rows=min(config.batch_size, len(task.samples)) * num_beams,
        eager=config.attn_implementation == "eager",
        memory_bytes=device_memory_bytes(full.device),
    )
    if limit is not None:
        observer.note(
            f"a prompt may have {limit.tokens} tokens, vision tokens included; a longer one is a failed sample"
        )
    prepare = partial(prepare_batch, full.processor, question_suffix=config.question_suffix, limit=limit)
    return BatchStore(task.samples, config.batch_size, prepare)
