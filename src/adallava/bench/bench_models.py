"""From names to models: one base, and with it every engine, method and scheduler, made when it is first asked for."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import nn

from adallava.bench.bench_request import BenchRequest
from adallava.bench.shapes import random_model
from adallava.checkpoints.placement import pick_device, pick_dtype
from adallava.costs.counted import count_costs
from adallava.costs.parts import ModelCosts
from adallava.engines import check_engine
from adallava.errors import AdallavaError, InputError, in_short
from adallava.families.capabilities.of_llms import decoder_of
from adallava.families.quantization import check_quantization, quantized_copy, stored_bytes
from adallava.model import AdaLlava
from adallava.records import FULL_METHOD
from adallava.records.cells import CellPlan, plan_cells
from adallava.registry import load_selector_class
from adallava.scheduling import build_scheduler
from adallava.scheduling.scheduler_contract import Scheduler, has_free_token
from adallava.selection import build_selector
from adallava.selection.layer_contract import AnySelector
from adallava.selection.selector_contract import Need

Part = TypeVar("Part")
_STD = 0.02
"""Of a scheduler's random weights, so that samples differ in their plans."""


@dataclass(frozen=True)
class Bench:
    """A base, and what is measured on it.

    Attributes:
        request: what was asked.
        full: the full-token model, run by stock `generate`.
        engines: the full-token model, by the engine that runs it; quantized if that was asked for, and then with all
            but the LLM's layers in common with `full`.
    """

    request: BenchRequest
    full: AdaLlava
    engines: dict[str, AdaLlava]

    @cached_property
    def plans(self) -> tuple[CellPlan, ...]:
        """The cells, the full-token model first."""
        request = self.request
        full = plan_cells([], [])
        if request.cells:
            return tuple(dict.fromkeys((*full, *request.cells)))
        return plan_cells(
            request.used_methods,
            request.budgets,
            [name for name in request.used_methods if name != FULL_METHOD and load_selector_class(name).ignores_budget],
            schedulers=request.used_schedulers,
            latencies=request.latencies,
            with_token=[name for name in request.used_schedulers if self._has_free_token(name)],
        )

    @cached_property
    def costs(self) -> ModelCosts | None:
        """Of the model's parts; None of a model that cannot be counted, which has no floor."""
        try:
            return count_costs(self.full.base.config)
        except AdallavaError:
            return None

    def model(self, engine: str, plan: CellPlan) -> AdaLlava:
        """Return the model of a cell. Cells of one engine share what it captures.

        Raises:
            AdallavaError: for a method or a scheduler that this model cannot run.
        """
        model = self.engines[engine].with_selector(self.selector(plan.method))
        return model if plan.scheduler is None else model.with_scheduler(self._scheduler(plan.scheduler))

    def idle_bytes(self, running: AdaLlava) -> int:
        """Return the bytes of weights that lie idle next to a running model: another's, which it does not share."""
        held = stored_bytes(running.base)
        others = {
            place: size
            for model in (self.full, *self.engines.values())
            for place, size in stored_bytes(model.base).items()
        }
        return sum(size for place, size in others.items() if place not in held)

    def projects_to_choose(self, method: str) -> bool:
        """Return whether a method that this model can run chooses after the projector."""
        selector = self.selector(method)
        return selector is not None and Need.PROJECTED in selector.needs

    @cached_property
    def _made(self) -> dict[tuple[str, str], Any]:
        return {}

    def _once(self, kind: str, name: str, make: Callable[[], Part]) -> Part:
        if (kind, name) not in self._made:
            with torch.random.fork_rng():
                torch.manual_seed(0)
                self._made[kind, name] = make()
        made: Part = self._made[kind, name]
        return made

    def selector(self, name: str) -> AnySelector | None:
        """Return a method; on random weights a learned one has random weights, too."""
        options, adapter = self.request.method_options.get(name, {}), self.request.adapters.get(name)
        if name == FULL_METHOD:
            return None
        if self.request.shapes is None:
            return self._once("method", name, lambda: self.full.with_method(name, adapter, **options).selector)
        return self._once("method", name, lambda: build_selector(name, self.full.shape, **options))

    def _scheduler(self, name: str) -> Scheduler:
        options, adapter = self.request.scheduler_options.get(name, {}), self.request.adapters.get(name)

        def make() -> Scheduler:
            """Return the scheduler, with random weights for made-up shapes."""
            if self.request.shapes is None:
                made = self.full.with_scheduler(name, adapter, **options).scheduler
                assert made is not None
                return made
            scheduler = build_scheduler(name, decoder_of(self.full.family).shape, **options)
            if isinstance(scheduler, nn.Module):
                for weight in scheduler.parameters():
                    nn.init.normal_(weight, std=_STD)
            return scheduler

        return self._once("scheduler", name, make)

    def _has_free_token(self, name: str) -> bool:
        try:
            return has_free_token(self._scheduler(name))
        except AdallavaError:  # its cells will say so
            return False


def load_bench(request: BenchRequest) -> Bench:
    """Load a checkpoint, or make random weights.

    Raises:
        CheckpointError: for a checkpoint that cannot be loaded.
        InputError: for unknown shapes or engines, a device that is not here, or an adapter or an option of what does
            not run.
    """
    _check_used(request)
    device = pick_device(request.device)
    dtype = check_quantization(request.quantization, device, pick_dtype(request.dtype))
    for name in request.engines:
        check_engine(name, device)
    if request.shapes is not None:
        if request.adapters:
            raise InputError("--adapter is for --model: with --shapes, what is learned has random weights")
        full = _random(request.shapes, device, _dtype_of_shapes(dtype, device))
    else:
        full = AdaLlava.from_pretrained(
            request.model or "", method=FULL_METHOD, dtype=dtype, device=device, engine="stock"
        )
    ours = full if request.quantization == "none" else _quantized(full, request.quantization)
    return Bench(request, full, {name: ours.with_engine(name) for name in dict.fromkeys(request.engines)})


def _quantized(full: AdaLlava, name: str) -> AdaLlava:
    """Return a quantized model next to one that stays as it is."""
    return AdaLlava(quantized_copy(full.base, name), full.processor, name_or_path=full.name_or_path, engine=full.engine)


def _random(shapes: str, device: torch.device, dtype: torch.dtype) -> AdaLlava:
    try:
        return random_model(shapes, device, dtype)
    except (RuntimeError, MemoryError) as error:  # torch's ways to say that there is no room
        raise InputError(
            f"--shapes {shapes} cannot be made in {dtype} on {device}: {in_short(error)}. Give smaller ones, or a "
            "--dtype that takes less"
        ) from error


def _check_used(request: BenchRequest) -> None:
    for option, given, used in (
        ("--adapter", request.adapters, {*request.used_methods, *request.used_schedulers}),
        ("--method-option", request.method_options, set(request.used_methods)),
        ("--scheduler-option", request.scheduler_options, set(request.used_schedulers)),
    ):
        unused = sorted(set(given) - used)
        if unused:
            raise InputError(f"{option} names {', '.join(unused)}, which no cell runs")


def _dtype_of_shapes(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    if isinstance(dtype, torch.dtype):
        return dtype
    return torch.float32 if device.type == "cpu" else torch.bfloat16
