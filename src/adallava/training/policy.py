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

from adallava.families.family_contract import Family
from adallava.pipeline.layout import Layout
from adallava.pipeline.read_prompts import IGNORED_LABEL
from adallava.selection.gumbel import gumbel_noise
from adallava.selection.question import QuestionSelector
from adallava.training.pictures import Beside, picture_inputs
from adallava.training.prompted import NEVER, Prompted, kept_in_order, repeated_images, run_llm
from adallava.training.prompts import PromptBatch

LOWEST_REWARD = -5.0
_ADVANTAGE_FLOOR = 0.05


def draw_orders(scores: Tensor, num_samples: int = 1) -> Tensor:
    """Draw orders of all tokens from the Plackett-Luce distribution of the scores: [R * S, N] int64.

    Sorting scores + Gumbel noise is such a draw; its first K are a sample without replacement (Kool et al., 2019).
    """
    repeated = scores.detach().repeat_interleave(num_samples, dim=0)
    return (repeated + gumbel_noise(repeated)).argsort(dim=1, descending=True)


def log_probability(scores: Tensor, orders: Tensor, keep_count: int | Tensor) -> Tensor:
    """Return the log-probability of drawing the first K of each order, in that order: [R * S].

    Args:
        scores: [R * S, N] with gradient.
        orders: [R * S, N] from `draw_orders`.
        keep_count: K, or [R * S] of each row.
    """
    ordered = scores.gather(1, orders)
    left = ordered.flip(1).logcumsumexp(dim=1).flip(1)
    if isinstance(keep_count, int):
        return (ordered - left)[:, :keep_count].sum(dim=1)
    behind = torch.arange(orders.shape[1], device=orders.device) >= keep_count.unsqueeze(1)
    return (ordered - left).masked_fill(behind, 0).sum(dim=1)


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
    prompted: Prompted, layout: Layout, indices: Tensor, repeats: int = 1
) -> tuple[Tensor, Tensor]:
    """Return the log-probability of each answer from the kept tokens, [R * repeats], and whether it is the greedy one.

    With gradients into the base, if they are enabled.

    Args:
        prompted: R prompts with answers.
        layout: of these prompts, for the number of tokens that `indices` keeps.
        indices: [J * repeats, Kmax] ascending; see `Prompted.answering`.
        repeats: of each prompt.
    """
    prepared, labels = prompted.answering(layout, indices, repeats)
    targets = labels[:, 1:]
    columns = (targets != IGNORED_LABEL).any(dim=0).nonzero()[:, 0]
    logits, wanted = run_llm(prompted.family, prepared, columns), targets[:, columns]
    answers = wanted != IGNORED_LABEL
    return _chances(logits[answers], wanted[answers], answers)


def answer_chances(family: Family, hidden: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the log-probability of each answer, [R], and whether it is the greedy one.

    Args:
        family: the base.
        hidden: [R, S, D], what its last layer puts out, normed.
        labels: [R, S], -100 but at the answer.
    """
    targets = labels[:, 1:]
    answers = targets != IGNORED_LABEL
    return _chances(family.model.get_output_embeddings()(hidden[:, :-1][answers]), targets[answers], answers)


def _chances(logits: Tensor, wanted: Tensor, answers: Tensor) -> tuple[Tensor, Tensor]:
    """Return what `answer_chances` does, from the logits, [A, V], and ids, [A], at the True places of [R, columns]."""
    logits, row = logits.float(), answers.nonzero()[:, 0]
    chances = -F.cross_entropy(logits, wanted, reduction="none")
    total = torch.zeros(len(answers), device=chances.device).index_add(0, row, chances)
    wrong = (logits.argmax(-1) != wanted).float()
    right = torch.zeros(len(answers), device=chances.device).index_add(0, row, wrong) == 0
    return total, right


@dataclass(frozen=True)
class Scored:
    """What one step of the policy gradient scored.

    Attributes:
        prompted: its prompts.
        layout: of them.
        scores: [J, N], without gradient.
        keep_count: K of the step.
    """

    prompted: Prompted
    layout: Layout
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

    def train(self, mode: bool = True) -> "PolicyObjective":
        """Set the mode of what learns: a frozen base stays as it answers, without dropout."""
        super().train(mode)
        if not any(parameter.requires_grad for parameter in self.base.parameters()):
            self.base.eval()
        return self

    def forward(
        self,
        pixel_values: Tensor,
        prompts: PromptBatch,
        asked_patches: Tensor | None = None,
        beside: Beside | None = None,
        **_: Any,
    ) -> dict[str, Tensor]:
        """Return `loss`, the mean `reward`, the share of right answers by K, and the scores' `spread`."""
        return self.step(pixel_values, prompts, asked_patches, beside)[0]

    def step(
        self,
        pixel_values: Tensor,
        prompts: PromptBatch,
        asked_patches: Tensor | None = None,
        beside: Beside | None = None,
    ) -> tuple[dict[str, Tensor], Scored]:
        """Return what `forward` does, and the scores that it came from."""
        keep_count = self.keep_counts[int(torch.randint(len(self.keep_counts), ()))]
        prompted = Prompted.of(self.family, prompts, picture_inputs(self.family, pixel_values, beside))
        layout = prompted.layout(keep_count)
        scores = prompted.scores(self.selector, layout)
        repeated = repeated_images(layout, scores, self.num_samples)
        orders = draw_orders(repeated)
        counts = repeated_images(layout, torch.tensor(layout.keep_counts), self.num_samples)
        with torch.no_grad():
            rewards, right = answer_log_probabilities(
                prompted, layout, kept_in_order(orders, counts.tolist()), self.num_samples
            )
        chances = self._chances(layout, repeated, orders, counts)
        gains = advantages(rewards.clamp_min(LOWEST_REWARD), self.num_samples)
        real = scores > NEVER / 2
        spread = scores.square().where(real, 0).sum() / real.sum()
        loss = -(gains * chances).mean() + self.spread_weight * spread
        if self.evidence_weight and asked_patches is not None:
            loss = loss + self.evidence_weight * evidence_loss(scores, asked_patches)
        outputs = {
            "loss": loss,
            "reward": rewards.mean(),
            f"right_{keep_count}": right.float().mean(),
            "spread": spread.detach().sqrt(),
        }
        return outputs, Scored(prompted, layout, scores.detach(), keep_count)

    def _chances(self, layout: Layout, scores: Tensor, orders: Tensor, keep_counts: Tensor) -> Tensor:
        """Return the log-probability of each repeat of each prompt's images, over the root of its K, [R * S]."""
        device = scores.device
        of_images = log_probability(scores, orders, keep_counts.to(device))
        per_prompt = [prompt.num_images for prompt in layout.prompts for _ in range(self.num_samples)]
        kept = [sum(prompt.keep_counts) for prompt in layout.prompts for _ in range(self.num_samples)]
        prompt_of = torch.repeat_interleave(torch.tensor(per_prompt)).to(device)
        total = torch.zeros(len(kept), device=device).index_add(0, prompt_of, of_images)
        return total / torch.tensor(kept, dtype=torch.float32).clamp_min(1).sqrt().to(device)
