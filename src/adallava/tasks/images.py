"""Decode pictures that nobody has vetted: any mode and size to RGB, or an error that says why not."""

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from adallava.errors import InputError

MAX_IMAGE_BYTES = 64 * 2**20
"""Encoded size above which a picture is refused unread."""

MAX_IMAGE_PIXELS = 64 * 2**20
"""Decoded size above which a picture is refused: a few kilobytes can unpack to gigabytes."""

MAX_ASPECT_RATIO = 100
"""Longer over shorter side above which a picture is refused. Processors scale the shorter side, often to 336:
a strip of 1x60000 px would become one of 336x20 million."""


def open_rgb(source: Path | bytes) -> Image.Image:
    """Decode a file or its bytes to an RGB picture, upright as its EXIF orientation says.

    Raises:
        InputError: for a missing, empty, oversized, truncated or unknown file; the message names it.
    """
    name = str(source) if isinstance(source, Path) else f"image of {len(source)} bytes"
    data = _read_limited(source) if isinstance(source, Path) else source
    if len(data) > MAX_IMAGE_BYTES:
        raise InputError(f"{name} is over the limit of {MAX_IMAGE_BYTES} bytes for one encoded picture")
    try:
        with warnings.catch_warnings():
            # Our own limit is below; Pillow's warning about large pictures and odd metadata adds nothing.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as image:
                _check_pixels(image, name)
                return to_rgb(ImageOps.exif_transpose(image))
    except UnidentifiedImageError:
        raise InputError(f"{name} is not a picture in a format that Pillow knows") from None
    except InputError:
        raise
    except Exception as error:  # Pillow's decoders answer damage with whatever it happens to cause
        raise InputError(f"{name} cannot be decoded: {error}") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to RGB: transparency goes onto white, 16-bit and float greys are scaled to 8 bits."""
    if image.mode.startswith(("I", "F")):
        return _grey_to_8_bits(image).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def with_clear_axes(image: Image.Image) -> Image.Image:
    """Enlarge a picture of up to four pixels in height, by repeating pixels.

    Image processors tell height from channels by size, and take a picture one, three or four pixels high for one with
    its channels first.
    """
    while image.height <= 4:
        image = image.resize((2 * image.width, 2 * image.height), Image.Resampling.NEAREST)
    return image


def _grey_to_8_bits(image: Image.Image) -> Image.Image:
    # Pillow's own conversion clips at 255, which turns a 16-bit picture white.
    values: np.ndarray[Any, Any] = np.nan_to_num(np.asarray(image, dtype=np.float64))
    top = 255.0 if values.max(initial=0.0) <= 255.0 else 65535.0
    return Image.fromarray(np.clip(values / top * 255.0, 0.0, 255.0).round().astype(np.uint8))


def _read_limited(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_IMAGE_BYTES + 1)
    except OSError as error:
        raise InputError(f"image file {path} cannot be read: {error.strerror or error}") from error


def _check_pixels(image: Image.Image, name: str) -> None:
    width, height = image.size
    if width * height > MAX_IMAGE_PIXELS:
        raise InputError(f"{name} is {width}x{height}: over the limit of {MAX_IMAGE_PIXELS} pixels")
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise InputError(f"{name} is {width}x{height}: sides may differ by a factor of {MAX_ASPECT_RATIO} at most")
