"""What is asked of a benchmark, held against what makes sense before anything is loaded."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adallava.budget import MAX_COUNT, Latency, TokenBudget
from adallava.errors import InputError
from adallava.records import FULL_METHOD
from adallava.records.cells import CellPlan
from adallava.registry import load_scheduler_class, load_selector_class

GRAPH_WARM_UPS = 6
"""Where graphs are captured. A shape runs as it is, is captured, and is replayed from the third time; where two engines
share weights, one may begin again when the other joins them."""

PLAIN_WARM_UPS = 3
"""Elsewhere."""


@dataclass(frozen=True)
class BenchRequest:
    """What to measure.

    Attributes:
        model: a bundled name, a folder or a hub id; None for random weights of `shapes`.
        shapes: a name of `adallava.bench.shapes.SHAPES`; None for a checkpoint.
        methods: of selection, crossed with budgets, schedulers and latencies.
        budgets: of vision tokens.
        schedulers: of layers, for latencies below 1.0.
        latencies: shares of the LLM's layers.
        cells: exactly these, instead of crossing the four; empty to cross them.
        engines: that run every cell.
        batch_sizes: each measured on its own, one after the other.
        text_tokens: of a prompt, besides its one image.
        new_tokens: of an answer, at least 2.
        image: of every prompt; None for noise.
        dtype: of the weights; "auto" is the checkpoint's, of shapes bfloat16, on a CPU float32.
        device: None is CUDA where there is one.
        quantization: of what our engines run, by `QuantizationName`; stock transformers stays in full precision.
        repeats: rounds that are recorded, at most.
        warm_ups: rounds before them; None is `GRAPH_WARM_UPS` on CUDA, else `PLAIN_WARM_UPS`.
        seconds: for all batch sizes together; no round begins after them.
        adapters: of learned methods and schedulers, by name, if not in the model's folder.
        method_options: by method.
        scheduler_options: by scheduler.
        command: that asked.
    """

    model: str | None = None
    shapes: str | None = None
    methods: tuple[str, ...] = ()
    budgets: tuple[TokenBudget, ...] = ()
    schedulers: tuple[str, ...] = ()
    latencies: tuple[Latency, ...] = (Latency(ratio=1.0),)
    cells: tuple[CellPlan, ...] = ()
    engines: tuple[str, ...] = ("auto",)
    batch_sizes: tuple[int, ...] = (1,)
    text_tokens: int = 70
    new_tokens: int = 33
    image: Path | None = None
    dtype: str = "auto"
    device: str | None = None
    quantization: str = "none"
    repeats: int = 10
    warm_ups: int | None = None
    seconds: float = 600.0
    adapters: Mapping[str, Path] = field(default_factory=dict)
    method_options: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    scheduler_options: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    command: str = ""

    def __post_init__(self) -> None:
        """Check what can be checked without a model.

        Raises:
            InputError: for both a model and shapes or neither, a count out of range, or latencies without a scheduler.
            UnknownNameError: for a method or a scheduler that is not registered.
        """
        if (self.model is None) == (self.shapes is None):
            raise InputError("give either --model, a checkpoint, or --shapes, random weights")
        for option, values in (("--engine", self.engines), ("--batch-size", self.batch_sizes)):
            if not values:
                raise InputError(f"{option} names nothing: give at least one")
        for option, value, least in (
            ("--text-tokens", self.text_tokens, 1),
            ("--new-tokens", self.new_tokens, 2),
            ("--repeats", self.repeats, 1),
            ("--warm-ups", 0 if self.warm_ups is None else self.warm_ups, 0),
            *(("--batch-size", size, 1) for size in self.batch_sizes),
        ):
            if not least <= value <= MAX_COUNT:
                raise InputError(f"{option} is {value}: give at least {least} and at most {MAX_COUNT}")
        if not 0.0 <= self.seconds < float("inf"):
            raise InputError(f"--seconds is {self.seconds}: give a number of seconds, 0 or more")
        for name in self.used_methods:
            if name != FULL_METHOD:
                load_selector_class(name)
        for name in self.used_schedulers:
            load_scheduler_class(name)
        below = [str(latency) for latency in self.latencies if not latency.is_full]
        if below and not self.cells and not self.schedulers:
            raise InputError(
                f"--latency {below[0]} leaves layers of the LLM out, and no --scheduler says which: name one, such as "
                "spaced"
            )

    @property
    def used_methods(self) -> tuple[str, ...]:
        """Each method that runs, once."""
        return tuple(dict.fromkeys(plan.method for plan in self.cells) if self.cells else dict.fromkeys(self.methods))

    @property
    def used_schedulers(self) -> tuple[str, ...]:
        """Each scheduler that runs, once."""
        named = (plan.scheduler for plan in self.cells) if self.cells else self.schedulers
        return tuple(dict.fromkeys(name for name in named if name is not None))
