"""Pictures: damaged and odd files of every format that is read become RGB, or an error in words."""

import io
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzzing import SECONDS_EACH, fuzz, judge
from hypothesis import strategies as st
from mutations import damaged_bytes, damaged_png
from PIL import Image, features

from adallava.errors import InputError
from adallava.tasks.images import MAX_IMAGE_PIXELS, as_rgb, open_rgb

_ASKED: tuple[tuple[str, str, dict[str, Any]], ...] = (
    *(("PNG", mode, {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
    ("PNG", "P", {"transparency": 3}),
    ("PNG", "RGB", {"transparency": (1, 2, 3)}),
    *(("JPEG", mode, {}) for mode in ("L", "RGB", "CMYK")),
    ("JPEG", "RGB", {"progressive": True, "comment": b"c" * 9}),
    *(("TIFF", mode, {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "F", "I", "I;16")),
    *(("TIFF", "RGB", {"compression": how}) for how in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg")),
    ("TIFF", "1", {"compression": "group4"}),
    ("TIFF", "RGB", {"tiffinfo": {322: 16, 323: 16}}),
    *(("GIF", mode, {}) for mode in ("L", "P", "RGBA")),
    ("WEBP", "RGB", {}), ("WEBP", "RGBA", {"lossless": True}),
    *(("BMP", mode, {}) for mode in ("1", "L", "P", "RGB", "RGBA")),
    ("PPM", "RGB", {}), ("PPM", "L", {}), ("PPM", "I", {}), ("PCX", "P", {}), ("PCX", "RGB", {}),
    ("SGI", "RGB", {}), ("TGA", "RGBA", {"compression": "tga_rle"}), ("TGA", "P", {}), ("JPEG2000", "RGB", {}),
    ("JPEG2000", "RGBA", {}), ("QOI", "RGB", {}), ("AVIF", "RGB", {}), ("DIB", "RGB", {}),
)  # fmt: skip


def _turned_png() -> bytes:
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (3, 2)).save(file, "PNG", exif=exif.tobytes())
    return file.getvalue()


FINDINGS = {"made upright twice": _turned_png()}
"""Inputs that broke a rule, by what they are."""


@cache
def valid_pictures() -> tuple[bytes, ...]:
    """Return a small file of each format and mode that Pillow can write here."""
    Image.init()
    return tuple(
        data for name, mode, options in _ASKED if name in Image.SAVE for data in _saved(name, mode, options) if data
    )


def _saved(name: str, mode: str, options: dict[str, Any]) -> tuple[bytes, ...]:
    levels = np.random.default_rng(0).integers(0, 255, (12, 9, 3), np.uint8)
    picture = Image.fromarray(levels)
    if mode in ("F", "I", "I;16"):
        kinds = {"F": np.float32, "I": np.int32, "I;16": np.uint16}
        picture = Image.fromarray((levels[..., 0] / (255 if mode == "F" else 1)).astype(kinds[mode]))
    elif mode != "RGB":
        picture = picture.convert("RGBA").convert(mode) if mode == "LA" else picture.convert(mode)
    if name == "AVIF" and not features.check("avif"):
        return ()
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    told = [{}, {"exif": exif.tobytes()}] if name in ("PNG", "JPEG", "WEBP", "TIFF") else [{}]
    if name == "GIF" or (name == "WEBP" and mode == "RGB"):
        told.append({"save_all": True, "append_images": [picture.rotate(90)], "duration": 10})
    files = []
    for more in told:
        file = io.BytesIO()
        picture.save(file, name, **options, **more)
        files.append(file.getvalue())
    return tuple(files)


@st.composite
def pictures(draw: st.DrawFn) -> bytes:
    valid = draw(st.sampled_from(valid_pictures()))
    if valid.startswith(b"\x89PNG") and draw(st.booleans()):
        return draw(damaged_png(valid))
    return draw(damaged_bytes(valid))


def check(folder: Path, data: bytes) -> None:
    """Decode bytes and the same in a file, and hold what both say to be one."""
    (folder / "picture").write_bytes(data)
    try:
        image = open_rgb(data)
    except InputError:
        with pytest.raises(InputError):
            open_rgb(folder / "picture")
        raise
    assert image.mode == "RGB"
    assert 0 < image.width * image.height <= MAX_IMAGE_PIXELS
    assert open_rgb(folder / "picture").tobytes() == image.tobytes()
    assert as_rgb(image).size == image.size


@pytest.mark.parametrize("name", FINDINGS)
def test_pictures_that_failed_once(name: str, tmp_path: Path) -> None:
    judge(partial(check, tmp_path), FINDINGS[name], tmp_path)


def test_valid_pictures_are_shown(tmp_path: Path) -> None:
    files = valid_pictures()
    shown = [judge(partial(check, tmp_path), data, tmp_path) is None for data in files]
    assert sum(shown) > 0.8 * len(files) > 30


@pytest.mark.long
@pytest.mark.timeout(SECONDS_EACH + 120)
def test_fuzz_pictures(tmp_path: Path) -> None:
    tally = fuzz("pictures", pictures(), partial(check, tmp_path), tmp_path, findings=len(FINDINGS))
    assert tally.answered
    assert tally.refused
