"""Handwritten digits: disjoint pools per split, and their ink weights.

`digits.safetensors` holds the test part of UCI's Optical Recognition of Handwritten Digits (Alpaydin and Kaynak 1998,
CC BY 4.0), in the order of scikit-learn's `load_digits`, whose import takes two seconds.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from .vocabulary import SPLITS, TASK_SEED

DIGIT_PX: Final = 12  # a digit is drawn 12x12 inside its 14x14 patch cell
_SOURCE_PX = 8
_POOL_PERCENT = {"train": 70, "validation": 10, "test": 20}


@cache
def _dataset() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Images int64 [1797, 8, 8] with values 0..16, and labels int64 [1797]."""
    data = load_file(Path(__file__).with_name("digits.safetensors"))
    return data["images"].astype(np.int64), data["labels"].astype(np.int64)


@cache
def digit_pools() -> dict[str, tuple[tuple[int, ...], ...]]:
    """split -> for each digit 0..9, the image ids of that split; the pools are disjoint."""
    _, labels = _dataset()
    pools: dict[str, list[tuple[int, ...]]] = {split: [] for split in SPLITS}
    for digit in range(10):
        ids = np.flatnonzero(labels == digit)
        seed = np.array([TASK_SEED, 77, digit], dtype=np.uint32)
        order = np.random.RandomState(seed).permutation(ids).tolist()
        first = 0
        percent = 0
        for split in SPLITS:
            percent += _POOL_PERCENT[split]
            last = len(order) * percent // 100
            pools[split].append(tuple(order[first:last]))
            first = last
    return {split: tuple(pools[split]) for split in SPLITS}


@cache
def ink_weights() -> NDArray[np.uint16]:
    """uint16 [1797, 12, 12 * 3], 0..256: images enlarged bilinearly, once per channel."""
    images, _ = _dataset()
    matrix = _enlargement()
    # Rows of `matrix` sum to 256, so 16 becomes 2**20. Five quarters of that, cut off at
    # 2**20, makes thin strokes bright; the shift brings the range to 0..256.
    enlarged = np.minimum((matrix @ images @ matrix.T) * 5 >> 2, 1 << 20) >> 12
    weights: NDArray[np.uint16] = np.asarray(enlarged, dtype=np.uint16).repeat(3, axis=2)
    weights.setflags(write=False)
    return weights


def _enlargement() -> NDArray[np.int64]:
    """int64 [12, 8]: bilinear resampling along one axis, each row summing to 256."""
    matrix = np.zeros((DIGIT_PX, _SOURCE_PX), dtype=np.int64)
    for target in range(DIGIT_PX):
        # Pixel centers in units of 1/(2 * DIGIT_PX) source pixels, clamped at the borders.
        centre = (2 * target + 1) * _SOURCE_PX - DIGIT_PX
        centre = min(max(centre, 0), (_SOURCE_PX - 1) * 2 * DIGIT_PX)
        left, rest = divmod(centre, 2 * DIGIT_PX)
        weight = rest * 256 // (2 * DIGIT_PX)
        matrix[target, left] += 256 - weight
        if weight:
            matrix[target, left + 1] += weight
    return matrix
