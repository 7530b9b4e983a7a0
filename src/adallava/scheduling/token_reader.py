"""What the schedulers that read the prompt through a latency token have in common."""

from typing import Any, ClassVar

from torch import Tensor, nn

from adallava.errors import InputError
from adallava.scheduling.scheduler_contract import DecoderShape, Schedule, ScheduleInput, Units, top_units


class TokenReader(nn.Module):
    """Runs the n units with the highest logits, which a head makes of the state at the latency token.

    Args:
        units: how the LLM is split.

    Attributes:
        latency_mlp: from an encoded latency to the LLM's width.
        head: from a state, or what is made of it, to logits.
        config: the options of the constructor.
    """

    name: ClassVar[str]
    learned: ClassVar[bool] = True
    per_sample: ClassVar[bool] = True
    free_token: ClassVar[bool]
    latency_mlp: nn.Sequential
    head: nn.Linear
    config: dict[str, Any]

    def __init__(self, units: Units) -> None:
        """Keep the units; weights are the subclass's."""
        super().__init__()
        self._units = units

    def units(self, shape: DecoderShape) -> Units:
        """Return how it splits an LLM: as the one that it was made for.

        Raises:
            UnsupportedModeError: if it cannot.
        """
        return Units(shape.num_layers, self._units.prefix_layers, self._units.groups)

    def logits(self, states: Tensor) -> Tensor:
        """Return the head's logits, [B, …] float32, from states at the latency token, [B, D]."""
        raise NotImplementedError

    def schedule(self, inputs: ScheduleInput) -> Schedule:
        """Choose exactly `inputs.unit_counts[b]` units of sample b.

        Raises:
            InputError: if the LLM ran without the latency token.
        """
        if inputs.states is None:
            raise InputError("a learned scheduler needs the states at the latency token")
        return self.choose(self.logits(inputs.states), inputs)

    def choose(self, logits: Tensor, inputs: ScheduleInput) -> Schedule:
        """Choose exactly `inputs.unit_counts[b]` units of sample b by its logits."""
        return Schedule(top_units(logits.detach(), inputs.unit_counts), logits=logits)

    def embed(self, encoding: Tensor) -> Tensor:
        """Return the LLM's width of an encoded latency, [B, F] float32: [B, D] in the weights' type."""
        token: Tensor = self.latency_mlp(encoding.to(self.head.weight.dtype))
        return token
