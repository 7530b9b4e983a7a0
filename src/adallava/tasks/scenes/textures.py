"""The bank of busy backgrounds, drawn once with integer arithmetic."""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from .draws import Draws
from .vocabulary import IMAGE_PX, TASK_SEED

TEXTURE_COUNT: Final = 32
SPARE_PX: Final = 64  # textures are larger than an image, so that crops differ
TINT_RANGE: Final = 48  # an image adds 0..47 to each channel; the bank leaves room for it

_SIDE_PX = IMAGE_PX + SPARE_PX
_DARKEST, _LIGHTEST = 24, 255 - TINT_RANGE
_STREAM = 101

Gray = NDArray[np.int64]


def _axes() -> tuple[Gray, Gray]:
    axis = np.arange(_SIDE_PX, dtype=np.int64)
    return axis[:, None], axis[None, :]


def _stripes(draws: Draws, source: np.random.RandomState) -> Gray:
    """Two-level oblique stripes, values 0 or 255."""
    down, across = _axes()
    slope_x, slope_y = draws.choice(((4, 0), (0, 4), (3, 3), (3, -3), (4, 2), (2, -4)))
    period = draws.between(20, 60)
    stripes: Gray = ((across * slope_x + down * slope_y) // period) & 1
    return stripes * 255


def _checks(draws: Draws, source: np.random.RandomState) -> Gray:
    """A checkerboard with cells of 6..24 px, values 0 or 255."""
    down, across = _axes()
    cells: Gray = (across // draws.between(6, 24)) + (down // draws.between(6, 24))
    return (cells & 1) * 255


def _speckle(draws: Draws, source: np.random.RandomState) -> Gray:
    """Grainy noise with grains of 1..3 px, values 0..255."""
    grain = draws.between(1, 3)
    side = -(-_SIDE_PX // grain)
    noise = source.randint(0, 256, size=(side, side), dtype=np.uint8).astype(np.int64)
    return noise.repeat(grain, axis=0).repeat(grain, axis=1)[:_SIDE_PX, :_SIDE_PX]


def _blotches(draws: Draws, source: np.random.RandomState) -> Gray:
    """Coarse noise enlarged by integer bilinear weights, values 0..255."""
    step = draws.choice((8, 12, 16, 24))
    side = _SIDE_PX // step + 2
    noise = source.randint(0, 256, size=(side, side), dtype=np.uint8).astype(np.int64)
    cell, part = np.divmod(np.arange(_SIDE_PX, dtype=np.int64), step)
    rows = noise[cell] * (step - part)[:, None] + noise[cell + 1] * part[:, None]
    both: Gray = rows[:, cell] * (step - part)[None, :] + rows[:, cell + 1] * part[None, :]
    return np.floor_divide(both, step**2)


def _gradient(draws: Draws, source: np.random.RandomState) -> Gray:
    """A slope with soft bands on it, values 0..255."""
    down, across = _axes()
    slope = across * draws.between(-3, 3) + down * draws.choice((-3, -2, 2, 3))
    slope = slope - slope.min()
    ramp = slope * 255 // slope.max()
    band = (slope // draws.between(24, 72)) & 1
    mixed: Gray = (ramp * 3 + band * 255) // 4
    return mixed


_FAMILIES = (_stripes, _checks, _speckle, _blotches, _gradient)


def _texture(number: int) -> NDArray[np.uint8]:
    """uint8 [288, 288, 3]: one muted texture, leaving `TINT_RANGE` of headroom."""
    draws = Draws(_STREAM, number)
    source = np.random.RandomState(np.array([TASK_SEED, _STREAM, number], dtype=np.uint32))
    pattern = _FAMILIES[number % len(_FAMILIES)](draws, source)
    blotches = _blotches(draws, source)
    grain = source.randint(0, 13, size=(_SIDE_PX, _SIDE_PX), dtype=np.uint8).astype(np.int64)
    contrast = draws.between(32, 88)
    level = draws.between(40, 100)
    gray = level + (pattern * contrast >> 8) + (blotches * draws.between(12, 44) >> 8) + grain
    tint = np.array([draws.between(-14, 14) for _ in range(3)], dtype=np.int64)
    colored = np.clip(gray[:, :, None] + tint, _DARKEST, _LIGHTEST)
    return np.asarray(colored, dtype=np.uint8)


@cache
def texture_bank() -> NDArray[np.uint8]:
    """uint8 [2, 32, 288, 288 * 3]: every texture as is and mirrored left to right.

    The last axis interleaves RGB so that tinting a crop runs over long contiguous rows.
    """
    plain = np.stack([_texture(number) for number in range(TEXTURE_COUNT)])
    both = np.stack([plain, plain[:, :, ::-1]])
    bank = both.reshape(2, TEXTURE_COUNT, _SIDE_PX, _SIDE_PX * 3)
    bank.setflags(write=False)
    return bank


def background(draws: Draws) -> NDArray[np.uint8]:
    """uint8 [224, 224 * 3], writable: a random crop of a texture, flipped and tinted."""
    rows = texture_bank()[draws.below(2), draws.below(TEXTURE_COUNT)]
    top, left = draws.below(SPARE_PX + 1), draws.below(SPARE_PX + 1)
    crop = rows[top : top + IMAGE_PX, 3 * left : 3 * (left + IMAGE_PX)]
    if draws.below(2):
        crop = crop[::-1]
    # A common part keeps tints muted: channels differ by at most 16.
    common = draws.below(TINT_RANGE - 16)
    tint = np.empty((IMAGE_PX, 3), dtype=np.uint8)
    tint[:] = [common + part for part in draws.three_below(17)]
    tinted: NDArray[np.uint8] = crop + tint.reshape(-1)
    return tinted
