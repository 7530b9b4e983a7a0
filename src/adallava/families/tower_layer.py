"""One tower layer's keys and its class token's query, recomputed: SDPA returns no attention weights."""

from typing import Any

import torch
from torch import Tensor

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
