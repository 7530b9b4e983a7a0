"""The one place where ids, mask, labels, positions and embeddings of a batch are shortened, all together.

one prompt, N = 4, patches 1 and 3 kept (v1, v3), a batch padded on the left to 8

    input_ids            t   t   I   I   I   I   t   t        L  = 8
    compacted ids                t   t   I   I   t   t        Lc = 6
    labels                       a   b  -100 -100 c   d
    positions "original"         0   1   3   5   6   7
    positions "compact"          0   1   2   3   4   5
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from adallava.errors import InputError
from adallava.families.contract import Family
from adallava.pipeline.layout import IGNORED_LABEL, Layout

Positions = Literal["original", "compact"]
"""`original`: a token keeps the position it had in the full prompt; `compact`: positions are counted anew."""


@dataclass(frozen=True)
class CompactBatch:
    """A shortened batch: five tensors of one length, made in one place.

    Attributes:
        input_ids: [B, Lc] int64; vision tokens have the placeholder's id, padding has the padding's.
        inputs_embeds: [B, Lc, D].
        attention_mask: [B, Lc] int64; 0 also at a latency token that only observes.
        position_ids: [B, Lc] int64; 0 at padding.
        labels: [B, Lc] int64, -100 at vision tokens and padding; None if none were given.
    """

    input_ids: Tensor
    inputs_embeds: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    labels: Tensor | None

    def __post_init__(self) -> None:
        """Check the lengths where they are made.

        Raises:
            InputError: if two tensors differ in their first two dimensions.
        """
        shapes = {
            name: tuple(tensor.shape[:2])
            for name in ("input_ids", "inputs_embeds", "attention_mask", "position_ids", "labels")
            if (tensor := getattr(self, name)) is not None
        }
        if len(set(shapes.values())) != 1:
            raise InputError(f"the tensors of a shortened batch differ in length: {shapes}")

    def llm_inputs(self) -> dict[str, Tensor]:
        """Return what the LLM reads, by the names of the stock `forward`'s arguments.

        Always with the mask: without one, positions with gaps are read as several packed sequences.
        """
        return {
            "inputs_embeds": self.inputs_embeds,
            "attention_mask": self.attention_mask,
            "position_ids": self.position_ids,
        }


def compact_ids(layout: Layout, input_ids: Tensor, pad_token_id: int) -> Tensor:
    """Return the ids that stay, [B, Lc], from the original [B, L]."""
    return input_ids.gather(1, layout.text_columns).masked_fill(layout.mask == 0, pad_token_id)


def compact_labels(layout: Layout, labels: Tensor) -> Tensor:
    """Return the labels that stay, [B, Lc], from the original [B, L]."""
    is_text = (layout.mask == 1) & (layout.vision_slots < 0)
    return labels.gather(1, layout.text_columns).masked_fill(~is_text, IGNORED_LABEL)


def compact_positions(layout: Layout, kept_indices: Tensor | None, positions: Positions) -> Tensor:
    """Return position ids, [B, Lc].

    Args:
        layout: of the batch.
        kept_indices: [I, Kmax] patch indices per image; None for a batch without vision tokens.
        positions: original or compact.
    """
    if positions == "compact":
        counted = counted_positions(layout)
    elif kept_indices is None or kept_indices.numel() == 0:
        counted = layout.base_positions
    else:
        # A vision slot's patch index is its distance from its image's first position.
        patches = kept_indices.flatten()[layout.vision_slots.clamp_min(0)]
        counted = layout.base_positions + patches.masked_fill(layout.vision_slots < 0, 0)
    return counted.masked_fill(layout.mask == 0, 0)


def counted_positions(layout: Layout) -> Tensor:
    """Return positions counted over what is left, [B, Lc]; a hidden token shares that of the token behind it."""
    return (layout.attention_mask.cumsum(dim=1) - layout.attention_mask).clamp_min(0)


def merge_embeds(layout: Layout, text_embeds: Tensor, vision_embeds: Tensor | None) -> Tensor:
    """Put each vision token into its slot, [B, Lc, D].

    Args:
        layout: of the batch.
        text_embeds: [B, Lc, D]; what stands at a vision slot is replaced.
        vision_embeds: [I, Kmax, D], projected; None for a batch without vision tokens.
    """
    if vision_embeds is None or vision_embeds.shape[1] == 0:
        return text_embeds
    rows = vision_embeds.flatten(0, 1).to(text_embeds.dtype)
    slots = layout.vision_slots
    # A gather and a `where`, not boolean indexing: nothing here waits to learn a size from the device.
    return torch.where((slots >= 0).unsqueeze(-1), rows[slots.clamp_min(0)], text_embeds)


def assemble(
    family: Family,
    layout: Layout,
    input_ids: Tensor,
    vision_embeds: Tensor | None,
    kept_indices: Tensor | None,
    positions: Positions,
    labels: Tensor | None = None,
    pad_token_id: int | None = None,
) -> CompactBatch:
    """Make the shortened batch.

    Args:
        family: the model.
        layout: of the batch, on the family's device.
        input_ids: [B, L], the original ids.
        vision_embeds: [I, Kmax, D], projected, or None.
        kept_indices: [I, Kmax], or None.
        positions: see `compact_positions`.
        labels: [B, L] or None.
        pad_token_id: that padding is written with; None = the family's.
    """
    ids = compact_ids(layout, input_ids, family.pad_token_id if pad_token_id is None else pad_token_id)
    # A placeholder's id may lie outside the embedding: what stands there is replaced anyway.
    text_embeds = family.embed_text(ids.masked_fill(layout.vision_slots >= 0, family.pad_token_id))
    return CompactBatch(
        input_ids=ids,
        inputs_embeds=merge_embeds(layout, text_embeds, vision_embeds),
        attention_mask=layout.attention_mask,
        position_ids=compact_positions(layout, kept_indices, positions),
        labels=None if labels is None else compact_labels(layout, labels),
    )
