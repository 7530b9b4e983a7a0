"""`first`: the layers right after the prefix. The baseline that stops early."""

from typing import ClassVar

from adallava.scheduling.scheduler_contract import Schedule, ScheduleInput
from adallava.scheduling.whole_layers import WholeLayers, schedule_of


class FirstScheduler(WholeLayers):
    """Runs the first n layers after the prefix."""

    name: ClassVar[str] = "first"

    def schedule(self, inputs: ScheduleInput) -> Schedule:
        """Choose exactly `inputs.unit_counts[b]` layers of sample b."""
        return schedule_of([range(count) for count in inputs.unit_counts], inputs)
