"""What an image's file says besides its pixels: the orientation is read, and damage there costs no image."""

import struct
import zlib
from collections.abc import Iterator

from PIL import ExifTags, Image

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_EXIF = b"eXIf"
_PNG_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")

_JPEG_START = b"\xff\xd8"
_JPEG_SCAN, _JPEG_COMMENT, _JPEG_APP0, _JPEG_APP15 = 0xDA, 0xFE, 0xE0, 0xEF
_JPEG_KEPT = ((b"JFIF\0", 16), (b"Adobe", 14), (b"Exif\0\0", 8))
"""APP segments that stay if they are whole, with their least length: two name the colors, one the orientation."""


def read_orientation(image: Image.Image) -> int:
    """Return EXIF's Orientation, 1 to 8; 1 (upright) where there is none, or none that can be read."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # whatever a broken header happens to cause; the image is as good without
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def without_metadata(data: bytes) -> bytes | None:
    """Return a PNG or JPEG with only its pixels, what their decoding needs, and EXIF; None if it holds nothing else.

    Other formats give None: Pillow passes over what it cannot read there.
    """
    if data.startswith(_PNG_SIGNATURE):
        bare = _PNG_SIGNATURE + b"".join(_png_pixels(data))
    elif data.startswith(_JPEG_START):
        bare = _JPEG_START + b"".join(_jpeg_pixels(data))
    else:
        return None
    return bare if len(bare) < len(data) else None


def _png_pixels(data: bytes) -> Iterator[bytes]:
    """Yield the chunks that decoding needs, and EXIF's if it is whole: a damaged text should not turn a photo."""
    place = len(_PNG_SIGNATURE)
    while place + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        chunk = data[place : place + length + 12]
        whole_exif = kind == _PNG_EXIF and chunk[-4:] == struct.pack(">I", zlib.crc32(chunk[4:-4]))
        if kind in _PNG_PIXELS or whole_exif:
            yield chunk
        place += len(chunk)


def _jpeg_pixels(data: bytes) -> Iterator[bytes]:
    """Yield the segments in front of the first scan, comments and most APP segments left out, and then all the rest."""
    place = len(_JPEG_START)
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        if marker == _JPEG_SCAN:
            break
        segment = data[place : place + 2 + length]
        is_metadata = marker == _JPEG_COMMENT or _JPEG_APP0 <= marker <= _JPEG_APP15
        if not is_metadata or any(segment[4:].startswith(name) and length >= least for name, least in _JPEG_KEPT):
            yield segment
        place += 2 + length
    yield data[place:]
