"""One tower layer's keys and its class token's query, recomputed: SDPA returns no attention weights."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from adallava.selection.selector_contract import TowerLayer


def tower_layer(block: Any, states: Tensor, *, has_cls: bool) -> TowerLayer:
    """Return what one layer compares, from the layer's own norm and projections.

    Costs one [S, C] x [C, C] product an image, and one row of another; see `costs.flops.tower_layer_flops`.

    Args:
        block: a CLIP or SigLIP encoder layer.
        states: [I, S, C], that layer's input, the class token first if there is one.
        has_cls: whether there is.
    """
    attention = block.self_attn
    # One image at a time: a product's bits depend on its shape, and a choice must not depend on the batch.
    normed = [block.layer_norm1(image) for image in torch.tensor_split(states, len(states))]
    return TowerLayer(
        keys=torch.cat([attention.k_proj(image) for image in normed]),
        cls_query=torch.cat([attention.q_proj(image[:, 0]) for image in normed]) if has_cls else None,
        num_heads=int(attention.num_heads),
    )


def of_cells(layer: TowerLayer, side: int, cell: int) -> TowerLayer:
    """Return a layer of a tower without a class token as one of tokens that are cells of patches: means of their keys.

    Args:
        layer: of `(side * cell)²` patches.
        side: tokens in a row.
        cell: patches of a token in a row.
    """
    return replace(layer, keys=mean_of_cells(layer.keys, side, cell))


def mean_of_cells(patches: Tensor, side: int, cell: int) -> Tensor:
    """Return the means of cells of patches, [I, side², C] contiguous, of [I, (side * cell)², C]; each image alone."""
    grids = patches.reshape(len(patches), side * cell, side * cell, -1).permute(0, 3, 1, 2)
    each = torch.tensor_split(grids, len(grids))
    means = [F.avg_pool2d(grid.contiguous(), cell).flatten(2).transpose(1, 2) for grid in each]
    return torch.cat(means).contiguous()
