"""Stage `budget-token`: the reference controller, by hard Gumbel top-K with a straight-through gradient.

One difference from the reference, whose training zeroed dropped tokens but left them in the sequence: here they
are gathered away, as at inference, so that both compute the same function.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adallava.families.capabilities.of_towers import with_budget_token
from adallava.families.family_contract import Family
from adallava.families.picture_inputs import PictureInputs
from adallava.selection.budget_token import BudgetTokenSelector
from adallava.selection.gumbel import gumbel_top_k
from adallava.training.base_stage import run_packed
from adallava.training.packing import Packed, shared_positions


class StraightThroughObjective(nn.Module):
    """What the Trainer sees in stage `budget-token`; the language-modelling loss is the only one."""

    def __init__(
        self, family: Family, selector: BudgetTokenSelector, *, budget_range: tuple[float, float], tau: float
    ) -> None:
        """Hold the frozen base and the controller that learns; budgets are drawn uniformly from the range."""
        super().__init__()
        self.base = family.model
        self.selector = selector
        self.family, self.budget_range, self.tau = family, budget_range, tau

    def forward(self, pixel_values: Tensor, packed: Packed, **_: Any) -> dict[str, Tensor]:
        """Return `loss` and the `accuracy` of answer tokens."""
        low, high = self.budget_range
        num_tokens = self.family.shape.num_vision_tokens
        keep_count = max(1, int((low + (high - low) * float(torch.rand(()))) * num_tokens))
        # What inference feeds: the share that is really kept.
        ratios = torch.full((len(pixel_values),), keep_count / num_tokens, device=pixel_values.device)
        vision = with_budget_token(self.family, PictureInputs(pixel_values), self.selector.budget_token(ratios))
        assert vision.budget_features is not None
        logits = self.selector.logits(vision.budget_features)
        indices, gates = gumbel_top_k(logits, [keep_count] * len(pixel_values), tau=self.tau)
        gated = vision.features * gates.unsqueeze(-1).to(vision.features.dtype)
        kept = gated.gather(1, indices.unsqueeze(-1).expand(-1, -1, gated.shape[-1]))
        shared = shared_positions(self.family, packed, PictureInputs(pixel_values))
        run = run_packed(self.family, self.family.project(kept), indices, packed.to(pixel_values.device), shared)
        loss = F.cross_entropy(run.logits.float(), run.targets)
        return {"loss": loss, "accuracy": (run.logits.argmax(-1) == run.targets).float().mean()}
