"""`spaced`: layers evenly spread over those after the prefix."""

from typing import ClassVar

from adallava.scheduling.scheduler_contract import Schedule, ScheduleInput
from adallava.scheduling.whole_layers import WholeLayers, schedule_of


class SpacedScheduler(WholeLayers):
    """Runs the layer in the middle of each of n equal stretches after the prefix."""

    name: ClassVar[str] = "spaced"

    def schedule(self, inputs: ScheduleInput) -> Schedule:
        """Choose exactly `inputs.unit_counts[b]` layers of sample b."""
        count = inputs.units.count
        return schedule_of([[(2 * i + 1) * count // (2 * n) for i in range(n)] for n in inputs.unit_counts], inputs)
