"""Draw which patches of an image a method kept."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance

from adallava.errors import InputError

MIN_SIDE_PX = 448
"""A drawing is at least this wide, so that single patches are legible on small images."""

MAX_SIDE_PX = 896
"""Larger images are drawn at about this width: more shows nothing new."""

_PAPER = (255, 255, 255)
_INK = (20, 20, 20)
_FADE = 0.72
"""How far dropped patches move toward the paper: faint, yet one can see what was given up."""
_FADE_MERGED = 0.4
"""Merged patches are not lost, so they fade less."""


def square_grid(num_tokens: int) -> tuple[int, int] | None:
    """Return (rows, columns) of a square grid of N patches, or None if N is not a perfect square."""
    side = math.isqrt(max(num_tokens, 0))
    return (side, side) if side > 0 and side * side == num_tokens else None


def plain_picture(image: Image.Image, grid: tuple[int, int]) -> Image.Image:
    """Return the image at the size and shape `draw_kept_patches` gives it, with nothing drawn on it."""
    cell_px = _cell_px(image, grid)
    size = (grid[1] * cell_px, grid[0] * cell_px)
    return _on_paper(image).resize(size, Image.Resampling.BICUBIC)


def draw_kept_patches(
    image: Image.Image, kept: Sequence[int], grid: tuple[int, int], *, merged: bool = False
) -> Image.Image:
    """Return the image with dropped patches faded to gray and the kept ones in color and outlined.

    The image is resized to the grid's shape, a square for a square grid: the frame in which a model sees it
    if its processor resizes without cropping. Any mode and size goes; transparency is laid on white.

    Args:
        image: the sample's picture.
        kept: indices of the kept patches, row by row from the top left; none means that all were dropped.
        grid: (rows, columns) of the patches, rows * columns = N.
        merged: True for a method that combines patches. Then `kept` are those that represent the others:
            they get a dot each, and the rest fades less, since it was combined, not dropped.

    Returns:
        An RGB image; its shorter side has at least `MIN_SIDE_PX` pixels.

    Raises:
        InputError: if an index lies outside the grid, or the grid has no patches.
    """
    num_patches = grid[0] * grid[1]
    if min(grid) < 1:
        raise InputError(f"a grid of {grid[0]} x {grid[1]} has no patches: give (rows, columns) >= (1, 1)")
    outside = sorted({index for index in kept if not 0 <= index < num_patches})
    if outside:
        raise InputError(
            f"kept patches {outside[:5]} lie outside a grid of {grid[0]} x {grid[1]}: give 0 to {num_patches - 1}"
        )
    picture = plain_picture(image, grid)
    cell_px = picture.width // grid[1]
    faded = _faded(picture, _FADE_MERGED if merged else _FADE)
    if merged:
        return _with_dots(faded, picture, kept, grid[1], cell_px)
    mask = Image.new("L", picture.size, 0)
    brush = ImageDraw.Draw(mask)
    for index in kept:
        brush.rectangle(_box(index, grid[1], cell_px), fill=255)
    drawn = Image.composite(picture, faded, mask)
    _outline(ImageDraw.Draw(drawn), set(kept), grid, cell_px)
    return drawn


def _cell_px(image: Image.Image, grid: tuple[int, int]) -> int:
    shorter = min(grid)
    wanted = min(max(min(image.size), MIN_SIDE_PX), MAX_SIDE_PX)
    return math.ceil(wanted / shorter)


def _on_paper(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        # 16- and 32-bit grays: Pillow would clip them at 255, so spread their range first.
        levels = np.asarray(image, dtype=np.float64)
        span = max(float(np.ptp(levels)), 1.0)
        return Image.fromarray(((levels - levels.min()) * (255.0 / span)).astype(np.uint8)).convert("RGB")
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        layer = image.convert("RGBA")
        paper = Image.new("RGBA", layer.size, (*_PAPER, 255))
        return Image.alpha_composite(paper, layer).convert("RGB")
    return image.convert("RGB")


def _faded(picture: Image.Image, fade: float) -> Image.Image:
    grey = ImageEnhance.Color(picture).enhance(0.15)
    return Image.blend(grey, Image.new("RGB", picture.size, _PAPER), fade)


def _box(index: int, columns: int, cell_px: int) -> tuple[int, int, int, int]:
    left, top = (index % columns) * cell_px, (index // columns) * cell_px
    return left, top, left + cell_px - 1, top + cell_px - 1


def _outline(brush: ImageDraw.ImageDraw, kept: set[int], grid: tuple[int, int], cell_px: int) -> None:
    """Draw the border between kept and dropped patches: one line around each kept region, inside it."""
    rows, columns = grid
    width_px = max(2, round(cell_px / 14))
    for index in kept:
        left, top, right, bottom = _box(index, columns, cell_px)
        row, column = divmod(index, columns)
        # At each edge: is there a neighbor, and is it kept? The image's own edge counts as a border.
        if row == 0 or index - columns not in kept:
            brush.rectangle((left, top, right, top + width_px - 1), fill=_INK)
        if row == rows - 1 or index + columns not in kept:
            brush.rectangle((left, bottom - width_px + 1, right, bottom), fill=_INK)
        if column == 0 or index - 1 not in kept:
            brush.rectangle((left, top, left + width_px - 1, bottom), fill=_INK)
        if column == columns - 1 or index + 1 not in kept:
            brush.rectangle((right - width_px + 1, top, right, bottom), fill=_INK)


def _with_dots(
    faded: Image.Image, picture: Image.Image, kept: Sequence[int], columns: int, cell_px: int
) -> Image.Image:
    """Show through a ringed hole, at each kept patch, the image's own colors."""
    mask = Image.new("L", picture.size, 0)
    rings = Image.new("L", picture.size, 0)
    holes, ring_brush = ImageDraw.Draw(mask), ImageDraw.Draw(rings)
    inset, width_px = cell_px // 6, max(2, round(cell_px / 14))
    for index in kept:
        left, top, right, bottom = _box(index, columns, cell_px)
        circle = (left + inset, top + inset, right - inset, bottom - inset)
        holes.ellipse(circle, fill=255)
        ring_brush.ellipse(circle, outline=255, width=width_px)
    drawn = Image.composite(picture, faded, mask)
    return Image.composite(Image.new("RGB", picture.size, _INK), drawn, rings)
