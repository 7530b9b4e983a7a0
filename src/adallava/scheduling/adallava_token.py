"""What AdaLLaVA's published schedulers have in common: a latency token of their own, and a linear head that reads it.

As in the authors' code (arXiv 2503.10905, `scheduler/simple_scheduler.py`). Against `latency_token.py`: the token holds
nothing of the prompt and stands behind every prompt, also where everything runs, since the LLM was tuned with it; what
is encoded is not the share that runs but n / (U + 1), for n of U units behind the prefix; the encoding is normalised,
and the state is not.
"""

from typing import Any, ClassVar

from torch import Tensor, nn

from adallava.errors import InputError
from adallava.scheduling.contract import DecoderShape, Schedule, ScheduleInput, Units
from adallava.selection.budget_token import encode_budget

NUM_FREQUENCIES = 128


class AdallavaTokenScheduler(nn.Module):
    """Reads the state at the latency token by one linear layer.

    Args:
        units: how the LLM is split.
        width: D.
        num_logits: of the head.
    """

    name: ClassVar[str]
    learned: ClassVar[bool] = True
    per_sample: ClassVar[bool] = True
    free_token: ClassVar[bool] = True
    config: dict[str, Any]

    def __init__(self, units: Units, width: int, num_logits: int) -> None:
        """Make fresh weights."""
        super().__init__()
        self._units, self._width, self._num_logits = units, width, num_logits
        self.latency_mlp = nn.Sequential(
            nn.LayerNorm(2 * NUM_FREQUENCIES),
            nn.Linear(2 * NUM_FREQUENCIES, width),
            nn.GELU(),
            nn.Linear(width, width),
        )
        self.head = nn.Linear(width, num_logits)

    def units(self, shape: DecoderShape) -> Units:
        """Return how it splits an LLM: as the one that it was made for.

        Raises:
            UnsupportedModeError: if it cannot.
        """
        return Units(shape.num_layers, self._units.prefix_layers, self._units.groups)

    def latency_token(self, shares: Tensor) -> Tensor:
        """Return the input embedding of the latency token, [B, D].

        Args:
            shares: [B], of the LLM, in (0, 1].
        """
        units = self._units
        behind = (shares.float() * (units.num_layers * units.groups)).round() - units.prefix_layers * units.groups
        encoding = encode_budget(behind / (units.count + 1), NUM_FREQUENCIES)
        token: Tensor = self.latency_mlp(encoding.to(self.head.weight.dtype))
        return token

    def logits(self, states: Tensor) -> Tensor:
        """Return the head's logits, [B, …] float32, from states at the latency token, [B, D]."""
        logits: Tensor = self.head(states.to(self.head.weight.dtype))
        return logits.float()

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
        raise NotImplementedError

    def flops(self) -> int:
        """Return the matrix products of making one token and one choice."""
        return 2 * self._width * (2 * NUM_FREQUENCIES + self._width + self._num_logits)
