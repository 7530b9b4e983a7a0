"""Integer masks of the shapes, and which patches a drawn object covers."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from .records import SceneObject
from .vocabulary import GRID, PATCH_PX

# How much ink and how much of what was there before: uint16 [height, width * 3] each, adding
# up to 256 everywhere, repeated for the three channels.
Mix = tuple[NDArray[np.uint16], NDArray[np.uint16]]

_SUBSAMPLES = 4  # per pixel and axis: edges are smoothed by counting, not by floats


def _inside(shape: str, extent_px: int) -> NDArray[np.bool_]:
    """bool [4*extent, 4*extent]: sub-pixels inside the shape, by integer inequalities."""
    radius = _SUBSAMPLES * extent_px
    # Sub-pixel centers are odd numbers in units of 1/8 px, so the middle is exactly `radius`.
    axis = 2 * np.arange(radius, dtype=np.int64) + 1
    across = np.abs(axis - radius)[None, :]
    down = np.abs(axis - radius)[:, None]
    distance2 = across**2 + down**2
    inside: NDArray[np.bool_]
    if shape == "circle":
        inside = distance2 <= radius**2
    elif shape == "ring":
        # Inner radius is 11/20 of the outer one.
        inside = (distance2 <= radius**2) & (400 * distance2 >= 121 * radius**2)
    elif shape == "triangle":
        inside = 2 * across <= axis[:, None]
    elif shape == "cross":
        inside = (3 * across <= radius) | (3 * down <= radius)
    elif shape == "square":
        inside = np.ones((radius, radius), dtype=np.bool_)
    else:
        raise AssertionError(shape)
    return inside


def as_mix(ink: NDArray[np.int64]) -> Mix:
    """Ink weights int64 [height, width] of 0..256, brought into the form of a `Mix`."""
    weights = np.asarray(ink, dtype=np.uint16).repeat(3, axis=1)
    return weights, np.subtract(256, weights, dtype=np.uint16)


@cache
def shape_mix(shape: str, extent_px: int) -> Mix:
    """The mix of a filled shape, with smoothed edges."""
    inside = _inside(shape, extent_px)
    step = _SUBSAMPLES
    counts = inside.reshape(extent_px, step, extent_px, step).sum(axis=(1, 3), dtype=np.int64)
    return as_mix(counts * (256 // step**2))


@cache
def _patch_shares(shape: str, extent_px: int, x_in_patch: int, y_in_patch: int) -> tuple[tuple[int, int], ...]:
    """(patch offset from the object's first patch, pixels covered > 0) of each patch touched."""
    solid = shape_mix(shape, extent_px)[0][:, ::3] >= 128
    side = -(-(extent_px + PATCH_PX - 1) // PATCH_PX)
    canvas = np.zeros((side * PATCH_PX, side * PATCH_PX), dtype=np.int64)
    canvas[y_in_patch : y_in_patch + extent_px, x_in_patch : x_in_patch + extent_px] = solid
    counts = canvas.reshape(side, PATCH_PX, side, PATCH_PX).sum(axis=(1, 3))
    return tuple(
        (row * GRID + col, int(counts[row, col])) for row in range(side) for col in range(side) if counts[row, col] > 0
    )


@cache
def _offsets_covered(shape: str, extent_px: int, x_in_patch: int, y_in_patch: int, percent: int) -> tuple[int, ...]:
    least = percent * PATCH_PX**2  # compared with 100 * pixels, to stay in integers
    shares = _patch_shares(shape, extent_px, x_in_patch, y_in_patch)
    return tuple(offset for offset, pixels in shares if 100 * pixels >= least)


def covered_patches(item: SceneObject, percent: int) -> list[int]:
    """Indices of patches that the object's mask covers by at least `percent` % (0: any pixel)."""
    row, y_in_patch = divmod(item.y_px, PATCH_PX)
    col, x_in_patch = divmod(item.x_px, PATCH_PX)
    offsets = _offsets_covered(item.shape, item.extent_px, x_in_patch, y_in_patch, percent)
    first = row * GRID + col
    return [first + offset for offset in offsets]
