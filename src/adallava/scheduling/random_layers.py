"""`random`: layers drawn by a seed, another choice for every sample."""

from typing import ClassVar

from adallava.scheduling.scheduler_contract import Schedule, ScheduleInput, top_units
from adallava.scheduling.whole_layers import WholeLayers
from adallava.selection.random import hash_scores


class RandomScheduler(WholeLayers):
    """Runs the n layers after the prefix with the highest hash of (seed, layer)."""

    name: ClassVar[str] = "random"
    per_sample: ClassVar[bool] = True
    draws: ClassVar[bool] = True

    def schedule(self, inputs: ScheduleInput) -> Schedule:
        """Choose exactly `inputs.unit_counts[b]` layers of sample b."""
        scores = hash_scores(inputs.seeds, inputs.units.count)
        return Schedule(top_units(scores, inputs.unit_counts))
