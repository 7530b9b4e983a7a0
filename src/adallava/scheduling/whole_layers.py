"""What the schedulers that rank whole layers without reading the sample have in common."""

from collections.abc import Sequence
from typing import ClassVar

import torch

from adallava.scheduling.scheduler_contract import DecoderShape, Schedule, ScheduleInput, Units, prefix_of


class WholeLayers:
    """Splits an LLM into whole layers after a prefix.

    Args:
        prefix_layers: P; None = half of the layers.
    """

    learned: ClassVar[bool] = False
    per_sample: ClassVar[bool] = False

    def __init__(self, *, prefix_layers: int | None = None) -> None:
        """Make it with its prefix."""
        self.prefix_layers = prefix_layers

    def units(self, shape: DecoderShape) -> Units:
        """Return one unit a layer after the prefix."""
        return Units(shape.num_layers, prefix_of(shape, self.prefix_layers))


def schedule_of(units_by_sample: Sequence[Sequence[int]], inputs: ScheduleInput) -> Schedule:
    """Return the schedule that runs the given units of each sample."""
    active = torch.zeros(len(units_by_sample), inputs.units.count, dtype=torch.bool)
    for row, units in enumerate(units_by_sample):
        active[row, list(units)] = True
    return Schedule(active.to(inputs.seeds.device, non_blocking=True))
