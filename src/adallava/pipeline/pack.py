"""The one place where ids, mask, labels, positions and embeddings of a batch are shortened, all together.

one prompt, N = 4, patches 1 and 3 kept (v1, v3), a batch padded on the left to 8

    input_ids            t   t   I   I   I   I   t   t        L  = 8
    compacted ids                t   t   I   I   t   t        Lc = 6
    labels                       a   b  -100 -100 c   d
    positions "original"         0   1   3   5   6   7
    positions "compact"          0   1   2   3   4   5
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from adallava.errors import InputError
from adallava.families.capabilities.of_tokens import HasPositionRows
from adallava.families.family_contract import Family
from adallava.pipeline.companions import Companion, gather
from adallava.pipeline.layout import Layout
from adallava.pipeline.read_prompts import IGNORED_LABEL

Positions = Literal["original", "compact"]
"""`original`: a token keeps the position it had in the full prompt; `compact`: positions are counted again."""


@dataclass(frozen=True)
class CompactBatch:
    """A shortened batch: tensors of one length, made in one place.

    Attributes:
        input_ids: [B, Lc] int64; vision tokens have the placeholder's id, padding has the padding's.
        inputs_embeds: [B, Lc, D].
        attention_mask: [B, Lc] int64; 0 also at a hidden token.
        position_ids: [B, Lc] int64, or [R, B, Lc] of a family with R > 1 rows of them (of one whose LLM reads a count
            of the tokens before them, with that as the first); 0 at padding.
        labels: [B, Lc] int64, -100 at vision tokens and padding; None if none were given.
        others: what else travels with the tokens, [B, Lc] or [R, B, Lc], by the names of the LLM's arguments.
    """

    input_ids: Tensor
    inputs_embeds: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    labels: Tensor | None
    others: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the lengths where they are made.

        Raises:
            InputError: if two tensors differ in rows or columns.
        """
        shapes = {
            "input_ids": self.input_ids.shape,
            "inputs_embeds": self.inputs_embeds.shape[:2],
            "attention_mask": self.attention_mask.shape,
            "position_ids": self.position_ids.shape[-2:],
            **({} if self.labels is None else {"labels": self.labels.shape}),
            **{name: tensor.shape[-2:] for name, tensor in self.others.items()},
        }
        if len(set(shapes.values())) != 1:
            told = {name: tuple(shape) for name, shape in shapes.items()}
            raise InputError(f"the tensors of a shortened batch differ in length: {told}")

    def llm_inputs(self) -> dict[str, Tensor]:
        """Return what the LLM reads, by the names of the stock `forward`'s arguments.

        Always with the mask: without one, positions with gaps are read as several packed sequences.
        """
        return {
            "inputs_embeds": self.inputs_embeds,
            "attention_mask": self.attention_mask,
            "position_ids": self.position_ids,
            **self.others,
        }


def compact_labels(layout: Layout, labels: Tensor) -> Tensor:
    """Return the labels that stay, [B, Lc], from the original [B, L]."""
    return gather({"labels": _labels(labels)}, layout, None)["labels"]


def _labels(labels: Tensor) -> Companion:
    return Companion(labels, padding=IGNORED_LABEL, at_vision=IGNORED_LABEL)


def counted_positions(layout: Layout) -> Tensor:
    """Return positions counted over what is left, [B, Lc]; a hidden token shares that of the token after it."""
    return (layout.attention_mask.cumsum(dim=1) - layout.attention_mask).clamp_min(0)


def compact_positions(family: Family, layout: Layout, kept_indices: Tensor | None) -> Tensor:
    """Return the positions, counted again, of what is left of prompts, [B, Lc], or [R, B, Lc] by the family's rule.

    Args:
        family: the model.
        layout: of what is left.
        kept_indices: [I, Kmax].
    """
    if not isinstance(family, HasPositionRows):
        return counted_positions(layout)
    rows = gather({"rows": Companion(layout.companions["position_ids"])}, layout, kept_indices)["rows"]
    return family.recounted(rows, _image_of_token(layout, kept_indices), layout.attention_mask)


def _image_of_token(layout: Layout, kept_indices: Tensor | None) -> Tensor:
    """Return the number of each vision token's image, [B, Lc] int64; -1 for others."""
    k_max = 1 if kept_indices is None else max(1, kept_indices.shape[1])
    return layout.vision_slots.div(k_max, rounding_mode="floor")


def _positions(
    family: Family, layout: Layout, kept_indices: Tensor | None, rows: Tensor, positions: Positions
) -> Tensor:
    """Return the positions that the LLM is given, [R, B, Lc].

    Args:
        family: the model.
        layout: of the batch.
        kept_indices: [I, Kmax], or None.
        rows: of the full prompts, gathered.
        positions: original or compact.
    """
    is_padding = layout.mask == 0
    if not isinstance(family, HasPositionRows):
        return counted_positions(layout).masked_fill(is_padding, 0).expand_as(rows) if positions == "compact" else rows
    if positions == "compact":
        rows = family.recounted(rows, _image_of_token(layout, kept_indices), layout.attention_mask)
    return torch.cat([counted_positions(layout).unsqueeze(0), rows]).masked_fill(is_padding, 0)


def merge_embeds(layout: Layout, text_embeds: Tensor, vision_embeds: Tensor | None) -> Tensor:
    """Put each vision token into its slot, [B, Lc, D].

    Args:
        layout: of the batch.
        text_embeds: [B, Lc, D]; those at vision slots are replaced.
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
        positions: original or compact.
        labels: [B, L] or None.
        pad_token_id: that padding is written with; None = the family's.
    """
    pad_token_id = family.pad_token_id if pad_token_id is None else pad_token_id
    travelling = {name: Companion(values) for name, values in layout.companions.items()}
    travelling["input_ids"] = Companion(input_ids, padding=pad_token_id)
    if labels is not None:
        travelling["labels"] = _labels(labels)
    gathered = gather(travelling, layout, kept_indices)
    ids, rows = gathered.pop("input_ids"), gathered.pop("position_ids")
    rows = _positions(family, layout, kept_indices, rows, positions)
    # A placeholder's id may lie outside the embedding: its row is replaced anyway.
    text_embeds = family.embed_text(ids.masked_fill(layout.vision_slots >= 0, family.pad_token_id))
    return CompactBatch(
        input_ids=ids,
        inputs_embeds=merge_embeds(layout, text_embeds, vision_embeds),
        attention_mask=layout.attention_mask,
        position_ids=rows[0] if len(rows) == 1 else rows,
        labels=gathered.pop("labels", None),
        others=gathered,
    )
