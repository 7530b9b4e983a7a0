"""What AdaLLaVA's published schedulers have in common: a latency token of their own, and a linear head that reads it.

As in the authors' code (arXiv 2503.10905, `scheduler/simple_scheduler.py`). Against `latency_token.py`: the token holds
nothing of the prompt and follows every prompt, also where everything runs, since the LLM was tuned with it; what
is encoded is not the share that runs but n / (U + 1), for n of U units after the prefix; the encoding is normalized,
and the state is not.
"""

from typing import ClassVar

from torch import Tensor, nn

from adallava.scheduling.scheduler_contract import Units
from adallava.scheduling.token_reader import TokenReader
from adallava.selection.budget_token import encode_budget

NUM_FREQUENCIES = 128


class AdallavaTokenScheduler(TokenReader):
    """Reads the state at the latency token by one linear layer.

    Args:
        units: how the LLM is split.
        width: D.
        num_logits: of the head.
    """

    free_token: ClassVar[bool] = True

    def __init__(self, units: Units, width: int, num_logits: int) -> None:
        """Make fresh weights."""
        super().__init__(units)
        self._width, self._num_logits = width, num_logits
        self.latency_mlp = nn.Sequential(
            nn.LayerNorm(2 * NUM_FREQUENCIES),
            nn.Linear(2 * NUM_FREQUENCIES, width),
            nn.GELU(),
            nn.Linear(width, width),
        )
        self.head = nn.Linear(width, num_logits)

    def latency_token(self, shares: Tensor) -> Tensor:
        """Return the input embedding of the latency token, [B, D].

        Args:
            shares: [B], of the LLM, in (0, 1].
        """
        units = self._units
        behind = (shares.float() * (units.num_layers * units.groups)).round() - units.prefix_layers * units.groups
        return self.embed(encode_budget(behind / (units.count + 1), NUM_FREQUENCIES))

    def logits(self, states: Tensor) -> Tensor:
        """Return the head's logits, [B, …] float32, from states at the latency token, [B, D]."""
        logits: Tensor = self.head(states.to(self.head.weight.dtype))
        return logits.float()

    def flops(self) -> int:
        """Return the matrix products of making one token and one choice."""
        return 2 * self._width * (2 * NUM_FREQUENCIES + self._width + self._num_logits)
