"""What a token of the Qwen-VL families costs: the parts of a model without values whose products are counted."""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from adallava.families.costed_parts import CostedParts, let_first_stand_for_all, stacked_layers
from adallava.families.transformers_internals import ROTARY_TABLES


def costed_units(model: Any, *, side_px: int) -> CostedParts:
    """Return the parts of a model on the meta device; see `costs/counted.py`.

    Every layer of the tower is counted with all patches in one window; what windows save follows from their number.

    Args:
        model: without values.
        side_px: of the square picture that the tower is first counted with, in pixels.
    """
    visual, llm = model.model.visual, model.model.language_model
    embed, unit = visual.patch_embed, visual.spatial_merge_size**2
    layers = stacked_layers(llm, llm.config.num_hidden_layers)
    blocks = tuple(visual.blocks)
    let_first_stand_for_all(layers)
    let_first_stand_for_all(blocks)
    full = getattr(visual, "fullatt_block_indexes", range(len(blocks)))
    added = [_OfUnits(merger, embed.embed_dim) for merger in getattr(visual, "deepstack_merger_list", ())]
    window = getattr(visual, "window_size", None)
    return CostedParts(
        model=model,
        tower_of_side=lambda _: (_OnePicture(visual), blocks),
        side=side_px // embed.patch_size,
        patch_size=embed.patch_size,
        channels=embed.in_channels,
        tower_width=embed.embed_dim,
        projector=_OfUnits(visual.merger, embed.embed_dim),
        feature_width=embed.embed_dim * unit,
        layers=layers,
        output=model.get_output_embeddings(),
        positions=tuple(module for name, module in llm.named_children() if name.startswith("rotary_emb")),
        adders=added,
        patches_per_token=unit,
        window=None if window is None else window // embed.patch_size // visual.spatial_merge_size,
        windowed_layers=len(blocks) - len(set(full)),
    )


class _OnePicture(nn.Module):
    """The tower's layers over all patches of one square picture, [1, channels, pixels, pixels], on any device."""

    def __init__(self, visual: Any) -> None:
        super().__init__()
        self.visual = visual

    def forward(self, pixels: Tensor) -> SimpleNamespace:
        """Return what the last layer puts out, as `last_hidden_state`, [1, patches, C]."""
        embed, config = self.visual.patch_embed, self.visual.config
        patches = pixels.shape[-2] * pixels.shape[-1] // embed.patch_size**2
        rows = pixels.new_empty(patches, embed.in_channels * embed.temporal_patch_size * embed.patch_size**2)
        hidden = embed(rows)
        table = hidden.new_empty(patches, embed.embed_dim // config.num_heads)
        # Lengths are read on the host.
        ends = torch.tensor([0, patches], dtype=torch.int32, device="cpu")
        for block in self.visual.blocks:
            hidden = block(hidden, cu_seqlens=ends, **{ROTARY_TABLES: (table, table)})
        return SimpleNamespace(last_hidden_state=hidden.unsqueeze(0))


class _OfUnits(nn.Module):
    """A merger that is given tokens, [1, n, C], instead of their patches."""

    def __init__(self, merger: nn.Module, patch_width: int) -> None:
        super().__init__()
        self.merger, self._patch_width = merger, patch_width

    def forward(self, features: Tensor) -> Tensor:
        """Return the tokens merged, [n, D]."""
        merged: Tensor = self.merger(features.reshape(-1, self._patch_width))
        return merged
