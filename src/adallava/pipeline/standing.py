"""The places of a batch's tokens inside the LLM, on the device: what a choice leaves decides them.

columns of a prompt     0 1 2 3 4 5 6 7      t t I I I I t t
left: patches 1 and 3   0 1 3 5 6 7          `columns`
place of each           0 1 0 2 0 3 4 5      `places`
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from adallava.pipeline.companions import arranged, kept_columns
from adallava.pipeline.drops import DropPlan
from adallava.pipeline.layout import Layout


@dataclass(frozen=True)
class Standing:
    """The places of a batch's tokens between two drops, and which they are. S tokens a row.

    Attributes:
        layout: of what is left, in order.
        columns: [B, S], of the full prompts; L for padding.
        places: [B, L + 1], where each column of the full prompts is now; 0 for one that is gone, the last unread.
        vision: [I, n], places of each image's tokens; after an image's own, its first one's again.
        text: [I, T], places of the text after each image.
    """

    layout: Layout
    columns: Tensor
    places: Tensor
    vision: Tensor
    text: Tensor

    @classmethod
    def of(cls, layout: Layout, patches: Tensor, plan: DropPlan) -> "Standing":
        """Return the places of all tokens once the patches, [I, n] of each image, are left."""
        layout = arranged(layout, patches)
        behind = layout.companions["position_ids"].shape[-1]
        columns = kept_columns(layout, patches).masked_fill(layout.mask == 0, behind)
        order = torch.arange(columns.shape[1], device=columns.device).expand_as(columns)
        places = columns.new_zeros((len(columns), behind + 1)).scatter(1, columns, order)
        of_images = places.index_select(0, plan.sample_of_image)
        counts = torch.tensor(layout.keep_counts, dtype=torch.int64).to(columns.device, non_blocking=True)
        there = torch.arange(patches.shape[1], device=columns.device) < counts.unsqueeze(1)
        own = patches.where(there, patches[:, :1])
        vision = of_images.gather(1, layout.image_columns.gather(1, own))
        return cls(layout, columns, places, vision, of_images.gather(1, plan.text_columns))

    def sources(self, before: "Standing") -> Tensor:
        """Return the place before a drop of each token that is left after it, [B, S]; of padding, 0."""
        return before.places.gather(1, self.columns).masked_fill(self.layout.mask == 0, 0)
