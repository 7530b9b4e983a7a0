"""What the learned schedulers have in common: a latency token that reads the prompt, and a head that reads the token.

After AdaLLaVA (arXiv 2503.10905, section 3): the budget becomes a token at the end of the prompt, whose state after
the prefix gives a logit for each unit. Three differences. The token only observes: it reads the prompt, and nothing
reads it. The answer is what the same layers answer without it, so that a base that was never trained with such a token
bears it, and learning what to skip cannot harm the answers of a plan. It is the prompt's last token again, with the
encoded budget added to its embedding (the addition starts at zero). And the state is divided by its root mean square,
since the scale of hidden states differs by orders of magnitude from base to base.
"""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from adallava.scheduling.codebook import nearest_plans, read_book
from adallava.scheduling.scheduler_contract import Schedule, ScheduleInput, Units
from adallava.scheduling.token_reader import TokenReader
from adallava.selection.budget_token import encode_budget


class LatencyTokenScheduler(TokenReader):
    """Runs the n units with the highest logits.

    Args:
        units: how the LLM is split.
        width: D.
        num_frequencies: sines, and as many cosines, that encode the share of the LLM that runs.
        codebook: for each number of units, how many of the plans below it may choose from; None for any plan.
        codebook_plans: units that run, such as `0+3`; see `codebook.read_book`.
    """

    free_token: ClassVar[bool] = False
    call_options: ClassVar[frozenset[str]] = frozenset({"codebook"})

    def __init__(
        self,
        units: Units,
        width: int,
        num_frequencies: int,
        codebook: int | None = None,
        codebook_plans: Sequence[str] = (),
    ) -> None:
        """Make fresh weights.

        Raises:
            InputError: for a codebook that means nothing, or without plans.
        """
        super().__init__(units)
        self._width, self._num_frequencies = width, num_frequencies
        self._book = None if codebook is None else read_book(codebook_plans, codebook, units.count)
        self.latency_mlp = nn.Sequential(nn.Linear(2 * num_frequencies, width), nn.GELU(), nn.Linear(width, width))
        self.head = nn.Linear(width, units.count)
        for parameter in self.latency_mlp[2].parameters():
            nn.init.zeros_(parameter)

    def latency_token(self, shares: Tensor) -> Tensor:
        """Return what is added to the input embedding of the latency token, [B, D].

        Args:
            shares: [B], of the LLM, in (0, 1].
        """
        return self.embed(encode_budget(shares.float(), self._num_frequencies))

    def logits(self, states: Tensor) -> Tensor:
        """Return a logit for each unit, [B, U] float32, from states at the latency token, [B, D]."""
        weight = self.head.weight
        normed = F.rms_norm(states.float(), states.shape[-1:]).to(weight.dtype)
        logits: Tensor = self.head(normed)
        return logits.float()

    def choose(self, logits: Tensor, inputs: ScheduleInput) -> Schedule:
        """Choose exactly `inputs.unit_counts[b]` units of sample b by its logits, of the codebook if there is one."""
        if self._book is None:
            return super().choose(logits, inputs)
        return Schedule(nearest_plans(logits.detach(), inputs.unit_counts, self._book), logits=logits)

    def flops(self) -> int:
        """Return the matrix products of making one token and one choice."""
        return 2 * self._width * (2 * self._num_frequencies + self._width + self._units.count)
