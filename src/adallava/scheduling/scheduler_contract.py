"""What a scheduler is given, and what it gives back. Pure tensors: no host, no I/O, no model.

    layer            0  1  2  3 | 4     5     6     7          prefix_layers P = 4 of 8 always run
    units, 1 group              | 0     1     2     3          whole layers
    units, 2 groups             | 0 1   2 3   4 5   6 7        halves of a layer: heads with their slice of the MLP

One row is one sample. How many units run is known on the host before anything runs; which ones is the scheduler's.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from adallava.errors import UnsupportedModeError


@dataclass(frozen=True)
class DecoderShape:
    """What of an LLM decides how it can be split.

    Attributes:
        num_layers: decoder layers.
        width: D.
        query_heads: of a layer.
        kv_heads: of a layer; it divides `query_heads`.
        mlp_width: neurons of a layer's MLP.
    """

    num_layers: int
    width: int
    query_heads: int
    kv_heads: int
    mlp_width: int


@dataclass(frozen=True)
class Units:
    """What may be left out of an LLM.

    Attributes:
        num_layers: of the LLM.
        prefix_layers: P, the first layers, which always run.
        groups: equal parts that each later layer is split into; 1 for whole layers.
    """

    num_layers: int
    prefix_layers: int
    groups: int = 1

    def __post_init__(self) -> None:
        """Refuse a prefix that leaves no layer to choose, or nothing to start from.

        Raises:
            UnsupportedModeError: naming both numbers.
        """
        if not 1 <= self.prefix_layers < self.num_layers:
            raise UnsupportedModeError(
                f"prefix_layers is {self.prefix_layers}, and this LLM has {self.num_layers} layers: give at least 1 "
                f"and at most {self.num_layers - 1}"
            )

    @property
    def count(self) -> int:
        """U, units in all."""
        return (self.num_layers - self.prefix_layers) * self.groups

    def share(self, unit_count: int) -> float:
        """Return the share of the LLM that runs with so many units, the prefix included."""
        return (self.prefix_layers * self.groups + unit_count) / (self.num_layers * self.groups)


@dataclass(frozen=True)
class ScheduleInput:
    """What a scheduler may read. B samples, D = the LLM's width.

    Attributes:
        units: what may be left out.
        unit_counts: n of each sample, on the host, 0 <= n <= U.
        seeds: [B] int64: what a scheduler that draws derives its choice from.
        states: [B, D] at the latency token, as it enters layer P; of a sample that runs everything, unspecified. None
            for a scheduler without latency token.
    """

    units: Units
    unit_counts: tuple[int, ...]
    seeds: Tensor
    states: Tensor | None = None


@dataclass(frozen=True)
class LayerParts:
    """What of each layer after the prefix runs, where heads and MLP are chosen apart. Y layers of H heads.

    Attributes:
        heads: [B, Y, H] bool.
        slices: [B, Y, H] bool, of H equal slices of the MLP; as many True in each layer as in `heads`.
    """

    heads: Tensor
    slices: Tensor


@dataclass(frozen=True)
class Schedule:
    """Which units run.

    Attributes:
        active: [B, U] bool, exactly n of each row True.
        logits: [B, U] float32 that the choice was made from, or None.
        gates: [B, U] float, 1 where active and 0 elsewhere, with a gradient: for training with straight-through
            gradients. Every unit is then computed, and what it adds is multiplied by its gate.
        parts: which heads and slices the units are, if they are not equal groups in order; `active` then only counts.
    """

    active: Tensor
    logits: Tensor | None = None
    gates: Tensor | None = None
    parts: LayerParts | None = None


@runtime_checkable
class Scheduler(Protocol):
    """Decides which layers, or groups of heads, run. Learned ones are `LatencyTokenScheduler`s.

    Attributes:
        name: the registry key, file name, CLI value and label in the report, in one.
        learned: True if it needs an adapter with weights.
        per_sample: True if the choice depends on the sample (its image, question or seed).

    Construction: `cls(**options)`, or `cls(shape, **options)` for a learned one, whose `config` attribute holds the
    options, so that `cls(shape, **config)` builds it again.
    """

    name: ClassVar[str]
    learned: ClassVar[bool]
    per_sample: ClassVar[bool]

    def units(self, shape: DecoderShape) -> Units:
        """Return how it splits an LLM.

        Raises:
            UnsupportedModeError: if it cannot.
        """
        ...

    def schedule(self, inputs: ScheduleInput) -> Schedule:
        """Choose exactly `inputs.unit_counts[b]` units of sample b."""
        ...


@runtime_checkable
class SearchedScheduler(Scheduler, Protocol):
    """A scheduler whose options are found by search on data: an adapter may hold them, without weights.

    Attributes:
        searched: True.
        config: the options, so that `cls(**config)` builds it again.
    """

    searched: ClassVar[bool]
    config: dict[str, Any]


@runtime_checkable
class TokenScheduler(Scheduler, Protocol):
    """A scheduler that reads the prompt through a latency token in it.

    Attributes:
        free_token: False if the token is the prompt's last one again with something added, put in where part of the
            LLM is left out. True if it holds nothing of the prompt and follows every prompt, as an LLM that was
            tuned with it expects: then a latency of 1.0 is every layer and the token, not the stock model.
    """

    free_token: ClassVar[bool]

    def latency_token(self, shares: Tensor) -> Tensor:
        """Return the latency token for shares of the LLM, [B]: [B, D].

        It is the token's input embedding if it is free, else what is added to that of the prompt's last token.
        """
        ...

    def flops(self) -> int:
        """Return the matrix products of making one token and one choice, besides the LLM's own."""
        ...


def has_free_token(scheduler: Scheduler | None) -> bool:
    """Return whether a latency token of its own follows every prompt, whatever the latency."""
    return isinstance(scheduler, TokenScheduler) and scheduler.free_token


def half_of_layers(shape: DecoderShape) -> int:
    """Return the prefix of AdaLLaVA (arXiv 2503.10905): 16 layers of 32."""
    return max(1, shape.num_layers // 2)


def prefix_of(shape: DecoderShape, prefix_layers: int | None) -> int:
    """Return the prefix asked for, or half of the layers."""
    return half_of_layers(shape) if prefix_layers is None else prefix_layers


def top_units(scores: Tensor, unit_counts: tuple[int, ...]) -> Tensor:
    """Return True at each row's n highest scores, [B, U] bool. Ties go to the lower index."""
    counts = torch.tensor(unit_counts, dtype=torch.int64).to(scores.device, non_blocking=True)
    ranks = scores.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return ranks < counts.unsqueeze(1)
