"""Carries out a schedule of the LLM's layers while stock `generate` or `forward` runs: the state of one call.

    layer 5 of a batch of three, whole layers; samples 0 and 2 run it

    hidden [3, S, D] ── rows 0, 2 ──▶ [2, S, D] ── stock layer, cache of 2 rows ──▶ back into rows 0, 2

The rows of a sample (beams, several returns) share its plan. A row that does not run a layer is not computed there and
has no keys and values there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from adallava.errors import AdallavaError
from adallava.families.capabilities.of_llms import head_groups_of
from adallava.families.family_contract import DecoderLayers, RunLayer
from adallava.families.layer_inputs import LayerInputs
from adallava.families.transformers_internals import reorder_layers
from adallava.pipeline.latency_token import has_token
from adallava.scheduling.scheduler_contract import Schedule, ScheduleInput, Scheduler, TokenScheduler, Units


@dataclass(frozen=True)
class SampleLayers:
    """What ran of the LLM for one sample.

    Attributes:
        scheduler: that chose.
        latency_asked: in the form `Latency` prints.
        groups_run: for each layer, the groups of heads that ran; `(0,)` or `()` where a layer is one group.
        groups: that a layer is split into.
        latency_tokens: in the prompt, which the prompt's length counts: 1 or 0.
    """

    scheduler: str
    latency_asked: str
    groups_run: tuple[tuple[int, ...], ...]
    groups: int
    latency_tokens: int = 0


@dataclass(frozen=True)
class _LayerRows:
    """Who runs one layer.

    Attributes:
        rows: of each group, the batch's rows that run it, int64 on the device.
        num_rows: of the batch.
        is_whole: True if the rows are the same for all groups: the layer runs as it is, for them.
        mlp_rows: of each group's slice of the MLP, if they are others.
    """

    rows: tuple[Tensor, ...]
    num_rows: int
    is_whole: bool
    mlp_rows: tuple[Tensor, ...] | None = None

    @property
    def num_pairs(self) -> int:
        """Rows of the layer's cache."""
        return len(self.rows[0]) if self.is_whole else sum(map(len, self.rows))

    @property
    def is_stock(self) -> bool:
        """True if everything runs."""
        return self.is_whole and len(self.rows[0]) == self.num_rows

    @cached_property
    def _places(self) -> Tensor:
        """Row of the layer's cache for each group and row of the batch, [groups, rows]."""
        stored = self.rows[:1] if self.is_whole else self.rows
        places = torch.zeros((len(stored), self.num_rows), dtype=torch.int64, device=self.rows[0].device)
        first = 0
        for group, rows in enumerate(stored):
            places[group, rows] = torch.arange(first, first + len(rows), device=rows.device)
            first += len(rows)
        return places

    def reordered(self, beam_idx: Tensor) -> Tensor:
        """Return which row of the layer's cache goes into each, [cache rows], for that order of the batch's rows.

        Beams only ever follow beams of their own sample, which run the same units.
        """
        stored = self.rows[:1] if self.is_whole else self.rows
        beams = beam_idx.to(self.rows[0].device)
        return torch.cat([self._places[group, beams[rows]] for group, rows in enumerate(stored)])


class ScheduledLayers:
    """Runs in each layer the rows that its plan names, in every pass. The plan is made in the first one."""

    def __init__(
        self,
        decoder: DecoderLayers,
        scheduler: Scheduler,
        units: Units,
        unit_counts: Sequence[int],
        seeds: Tensor,
        places: Tensor | None,
    ) -> None:
        """Start a call. A scheduler that reads no token decides now, on the host.

        Args:
            decoder: the model's layers.
            scheduler: decides.
            units: that may be left out.
            unit_counts: n of each sample.
            seeds: [B] int64, on the host.
            places: [B] int64, the column of each latency token as it enters layer P, on the device; -1 for a sample
                without; None if there is none.
        """
        self._decoder, self._scheduler, self._units = decoder, scheduler, units
        self._unit_counts, self._seeds, self._places = tuple(unit_counts), seeds, places
        self._schedule: Schedule | None = None
        self._plan: list[list[list[bool]]] = []
        self._mlp_plan: list[list[list[bool]]] | None = None
        self._layers: dict[int, _LayerRows] = {}
        if not isinstance(scheduler, TokenScheduler):
            self._decide(ScheduleInput(units, self._unit_counts, seeds))

    def around(self, index: int, layer: RunLayer, hidden: Tensor, inputs: LayerInputs) -> Tensor:
        """Run one layer for the rows that run it. See `AroundLayer`."""
        if index < self._units.prefix_layers:
            return layer(hidden, inputs)
        if self._schedule is None:
            self.decide_at(hidden)
        assert self._schedule is not None
        if self._schedule.gates is not None:
            return self._gated(index, layer, hidden, inputs, self._schedule.gates)
        who = self._who(index, hidden)
        if who.num_pairs == 0:
            return hidden
        if who.is_stock:
            return layer(hidden, inputs)
        if not who.is_whole:
            return head_groups_of(self._decoder).run_groups(index, hidden, inputs, who.rows, mlp_rows=who.mlp_rows)
        (rows, *_) = who.rows
        left = layer(hidden.index_select(0, rows), inputs.of_rows(rows, len(hidden)))
        return hidden.index_copy(0, rows, left.to(hidden.dtype))

    def reorder_cache(self, cache: Any, beam_idx: Tensor) -> Any:
        """Put the rows of every layer's cache into the order of the beams that go on. See `ReorderCache`."""

        def order(index: int) -> Tensor | None:
            """Return which row of a layer's cache goes into each; None for a layer that no row ran."""
            who = self._layers.get(index)
            if who is None or who.is_stock:
                return beam_idx
            return who.reordered(beam_idx) if who.num_pairs else None

        reorder_layers(cache, order)
        return cache

    @property
    def prefix_layers(self) -> int:
        """P, the first layers, which run before anything is decided."""
        return self._units.prefix_layers

    @property
    def is_decided(self) -> bool:
        """Whether the plan is made: a scheduler that reads no token makes it before the LLM runs."""
        return self._schedule is not None

    def decide_at(self, hidden: Tensor) -> None:
        """Make the plan from what enters layer P, [rows, S, D]. Waits for the device."""
        self.decide_from(self._at(hidden))

    def decide_from(self, states: Tensor) -> None:
        """Make the plan from the states at the latency tokens, [B, D], as they enter layer P. Waits for the device."""
        self._decide(ScheduleInput(self._units, self._unit_counts, self._seeds.to(states.device), states))

    @property
    def groups(self) -> int:
        """G, the parts that a layer is split into; 1 for whole layers. Known once decided."""
        return len(self._plan[0][0])

    def parts_by_layer(self) -> list[list[list[bool]]]:
        """Return, for each layer and sample, whether it runs: once, or each group of heads and then of the MLP.

        Only once decided.
        """
        plans = self._plan
        if self.groups > 1:
            neurons = self._mlp_plan or self._plan
            pairs = zip(self._plan, neurons, strict=True)
            plans = [[heads + mlp for heads, mlp in zip(*of_row, strict=True)] for of_row in pairs]
        whole = [[[True] * len(plans[0][0])] * len(plans)] * self._units.prefix_layers
        return whole + [list(of_layer) for of_layer in zip(*plans, strict=True)]

    @property
    def schedule(self) -> Schedule:
        """What was decided.

        Raises:
            AdallavaError: before the LLM ran.
        """
        if self._schedule is None:
            raise AdallavaError("no layer after the prefix ran yet: the schedule is not decided")
        return self._schedule

    def ran(self, latencies: Sequence[str]) -> tuple[SampleLayers, ...]:
        """Return what ran for each sample, after the LLM did.

        Args:
            latencies: as asked.
        """
        units, groups = self._units, len(self._plan[0][0])
        every = tuple(range(groups))
        samples = []
        for latency, plan, count in zip(latencies, self._plan, self._unit_counts, strict=True):
            behind = tuple(tuple(group for group in every if layer[group]) for layer in plan)
            tokens = int(has_token(self._scheduler, count, units))
            run = (every,) * units.prefix_layers + behind
            samples.append(SampleLayers(self._scheduler.name, latency, run, groups, tokens))
        return tuple(samples)

    def _at(self, hidden: Tensor) -> Tensor:
        """Return the states at the latency tokens, [B, D]."""
        assert self._places is not None
        one_each = hidden[:: len(hidden) // len(self._unit_counts)]
        samples = torch.arange(len(one_each), device=hidden.device)
        return one_each[samples, self._places.clamp_min(0)]

    def _decide(self, inputs: ScheduleInput) -> None:
        schedule = self._scheduler.schedule(inputs)
        # How many rows a layer has must be known on the host: the one read that a plan made on the device costs.
        rows = schedule.active.tolist()
        expected = (len(self._unit_counts), self._units.count)
        if tuple(schedule.active.shape) != expected or [sum(row) for row in rows] != list(self._unit_counts):
            raise AdallavaError(
                f"scheduler {self._scheduler.name!r} was asked to run {self._unit_counts} of {self._units.count} units "
                f"and returned {[sum(row) for row in rows]} in a tensor of shape {tuple(schedule.active.shape)}, not "
                f"{expected}"
            )
        self._schedule = schedule
        if schedule.parts is None:
            self._plan = schedule.active.view(len(rows), -1, self._units.groups).tolist()
        else:
            self._plan, self._mlp_plan = schedule.parts.heads.tolist(), schedule.parts.slices.tolist()

    def _who(self, index: int, hidden: Tensor) -> _LayerRows:
        """Return who runs a layer; found once a call."""
        known = self._layers.get(index)
        if known is not None and known.num_rows == len(hidden):
            return known
        behind = index - self._units.prefix_layers
        by_group = _rows_by_group([plan[behind] for plan in self._plan], len(hidden))
        mlp = None
        if self._mlp_plan is not None:
            mlp = _on_device(_rows_by_group([plan[behind] for plan in self._mlp_plan], len(hidden)), hidden)
        is_whole = all(group == by_group[0] for group in by_group)
        who = _LayerRows(_on_device(by_group, hidden), len(hidden), is_whole, mlp)
        self._layers[index] = who
        return who

    def _gated(self, index: int, layer: RunLayer, hidden: Tensor, inputs: LayerInputs, gates: Tensor) -> Tensor:
        """Compute the whole layer for all rows, and let each unit's gate through: for straight-through gradients."""
        groups = self._units.groups
        first = (index - self._units.prefix_layers) * groups
        own = gates[:, first : first + groups].repeat_interleave(len(hidden) // len(gates), dim=0)
        if groups == 1:
            left = layer(hidden, inputs)
            return hidden + own.to(hidden.dtype).unsqueeze(-1) * (left - hidden)
        everyone = torch.arange(len(hidden), device=hidden.device)
        return head_groups_of(self._decoder).run_groups(index, hidden, inputs, (everyone,) * groups, own)


def _rows_by_group(plans: Sequence[Sequence[bool]], num_rows: int) -> list[list[int]]:
    """Return, for each group of a layer, the batch's rows that run it; a sample's rows share its plan."""
    repeats = num_rows // len(plans)
    rows = range(num_rows)
    return [[row for row in rows if plans[row // repeats][group]] for group in range(len(plans[0]))]


def _on_device(by_group: list[list[int]], like: Tensor) -> tuple[Tensor, ...]:
    return tuple(torch.tensor(rows, dtype=torch.int64).to(like.device, non_blocking=True) for rows in by_group)
