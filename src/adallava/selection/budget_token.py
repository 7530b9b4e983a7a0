"""`budget-token`: the controller of a token-budget experiment built on AdaLLaVA (arXiv 2503.10905), as the reference.

A scalar budget becomes a token that passes through the vision tower with the patches,
`[CLS, P_1 … P_N, BUDGET]`; one linear layer on its output gives a keep-logit for each place. It sees no patch
on its own and no question, so it can learn where answers usually are, not what is in the image.
"""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from adallava.errors import InputError
from adallava.selection.base import Method
from adallava.selection.selector_contract import Need, Selection, SelectionInput, TowerShape, keep_highest


class BudgetTokenSelector(Method, nn.Module):
    """Keeps the K highest of `Linear(C, N)` on the tower's output at the budget token.

    Args:
        shape: N and C are what the weights are made for.
        num_frequencies: sines, and as many cosines, that encode the budget.
    """

    name: ClassVar[str] = "budget-token"
    reads_question: ClassVar[bool] = False
    learned: ClassVar[bool] = True
    needs: ClassVar[frozenset[Need]] = frozenset({Need.BUDGET_TOKEN})

    def __init__(self, shape: TowerShape, *, num_frequencies: int = 128) -> None:
        """Make fresh weights for towers of `shape`."""
        super().__init__()
        self.config: dict[str, Any] = {"num_frequencies": num_frequencies}
        self.num_frequencies = num_frequencies
        width = shape.vision_width
        self.budget_mlp = nn.Sequential(nn.Linear(2 * num_frequencies, width), nn.GELU(), nn.Linear(width, width))
        self.position = nn.Parameter(torch.randn(width) * 0.02)
        self.controller = nn.Linear(width, shape.num_vision_tokens)

    def budget_token(self, ratios: Tensor) -> Tensor:
        """Return the token to append to the tower's input, [I, C], its own position included.

        Args:
            ratios: [I], budgets in [0, 1].
        """
        encoding = encode_budget(ratios.float(), self.num_frequencies)
        token: Tensor = self.budget_mlp(encoding.to(self.position.dtype)) + self.position
        return token

    def logits(self, budget_features: Tensor) -> Tensor:
        """Return keep-logits, [I, N] float32, from the tower's output at the budget token, [I, C]."""
        logits: Tensor = self.controller(budget_features.to(self.controller.weight.dtype))
        return logits.float()

    def select(self, inputs: SelectionInput) -> Selection:
        """Choose exactly `inputs.keep_counts[i]` tokens of image i.

        Raises:
            InputError: if the tower ran without the budget token.
        """
        if inputs.budget_features is None:
            raise InputError("'budget-token' needs budget_features: run the tower with the budget token")
        scores = self.logits(inputs.budget_features)
        return keep_highest(scores, inputs.keep_counts)

    def flops(self, shape: TowerShape, num_question_tokens: int, keep_count: int) -> int:
        """Return the matrix products of MLP and controller; the tower's longer sequence counts as vision."""
        width = shape.vision_width
        return 2 * width * (2 * self.num_frequencies + width + shape.num_vision_tokens)


def encode_budget(ratios: Tensor, num_frequencies: int) -> Tensor:
    """Return sines and cosines of each budget, scaled to [0, 2π], at geometric frequencies.

    Args:
        ratios: [I] float32 in [0, 1].
        num_frequencies: F; frequencies run from 1 down to 1/10000, as in the Transformer's position encoding.

    Returns:
        [I, 2F] float32.
    """
    steps = torch.arange(num_frequencies, device=ratios.device, dtype=torch.float32)
    frequencies = torch.exp(steps * (-math.log(10_000.0) / num_frequencies))
    angles = 2.0 * math.pi * ratios[:, None] * frequencies[None, :]
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
