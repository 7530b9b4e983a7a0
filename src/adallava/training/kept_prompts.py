"""Prompts for training on both dials: with those vision tokens alone that a mix of ways leaves."""

from dataclasses import dataclass

import torch
from torch import Tensor

from adallava.budget import TokenBudget
from adallava.errors import InputError
from adallava.families.family_contract import Family, VisionFeatures
from adallava.families.picture_inputs import PictureInputs
from adallava.pipeline.encode import budget_ratios
from adallava.pipeline.latency_token import insert_latency_tokens
from adallava.pipeline.layout import Layout, plan_layout
from adallava.pipeline.pack import CompactBatch, assemble
from adallava.pipeline.selector_inputs import selection_input
from adallava.selection.question import QuestionSelector
from adallava.selection.selector_contract import Selection
from adallava.training.keep import Keep, draw_keep, select_tokens
from adallava.training.prompts import PromptBatch
from adallava.training.recipe import KeepMix


@dataclass(frozen=True)
class KeptPrompts:
    """Makes the batch that enters layer 0.

    Attributes:
        family: the base.
        keep: which vision tokens are left; each call draws one way and one K.
        scorer: the frozen scorer that chooses the tokens of the way `question`; None if `keep` has none of it.
    """

    family: Family
    keep: KeepMix
    scorer: QuestionSelector | None

    def __post_init__(self) -> None:
        """Refuse a mix that needs a scorer, without one.

        Raises:
            InputError: saying so.
        """
        if self.keep.question and self.scorer is None:
            raise InputError(
                "keep.question needs a model that has a scorer (adapters/question in its folder): set it to 0, or "
                "train one first"
            )

    def __call__(
        self,
        pixel_values: Tensor,
        prompts: PromptBatch,
        evidence: Tensor | None,
        *,
        latency_tokens: bool,
    ) -> tuple[Layout, CompactBatch]:
        """Return the prompts with the vision tokens that this call keeps.

        Args:
            pixel_values: [I, 3, H, W], on the family's device.
            prompts: R prompts with answers.
            evidence: [I, N] bool, for the way `evidence`.
            latency_tokens: True to put one into each prompt, as a learned scheduler reads it.
        """
        family, num_prompts = self.family, len(prompts.input_ids)
        with torch.no_grad():
            features = family.encode(PictureInputs(pixel_values)).features
        keep = draw_keep(self.keep, features.shape[1])
        kept, indices = self._kept(keep, features, prompts, evidence)
        made = insert_latency_tokens(
            prompts.input_ids,
            prompts.attention_mask,
            prompts.labels,
            [latency_tokens] * num_prompts,
            observing=True,
            image_token_id=family.image_token_id,
            pad_token_id=family.pad_token_id,
        )
        assert made.labels is not None
        layout = plan_layout(
            made.input_ids,
            made.attention_mask,
            tokens_per_image=[features.shape[1]] * num_prompts,
            image_token_id=family.image_token_id,
            budgets=[TokenBudget(count=keep.keep_count)] * num_prompts,
            side="right",
            labels=made.labels,
            inserted=made.inserted,
        ).to(family.device)
        ids, labels = made.input_ids.to(family.device), made.labels.to(family.device)
        return layout, assemble(family, layout, ids, kept, indices, "original", labels)

    def _kept(
        self, keep: Keep, features: Tensor, prompts: PromptBatch, evidence: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the projected tokens that each prompt keeps, [R, K, D], and their patch indices, [R, K]."""
        picture = prompts.picture.to(features.device)
        if keep.way == "question":
            of_prompts = features[picture]
            scored = self._scored(of_prompts, prompts, keep.keep_count)
            return self.family.project(scored.apply(of_prompts)), scored.indices
        selection = select_tokens(keep, features, self.family.shape.grid, evidence)
        return self.family.project(selection.apply(features))[picture], selection.indices[picture]

    @torch.no_grad()
    def _scored(self, features: Tensor, prompts: PromptBatch, keep_count: int) -> Selection:
        """Return what the scorer keeps for each prompt."""
        assert self.scorer is not None
        family, num_prompts = self.family, len(prompts.input_ids)
        layout = plan_layout(
            prompts.input_ids,
            prompts.attention_mask,
            tokens_per_image=[features.shape[1]] * num_prompts,
            image_token_id=family.image_token_id,
            budgets=[TokenBudget(count=keep_count)] * num_prompts,
            side="right",
            labels=prompts.labels,
        ).to(family.device)
        inputs = selection_input(
            family,
            layout,
            prompts.input_ids.to(family.device),
            VisionFeatures(features),
            budget_ratios(layout, family.device),
            seeds=[0] * num_prompts,
        )
        return self.scorer.select(inputs)
