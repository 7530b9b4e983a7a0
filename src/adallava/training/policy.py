"""Stage `question`: the choice of tokens is learned by policy gradient, with forward passes of the base alone.

For each question, several subsets of K tokens are drawn; each is rewarded by the log-probability that the frozen
base gives the right answer from it; a subset better than its siblings becomes more likely. Nothing is passed back
through the base, and the base reads exactly what it would read at inference: K gathered tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adallava.budget import TokenBudget
from adallava.families.family_contract import Family, VisionFeatures
from adallava.families.picture_inputs import PictureInputs
from adallava.pipeline.encode import budget_ratios
from adallava.pipeline.layout import Layout, plan_layout
from adallava.pipeline.pack import assemble
from adallava.pipeline.read_prompts import IGNORED_LABEL
from adallava.pipeline.selector_inputs import selection_input
from adallava.selection.gumbel import gumbel_noise
from adallava.selection.question import QuestionSelector
from adallava.selection.selector_contract import Selection
from adallava.training.prompts import PromptBatch

LOWEST_REWARD = -5.0
_ADVANTAGE_FLOOR = 0.05


def draw_orders(scores: Tensor, num_samples: int) -> Tensor:
    """Draw orders of all tokens from the Plackett-Luce distribution of the scores: [R * S, N] int64.

    Sorting scores + Gumbel noise is such a draw; its first K are a sample without replacement (Kool et al., 2019).
    """
    repeated = scores.detach().repeat_interleave(num_samples, dim=0)
    return (repeated + gumbel_noise(repeated)).argsort(dim=1, descending=True)


def log_probability(scores: Tensor, orders: Tensor, keep_count: int) -> Tensor:
    """Return the log-probability of drawing the first K of each order, in that order: [R * S].

    Args:
        scores: [R * S, N] with gradient.
        orders: [R * S, N] from `draw_orders`.
        keep_count: K.
    """
    ordered = scores.gather(1, orders)
    left = ordered.flip(1).logcumsumexp(dim=1).flip(1)
    return (ordered - left)[:, :keep_count].sum(dim=1)


def advantages(rewards: Tensor, num_samples: int) -> Tensor:
    """Return each sample's reward less the mean of its siblings, in units of the batch's spread: [R * S]."""
    grouped = rewards.view(-1, num_samples)
    others = (grouped.sum(dim=1, keepdim=True) - grouped) / (num_samples - 1)
    difference = grouped - others
    return (difference / (difference.std() + _ADVANTAGE_FLOOR)).flatten()


def evidence_loss(scores: Tensor, asked_patches: Tensor) -> Tensor:
    """Return the mean of -log(chance that the first token drawn shows what is asked about).

    Args:
        scores: [R, N] with gradient.
        asked_patches: [R, N] bool; questions without any are left out.
    """
    has_any = asked_patches.any(dim=1)
    inside = scores.masked_fill(~asked_patches, torch.finfo(scores.dtype).min).logsumexp(dim=1)
    losses = scores.logsumexp(dim=1) - inside
    return torch.where(has_any, losses, 0.0).sum() / has_any.sum().clamp_min(1)


def answer_log_probabilities(
    family: Family, layout: Layout, prompts: PromptBatch, features: Tensor, indices: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the log-probability of each answer from the kept tokens, [R], and whether it is the greedy one.

    With gradients into the base, if they are enabled.

    Args:
        family: the base.
        layout: of these prompts, for the number of tokens that `indices` keeps.
        prompts: R prompts with answers.
        features: [R, N, C] tower features.
        indices: [R, K] ascending.
    """
    kept = family.project(Selection(indices, layout.keep_counts).apply(features))
    batch = assemble(family, layout, prompts.input_ids, kept, indices, "original", prompts.labels)
    hidden = family.llm_of(family.model)(
        inputs_embeds=batch.inputs_embeds,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        use_cache=False,
    ).last_hidden_state
    assert batch.labels is not None
    return answer_chances(family, hidden, batch.labels)


def answer_chances(family: Family, hidden: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the log-probability of each answer, [R], and whether it is the greedy one.

    Args:
        family: the base.
        hidden: [R, S, D], what its last layer puts out, normed.
        labels: [R, S], -100 but at the answer.
    """
    targets = labels[:, 1:]
    answers = targets != IGNORED_LABEL
    logits = family.model.get_output_embeddings()(hidden[:, :-1][answers]).float()
    wanted = targets[answers]
    row = answers.nonzero()[:, 0]
    chances = -F.cross_entropy(logits, wanted, reduction="none")
    total = torch.zeros(len(targets), device=chances.device).index_add(0, row, chances)
    wrong = (logits.argmax(-1) != wanted).float()
    right = torch.zeros(len(targets), device=chances.device).index_add(0, row, wrong) == 0
    return total, right


@dataclass(frozen=True)
class Scored:
    """What one step of the policy gradient scored. R prompts.

    Attributes:
        features: [R, N, C] tower features.
        scores: [R, N], without gradient.
        keep_count: K of the step.
    """

    features: Tensor
    scores: Tensor
    keep_count: int


class PolicyObjective(nn.Module):
    """What the Trainer sees in stage `question`."""

    def __init__(
        self,
        family: Family,
        selector: QuestionSelector,
        *,
        keep_counts: Sequence[int],
        num_samples: int,
        evidence_weight: float = 0.0,
        spread_weight: float = 0.0,
    ) -> None:
        """Hold the frozen base and the scorer that learns.

        Args:
            family: the base; its parameters must not require gradients.
            selector: the scorer.
            keep_counts: each step draws its K from these.
            num_samples: subsets per question, at least 2.
            evidence_weight: of `evidence_loss`, where the data says which patches show what is asked about; it
                shortens the time in which no drawn subset is better than another.
            spread_weight: of the scores' mean square. Without it scores run into their bound within a hundred steps
                of a large batch: every draw is then the same, and nothing is learned any more.
        """
        super().__init__()
        self.base = family.model
        self.selector = selector
        self.family, self.keep_counts, self.num_samples = family, tuple(keep_counts), num_samples
        self.evidence_weight, self.spread_weight = evidence_weight, spread_weight

    def forward(
        self,
        pixel_values: Tensor,
        prompts: PromptBatch,
        asked_patches: Tensor | None = None,
        **_: Any,
    ) -> dict[str, Tensor]:
        """Return `loss`, the mean `reward`, the share of right answers by K, and the scores' `spread`."""
        return self.step(pixel_values, prompts.to(pixel_values.device), asked_patches)[0]

    def step(
        self, pixel_values: Tensor, prompts: PromptBatch, asked_patches: Tensor | None = None
    ) -> tuple[dict[str, Tensor], Scored]:
        """Return what `forward` does, and the scores that it came from."""
        keep_count = self.keep_counts[int(torch.randint(len(self.keep_counts), ()))]
        with torch.no_grad():
            features = self.family.encode(PictureInputs(pixel_values)).features[prompts.picture]
        scores = self._scores(prompts, features, keep_count)
        orders = draw_orders(scores, self.num_samples)
        drawn = prompts.repeat(self.num_samples)
        with torch.no_grad():
            rewards, right = answer_log_probabilities(
                self.family,
                self.layout(drawn, keep_count),
                drawn,
                features.repeat_interleave(self.num_samples, dim=0),
                orders[:, :keep_count].sort(dim=1).values,
            )
        repeated = scores.repeat_interleave(self.num_samples, dim=0)
        chances = log_probability(repeated, orders, keep_count) / keep_count**0.5
        gains = advantages(rewards.clamp_min(LOWEST_REWARD), self.num_samples)
        loss = -(gains * chances).mean() + self.spread_weight * scores.square().mean()
        if self.evidence_weight and asked_patches is not None:
            loss = loss + self.evidence_weight * evidence_loss(scores, asked_patches)
        outputs = {
            "loss": loss,
            "reward": rewards.mean(),
            f"right_{keep_count}": right.float().mean(),
            "spread": scores.detach().std(),
        }
        return outputs, Scored(features, scores.detach(), keep_count)

    def _scores(self, prompts: PromptBatch, features: Tensor, keep_count: int) -> Tensor:
        layout = self.layout(prompts, keep_count)
        inputs = selection_input(
            self.family,
            layout,
            prompts.input_ids,
            VisionFeatures(features, None),
            budget_ratios(layout, features.device),
            seeds=[0] * len(prompts.input_ids),
        )
        return self.selector.scores(inputs)

    def layout(self, prompts: PromptBatch, keep_count: int) -> Layout:
        """Return the layout of whole prompts that keep K tokens each, on the family's device."""
        return plan_layout(
            prompts.input_ids,
            prompts.attention_mask,
            tokens_per_image=[self.family.shape.num_vision_tokens] * len(prompts.input_ids),
            image_token_id=self.family.image_token_id,
            budgets=[TokenBudget(count=keep_count)] * len(prompts.input_ids),
            side="right",
            labels=prompts.labels,
        ).to(self.family.device)
