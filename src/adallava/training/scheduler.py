"""Stage `scheduler`: which layers, or groups of heads, run is learned, on a frozen base or together with it.

Two ways. *Policy gradient*, as for tokens: several plans are drawn for each question, each is rewarded by the
log-probability of the right answer, and the layers after the prefix need no backward pass. *Straight-through Gumbel*,
the reference's (AdaLLaVA, arXiv 2503.10905): one plan is drawn, every unit is computed, and a unit that does not run is
multiplied by a gate of 0 with the gradient of a softmax; the loss is the language model's.

Both run the base as inference does: the same latency token at the same place, the same layers.

A base that learns too does so on one nearly greedy plan for each question, as in stage `joint`, and in part of the
steps as in stage `base`, so that it does not forget the whole LLM, and what other methods and schedulers leave it.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from adallava.errors import InputError
from adallava.families.capabilities.of_llms import decoder_of
from adallava.families.family_contract import Family
from adallava.pipeline.latency_token import add_latency, token_places
from adallava.pipeline.layout import Layout
from adallava.pipeline.pack import CompactBatch
from adallava.pipeline.read_prompts import IGNORED_LABEL
from adallava.scheduling.latency_token_scheduler import LatencyTokenScheduler
from adallava.scheduling.scheduler_contract import Schedule, Units, top_units
from adallava.selection.gumbel import gumbel_noise, gumbel_top_k
from adallava.selection.question import QuestionSelector
from adallava.training.base_stage import BaseObjective
from adallava.training.kept_prompts import KeptPrompts
from adallava.training.packing import Packed
from adallava.training.plans import draw_plans, run_behind, run_prefix
from adallava.training.policy import LOWEST_REWARD, advantages, answer_chances, log_probability
from adallava.training.prompts import PromptBatch
from adallava.training.recipe import KeepMix

SchedulerLearning = Literal["policy", "gumbel"]

_GATE_TEMPERATURE = 5.0
_GREEDY_NOISE = 0.3
"""Strength of the noise on the logits that the base's plans are taken by; the logits' spread is about 1."""


class SchedulerObjective(nn.Module):
    """What the Trainer sees in stage `scheduler` on a frozen base."""

    def __init__(
        self,
        family: Family,
        scheduler: LatencyTokenScheduler,
        *,
        learning: SchedulerLearning,
        keep: KeepMix,
        num_samples: int,
        spread_weight: float = 0.0,
        lowest_latency: float = 0.0,
        scorer: QuestionSelector | None = None,
    ) -> None:
        """Hold the base and the scheduler that learns.

        Args:
            family: the base; in this class its parameters must not require gradients.
            scheduler: what learns.
            learning: by policy gradient or by straight-through Gumbel.
            keep: which vision tokens are left, so that both dials meet.
            num_samples: plans a question for policy gradient, at least 2.
            spread_weight: of the logits' mean square, which keeps draws different.
            lowest_latency: share of the LLM below which nothing is drawn.
            scorer: the frozen scorer that chooses the tokens of the way `question`; None if `keep` has none of it.

        Raises:
            InputError: for a split, or a lowest latency, that leaves nothing to choose; without a scorer where `keep`
                needs one.
        """
        super().__init__()
        self.base = family.model
        self.scheduler = scheduler
        self.scorer = scorer
        self.family, self.learning = family, learning
        self.num_samples, self.spread_weight = num_samples, spread_weight
        self.units: Units = scheduler.units(decoder_of(family).shape)
        self.counts = [n for n in range(self.units.count + 1) if self.units.share(n) >= lowest_latency]
        if not set(self.counts) - {0, self.units.count}:
            raise InputError(
                f"{self.units.count} unit(s) after the prefix and a lowest latency of {lowest_latency} leave nothing "
                "to choose: use a shorter prefix or a lower latency"
            )
        self.prompts = KeptPrompts(family, keep, scorer)

    def forward(
        self, pixel_values: Tensor, prompts: PromptBatch, evidence: Tensor | None = None, **_: Any
    ) -> dict[str, Tensor]:
        """Return `loss`, the mean `reward`, the share of right answers by n, and the logits' `spread`."""
        choices = [n for n in self.counts if 0 < n < self.units.count]
        count = choices[int(torch.randint(len(choices), ()))]
        with torch.no_grad():
            layout, batch = self.prompts(pixel_values, prompts, evidence, latency_tokens=True)
        states = self.prefix_states(layout, batch, count)
        return self.learn(layout, batch, states, count)

    def prefix_states(self, layout: Layout, batch: CompactBatch, count: int) -> Tensor:
        """Return what enters layer P, [R, S, D], with the latency of n units at the latency tokens, if any."""
        shares = torch.full((len(batch.inputs_embeds),), self.units.share(count), device=self.family.device)
        embeds = add_latency(layout, batch.inputs_embeds, self.scheduler.latency_token(shares))
        return run_prefix(self.family, self.units, embeds, batch)

    def logits(self, layout: Layout, states: Tensor) -> Tensor:
        """Return the scheduler's logits, [R, U], from what enters layer P."""
        places = token_places(layout)
        assert places is not None
        return self.scheduler.logits(states[torch.arange(len(states), device=states.device), places])

    def learn(self, layout: Layout, batch: CompactBatch, states: Tensor, count: int) -> dict[str, Tensor]:
        """Return the scheduler's own loss and what goes with it, as `forward` does."""
        logits = self.logits(layout, states)
        if self.learning == "gumbel":
            _, gates = gumbel_top_k(logits, [count] * len(logits), tau=_GATE_TEMPERATURE)
            schedule = Schedule(gates.detach() > 0.5, logits, gates)
            rewards, right = self.rewards(states, batch, schedule)
            loss = -rewards.mean()
        else:
            schedule, orders = draw_plans(logits, count, self.num_samples)
            with torch.no_grad():
                rewards, right = self.rewards(states, batch, schedule, repeats=self.num_samples)
            repeated = logits.repeat_interleave(self.num_samples, dim=0)
            chances = log_probability(repeated, orders, count) / count**0.5
            loss = -(advantages(rewards.clamp_min(LOWEST_REWARD), self.num_samples) * chances).mean()
        return {
            "loss": loss + self.spread_weight * logits.square().mean(),
            "reward": rewards.detach().mean(),
            f"right_{count}": right.float().mean(),
            "spread": logits.detach().std(),
        }

    def rewards(
        self, states: Tensor, batch: CompactBatch, schedule: Schedule, repeats: int = 1
    ) -> tuple[Tensor, Tensor]:
        """Return the log-probability of each answer under each plan, [R * repeats], and if it is the greedy one."""
        assert batch.labels is not None
        hidden = run_behind(self.family, self.units, states, batch, schedule, repeats=repeats)
        return answer_chances(self.family, hidden, batch.labels.repeat_interleave(repeats, dim=0))


class SchedulerWithBaseObjective(nn.Module):
    """What the Trainer sees in stage `scheduler` where the base learns too."""

    def __init__(
        self, others: BaseObjective, choice: SchedulerObjective, others_share: float, policy_weight: float
    ) -> None:
        """Hold both objectives over one base.

        Args:
            others: what the base learns in `others_share` of the steps.
            choice: the scheduler's.
            others_share: of the steps.
            policy_weight: of the scheduler's loss next to the base's. AdamW makes the scheduler's own steps nearly
                independent of it: it says how much the choice may shape the prefix layers that it reads.
        """
        super().__init__()
        self.others, self.choice = others, choice
        self.others_share, self.policy_weight = others_share, policy_weight

    def forward(
        self,
        pixel_values: Tensor,
        packed: Packed,
        prompts: PromptBatch,
        evidence: Tensor | None = None,
        **labels: Any,
    ) -> dict[str, Tensor]:
        """Return `loss` and its parts, of stage `base` or of the choice and the base on its plans."""
        if float(torch.rand(())) < self.others_share:
            return self.others(pixel_values, packed, evidence, **labels)  # type: ignore[no-any-return]
        choice = self.choice
        units = choice.units
        count = choice.counts[int(torch.randint(len(choice.counts), ()))]
        layout, batch = choice.prompts(
            pixel_values,
            prompts,
            evidence,
            latency_tokens=count < units.count,
        )
        states = choice.prefix_states(layout, batch, count)
        if not 0 < count < units.count:
            everything = torch.full((len(states), units.count), count > 0, device=states.device)
            return self._answered(states, batch, Schedule(everything), count)
        learned = choice.learn(layout, batch, states, count)
        if choice.learning == "gumbel":
            return learned
        logits = choice.logits(layout, states).detach()
        greedy = Schedule(top_units(logits + _GREEDY_NOISE * gumbel_noise(logits), (count,) * len(logits)))
        answered = self._answered(states, batch, greedy, count)
        return learned | answered | {"loss": self.policy_weight * learned["loss"] + answered["loss"]}

    def _answered(self, states: Tensor, batch: CompactBatch, schedule: Schedule, count: int) -> dict[str, Tensor]:
        """Return the cross-entropy per answer token under the plans that the base learns on."""
        assert batch.labels is not None
        chances, right = self.choice.rewards(states, batch, schedule)
        loss = -chances.sum() / (batch.labels != IGNORED_LABEL).sum()
        return {"loss": loss, "loss_scheduled": loss.detach(), f"greedy_right_{count}": right.float().mean()}
