"""Paints a layout over a busy background, with integer arithmetic only.

While painting, the image is uint8 [224, 224 * 3] with RGB interleaved along a row: operations
over long contiguous rows take a third of the time of ones whose last axis has length 3.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from adallava.tasks.scenes.scene_layout import Layout, make_layout

from .digits import DIGIT_PX, ink_weights
from .draws import Draws
from .masks import Mix, as_mix, shape_mix
from .records import Scene, SceneNumber, SceneObject
from .textures import background
from .vocabulary import COLOR_RGB, IMAGE_PX, PATCH_PX, SHADE_JITTER, check_count, split_id

_SCENE_STREAM = 1
_MIN_CLUTTER, _MAX_CLUTTER = 3, 8
_STROKE_PX = (24, 40, 64)
_DIGIT_SLACK = PATCH_PX - DIGIT_PX + 1

Rows = NDArray[np.uint8]  # [height, width * 3]
Rgb = tuple[int, int, int]


def _row(rgb: Rgb, width_px: int) -> NDArray[np.uint16]:
    """uint16 [width * 3]: one row of a color."""
    row = np.empty((width_px, 3), dtype=np.uint16)
    row[:] = rgb
    return row.reshape(-1)


def _region(image: Rows, x_px: int, y_px: int, width_px: int, height_px: int) -> Rows:
    return image[y_px : y_px + height_px, 3 * x_px : 3 * (x_px + width_px)]


def _blend(region: Rows, mix: Mix, rgb: Rgb) -> None:
    """Paints `rgb` over `region` in place."""
    ink, rest = mix
    # 255 * 256 fits in uint16, so neither products nor their sum can overflow.
    mixed = ink * _row(rgb, ink.shape[1] // 3)
    mixed += region * rest
    mixed >>= 8
    region[...] = mixed


def _shade(draws: Draws, color: str) -> Rgb:
    """The color with each channel moved by up to `SHADE_JITTER`."""
    red, green, blue = COLOR_RGB[color]
    jitter = draws.three_below(2 * SHADE_JITTER + 1)
    return (
        red + jitter[0] - SHADE_JITTER,
        green + jitter[1] - SHADE_JITTER,
        blue + jitter[2] - SHADE_JITTER,
    )


def _gray(draws: Draws) -> Rgb:
    """A gray that is slightly off neutral but far from every object color."""
    level = draws.between(42, 182)
    red, green, blue = draws.three_below(17)
    return level + red, level + green, level + blue


@cache
def _stroke_mix(length_px: int, thickness_px: int, rising: bool) -> Mix:
    """The mix of a diagonal stroke across a square."""
    axis = np.arange(length_px, dtype=np.int64)
    down = axis[::-1, None] if rising else axis[:, None]
    return as_mix((np.abs(axis[None, :] - down) < thickness_px) * 224)


def _paint_clutter(draws: Draws, image: Rows) -> None:
    """Paints one gray stroke, bar or dot, anywhere in the image."""
    rgb = _gray(draws)
    form = draws.below(4)
    if form == 0:
        length = draws.choice(_STROKE_PX)
        mix = _stroke_mix(length, draws.between(1, 3), bool(draws.below(2)))
    elif form == 1:
        mix = shape_mix("circle", 2 * draws.between(2, 5))
    else:
        thickness, length = draws.between(3, 9), draws.between(20, 70)
        height, width = (thickness, length) if form == 2 else (length, thickness)
        left, top = draws.below(IMAGE_PX - width + 1), draws.below(IMAGE_PX - height + 1)
        _region(image, left, top, width, height)[:] = _row(rgb, width)
        return
    side = mix[0].shape[0]
    left, top = draws.below(IMAGE_PX - side + 1), draws.below(IMAGE_PX - side + 1)
    _blend(_region(image, left, top, side, side), mix, rgb)


def _paint_object(draws: Draws, image: Rows, item: SceneObject) -> None:
    side = item.extent_px
    region = _region(image, item.x_px, item.y_px, side, side)
    _blend(region, shape_mix(item.shape, side), _shade(draws, item.color))


def _paint_number(draws: Draws, image: Rows, number: SceneNumber) -> None:
    """A near-black plate over exactly the number's patch cells, with its digits."""
    width = PATCH_PX * len(number.text)
    weights = np.zeros((PATCH_PX, 3 * width), dtype=np.uint16)
    bank = ink_weights()
    for position, image_id in enumerate(number.digit_image_ids):
        left = 3 * (position * PATCH_PX + draws.below(_DIGIT_SLACK))
        top = draws.below(_DIGIT_SLACK)
        weights[top : top + DIGIT_PX, left : left + 3 * DIGIT_PX] = bank[image_id]
    plate = _region(image, PATCH_PX * number.col, PATCH_PX * number.row, width, PATCH_PX)
    plate[:] = _row(draws.three_below(28), width)
    # Thin strokes on black look darker than a filled shape, so inks are a little lighter.
    red, green, blue = _shade(draws, number.color)
    ink = (red * 3 + 255) >> 2, (green * 3 + 255) >> 2, (blue * 3 + 255) >> 2
    _blend(plate, (weights, np.subtract(256, weights, dtype=np.uint16)), ink)


def _paint(draws: Draws, layout: Layout) -> NDArray[np.uint8]:
    """uint8 [224, 224, 3]: background, clutter, then objects and numbers on top."""
    image = background(draws)
    for _ in range(draws.between(_MIN_CLUTTER, _MAX_CLUTTER)):
        _paint_clutter(draws, image)
    for item in layout.objects:
        _paint_object(draws, image, item)
    for number in layout.numbers:
        _paint_number(draws, image, number)
    return image.reshape(IMAGE_PX, IMAGE_PX, 3)


def make_scene(split: str, index: int) -> Scene:
    """The image `index` of a split ("train", "validation" or "test").

    The same arguments give the same bytes on every machine. Images of different splits are
    drawn from different seeds and show different handwritten digits.
    """
    split_number = split_id(split)
    number = check_count("index", index)
    draws = Draws(_SCENE_STREAM, split_number, number)
    layout = make_layout(draws, split)
    return Scene(_paint(draws, layout), layout.objects, layout.numbers, split, number)
