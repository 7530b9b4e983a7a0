"""The closed world of the `scenes` task: names, sizes, colors and checks on arguments."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Final

from adallava.errors import InputError

# Changing this number (or anything that alters the order of random draws) changes every
# image, so results stop being comparable with earlier runs.
TASK_SEED: Final = 20_240_611

SPLITS: Final = ("train", "validation", "test")
KINDS: Final = (
    "attribute",
    "existence",
    "counting",
    "comparison",
    "relation",
    "reading",
    "locating",
)
SHAPES: Final = ("circle", "square", "triangle", "cross", "ring")
COLORS: Final = ("red", "green", "blue", "yellow", "purple", "cyan")
SIZES: Final = ("small", "large")

IMAGE_PX: Final = 224
PATCH_PX: Final = 14
GRID: Final = IMAGE_PX // PATCH_PX  # 16 patches a side
PATCH_COUNT: Final = GRID * GRID  # 256, patch index = row * GRID + column
CELL_PX: Final = 56  # side of a cell of the coarse 4x4 grid that "locating" names
CELL_COLUMNS: Final = "abcd"
MAX_COUNT: Final = 5  # counting questions have answers 0..5

EXTENT_PX: Final = {"small": 24, "large": 38}
BOX_PATCHES: Final = {"small": 2, "large": 3}
JITTER_PX: Final = 4  # slack between an object's extent and its lattice box, on both axes

COLOR_RGB: Final = {
    "red": (215, 45, 40),
    "green": (45, 165, 60),
    "blue": (45, 85, 220),
    "yellow": (235, 210, 45),
    "purple": (155, 50, 180),
    "cyan": (55, 205, 215),
}
SHADE_JITTER: Final = 16  # each channel moves by at most this much, per object

_INDEX_LIMIT: Final = 2**64


def split_id(split: str) -> int:
    """Number of a split, used in the seed; raises for an unknown name."""
    if split not in SPLITS:
        raise InputError(f"unknown split {split!r}; allowed: {', '.join(SPLITS)}")
    return SPLITS.index(split)


def check_kinds(kinds: Sequence[str]) -> tuple[str, ...]:
    """The kinds as a tuple; raises for an unknown one (or for a bare string)."""
    if isinstance(kinds, str):
        raise InputError(
            f"kinds must be a sequence of names, not the bare string {kinds!r}; allowed names: {', '.join(KINDS)}"
        )
    for kind in kinds:
        if kind not in KINDS:
            raise InputError(f"unknown question kind {kind!r}; allowed: {', '.join(KINDS)}")
    return tuple(kinds)


def check_count(name: str, value: int) -> int:
    """`value` as a plain int in 0..2**64-1; raises otherwise, naming the argument."""
    number = operator.index(value)
    if not 0 <= number < _INDEX_LIMIT:
        raise InputError(f"{name} is {number}; allowed: 0 to 2**64 - 1")
    return number
