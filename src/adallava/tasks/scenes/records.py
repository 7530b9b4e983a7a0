"""Frozen records: what is in an image, and what is asked about it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .vocabulary import GRID


@dataclass(frozen=True)
class SceneObject:
    """A colored shape; `x_px`, `y_px` is the top-left corner of its drawn square extent."""

    shape: str
    color: str
    size: str
    x_px: int
    y_px: int
    extent_px: int

    @property
    def center_px(self) -> tuple[int, int]:
        """Centre (x, y) in pixels; extents are even, so this is exact."""
        half = self.extent_px // 2
        return self.x_px + half, self.y_px + half


@dataclass(frozen=True)
class SceneNumber:
    """A handwritten number, one digit per patch cell; `row`, `col` is the first digit's cell.

    `digit_image_ids` are row numbers in `digits.safetensors`, one per digit.
    """

    text: str
    color: str
    row: int
    col: int
    digit_image_ids: tuple[int, ...]

    @property
    def patches(self) -> tuple[int, ...]:
        """Patch indices of the digits, left to right."""
        first = self.row * GRID + self.col
        return tuple(range(first, first + len(self.text)))


@dataclass(frozen=True)
class Scene:
    """One image (`image`: uint8 [224, 224, 3], RGB) with everything that is in it.

    Equality and hash leave `image` out: the other fields determine it.
    """

    image: NDArray[np.uint8] = field(compare=False, repr=False)
    objects: tuple[SceneObject, ...]
    numbers: tuple[SceneNumber, ...]
    split: str
    index: int


@dataclass(frozen=True)
class Question:
    """A question, its answer, and the sorted indices (0..255) of the patches with its evidence.

    `patches` is empty only for a counting question whose answer is "0".
    """

    kind: str
    text: str
    answer: str
    patches: tuple[int, ...]
