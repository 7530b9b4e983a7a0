"""The vision tower: what it reads, and when it runs on something else than the picture as it came."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import cast

import torch
from torch import Tensor

from adallava.families.capabilities.of_towers import resized, some_pictures, with_attention, with_budget_token
from adallava.families.family_contract import Family, VisionFeatures
from adallava.families.picture_inputs import PictureInputs
from adallava.pipeline.layout import Layout
from adallava.pipeline.stage_runner import PLAIN, Stages
from adallava.selection.layer_contract import AnySelector
from adallava.selection.selector_contract import (
    AskedAttention,
    AttentionMethod,
    BudgetTokenMethod,
    Need,
    ResizingMethod,
    Selector,
)


def budget_ratios(layout: Layout, device: torch.device) -> Tensor:
    """Return K / N of each image, [I] float32."""
    ratios = [kept / count for kept, count in zip(layout.keep_counts, layout.tokens_per_image, strict=True)]
    return torch.tensor(ratios, dtype=torch.float32).to(device, non_blocking=True)


def encode(
    family: Family,
    selector: Selector | None,
    pictures: PictureInputs,
    keep_counts: Sequence[int],
    ratios: Tensor,
    *,
    stages: Stages = PLAIN,
) -> VisionFeatures:
    """Run the tower; for a method with a budget token, with that token in the images that lose any patch.

    An image that keeps all its patches leaves nothing to choose: it passes through the stock tower, so that the
    full budget is the stock model to the bit. Its `budget_features` are zeros.

    Args:
        family: the model.
        selector: the method; None keeps every token.
        pictures: of all images.
        keep_counts: K of each image.
        ratios: [I], K / N.
        stages: runs the tower on the pictures as they came.
    """
    if isinstance(selector, ResizingMethod):
        if tuple(keep_counts) == tuple(rows * columns for rows, columns in family.grids(pictures)):
            return family.encode(pictures)
        return _encode_resized(family, selector, pictures, keep_counts)
    if reads_stock_tower(selector):
        return encode_stock(family, selector, pictures, stages)
    assert selector is not None
    with_token: list[int] = []
    stock: list[int] = []
    for image, count in enumerate(keep_counts):
        (with_token if count < family.shape.num_vision_tokens else stock).append(image)
    # One at a time, as all that a choice depends on.
    tokens = torch.cat(
        [cast(BudgetTokenMethod, selector).budget_token(ratio) for ratio in torch.tensor_split(ratios, len(ratios))]
    )
    if not stock:
        return with_budget_token(family, pictures, tokens)
    zeros = tokens.new_zeros((len(keep_counts), family.shape.vision_width), dtype=family.dtype)
    if not with_token:
        return replace(family.encode(pictures), budget_features=zeros)
    order = torch.tensor(with_token + stock, dtype=torch.int64).to(family.device, non_blocking=True)
    rows = order[: len(with_token)]
    part = with_budget_token(family, some_pictures(family, pictures, with_token), tokens.index_select(0, rows))
    whole = family.encode(some_pictures(family, pictures, stock))
    assert part.budget_features is not None
    features = torch.cat([part.features, whole.features]).index_select(0, order.argsort())
    return VisionFeatures(features, zeros.index_copy(0, rows, part.budget_features))


def reads_stock_tower(selector: AnySelector | None) -> bool:
    """Return whether the tower runs on the pictures as they came, whatever the budget."""
    return selector is None or not (isinstance(selector, ResizingMethod) or Need.BUDGET_TOKEN in selector.needs)


def encode_stock(
    family: Family, selector: Selector | None, pictures: PictureInputs, stages: Stages = PLAIN
) -> VisionFeatures:
    """Run the tower as the stock model does, and give what a method reads of its layers."""
    needs = () if selector is None else tuple(sorted(selector.needs))
    asked = cast(AttentionMethod, selector).asked_attention if Need.ATTENTION_RECEIVED in needs else ()
    return stages.run(family.model, "tower", partial(_encode, stages.tower_of(family)), pictures, needs, asked)


def _encode(
    family: Family, pictures: PictureInputs, needs: Sequence[Need], asked: Sequence[AskedAttention]
) -> VisionFeatures:
    return with_attention(family, pictures, asked, needs) if asked else family.encode(pictures, needs=needs)


def _encode_resized(
    family: Family, selector: ResizingMethod, pictures: PictureInputs, keep_counts: Sequence[int]
) -> VisionFeatures:
    """Run the tower on smaller pictures, once for each grid and K; put tokens at their places in the full grid."""
    kinds = list(zip(family.grids(pictures), keep_counts, strict=True))
    longest = max(rows * columns for (rows, columns), _ in kinds)
    tables: dict[int | None, Tensor] = {}
    for grid, keep_count in dict.fromkeys(kinds):
        if keep_count == 0:
            continue
        same = [image for image, kind in enumerate(kinds) if kind == (grid, keep_count)]
        images = torch.tensor(same, dtype=torch.int64).to(family.device, non_blocking=True)
        smaller = resized(family, some_pictures(family, pictures, same), selector.tower_grid(keep_count, grid))
        places = selector.places(keep_count, grid).to(family.device, non_blocking=True)
        made: list[tuple[int | None, Tensor]] = [(None, smaller.features), *smaller.levels.items()]
        for name, tokens in made:
            size = (longest, tokens.shape[-1])
            full = tokens.new_zeros((len(same), *size)).index_copy(1, places, tokens)
            table = tables.get(name, tokens.new_zeros((len(kinds), *size)))
            tables[name] = table.index_copy(0, images, full)
    features = tables.pop(None)
    return VisionFeatures(features, levels={layer: table for layer, table in tables.items() if layer is not None})
