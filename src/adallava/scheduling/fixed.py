"""`fixed`: plans that were found beforehand, by search on training data, the same for every sample."""

from typing import ClassVar

from adallava.errors import BudgetError, InputError
from adallava.scheduling.scheduler_contract import DecoderShape, Schedule, ScheduleInput, Units
from adallava.scheduling.whole_layers import WholeLayers, schedule_of


class FixedScheduler(WholeLayers):
    """Runs the plan that it was given for the number of layers asked for.

    Args:
        plans: layers after the prefix that run, joined by `+`; several plans, of different lengths, by `/`:
            `6` or `4+6/4+5+6`. Empty: only the prefix, or everything.
        prefix_layers: P; None = half of the layers.
    """

    name: ClassVar[str] = "fixed"
    searched: ClassVar[bool] = True

    def __init__(self, *, plans: str | int = "", prefix_layers: int | None = None) -> None:
        """Read the plans.

        Raises:
            InputError: for text of another form, a layer named twice, or two plans of one length.
        """
        super().__init__(prefix_layers=prefix_layers)
        self.plans: dict[int, tuple[int, ...]] = {}
        for text in filter(None, str(plans).split("/")):
            names = text.split("+")
            if not all(name.isdigit() for name in names) or len(set(names)) < len(names):
                raise InputError(f"plan {text!r} is not a list of different layers joined by '+', such as 4+6")
            if len(names) in self.plans:
                raise InputError(f"plans {plans!r} hold two of {len(names)} layers: give one for each number of layers")
            self.plans[len(names)] = tuple(sorted(map(int, names)))
        self.config = {"plans": str(plans), "prefix_layers": prefix_layers}

    def units(self, shape: DecoderShape) -> Units:
        """Return one unit a layer after the prefix.

        Raises:
            InputError: for a plan with a layer that is in the prefix, or that the LLM does not have.
        """
        units = super().units(shape)
        for plan in self.plans.values():
            for layer in plan:
                if not units.prefix_layers <= layer < units.num_layers:
                    raise InputError(
                        f"plan {'+'.join(map(str, plan))} names layer {layer}: layers {units.prefix_layers} … "
                        f"{units.num_layers - 1} can be chosen, those before always run"
                    )
        return units

    def schedule(self, inputs: ScheduleInput) -> Schedule:
        """Return the plans of the lengths asked for.

        Raises:
            BudgetError: if there is none of a length.
        """
        return schedule_of([self._plan(count, inputs.units) for count in inputs.unit_counts], inputs)

    def _plan(self, count: int, units: Units) -> list[int]:
        if count in (0, units.count):
            return list(range(count))
        if count not in self.plans:
            known = ", ".join(map(str, sorted(self.plans))) or "none"
            raise BudgetError(
                f"scheduler {self.name!r} has no plan of {count} layers after the prefix (it has plans of {known}): "
                f"give plans=…, or --scheduler-option {self.name}.plans=…, or an adapter that holds plans found by "
                "training stage fixed-plan"
            )
        return [layer - units.prefix_layers for layer in self.plans[count]]
