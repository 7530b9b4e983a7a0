"""What one tower layer compares, and what its patches receive of attention, recomputed: SDPA returns no weights."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from adallava.families.transformers_internals import rotate
from adallava.selection.selector_contract import AskedAttention, TowerLayer

_MOST_WEIGHTS = 2**26
"""Held at a time: 256 MB of float32."""


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


@torch.no_grad()
def attention_to_patches(block: Any, states: Tensor, *, has_cls: bool, of_class_token: bool) -> Tensor:
    """Return what each patch receives of one layer's attention, [I, N] float32; see `mean_received`.

    Costs two [S, C] x [C, C] products an image and one of all pairs; of the class token alone, one and one row of each.
    See `costs.flops.received_attention_flops`.

    Args:
        block: a CLIP or SigLIP encoder layer.
        states: [I, S, C], that layer's input, the class token first if there is one.
        has_cls: whether there is.
        of_class_token: whether its attention alone is asked for, if there is one.
    """
    attention = block.self_attn

    def by_heads(flat: Tensor) -> Tensor:
        """Return [heads, S, head width] of [S, C]."""
        return flat.view(len(flat), int(attention.num_heads), -1).transpose(0, 1)

    received = []
    for (image,) in torch.tensor_split(states, len(states)):
        normed = block.layer_norm1(image)
        looking = normed[:1] if has_cls and of_class_token else normed
        queries, keys = by_heads(attention.q_proj(looking)), by_heads(attention.k_proj(normed))
        received.append(mean_received(queries, keys)[int(has_cls) :])
    return torch.stack(received)


def received_in_layers(
    layers: Sequence[Any], states: Sequence[Tensor], asked: Sequence[AskedAttention], *, produces: int, has_cls: bool
) -> Tensor:
    """Return what each patch receives of attention in some layers of a tower, [I, N, A] float32.

    Args:
        layers: of the tower.
        states: what each layer reads, [I, S, C].
        asked: which attention.
        produces: the layer that puts out the features.
        has_cls: whether the class token comes first.
    """
    columns = []
    for one in asked:
        index = layer_at(one.depth, range(produces + 1), len(layers))
        columns.append(
            attention_to_patches(layers[index], states[index], has_cls=has_cls, of_class_token=one.of_class_token)
        )
    return torch.stack(columns, dim=-1)


@torch.no_grad()
def rotary_attention_to_patches(block: Any, states: Tensor, tables: Sequence[Tensor]) -> Tensor:
    """Return what each patch of one picture receives of a layer's attention, [S] float32.

    Args:
        block: a layer of a tower whose queries and keys, of one product with the values, are turned by their places.
        states: [S, C], that layer's input.
        tables: cosines and sines of the patches, [S, head width] each.
    """
    attention, width = block.attn, states.shape[-1]
    joined, bias = attention.qkv.weight[: 2 * width], attention.qkv.bias
    flat = F.linear(block.norm1(states), joined, None if bias is None else bias[: 2 * width])
    queries, keys = flat.chunk(2, dim=1)
    return mean_received_turned(queries, keys, int(attention.num_heads), tables)


def mean_received_turned(queries: Tensor, keys: Tensor, num_heads: int, tables: Sequence[Tensor]) -> Tensor:
    """Return `mean_received` of queries and keys that are still to be turned by their places, [S] float32.

    Args:
        queries: [S, C].
        keys: [S, C].
        num_heads: that they are of.
        tables: cosines and sines, [S, head width] each.
    """

    def by_heads(flat: Tensor) -> Tensor:
        """Return [1, heads, S, head width] in float32 of [S, C]."""
        return flat.float().reshape(1, len(flat), num_heads, -1).transpose(1, 2)

    cosines, sines = (table.float().unsqueeze(0) for table in tables)
    turned, compared = rotate(by_heads(queries), by_heads(keys), cosines, sines)
    return mean_received(turned[0], compared[0])


def mean_received(queries: Tensor, keys: Tensor) -> Tensor:
    """Return what each token receives of attention, averaged over heads and queries, [S] float32: 1 in all.

    Args:
        queries: [heads, R, head width].
        keys: [heads, S, head width].
    """
    heads, width = len(keys), keys.shape[-1]
    by_column = keys.float().transpose(1, 2) * width**-0.5
    total: Tensor = by_column.new_zeros(keys.shape[1])
    for some in torch.split(queries.float(), max(1, _MOST_WEIGHTS // (heads * keys.shape[1])), dim=1):
        total = total + (some @ by_column).softmax(dim=-1).sum(dim=(0, 1))
    return total / (heads * queries.shape[1])


def layer_at(depth: float, layers: Sequence[int], num_layers: int) -> int:
    """Return the layer, from 0, at a share of a tower's layers: the nearest that can be read, of two the deeper.

    Args:
        depth: see `AskedAttention`.
        layers: those that can be read, ascending: up to the one that puts out the features.
        num_layers: of the tower.
    """
    wanted = layers[-1] if depth >= 1 else round(depth * num_layers) - 1
    return min(reversed(layers), key=lambda layer: abs(layer - wanted))
