"""The sweep: methods crossed with budgets over the same samples, into a run folder that can be resumed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from adallava.adapters.bundled import is_bundled, model_folder
from adallava.budget import TokenBudget
from adallava.costs.shapes import model_shape_from_config
from adallava.errors import InputError
from adallava.families import weights_folder
from adallava.model import AdaLlava
from adallava.records import FULL_METHOD, Results, Run, RunConfig
from adallava.registry import load_selector_class, selector_names
from adallava.report.page import write_report
from adallava.tasks import Task, load_task
from adallava.tasks.task import pictures_of

from .answering import Answerer, answer_batch
from .batches import BatchStore, prepare_batch
from .journal import RESULTS_FILE, Journal, locked_folder, write_record
from .plan import CellPlan, plan_cells
from .provenance import collect_provenance
from .summary import summarise

ALL_METHODS = "all"
"""Asks for every registered method; learned ones without an adapter are left out, with a note."""


@dataclass(frozen=True)
class SweepRequest:
    """What to sweep. The full-token model is always part of it.

    Attributes:
        model: bundled name, folder or hub id.
        task: bundled name, or path of a `.jsonl` or `.parquet` file.
        methods: names, `all` among them for every one.
        budgets: crossed with the methods.
        output: the run folder.
        split: of a bundled task.
        limit: first samples to take; None for all of a file.
        batch_size: samples answered together.
        seed: of random methods and of the bootstrap.
        max_new_tokens: after which an answer is cut.
        positions: of the kept tokens, see `AdaLlava.generate`.
        dtype: of the weights; `auto` is what they are stored in.
        device: None for CUDA where there is one, else the CPU.
        attn_implementation: as in transformers.
        adapters: folder by method, for learned methods whose adapter is not beside the model.
        columns: of a local file, see `load_task`.
        question_suffix: appended to every question, as many models expect ("Answer in one word.").
        retry_failed: run failed samples of a resumed run again.
        report: write `report.html`.
        command: the command line, for the record.
    """

    model: str
    task: str
    methods: tuple[str, ...]
    budgets: tuple[TokenBudget, ...]
    output: Path
    split: str | None = None
    limit: int | None = 100
    batch_size: int = 8
    seed: int = 0
    max_new_tokens: int = 16
    positions: Literal["original", "compact"] = "original"
    dtype: str = "auto"
    device: str | None = None
    attn_implementation: str = "sdpa"
    adapters: Mapping[str, Path] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    question_suffix: str = ""
    retry_failed: bool = False
    report: bool = True
    command: str = ""

    def __post_init__(self) -> None:
        """Refuse numbers that leave nothing to run.

        Raises:
            InputError: naming the option and its value.
        """
        for option, value in (("--batch-size", self.batch_size), ("--max-new-tokens", self.max_new_tokens)):
            if value < 1:
                raise InputError(f"{option} is {value}: give at least 1")


@dataclass(frozen=True)
class SweepOutcome:
    """A finished sweep: what is in the run folder, and where the report is, if one was asked for."""

    run: Run
    results: Results
    report: Path | None


class SweepObserver:
    """Told how a sweep goes. Every method does nothing; override those of interest."""

    def note(self, message: str) -> None:
        """Something a person should know."""

    def begin(self, num_answers: int, num_done: int) -> None:
        """All cells together have `num_answers` answers, of which a resumed run has `num_done` already."""

    def cell(self, cell: str, number: int, num_cells: int) -> None:
        """The cell with this number, from 1, begins."""

    def answered(self, num_answers: int, num_failed: int) -> None:
        """So many more answers are on disk."""


def run_sweep(request: SweepRequest, observer: SweepObserver | None = None) -> SweepOutcome:
    """Run what `request.output` does not hold yet, then sum up. Safe to kill at any moment and call again.

    Raises:
        AdallavaError: for a mistake in the request; before anything runs, whatever can be told by then.
        RunFolderError: if the folder holds another run, or another process writes it.
    """
    observer = observer or SweepObserver()
    methods = resolve_methods(request.methods)
    task = load_task(request.task, split=request.split, limit=request.limit, columns=request.columns)
    with locked_folder(request.output):
        models = load_models(request, methods, observer)
        run = describe_run(request, task, models)
        plans = plan_cells(models, request.budgets, methods_ignoring_budget(models))
        prepare = partial(prepare_batch, models[FULL_METHOD].processor, question_suffix=request.question_suffix)
        store = BatchStore(task.samples, request.batch_size, prepare)
        answerers = make_answerers(request, models)
        with Journal(request.output, run, retry_failed=request.retry_failed) as journal:
            _run_cells(answerers, store, plans, journal, observer)
        results = summarise(plans, [sample.id for sample in task.samples], journal.records, request.seed)
        write_record(request.output / RESULTS_FILE, results)
        report = write_report(request.output, pictures_of(task)) if request.report else None
    return SweepOutcome(run, results, report)


def resolve_methods(asked: Sequence[str]) -> dict[str, bool]:
    """Return the selection methods to run, without `full`, each with whether it was named rather than `all`.

    Raises:
        UnknownNameError: for a name that is not registered, with the nearest ones.
    """
    methods: dict[str, bool] = {}
    for name in asked:
        if name == ALL_METHODS:
            methods |= {known: methods.get(known, False) for known in selector_names()}
        elif name != FULL_METHOD:
            load_selector_class(name)
            methods[name] = True
    return methods


def load_models(request: SweepRequest, methods: Mapping[str, bool], observer: SweepObserver) -> dict[str, AdaLlava]:
    """Load the base once, and every method upon it; the full-token model comes first.

    Raises:
        CheckpointError: for a model that cannot be loaded, or a named learned method without its adapter.
        InputError: for an adapter given for a method that does not run.
    """
    unused = sorted(set(request.adapters) - set(methods))
    if unused:
        raise InputError(f"--adapter names {', '.join(unused)}, but --method does not")
    full = AdaLlava.from_pretrained(
        request.model,
        method=FULL_METHOD,
        dtype=request.dtype,
        device=request.device,
        attn_implementation=request.attn_implementation,
    )
    models = {FULL_METHOD: full}
    for method, named in methods.items():
        adapter = request.adapters.get(method)
        if named or adapter is not None or is_complete(request.model, method):
            models[method] = full.with_method(method, adapter=adapter)
        else:
            observer.note(f"method {method} is left out: {request.model} has no adapter for it")
    return models


def is_complete(model: str, method: str) -> bool:
    """Return True for a training-free method, or a learned one whose adapter lies in the model's folder."""
    if not load_selector_class(method).learned:
        return True
    folder = model_folder(model) if is_bundled(model) else weights_folder(model)
    return (folder / "adapters" / method).is_dir()


def methods_ignoring_budget(methods: Mapping[str, AdaLlava]) -> frozenset[str]:
    """Return those with one result whatever the budget."""
    return frozenset(
        name for name, model in methods.items() if model.selector is not None and model.selector.ignores_budget
    )


def describe_run(request: SweepRequest, task: Task, models: Mapping[str, AdaLlava]) -> Run:
    """Return `run.json`: the request with every default resolved, and what it runs on."""
    full = models[FULL_METHOD]
    config = RunConfig(
        model=request.model,
        task=task.name,
        methods=[method for method in models if method != FULL_METHOD],
        token_budgets=[str(budget) for budget in dict.fromkeys(request.budgets)],
        limit=request.limit,
        batch_size=request.batch_size,
        seed=request.seed,
        max_new_tokens=request.max_new_tokens,
        positions=request.positions,
        dtype=str(full.dtype).removeprefix("torch."),
        device=str(full.device),
        attn_implementation=request.attn_implementation,
        columns=task.columns,
        split=task.split,
        question_suffix=request.question_suffix,
    )
    provenance = collect_provenance(
        weights_sha256=full.weights_sha256,
        adapter_sha256={name: m.adapter_sha256 for name, m in models.items() if m.adapter_sha256 is not None},
        task_sha256=task.sha256,
        command=request.command,
    )
    return Run(config=config, provenance=provenance)


def make_answerers(request: SweepRequest, models: Mapping[str, AdaLlava]) -> dict[str, Answerer]:
    """Return what answers for each method.

    Raises:
        InputError: for a model whose FLOPs have no closed form here.
    """
    base_shape = model_shape_from_config(models[FULL_METHOD].base.config.to_dict())
    return {
        method: Answerer(model, base_shape, request.seed, request.max_new_tokens, request.positions)
        for method, model in models.items()
    }


def _run_cells(
    answerers: Mapping[str, Answerer],
    store: BatchStore,
    plans: Sequence[CellPlan],
    journal: Journal,
    observer: SweepObserver,
) -> None:
    done = {(record.cell, record.sample_id) for record in journal.records}
    observer.begin(len(plans) * sum(map(len, store.batches)), len(done))
    warm: set[str] = set()
    for number, plan in enumerate(plans, start=1):
        observer.cell(plan.cell, number, len(plans))
        answerer = answerers[plan.method]
        for place, samples in enumerate(store.batches):
            missing = {sample.id for sample in samples if (plan.cell, sample.id) not in done}
            if not missing:
                continue
            if plan.method not in warm:
                # Unrecorded: a method's first batch also pays for allocations and lazy imports.
                answer_batch(answerer, plan, store, place)
                warm.add(plan.method)
            # A batch that a kill cut in two runs whole: its answers must not depend on where it was cut.
            records = answer_batch(answerer, plan, store, place)
            records = [record for record in records if record.sample_id in missing]
            journal.append(records)
            observer.answered(len(records), sum(record.score is None for record in records))
