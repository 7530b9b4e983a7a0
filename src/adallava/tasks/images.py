"""Decode images that nobody has vetted: any format, mode and size to RGB, or an error that says why not.

Every image of the project comes through here: files and bytes by `open_rgb`, those that another library has opened by
`as_rgb`.
"""

import io
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from adallava.errors import InputError, in_short

from .image_metadata import read_orientation, without_metadata
from .image_modes import has_deep_colors, to_rgb

MAX_IMAGE_BYTES = 64 * 2**20
"""Encoded size above which an image is refused unread."""

MAX_IMAGE_PIXELS = 64 * 2**20
"""Decoded size above which an image is refused: a few kilobytes can unpack to gigabytes."""

MAX_SAMPLE_PIXELS = 4 * MAX_IMAGE_PIXELS
"""Decoded size of all images of a sample together."""

MAX_ASPECT_RATIO = 100
"""Longer over shorter side above which an image is refused. Processors scale the shorter side, often to 336:
a strip of 1x60000 px would become one of 336x20 million."""

FORMATS = (
    "AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "QOI", "SGI", "TGA", "TIFF", "WEBP",
)  # fmt: skip
"""That are read, where Pillow can. Others are containers, or start programs (EPS)."""

_OPENED = "an image"
"""What a picture is called that was opened by somebody else."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes an image upright, by EXIF's Orientation."""

_TILE_WIDTH, _TILE_LENGTH = 322, 323
"""Tags of TIFF 6.0."""


def open_rgb(source: Path | bytes) -> Image.Image:
    """Decode a file or its bytes to an RGB image, upright as its EXIF orientation says; of several the first.

    Metadata that cannot be read are left out, and with them the orientation.

    Raises:
        InputError: for what is missing, no regular file, empty, oversized, truncated, unknown, or of ambiguous values
            (`to_rgb`); the message names it.
    """
    name = str(source) if isinstance(source, Path) else f"image of {len(source)} bytes"
    data = _read_limited(source) if isinstance(source, Path) else source
    if len(data) > MAX_IMAGE_BYTES:
        raise _too_many_bytes(name)
    try:
        with _reported(name), _opened(data) as image:
            return _decode(image, name)
    except InputError:
        bare = without_metadata(data)
        if bare is None:
            raise
    with _reported(name), _opened(bare) as image:
        return _decode(image, name)


def as_rgb(image: Image.Image) -> Image.Image:
    """Return an image that Pillow has opened, decoded or not, as `open_rgb` would.

    Raises:
        InputError: as `open_rgb`.
    """
    with _reported(_OPENED):
        return _decode(image, _OPENED)


def with_clear_axes(image: Image.Image) -> Image.Image:
    """Enlarge an image of up to four pixels in height, by repeating pixels.

    Image processors tell height from channels by size, and take an image one, three or four pixels high for one with
    its channels first.
    """
    while image.height <= 4:
        image = image.resize((2 * image.width, 2 * image.height), Image.Resampling.NEAREST)
    return image


def _decode(image: Image.Image, name: str) -> Image.Image:
    _check_pixels(image, name)
    deep_colors = has_deep_colors(image)
    image.load()
    turn = _TURNS.get(read_orientation(image))
    upright = to_rgb(image, deep_colors)
    upright = upright if turn is None else upright.transpose(turn)
    # It is upright now: whoever reads its orientation once more, as transformers' pipelines do, would turn it again.
    upright.info.clear()
    return upright


@contextmanager
def _reported(name: str) -> Iterator[None]:
    """Turn whatever goes wrong with an image into an `InputError` that names it, and keep Pillow's warnings out."""
    try:
        with warnings.catch_warnings():
            # Our own limit is below; Pillow's warning about large images and odd metadata adds nothing.
            warnings.simplefilter("ignore")
            yield
    except UnidentifiedImageError:
        raise InputError(f"{name} is not an image in a format that is read: {', '.join(_formats())}") from None
    except Image.DecompressionBombError:  # from a header, before its size could be asked for
        raise InputError(f"{name} is over the limit of {MAX_IMAGE_PIXELS} pixels: make it smaller") from None
    except InputError as error:
        raise error if name in str(error) else InputError(f"{name} cannot be shown: {error}") from None
    except Exception as error:  # Pillow's decoders answer damage with whatever it happens to cause
        raise InputError(f"{name} cannot be decoded: {in_short(error)}") from error


def _opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data), formats=_formats())


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(known for known in FORMATS if known in Image.OPEN)


def _read_limited(path: Path) -> bytes:
    if "\0" in str(path):
        raise InputError(f"image file {str(path)!r} cannot be read: no path has a NUL")
    try:
        found = path.stat()
        # Asked before it is opened: opening a FIFO waits for its writer, and a device may never end.
        if not stat.S_ISREG(found.st_mode):
            raise InputError(f"image file {path} cannot be read: it is {_kind(found.st_mode)}, not a regular file")
        if found.st_size > MAX_IMAGE_BYTES:
            raise _too_many_bytes(str(path))
        with path.open("rb") as file:
            return file.read(MAX_IMAGE_BYTES + 1)
    except OSError as error:
        raise InputError(f"image file {path} cannot be read: {error.strerror or error}") from error
    except UnicodeError:  # a surrogate that encodes no byte
        raise InputError(f"image file {str(path)!r} cannot be read: its name is not text") from None


def _kind(mode: int) -> str:
    kinds = ((stat.S_ISDIR, "a directory"), (stat.S_ISFIFO, "a FIFO"), (stat.S_ISSOCK, "a socket"))
    return next((kind for applies, kind in kinds if applies(mode)), "a device")


def _too_many_bytes(name: str) -> InputError:
    return InputError(f"{name} is over the limit of {MAX_IMAGE_BYTES} bytes for one encoded image")


def _check_pixels(image: Image.Image, name: str) -> None:
    width, height = image.size
    if min(width, height) < 1:
        raise InputError(f"{name} is {width}x{height}: it has no pixels")
    if width * height > MAX_IMAGE_PIXELS:
        raise InputError(f"{name} is {width}x{height}: over the limit of {MAX_IMAGE_PIXELS} pixels")
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise InputError(f"{name} is {width}x{height}: sides may differ by a factor of {MAX_ASPECT_RATIO} at most")
    tags = getattr(image, "tag_v2", {})
    tile = (tags.get(_TILE_WIDTH, 0), tags.get(_TILE_LENGTH, 0))
    # A tile is unpacked whole, whatever part of it lies in the image.
    if tile[0] * tile[1] > MAX_IMAGE_PIXELS:
        raise InputError(f"{name} has tiles of {tile[0]}x{tile[1]}: over the limit of {MAX_IMAGE_PIXELS} pixels")
