"""Any of Pillow's modes to RGB of 8 bits, by one rule each. What a file does not state is refused, not guessed.

The rules are a table in docs/reference/data.md.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adallava.errors import InputError

_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339
"""Tags of TIFF 6.0: BitsPerSample, PhotometricInterpretation, SampleFormat."""

_WHITE_IS_ZERO, _SIGNED = 0, 2

_TOP_16_BITS = 2**16 - 1

_DARKEST = 16
"""An image of more than 8 bits with no value above this part of its range is refused: 12 bits were stored in 16, or 8,
or the unit is another. If it truly is that dark, nothing is to be seen on it."""


def has_deep_colors(image: Image.Image) -> bool:
    """Return whether the colors of an image that is not decoded yet are stored in more than 8 bits each.

    Pillow keeps the upper 8, and forgets it.
    """
    if image.mode == "F" or image.mode.startswith("I"):
        return False
    for tile in getattr(image, "tile", ()):  # what no file was opened for has none
        raw, *others = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        if str(raw).partition(";")[2].startswith("16") or (image.format == "PPM" and others and others[0] > 255):
            return True
    return False


def to_rgb(image: Image.Image, deep_colors: bool = False) -> Image.Image:
    """Return a decoded image as RGB: transparency on white, grays of more than 8 bits by the range of their format.

    Args:
        image: of any mode. As Pillow opened it, since a changed copy no longer knows its format.
        deep_colors: see `has_deep_colors`.

    Raises:
        InputError: for values whose black and white nobody states: signed integers, floats outside [0, 1], 32-bit
            integers without a file's word, or more than 8 bits of which the stated range would show next to nothing.
    """
    if deep_colors:
        _check_not_dark(image)
    if image.format == "TIFF" and _SIGNED in _tag(image, _SAMPLE_FORMAT, (1,)):
        raise InputError("it holds signed integers, which state no black and white: save it with 8 bits")
    if image.mode == "F" or image.mode.startswith("I"):
        return _deep_grey_to_rgb(image)
    transparency = image.info.get("transparency")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or transparency is not None:
        return _on_white(image, transparency)
    return image.convert("RGB")


def _on_white(image: Image.Image, transparency: Any) -> Image.Image:
    if isinstance(transparency, tuple) and max(transparency) > 255:
        # A PNG of 16 bits a channel, of which Pillow keeps the upper 8.
        image = image.copy()
        image.info["transparency"] = tuple(value >> 8 for value in transparency)
    layer = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, layer).convert("RGB")


def _deep_grey_to_rgb(image: Image.Image) -> Image.Image:
    """Scale one channel of more than 8 bits. Pillow's own conversion clips at 255."""
    shares = _float_shares(np.asarray(image)) if image.mode == "F" else _integer_shares(image)
    if _tag(image, _PHOTOMETRIC, 1) == _WHITE_IS_ZERO:  # Pillow turns those of 8 bits only.
        shares = 1 - shares
    grey = np.rint(shares * 255).astype(np.uint8)
    transparency = image.info.get("transparency")
    if isinstance(transparency, int):
        grey[np.asarray(image) == transparency] = 255
    return Image.fromarray(grey).convert("RGB")


def _float_shares(values: NDArray[np.float32]) -> NDArray[np.float32]:
    low, high = float(values.min()), float(values.max())  # NaN if there is one
    if not 0 <= low <= high <= 1:
        raise InputError(
            f"it holds floats from {low:g} to {high:g}, without a known white level: only [0, 1] is scaled; "
            "scale it, or save it with 8 bits"
        )
    if 0 < _DARKEST * high <= 1:
        raise _too_dark(f"{high:g}", "1")
    return values


def _integer_shares(image: Image.Image) -> NDArray[np.float32]:
    top, values = _stated_top(image), np.asarray(image)
    if values.dtype == np.int32:
        values = values.view(np.uint32)
    peak = int(values.max())
    if 0 < _DARKEST * peak <= top:
        raise _too_dark(str(peak), str(top))
    shares: NDArray[np.float32] = np.minimum(values.astype(np.float32) / np.float32(top), 1)
    return shares


def _check_not_dark(image: Image.Image) -> None:
    """Refuse opaque colors of 16 bits whose upper 8 say next to nothing, black ones too: the lower 8 are gone."""
    levels = np.asarray(image.convert("RGBA"))
    peak, alpha = int(levels[..., :3].max()), levels[..., 3]
    if alpha.min() == alpha.max() and _DARKEST * peak <= 256:
        raise _too_dark(str(peak), "255 (the upper 8 of 16 bits)")


def _too_dark(peak: str, top: str) -> InputError:
    return InputError(
        f"its brightest value is {peak} in a stated range of 0 to {top}, so that it would be black or nearly so: scale "
        "it, or save it with 8 bits"
    )


def _stated_top(image: Image.Image) -> int:
    """Return the value that is white: by a TIFF's BitsPerSample; Pillow gives all others the range of 16 bits."""
    if image.format == "TIFF":
        return (1 << int(_tag(image, _BITS, (16,))[0])) - 1
    if image.mode == "I" and image.format is None:
        raise InputError("it holds 32-bit integers without a known white level: convert it to mode L, or to I;16")
    return _TOP_16_BITS


def _tag(image: Image.Image, number: int, default: Any) -> Any:
    tags = getattr(image, "tag_v2", None) if image.format == "TIFF" else None
    return default if tags is None else tags.get(number, default)
