"""From names to loaded models with their methods: what a sweep does before it answers anything."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from adallava.costs.counted import count_costs
from adallava.costs.parts import ModelCosts
from adallava.errors import InputError, UnsupportedModeError
from adallava.families.capabilities.of_llms import decoder_of, window_note
from adallava.model import AdaLlava
from adallava.pipeline.allocate import allocate_units
from adallava.pipeline.decoding import decoding_of, generate_arguments, in_words, values_of_checkpoint
from adallava.pipeline.generation_bounds import check_generation_bounds
from adallava.records import FULL_METHOD, Decoding, RunConfig
from adallava.registry import load_selector_class, selector_names
from adallava.runs.answering import Answerer
from adallava.runs.availability import why_left_out
from adallava.runs.method_costs import check_method_costs
from adallava.runs.observer import SweepObserver
from adallava.runs.request import SweepRequest
from adallava.scheduling.scheduler_contract import ScheduleInput, TokenScheduler
from adallava.selection.layer_contract import LayerSelector
from adallava.selection.selector_contract import draws_at_random
from adallava.tasks import Task

DEFAULT_MAX_NEW_TOKENS = 16
"""For tasks that say nothing, in line with VQAv2."""

ALL_METHODS = "all"
"""Asks for every registered method that the model can run as configured; the others are left out, with a note."""


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


def load_base(config: RunConfig) -> AdaLlava:
    """Load the full-token model that a configuration names, as it says."""
    return AdaLlava.from_pretrained(
        config.model,
        method=FULL_METHOD,
        dtype=config.dtype,
        device=config.device,
        attn_implementation=config.attn_implementation,
        engine=config.engine,
        quantization=config.quantization,
        pad_to_square=config.pad_to_square,
        least_pixels=config.least_pixels,
        most_pixels=config.most_pixels,
    )


def load_models(request: SweepRequest, methods: Mapping[str, bool], observer: SweepObserver) -> dict[str, AdaLlava]:
    """Load the base once, and every method on it; the full-token model comes first.

    Raises:
        CheckpointError: for a model that cannot be loaded, or a named learned method without its adapter.
        UnsupportedModeError: for a named method that needs what the model lacks.
        InputError: for an adapter or an option given for a method that does not run.
        AdallavaError: for a method whose `flops` are not what it computes.
    """
    for option, given, names in (
        ("--adapter", request.adapters, {*methods, *request.config.schedulers}),
        ("--method-option", request.config.method_options, set(methods)),
        ("--scheduler-option", request.config.scheduler_options, set(request.config.schedulers)),
    ):
        unused = sorted(set(given) - names)
        if unused:
            asked = "--scheduler" if option == "--scheduler-option" else "--method"
            raise InputError(f"{option} names {', '.join(unused)}, but {asked} does not")
    full = load_base(request.config)
    models = {FULL_METHOD: full}
    for method, named in methods.items():
        adapter = request.adapters.get(method)
        options: dict[str, Any] = dict(request.config.method_options.get(method, {}))
        reason = None if named or adapter is not None else why_left_out(full, method, options)
        if reason is None:
            models[method] = full.with_method(method, adapter=adapter, **options)
        else:
            observer.note(f"method {method} is left out: {reason}")
    for note in (window_note(full.family), *check_method_costs(models)):
        if note is not None:
            observer.note(note)
    return models


def load_schedulers(request: SweepRequest, full: AdaLlava) -> dict[str, AdaLlava]:
    """Load every scheduler, on the full-token model, and check that it can give every latency asked for.

    Raises:
        CheckpointError: for a learned scheduler without its adapter.
        UnsupportedModeError: for an LLM that a scheduler cannot split.
        BudgetError: for a latency below the prefix.
    """
    schedulers: dict[str, AdaLlava] = {}
    for name in dict.fromkeys(request.config.schedulers):
        options: dict[str, Any] = dict(request.config.scheduler_options.get(name, {}))
        model = full.with_scheduler(name, adapter=request.adapters.get(name), **options)
        assert model.scheduler is not None
        units = model.scheduler.units(decoder_of(full.family).shape)
        counts = allocate_units(request.config.latencies, units)
        if not isinstance(model.scheduler, TokenScheduler):
            # What reads no prompt can be asked for its plans now, and not at the first answer.
            model.scheduler.schedule(ScheduleInput(units, counts, torch.zeros(len(counts), dtype=torch.int64)))
        schedulers[name] = model
    return schedulers


def check_drops(
    models: dict[str, AdaLlava],
    schedulers: Mapping[str, AdaLlava],
    named: Mapping[str, bool],
    observer: SweepObserver,
) -> dict[str, AdaLlava]:
    """Leave out methods that drop tokens inside the LLM where a scheduler may leave layers out.

    Args:
        models: by method.
        schedulers: that will run.
        named: of each method, whether it was asked for by name.
        observer: hears what is left out.

    Raises:
        UnsupportedModeError: for a method that was asked for by name.
    """
    kept = dict(models)
    for name, scheduled in schedulers.items():
        assert scheduled.scheduler is not None
        units = scheduled.scheduler.units(decoder_of(scheduled.family).shape)
        for method, model in models.items():
            if not isinstance(model.selector, LayerSelector):
                continue
            num_tokens = model.shape.num_vision_tokens
            drops = model.selector.schedule(units.num_layers, num_tokens, max(1, num_tokens // 2))
            if max(drop.layer for drop in drops) < units.prefix_layers:
                continue
            reason = (
                f"it drops tokens after the first {units.prefix_layers} layers, which scheduler {name!r} may leave out"
            )
            if named.get(method):
                raise UnsupportedModeError(f"method {method!r} cannot run with a latency below 1.0: {reason}")
            observer.note(f"method {method} is left out: {reason}")
            kept.pop(method, None)
    return kept


def prefix_lengths(schedulers: Mapping[str, AdaLlava]) -> dict[str, int]:
    """Return how many first layers always run with each scheduler."""
    return {
        name: model.scheduler.units(decoder_of(model.family).shape).prefix_layers
        for name, model in schedulers.items()
        if model.scheduler is not None
    }


def drawing_at_random(methods: Mapping[str, AdaLlava], schedulers: Mapping[str, AdaLlava]) -> frozenset[str]:
    """Return the methods whose choice depends on the seed, and the schedulers, with `/` before their names."""
    return methods_drawing(methods) | {
        f"/{name}" for name, model in schedulers.items() if draws_at_random(model.scheduler)
    }


def methods_ignoring_budget(methods: Mapping[str, AdaLlava]) -> frozenset[str]:
    """Return those with one result whatever the budget."""
    return frozenset(
        name for name, model in methods.items() if model.selector is not None and model.selector.ignores_budget
    )


def methods_drawing(methods: Mapping[str, AdaLlava]) -> frozenset[str]:
    """Return those whose choice depends on the seed."""
    return frozenset(name for name, model in methods.items() if draws_at_random(model.selector))


def resolve_config(
    asked: RunConfig, task: Task, models: Mapping[str, AdaLlava], schedulers: Mapping[str, AdaLlava], decoding: Decoding
) -> RunConfig:
    """Return the configuration with every default resolved to what was loaded."""
    full = models[FULL_METHOD]
    return asked.model_copy(
        update={
            "task": task.name,
            "methods": tuple(method for method in models if method != FULL_METHOD),
            "max_new_tokens": asked.max_new_tokens or task.max_new_tokens or DEFAULT_MAX_NEW_TOKENS,
            "positions": tuple(dict.fromkeys(asked.positions)),
            "timing_batch_sizes": tuple(sorted(set(asked.timing_batch_sizes))),
            "dtype": str(full.dtype).removeprefix("torch."),
            "device": str(full.device),
            "engine": full.engine,
            "schedulers": tuple(schedulers),
            "columns": dict(task.columns),
            "metric": task.metric,
            "metric_version": task.metric_version,
            "split": task.split,
            "decoding": decoding,
        }
    )


def load_decoding(request: SweepRequest, full: AdaLlava, observer: SweepObserver) -> Decoding:
    """Return how every answer is decoded, and tell what of the checkpoint's own configuration is not taken."""
    own = full.base.generation_config
    left_out = {n: v for n, v in values_of_checkpoint(own).items() if request.config.generation_options.get(n) != v}
    if left_out:
        observer.note(
            f"the checkpoint's generation_config sets {in_words(left_out)}, which a sweep ignores: give it by "
            "--generation-option NAME=VALUE"
        )
    decoding = decoding_of(own, request.config.generation_options)
    check_generation_bounds(generate_arguments(decoding), full.base)
    return decoding


def load_costs(request: SweepRequest, full: AdaLlava, observer: SweepObserver) -> ModelCosts | None:
    """Return what the model's parts cost; None, and a note, for a model that cannot be counted.

    Raises:
        InputError: if a roofline is asked for, which needs them.
    """
    try:
        return count_costs(full.base.config)
    except InputError as error:
        if request.roofline is not None:
            raise InputError(f"--roofline {request.roofline} needs FLOPs, and {error}") from error
        observer.note(f"{error}. The run continues without FLOPs, and without the figures and fronts over them")
        return None


def make_answerers(
    config: RunConfig,
    models: Mapping[str, AdaLlava],
    schedulers: Mapping[str, AdaLlava],
    task: Task,
    costs: ModelCosts | None,
) -> dict[str, Answerer]:
    """Return what answers for each method, alone and with each scheduler; see `CellPlan.runner`."""
    runners = dict(models)
    for method, model in models.items():
        runners |= {f"{method}/{name}": model.with_scheduler(other.scheduler) for name, other in schedulers.items()}
    return {name: Answerer(model, costs, config, task.scorer()) for name, model in runners.items()}
