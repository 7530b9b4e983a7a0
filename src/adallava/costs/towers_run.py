"""Which towers ran for an answer: on images as they came, on tiles, or on smaller images."""

from collections.abc import Sequence
from dataclasses import replace
from math import isqrt

from adallava.costs.parts import TowerCosts
from adallava.records import WhatRan
from adallava.selection.selector_contract import ResizingMethod


def towers_run(vision: TowerCosts, ran: WhatRan, method: object, num_vision_tokens: int) -> list[TowerCosts]:
    """Return the costs of the tower for each image that went through it; none if no token was kept.

    Args:
        vision: of the model's tower.
        ran: of one answer.
        method: that chose.
        num_vision_tokens: of an image as the model was trained.
    """
    if not ran.tokens_kept:
        return []
    if isinstance(method, ResizingMethod):
        kept = [(len(own), grid) for own, grid in zip(ran.kept_indices, ran.grids, strict=True) if own]
        grids = [method.tower_grid(count, grid) for count, grid in kept]
        if vision.patches_per_token is not None:
            return [vision.of_grid(grid) for grid in grids]  # Each in a run of its own.
        patches = isqrt(vision.num_vision_tokens // num_vision_tokens)
        return [vision.with_patch_side(side * patches) for side, _ in grids]
    if vision.patches_per_token is not None:
        towers = [vision.of_grid(grid) for grid in ran.grids]
        return _in_one_sequence(towers, ran.grids) if vision.one_sequence else towers
    return [vision] * sum(ran.tower_runs)


def _in_one_sequence(towers: Sequence[TowerCosts], grids: Sequence[tuple[int, int]]) -> list[TowerCosts]:
    """Return the costs of images of one prompt that run together, filled up to the largest before that."""
    most_rows, most_columns = (max(sides) for sides in zip(*grids, strict=True))
    together = sum(tower.num_vision_tokens for tower in towers)
    return [
        replace(
            tower,
            other_patches=together - tower.num_vision_tokens,
            padding_patches=tower.num_vision_tokens * most_rows * most_columns // (rows * columns)
            - tower.num_vision_tokens,
        )
        for tower, (rows, columns) in zip(towers, grids, strict=True)
    ]
