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


_QUERIES_AT_ONCE = 512
"""Of thousands of patches, a matrix of all queries and keys would fill the memory."""


def received_attention(block: Any, states: Tensor, seen: Tensor | None = None) -> Tensor:
    """Return how much all tokens look at each in one layer, averaged over their queries and its heads, [I, S] float32.

    A row sums to 1. Costs two [S, C] x [C, C] products an image, and one of queries and keys.

    Args:
        block: a CLIP or SigLIP encoder layer.
        states: [I, S, C], that layer's input.
        seen: [I, S] bool, the tokens that take part; None = all.
    """
    attention = block.self_attn
    heads = int(attention.num_heads)
    received = []
    # One image at a time, as in `tower_layer`.
    for number, image in enumerate(torch.tensor_split(states, len(states))):
        normed = block.layer_norm1(image)[0]
        queries, keys = (
            project(normed).view(len(normed), heads, -1).transpose(0, 1)
            for project in (attention.q_proj, attention.k_proj)
        )
        hidden = None if seen is None else ~seen[number]
        asking = torch.ones(len(normed), device=states.device) if hidden is None else (~hidden).float()
        total = torch.zeros(len(normed), device=states.device)
        for part, weights in zip(queries.split(_QUERIES_AT_ONCE, dim=1), asking.split(_QUERIES_AT_ONCE), strict=True):  # type: ignore[no-untyped-call]
            logits = (part.float() @ keys.float().transpose(1, 2)) * keys.shape[-1] ** -0.5
            if hidden is not None:
                logits = logits.masked_fill(hidden, torch.finfo(torch.float32).min)
            total = total + (logits.softmax(dim=-1).mean(dim=0) * weights.unsqueeze(-1)).sum(dim=0)
        received.append(total / asking.sum())
    return torch.stack(received)


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


def sum_of_cells(patches: Tensor, side: int, cell: int) -> Tensor:
    """Return the sums over cells of patches, [I, side²], of [I, (side * cell)²]."""
    return mean_of_cells(patches.unsqueeze(-1), side, cell).squeeze(-1) * cell**2
