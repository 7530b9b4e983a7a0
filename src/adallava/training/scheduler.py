"""Stage `scheduler`: which layers, or groups of heads, run is learned on a frozen base.

Two ways. *Policy gradient*, as for tokens: several plans are drawn for each question, each is rewarded by the
log-probability of the right answer, and the layers behind the prefix need no backward pass. *Straight-through Gumbel*,
the reference's (AdaLLaVA, arXiv 2503.10905): one plan is drawn, every unit is computed, and a unit that does not run is
multiplied by a gate of 0 with the gradient of a softmax; the loss is the language model's.

Both run the base as inference does: the same latency token at the same place, the same layers.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from adallava.budget import TokenBudget
from adallava.errors import InputError
from adallava.families.contract import Family
from adallava.generation.compact import CompactBatch, add_latency
from adallava.generation.latency import insert_latency_tokens
from adallava.generation.layout import Layout, plan_layout
from adallava.generation.prepare import assemble
from adallava.generation.scheduled import ScheduledLayers
from adallava.scheduling.contract import DecoderShape, Schedule, ScheduleInput, Units, top_units
from adallava.scheduling.latency_token import LatencyTokenScheduler
from adallava.selection.gumbel import gumbel_noise, gumbel_top_k
from adallava.training.keep import draw_keep, select_tokens
from adallava.training.policy import LOWEST_REWARD, advantages, answer_chances, log_probability
from adallava.training.prompts import PromptBatch
from adallava.training.recipe import KeepMix

SchedulerLearning = Literal["policy", "gumbel"]


class DrawnSchedule:
    """Stands in for a scheduler while it learns: draws plans by its logits, and remembers the draw."""

    name: ClassVar[str] = "drawn"
    learned: ClassVar[bool] = True
    per_sample: ClassVar[bool] = True
    free_token: ClassVar[bool] = False

    def __init__(self, scheduler: LatencyTokenScheduler, learning: SchedulerLearning, tau: float = 5.0) -> None:
        """Draw by the scheduler's logits; `tau` is the temperature of the gates' gradient."""
        self.scheduler, self.learning, self.tau = scheduler, learning, tau
        self.logits: Tensor | None = None
        self.orders: Tensor | None = None

    def units(self, shape: DecoderShape) -> Units:
        """Return the scheduler's."""
        return self.scheduler.units(shape)

    def latency_token(self, shares: Tensor) -> Tensor:
        """Return the scheduler's."""
        return self.scheduler.latency_token(shares)

    def flops(self) -> int:
        """Return the scheduler's."""
        return self.scheduler.flops()

    def schedule(self, inputs: ScheduleInput) -> Schedule:
        """Draw exactly n units of each sample, without replacement."""
        assert inputs.states is not None
        self.logits = self.scheduler.logits(inputs.states)
        if self.learning == "gumbel":
            _, gates = gumbel_top_k(self.logits, inputs.unit_counts, tau=self.tau)
            return Schedule(gates.detach() > 0.5, self.logits, gates)
        noisy = self.logits.detach() + gumbel_noise(self.logits.detach())
        self.orders = noisy.argsort(dim=1, descending=True)
        return Schedule(top_units(noisy, inputs.unit_counts), self.logits)


class SchedulerObjective(nn.Module):
    """What the Trainer sees in stage `scheduler`."""

    def __init__(
        self,
        family: Family,
        scheduler: LatencyTokenScheduler,
        *,
        learning: SchedulerLearning,
        keep: KeepMix,
        num_samples: int,
        spread_weight: float = 0.0,
    ) -> None:
        """Hold the frozen base and the scheduler that learns.

        Args:
            family: the base; its parameters must not require gradients.
            scheduler: what learns.
            learning: by policy gradient or by straight-through Gumbel.
            keep: which vision tokens are left, so that both dials meet.
            num_samples: plans a question for policy gradient, at least 2.
            spread_weight: of the logits' mean square, which keeps draws different.

        Raises:
            InputError: for a split in which there is nothing to choose.
        """
        super().__init__()
        self.base = family.model
        self.scheduler = scheduler
        self.family, self.learning, self.keep = family, learning, keep
        self.num_samples = num_samples if learning == "policy" else 1
        self.spread_weight = spread_weight
        self._decoder = family.decoder()
        self._units: Units = scheduler.units(self._decoder.shape)
        if self._units.count < 2:
            raise InputError(
                f"{self._units.count} unit behind the prefix leaves nothing to choose: use a shorter prefix"
            )

    def forward(self, pixel_values: Tensor, prompts: PromptBatch, **_: Any) -> dict[str, Tensor]:
        """Return `loss`, the mean `reward`, the share of right answers by n, and the logits' `spread`."""
        count = 1 + int(torch.randint(self._units.count - 1, ()))
        drawn = prompts.to(pixel_values.device).repeat(self.num_samples)
        layout, batch = self._prepare(pixel_values, drawn)
        shares = torch.full((len(drawn.input_ids),), self._units.share(count), device=pixel_values.device)
        embeds = add_latency(layout, batch.inputs_embeds, self.scheduler.latency_token(shares))
        drawing = DrawnSchedule(self.scheduler, self.learning)
        layers = ScheduledLayers(
            self._decoder,
            drawing,
            self._units,
            [count] * len(embeds),
            torch.zeros(len(embeds), dtype=torch.int64),
            layout.latency_places,
        )
        hidden = self._run(layers, embeds, batch)
        assert batch.labels is not None
        rewards, right = answer_chances(self.family, hidden, batch.labels)
        assert drawing.logits is not None
        loss = -rewards.mean() if drawing.orders is None else self._policy_loss(drawing, rewards, count)
        return {
            "loss": loss + self.spread_weight * drawing.logits.square().mean(),
            "reward": rewards.detach().mean(),
            f"right_{count}": right.float().mean(),
            "spread": drawing.logits.detach().std(),
        }

    def _policy_loss(self, drawing: DrawnSchedule, rewards: Tensor, count: int) -> Tensor:
        assert drawing.logits is not None
        assert drawing.orders is not None
        chances = log_probability(drawing.logits, drawing.orders, count) / count**0.5
        loss: Tensor = -(advantages(rewards.detach().clamp_min(LOWEST_REWARD), self.num_samples) * chances).mean()
        return loss

    @torch.no_grad()
    def _prepare(self, pixel_values: Tensor, prompts: PromptBatch) -> tuple[Layout, CompactBatch]:
        """Return the prompts with their latency tokens, and with the vision tokens that this step keeps."""
        family = self.family
        features = family.encode(pixel_values).features
        keep = draw_keep(self.keep, features.shape[1])
        selection = select_tokens(keep, features, family.shape.grid, None)
        made = insert_latency_tokens(
            prompts.input_ids,
            prompts.attention_mask,
            prompts.labels,
            [True] * len(prompts.input_ids),
            image_token_id=family.image_token_id,
            pad_token_id=family.pad_token_id,
        )
        layout = plan_layout(
            made.input_ids,
            made.attention_mask,
            tokens_per_image=[features.shape[1]] * len(made.input_ids),
            image_token_id=family.image_token_id,
            budgets=[TokenBudget(count=keep.keep_count)] * len(made.input_ids),
            side="right",
            labels=made.labels,
            latency_columns=made.columns,
        ).to(family.device)
        assert made.labels is not None
        kept = family.project(selection.apply(features))[prompts.picture]
        batch = assemble(
            family,
            layout,
            made.input_ids.to(family.device),
            kept,
            selection.indices[prompts.picture],
            "original",
            made.labels.to(family.device),
        )
        return layout, batch

    def _run(self, layers: ScheduledLayers, embeds: Tensor, batch: CompactBatch) -> Tensor:
        """Return what the last layer puts out, [R, S, D]; for policy gradient, without gradients behind the choice."""
        prefix = self._units.prefix_layers

        def around(index: int, layer: Callable[..., Tensor], hidden: Tensor, kwargs: dict[str, Any]) -> Tensor:
            needs_gradient = torch.is_grad_enabled() and (self.learning == "gumbel" or index <= prefix)
            with torch.set_grad_enabled(needs_gradient):
                return layers.around(index, layer, hidden, kwargs)

        result = self._decoder.view(around).model.language_model(
            inputs_embeds=embeds,
            attention_mask=batch.attention_mask,
            position_ids=batch.position_ids,
            use_cache=False,
        )
        hidden: Tensor = result.last_hidden_state
        return hidden if self.learning == "gumbel" else hidden.detach()
