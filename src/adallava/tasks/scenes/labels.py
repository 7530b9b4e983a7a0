"""What each patch shows, for training and probing per-patch predictions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from adallava.tasks.scenes.scene_layout import coarse_cell

from .masks import covered_patches
from .records import Scene
from .vocabulary import CELL_PX, COLORS, GRID, PATCH_COUNT, PATCH_PX, SHAPES, SIZES

LABEL_NAMES = ("shape", "color", "size", "digit", "column", "row", "background")
LABEL_COVER_PERCENT = 15  # an object labels a patch that its mask covers this much
_CELL_PATCHES = CELL_PX // PATCH_PX
_NOTHING = -1


def patch_labels(scene: Scene) -> dict[str, NDArray[np.int64]]:
    """int64 [256] per name, -1 where the label does not apply.

    "shape" 0..4, "color" 0..5 (objects and inks), "size" 0..1, "digit" 0..9; "column" and
    "row" 0..3 give the coarse cell of the object's center, or of the digit's own patch;
    "background" is 1 where no pixel of an object and no number is in the patch, else 0.
    """
    rows: list[tuple[int, ...]] = []  # one per labeled patch, in the order of `patches`
    patches: list[int] = []
    touched: list[int] = []
    for item in scene.objects:
        shape, color = SHAPES.index(item.shape), COLORS.index(item.color)
        place = coarse_cell(item)
        covered = covered_patches(item, LABEL_COVER_PERCENT)
        touched += covered_patches(item, 0)
        patches += covered
        rows += [(shape, color, SIZES.index(item.size), _NOTHING, *place, 0)] * len(covered)
    for number in scene.numbers:
        color = COLORS.index(number.color)
        patches += number.patches
        for patch, digit in zip(number.patches, number.text, strict=True):
            row, column = divmod(patch, GRID)
            place = column // _CELL_PATCHES, row // _CELL_PATCHES
            rows.append((_NOTHING, color, _NOTHING, int(digit), *place, 0))
    table = np.full((len(LABEL_NAMES), PATCH_COUNT), _NOTHING, dtype=np.int64)
    background = table[-1]
    background.fill(1)
    background[touched] = 0
    table[:, patches] = np.array(rows, dtype=np.int64).T
    return dict(zip(LABEL_NAMES, table, strict=True))
