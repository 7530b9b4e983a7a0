"""A step's prompts with what the tower made of their pictures: what a scorer reads, and what the base answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from adallava.budget import TokenBudget
from adallava.errors import InputError
from adallava.families.capabilities.of_llms import side_rows
from adallava.families.capabilities.of_tokens import GivesCompanions, companions_of, placeholder_orders
from adallava.families.family_contract import Family, VisionFeatures
from adallava.families.picture_inputs import PictureInputs
from adallava.pipeline.companions import arranged
from adallava.pipeline.encode import budget_ratios
from adallava.pipeline.layout import Layout, plan_layout, repeated
from adallava.pipeline.pack import CompactBatch, assemble
from adallava.pipeline.prepare import Prepared
from adallava.pipeline.program import program_of
from adallava.pipeline.selector_inputs import selection_input
from adallava.selection.question import QuestionSelector
from adallava.selection.selector_contract import Selection
from adallava.training.prompts import PromptBatch

NEVER = -1e9
"""Score of what is after an image's own tokens."""


@dataclass(frozen=True)
class Prompted:
    """R prompts, which show J images: a picture may be several, and each of its prompts shows them all.

    Attributes:
        family: the base.
        prompts: on the host.
        ids: [R, L], on the device.
        labels: [R, L], on the device.
        vision: of the step's images, [I, N of the largest, C].
        images: [J] int64, the row of `vision` of each image shown, in the order of the prompts.
        grids: of each image shown.
        companions: of the prompts, on the host; see `plan_layout`.
        orders: of each image shown; see `plan_layout`.
    """

    family: Family
    prompts: PromptBatch
    ids: Tensor
    labels: Tensor
    vision: VisionFeatures
    images: Tensor
    grids: tuple[tuple[int, int], ...]
    companions: Mapping[str, Tensor]
    orders: tuple[Tensor | None, ...] | None

    @classmethod
    def of(cls, family: Family, prompts: PromptBatch, pictures: PictureInputs) -> "Prompted":
        """Run the tower, without gradients, and lay its images out by prompts.

        Raises:
            InputError: if pictures and prompts do not fit together.
        """
        with torch.no_grad():
            vision = family.encode(pictures)
        prompts = prompts.to(torch.device("cpu"))
        grids = family.grids(pictures)
        shown = _shown(family, prompts, grids)
        orders = placeholder_orders(family, pictures)
        return cls(
            family,
            prompts,
            prompts.input_ids.to(family.device),
            prompts.labels.to(family.device),
            vision,
            torch.tensor(shown, dtype=torch.int64).to(family.device),
            tuple(grids[image] for image in shown),
            _companions(family, prompts, pictures),
            None if orders is None else tuple(orders[image] for image in shown),
        )

    def layout(self, keep_count: int) -> Layout:
        """Return the layout of prompts that keep K tokens each, on the family's device.

        Prompts of fewer keep them all; where that would be every prompt, K is one less than the most that one has.
        """
        counts = [rows * columns for rows, columns in self.grids]
        most = int((self.prompts.input_ids == self.family.image_token_id).sum(dim=1).max())
        keep_count = max(1, min(keep_count, most - 1))
        return plan_layout(
            self.prompts.input_ids,
            self.prompts.attention_mask,
            tokens_per_image=counts,
            image_token_id=self.family.image_token_id,
            budgets=[TokenBudget(count=keep_count)] * len(self.prompts.input_ids),
            side="right",
            labels=self.prompts.labels,
            companions=lambda: self.companions,
            orders=self.orders,
        ).to(self.family.device)

    def scores(self, selector: QuestionSelector, layout: Layout) -> Tensor:
        """Return the scores of each image's tokens, [J, N of the largest] float32; `NEVER` after an image's own."""
        inputs = selection_input(
            self.family,
            layout,
            self.ids,
            VisionFeatures(self.vision.features[self.images]),
            budget_ratios(layout, self.family.device),
            seeds=[0] * len(self.prompts.input_ids),
        )
        longest = inputs.features.shape[1]
        parts, order = [], []
        for grid in dict.fromkeys(self.grids):
            own = [image for image, of_image in enumerate(self.grids) if of_image == grid]
            rows = torch.tensor(own, device=self.family.device)
            count = grid[0] * grid[1]
            read = replace(
                inputs,
                features=inputs.features[rows, :count],
                grid=grid,
                budget_ratios=inputs.budget_ratios[rows],
                question_embeds=inputs.question_embeds[rows],
                question_mask=inputs.question_mask[rows],
            )
            parts.append(F.pad(selector.scores(read), (0, longest - count), value=NEVER))
            order += own
        return torch.cat(parts)[torch.tensor(order).argsort().to(self.family.device)]

    def answering(self, layout: Layout, indices: Tensor, repeats: int = 1) -> tuple[Prepared, Tensor]:
        """Return what the LLM reads of prompts with their kept tokens, and the labels that are left.

        Args:
            layout: of the prompts.
            indices: [J * repeats, Kmax], of the first image's first repeat, its second, and so on.
            repeats: of each prompt, with tokens of its own.
        """
        family = self.family
        drawn = repeated(layout, repeats)
        rows = repeated_images(layout, self.images, repeats).unsqueeze(1)
        kept = family.project(self.vision.features[rows, indices])
        added = {
            layer: side_rows(family).side_rows(level, features[rows, indices])
            for level, (layer, features) in enumerate(self.vision.levels.items())
        }
        drawn = arranged(drawn, indices)
        ids, labels = (of.repeat_interleave(repeats, dim=0) for of in (self.ids, self.labels))
        batch = assemble(family, drawn, ids, kept, indices, "original", labels)
        assert batch.labels is not None
        selection = Selection(indices, drawn.keep_counts)
        return Prepared(batch, drawn, selection, None, (), (), added=added), batch.labels


def run_llm(family: Family, prepared: Prepared, columns: Tensor) -> Tensor:
    """Return the logits at some columns of the shortened prompts, [B, columns, V]."""
    model = program_of(prepared).view(family)
    batch: CompactBatch = prepared.batch
    logits: Tensor = model(**batch.llm_inputs(), use_cache=False, return_dict=True, logits_to_keep=columns).logits
    return logits


def kept_in_order(orders: Tensor, keep_counts: Sequence[int]) -> Tensor:
    """Return the first tokens of each order, ascending, as a `Selection` has them: [J, Kmax], 0 after a row's K.

    Args:
        orders: [J, N] int64.
        keep_counts: K of each row.
    """
    most = max(keep_counts)
    first = orders[:, :most]
    if min(keep_counts) == most:
        return first.sort(dim=1).values
    counts = torch.tensor(keep_counts, device=orders.device).unsqueeze(1)
    behind = torch.arange(most, device=orders.device) >= counts
    return first.masked_fill(behind, orders.shape[1]).sort(dim=1).values.masked_fill(behind, 0)


def repeated_images(layout: Layout, images: Tensor, times: int) -> Tensor:
    """Return a value of each image for prompts that are repeated, [J * times]: a prompt's images are together.

    Args:
        layout: of the prompts.
        images: [J], or [J, ...].
        times: that each prompt is repeated.
    """
    if times == 1:
        return images
    counts = [prompt.num_images for prompt in layout.prompts]
    if set(counts) == {1}:
        return images.repeat_interleave(times, dim=0)
    order, first = [], 0
    for count in counts:
        order += list(range(first, first + count)) * times
        first += count
    return images[torch.tensor(order, device=images.device)]


def _shown(family: Family, prompts: PromptBatch, grids: Sequence[tuple[int, int]]) -> list[int]:
    """Return the numbers of the images that each prompt shows, prompt after prompt.

    Raises:
        InputError: if pictures and prompts do not fit together.
    """
    places = (prompts.input_ids == family.image_token_id).sum(dim=1).tolist()
    pictures = prompts.picture.tolist()
    of_picture: dict[int, list[int]] = {}
    image = 0
    for picture in sorted(set(pictures)):
        left, own = places[pictures.index(picture)], []
        while left > 0 and image < len(grids):
            left -= grids[image][0] * grids[image][1]
            own.append(image)
            image += 1
        if left:
            raise InputError(f"image {picture} of a step has {left} more placeholders than vision tokens")
        of_picture[picture] = own
    return [image for picture in pictures for image in of_picture[picture]]


def _companions(family: Family, prompts: PromptBatch, pictures: PictureInputs) -> Mapping[str, Tensor]:
    """Return what each token of the prompts carries, asked for the longest prompt of each picture.

    Prompts of a picture are alike up to the question, and its words carry what their places say, whatever they are.
    """
    if not isinstance(family, GivesCompanions):
        return {}
    lengths: list[int] = prompts.attention_mask.sum(dim=1).tolist()
    longest: dict[int, int] = {}
    for row, picture in enumerate(prompts.picture.tolist()):
        longest[picture] = max(row, longest.get(picture, row), key=lengths.__getitem__)
    pictures_in_order = sorted(longest)
    rows = [longest[picture] for picture in pictures_in_order]
    made = companions_of(family, prompts.input_ids[rows], prompts.attention_mask[rows], pictures)
    of_row = torch.searchsorted(torch.tensor(pictures_in_order), prompts.picture)
    return {name: of.index_select(-2, of_row) for name, of in made.items()}
