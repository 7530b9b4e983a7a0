"""What travels with each token of a prompt: its id, label, positions and whatever else its family says it has.

One function gathers them all, and asks of none what it means.

    columns of a prompt, N = 4         0   1   2   3   4   5
    input_ids                          t   I   I   I   I   t
    position_ids, three rows           0   1   1   1   1   3
                                       0   1   1   2   2   3
                                       0   1   2   1   2   3
    kept: patches 1 and 3, `sources`   0   2   4   5   padding
    position_ids, gathered             0   1   1   3   0
                                       0   1   2   3   0
                                       0   2   2   3   0
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from adallava.pipeline.layout import Layout


@dataclass(frozen=True)
class Companion:
    """One thing that every token of a batch of full prompts has.

    Attributes:
        values: [B, L], or [R, B, L] for R rows of it.
        padding: what padding has of it.
        at_vision: what every vision token has of it; None = what its own placeholder has.
    """

    values: Tensor
    padding: int = 0
    at_vision: int | None = None


def gather(companions: Mapping[str, Companion], layout: Layout, kept_indices: Tensor | None) -> dict[str, Tensor]:
    """Return what the tokens of the shortened batch have of each, [B, Lc] or [R, B, Lc], by the same names.

    Args:
        companions: on the layout's device.
        layout: of the batch.
        kept_indices: [I, Kmax] patch indices per image; None for a batch without vision tokens.
    """
    sources = kept_columns(layout, kept_indices)
    is_padding, is_vision = layout.mask == 0, layout.vision_slots >= 0
    gathered = {}
    for name, companion in companions.items():
        values = companion.values
        taken = values.gather(-1, sources.expand(*values.shape[:-1], -1))
        if companion.at_vision is not None:
            taken = taken.masked_fill(is_vision, companion.at_vision)
        gathered[name] = taken.masked_fill(is_padding, companion.padding)
    return gathered


def kept_columns(layout: Layout, kept_indices: Tensor | None) -> Tensor:
    """Return the column of the full prompt that each token of the shortened batch comes from, [B, Lc].

    Args:
        layout: of the batch.
        kept_indices: as for `gather`.
    """
    if kept_indices is None or kept_indices.numel() == 0:
        return layout.text_columns
    kept = layout.image_columns.gather(1, kept_indices).flatten()
    slots = layout.vision_slots
    return kept[slots.clamp_min(0)].where(slots >= 0, layout.text_columns)


def arranged(layout: Layout, kept_indices: Tensor | None) -> Layout:
    """Return the layout with each prompt's tokens in the order of their columns, for a choice that is made.

        columns     0 1 2 3 4 5 6        an image in two rows, with a token of text between them
        prompt      t I I t I I t
        planned     t v v t t            which two are kept is not known yet
        kept 0, 2   t v t v t

    Args:
        layout: of the batch.
        kept_indices: as for `gather`.
    """
    if not layout.scattered or kept_indices is None:
        return layout
    columns, is_padding = kept_columns(layout, kept_indices), layout.mask == 0
    behind = layout.companions["position_ids"].shape[-1]
    order = columns.masked_fill(is_padding, -1 if layout.side == "left" else behind).argsort(dim=1, stable=True)
    return replace(
        layout,
        text_columns=columns.gather(1, order),
        vision_slots=layout.vision_slots.gather(1, order),
        attention_mask=layout.attention_mask.gather(1, order),
    )
