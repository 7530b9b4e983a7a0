"""Plans of an LLM while they are learned or compared: drawn, and run from the prefix's states on.

    embeds ── layers 0 … P - 1, once ──▶ states [R, S, D] ──┬─ the layers of plan 1 ──▶ hidden
                                                            ├─ the layers of plan 2 ──▶ hidden
                                                            └─ …

What comes before the choice is the same for all plans of a prompt, and is computed once.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from adallava.families.capabilities.of_llms import decoder_of
from adallava.families.family_contract import AroundLayer, Family, RunLayer
from adallava.families.layer_inputs import LayerInputs
from adallava.pipeline.pack import CompactBatch
from adallava.pipeline.skips import ScheduledLayers
from adallava.scheduling.scheduler_contract import DecoderShape, Schedule, ScheduleInput, Units, top_units
from adallava.selection.gumbel import gumbel_noise


@dataclass(frozen=True)
class GivenPlans:
    """Stands in for a scheduler: runs what was decided elsewhere."""

    name: ClassVar[str] = "given"
    learned: ClassVar[bool] = False
    per_sample: ClassVar[bool] = True
    split: Units
    decided: Schedule

    def units(self, shape: DecoderShape) -> Units:
        """Return those that were decided about."""
        return self.split

    def schedule(self, inputs: ScheduleInput) -> Schedule:
        """Return what was decided."""
        return self.decided


def draw_plans(logits: Tensor, unit_count: int, num_samples: int) -> tuple[Schedule, Tensor]:
    """Draw plans of exactly n units by their logits, without replacement.

    Args:
        logits: [R, U]; no gradient flows back.
        unit_count: n.
        num_samples: plans a row, S.

    Returns:
        The plans, [R * S, U], S of each row in turn; and the order of all units that each is the first n of, [R * S, U]
        int64.
    """
    repeated = logits.detach().repeat_interleave(num_samples, dim=0)
    noisy = repeated + gumbel_noise(repeated)
    return Schedule(top_units(noisy, (unit_count,) * len(noisy))), noisy.argsort(dim=1, descending=True)


def run_prefix(family: Family, units: Units, embeds: Tensor, batch: CompactBatch) -> Tensor:
    """Return what enters layer P, [R, S, D], from embeddings of the same shape."""
    entered: list[Tensor] = []

    def around(index: int, layer: RunLayer, hidden: Tensor, inputs: LayerInputs) -> Tensor:
        """Run the prefix, and keep what enters the next layer."""
        if index < units.prefix_layers:
            return layer(hidden, inputs)
        entered.append(hidden)
        return hidden

    _run(family, around, embeds, batch.attention_mask, batch.position_ids)
    return entered[0]


def run_behind(
    family: Family, units: Units, states: Tensor, batch: CompactBatch, schedule: Schedule, *, repeats: int = 1
) -> Tensor:
    """Return what the last layer puts out, normed, [R * repeats, S, D].

    Args:
        family: the model.
        units: how it is split.
        states: [R, S, D], what enters layer P.
        batch: that they came from; R rows.
        schedule: `repeats` plans of each row in turn, each of as many units as any other.
        repeats: plans a row.
    """
    rows = torch.arange(len(states), device=states.device).repeat_interleave(repeats)
    counts = [sum(plan) for plan in schedule.active.tolist()]
    layers = ScheduledLayers(
        decoder_of(family),
        GivenPlans(units, schedule),
        units,
        counts,
        torch.zeros(len(counts), dtype=torch.int64),
        None,
    )

    def around(index: int, layer: RunLayer, hidden: Tensor, inputs: LayerInputs) -> Tensor:
        """Run what comes after the prefix, by plan."""
        return hidden if index < units.prefix_layers else layers.around(index, layer, hidden, inputs)

    return _run(family, around, states[rows], batch.attention_mask[rows], batch.position_ids[rows])


def _run(family: Family, around: AroundLayer, embeds: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
    llm = family.llm_of(decoder_of(family).view(around))
    result = llm(inputs_embeds=embeds, attention_mask=mask, position_ids=positions, use_cache=False)
    hidden: Tensor = result.last_hidden_state
    return hidden
