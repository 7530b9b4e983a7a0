"""What transformers' image processors cut off a picture, by their settings alone, and padding that leaves it whole."""

import copy
from collections.abc import Sequence
from typing import Any

from adallava.errors import InputError, UnsupportedModeError
from adallava.families.picture_steps import (
    PictureSteps,
    padding_processor,
    picture_steps,
    pixel_limits,
    why_not_padded,
    with_limits,
)
from adallava.records.picture_frames import WHOLE, Frame

_KEPT_SETTINGS = (
    *("do_convert_rgb", "do_resize", "size", "resample", "crop_size", "do_rescale", "rescale_factor", "do_normalize"),
    *("image_mean", "image_std"),
)


def find_frames(processor: Any, sizes: Sequence[tuple[int, int]]) -> list[Frame] | None:
    """Return where the grid of patches lies on each image of a prompt; of one shown in tiles, that of the whole.

    Args:
        processor: of the model.
        sizes: (width, height) of each image in pixels.

    Returns:
        None for an image processor of another kind, whose steps are not known.
    """
    settings = processor.image_processor
    steps = picture_steps(settings, len(sizes))
    return None if steps is None else [_frame(processor, steps, size) for size in sizes]


def _frame(processor: Any, steps: PictureSteps, size: tuple[int, int]) -> Frame:
    settings = processor.image_processor
    if steps.shows_all:
        return WHOLE
    sides = (max(size), max(size)) if steps.pads_to_square else size
    shown = _squeezed(settings) if steps.squeezes else _resized(settings, sides)
    crop = settings.crop_size if settings.do_center_crop else None
    crop_sides = shown if crop is None else (crop.width, crop.height)
    patch = getattr(processor, "patch_size", None) or 1
    across = _span(size[0], sides[0], shown[0], crop_sides[0], patch)
    down = _span(size[1], sides[1], shown[1], crop_sides[1], patch)
    frame = (across[0], down[0], across[1], down[1])
    # A side that is scaled to a whole number of pixels leaves less than one of them over.
    near = all(abs(a - b) * max(shown) <= 1 for a, b in zip(frame, WHOLE, strict=True))
    return WHOLE if near else frame


def pad_to_square(processor: Any) -> Any:
    """Return a processor that first pads each image to a square, in the mean color.

    It is transformers' own that can, with the other settings as they are. The given one is not changed.

    Raises:
        UnsupportedModeError: for one that shows an image in tiles, which are padded already, or of another kind.
    """
    settings = processor.image_processor
    reason = why_not_padded(settings)
    if reason is not None:
        raise UnsupportedModeError(f"images cannot be padded to squares for {reason}")
    own = settings.to_dict()
    padding = padding_processor(
        settings,
        **{name: own[name] for name in _KEPT_SETTINGS if name in own},
        do_center_crop=bool(settings.do_center_crop),
        do_pad=True,
    )
    padded = copy.copy(processor)
    padded.image_processor = padding
    return padded


def with_pixel_limits(processor: Any, least: int | None, most: int | None) -> Any:
    """Return a processor that scales each image to no fewer, and no more, pixels than these; None leaves its own.

    The given one is not changed.

    Raises:
        InputError: if the lower limit is above the upper one.
        UnsupportedModeError: for a processor that brings every image to sizes of its own.
    """
    own = pixel_limits(processor.image_processor)
    if own is None:
        raise UnsupportedModeError(
            f"least_pixels and most_pixels are for models that see an image at its own size; this one's "
            f"{type(processor.image_processor).__name__} brings all to sizes of its own"
        )
    limits = own[0] if least is None else least, own[1] if most is None else most
    if not 1 <= limits[0] <= limits[1]:
        raise InputError(f"images cannot have at least {limits[0]} pixels and at most {limits[1]}")
    scaling = copy.copy(processor)
    scaling.image_processor = with_limits(processor.image_processor, *limits)
    return scaling


def pads_to_square(processor: Any) -> bool:
    """Return whether a processor pads images to squares."""
    steps = picture_steps(processor.image_processor)
    return steps is not None and steps.pads_to_square


def _squeezed(settings: Any) -> tuple[int, int]:
    """Return (width, height) of the square, or fixed size, that a whole image is squeezed into."""
    side = settings.size.shortest_edge
    return (side, side) if side else (settings.size.width, settings.size.height)


def _resized(settings: Any, sides: tuple[int, int]) -> tuple[int, int]:
    """Return (width, height) after the resizing: of a fixed size, or with the shorter side of a fixed length."""
    size = settings.size
    if not settings.do_resize:
        return sides
    if not size.shortest_edge:
        return size.width, size.height
    scale = size.shortest_edge / min(sides)
    return int(sides[0] * scale), int(sides[1] * scale)


def _span(own_px: int, padded_px: int, shown_px: int, crop_px: int, patch_px: int) -> tuple[float, float]:
    """Return where the grid begins and ends along one side, in shares of the image's own.

    Args:
        own_px: of the image.
        padded_px: with its padding to a square, half of it in front.
        shown_px: of that, resized.
        crop_px: around the middle; more than `shown_px` is filled with black.
        patch_px: of a patch; what is left over after the last whole one is not seen.
    """
    start = (shown_px - crop_px) // 2
    end = start + crop_px // patch_px * patch_px
    in_front = (padded_px - own_px) // 2
    to_own = padded_px / shown_px
    first, last = (round((edge * to_own - in_front) / own_px, 6) for edge in (start, end))
    return first, last
