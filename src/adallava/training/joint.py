"""Stage `joint`: scorer and base learn together, so that the base meets the sets of tokens that the scorer makes.

The scorer learns by policy gradient as in stage `question`. The base learns on one nearly greedy set for each question,
not on the drawn ones: those are for exploring, and worse than what it will be given. In part of the steps the base
sees what other methods would keep, so that it does not forget them.
"""

from typing import Any

import torch
from torch import Tensor, nn

from adallava.pipeline.read_prompts import IGNORED_LABEL
from adallava.selection.gumbel import gumbel_noise
from adallava.training.base_stage import BaseObjective
from adallava.training.packing import Packed
from adallava.training.pictures import Beside
from adallava.training.policy import PolicyObjective, Scored, answer_log_probabilities
from adallava.training.prompted import kept_in_order
from adallava.training.prompts import PromptBatch

_GREEDY_NOISE = 0.3
"""Strength of the noise on the scores that the base's sets are taken by; the scores' spread is 1 to 2."""


class JointObjective(nn.Module):
    """What the Trainer sees in stage `joint`."""

    def __init__(self, others: BaseObjective, policy: PolicyObjective, others_share: float) -> None:
        """Hold both objectives over one base; `others_share` of the steps are those of stage `base`."""
        super().__init__()
        self.others, self.policy, self.others_share = others, policy, others_share

    def forward(
        self,
        pixel_values: Tensor,
        packed: Packed,
        prompts: PromptBatch,
        evidence: Tensor | None = None,
        beside: Beside | None = None,
        **labels: Any,
    ) -> dict[str, Tensor]:
        """Return `loss` and its parts, of stage `base` or of the policy and the base on its sets."""
        if float(torch.rand(())) < self.others_share:
            return self.others(pixel_values, packed, evidence, beside=beside, **labels)  # type: ignore[no-any-return]
        outputs, scored = self.policy.step(pixel_values, prompts, beside=beside)
        answered, right = self._answer(prompts, scored)
        return {
            **outputs,
            "loss": outputs["loss"] + answered,
            "loss_selected": answered,
            f"greedy_right_{scored.keep_count}": right.float().mean(),
        }

    def _answer(self, prompts: PromptBatch, scored: Scored) -> tuple[Tensor, Tensor]:
        """Return the cross-entropy per answer token from nearly greedy sets, and which answers are right."""
        noisy = scored.scores + _GREEDY_NOISE * gumbel_noise(scored.scores)
        indices = kept_in_order(noisy.argsort(dim=1, descending=True), scored.layout.keep_counts)
        chances, right = answer_log_probabilities(scored.prompted, scored.layout, indices)
        return -chances.sum() / (prompts.labels != IGNORED_LABEL).sum(), right
