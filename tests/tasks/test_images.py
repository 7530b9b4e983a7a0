import io
import os
import socket
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from adallava.errors import InputError
from adallava.tasks.images import as_rgb, open_rgb

RED = (200, 10, 20)

BLACK_IS_ZERO, WHITE_IS_ZERO = 1, 0
UNSIGNED, SIGNED, FLOAT = 1, 2, 3


def tiff(values: list[list[float]], dtype: str, sample_format: int, photometric: int = BLACK_IS_ZERO) -> bytes:
    """Return a TIFF of one channel, whose tags are written by hand: Pillow writes few of these types."""
    levels = np.array(values, dtype)
    data = levels.tobytes() + b"\0" * (levels.nbytes % 2)
    height, width = levels.shape
    bits = 8 * levels.dtype.itemsize
    tags = [
        (256, width), (257, height), (258, bits), (259, 1), (262, photometric), (273, 8), (277, 1), (278, height),
        (279, levels.nbytes), (339, sample_format),
    ]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)


def deep_png(values: list[list[list[int]]]) -> bytes:
    """Return a PNG of 16 bits a channel, [H, W, 2 to 4], which Pillow does not write."""
    levels = np.array(values, ">u2")
    height, width, channels = levels.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in levels))
    chunks = ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def greys(source: bytes) -> list[int]:
    image = open_rgb(source)
    assert image.mode == "RGB"
    return [pixel[0] for pixel in np.asarray(image).reshape(-1, 3).tolist()]


def saved(image: Image.Image, image_format: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


# ---- what is white ----


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (tiff([[0, 0.25, 1.0]], "<f4", FLOAT), [0, 64, 255]),
        (tiff([[0, 0.25, 1.0]], "<f4", FLOAT, WHITE_IS_ZERO), [255, 191, 0]),
        (tiff([[0, 2**14, 2**16 - 1]], "<u2", UNSIGNED), [0, 64, 255]),
        (tiff([[0, 2**14, 2**16 - 1]], "<u2", UNSIGNED, WHITE_IS_ZERO), [255, 191, 0]),
        (tiff([[0, 2**30, 2**32 - 1]], "<u4", UNSIGNED), [0, 64, 255]),
        (tiff([[0, 64, 255]], "u1", UNSIGNED), [0, 64, 255]),
        (b"P5 3 1 1000\n" + struct.pack(">3H", 0, 250, 1000), [0, 64, 255]),
        (saved(Image.fromarray(np.array([[0, 2**14, 2**16 - 1]], np.uint16))), [0, 64, 255]),
        # Half of a range is half of white, also where no value is higher.
        (tiff([[0, 0.5, 0.5]], "<f4", FLOAT), [0, 128, 128]),
        (tiff([[0, 2**14, 2**14]], "<u2", UNSIGNED), [0, 64, 64]),
        (tiff([[0, 0, 0]], "<u2", UNSIGNED), [0, 0, 0]),
    ],
    ids=[
        "floats", "floats, white is 0", "16 bits", "16 bits, white is 0", "32 bits", "8 bits", "PGM to 1000", "PNG",
        "dark floats", "dark 16 bits", "black",
    ],
)  # fmt: skip
def test_a_formats_own_range_says_what_is_white(source, expected):
    assert greys(source) == expected


def test_twelve_bits_end_at_4095():
    source = bytearray(tiff([[0x800F, 0xFF00]], ">u2", UNSIGNED))  # 0x800 and 0xFFF, packed
    place = source.index(struct.pack("<HHII", 258, 3, 1, 16))
    source[place : place + 12] = struct.pack("<HHII", 258, 3, 1, 12)
    assert greys(bytes(source)) == [128, 255]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (tiff([[0, 200.0]], "<f4", FLOAT), "floats from 0 to 200"),
        (tiff([[-0.5, 1.0]], "<f4", FLOAT), "floats from -0.5 to 1"),
        (tiff([[0, np.nan]], "<f4", FLOAT), "nan"),
        (tiff([[0, np.inf]], "<f4", FLOAT), "inf"),
        (tiff([[0, 200]], "<u2", UNSIGNED), "brightest value is 200 in a stated range of 0 to 65535"),
        (tiff([[0, 60_000]], "<u4", UNSIGNED), "brightest value is 60000"),
        (tiff([[0, 4095]], "<u2", UNSIGNED), "brightest value is 4095"),
        (tiff([[0, 0.001]], "<f4", FLOAT), "brightest value is 0.001 in a stated range of 0 to 1"),
        (saved(Image.fromarray(np.array([[0, 4095]], np.uint16))), "brightest value is 4095"),
        (
            deep_png([[[0, 200, 4095]]]),
            r"brightest value is 1\d in .* \(the upper 8 of 16",
        ),
        (
            deep_png([[[4095, 65535], [0, 65535]]]),
            r"brightest value is 1\d in .* \(the upper 8 of 16",
        ),
        (
            b"P6 1 1 65535\n" + struct.pack(">3H", 0, 200, 4000),
            r"brightest value is 1\d in .* \(the upper 8 of 16",
        ),
        (tiff([[0, 200]], "<i2", SIGNED), "signed"),
        (tiff([[0, 100]], "i1", SIGNED), "signed"),
    ],
)
def test_ambiguous_values_are_refused_with_the_way_out(source, message):
    with pytest.raises(InputError, match=rf"{message}.*save it with 8 bits"):
        open_rgb(source)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (deep_png([[[0, 0, 0], [5000, 30_000, 65535]]]), (0, 19)),
        (deep_png([[[0, 65535], [0, 0]]]), (0, 255)),  # black ink on nothing
        (deep_png([[[0, 0, 0, 65535], [0, 0, 0, 0]]]), (0, 255)),
        (b"P6 2 1 4095\n" + struct.pack(">6H", *[0] * 3, *[4095] * 3), (0, 255)),
    ],
)
def test_colors_of_16_bits_are_their_upper_8(source, expected):
    assert tuple(greys(source)) == expected


def test_integers_of_32_bits_in_memory_have_no_range():
    with pytest.raises(InputError, match="convert it to mode L"):
        as_rgb(Image.new("I", (3, 3), 200))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"])
def test_modes_of_8_bits_are_shown_as_pillow_converts_them(mode):
    gradient = Image.linear_gradient("L").convert("RGB")
    image = Image.merge("LAB", gradient.split()) if mode == "LAB" else gradient.convert(mode)
    assert as_rgb(image).tobytes() == image.convert("RGB").tobytes()


@pytest.mark.parametrize("mode", ["LA", "PA", "RGBA", "La", "RGBa"])
def test_transparency_is_laid_on_white(mode):
    image = Image.new("LA", (2, 2), (0, 0))
    image.putpixel((1, 1), (0, 255))
    image = image if mode == "LA" else image.convert(mode if mode == "La" else "RGBA").convert(mode)
    rgb = as_rgb(image)
    assert (rgb.getpixel((0, 0)), rgb.getpixel((1, 1))) == ((255, 255, 255), (0, 0, 0))


def test_a_transparent_grey_of_16_bits_is_white():
    levels = Image.fromarray(np.array([[0, 30_000]], np.uint16))
    assert greys(saved(levels, transparency=0)) == [255, 117]


def test_the_ink_of_a_cmyk_jpeg_is_not_inverted():
    red, green, blue = open_rgb(saved(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "JPEG")).getpixel((4, 4))
    assert red < 10
    assert min(green, blue) > 245


@pytest.mark.parametrize("image_format", ["GIF", "PNG", "TIFF", "WEBP"])
def test_of_several_pictures_the_first_is_shown(image_format):
    first, second = (Image.new("RGB", (8, 8), color) for color in (RED, (5, 6, 250)))
    source = saved(first, image_format, save_all=True, append_images=[second])
    assert np.abs(np.array(open_rgb(source).getpixel((4, 4))) - RED).max() <= 2


# ---- metadata ----


def with_chunk(source: bytes, kind: bytes, payload: bytes, crc: int = 0) -> bytes:
    end = struct.pack(">I", zlib.crc32(kind + payload) ^ crc)
    return source[:33] + struct.pack(">I", len(payload)) + kind + payload + end + source[33:]


def with_segment(source: bytes, marker: int, payload: bytes) -> bytes:
    return source[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(payload) + 2) + payload + source[2:]


def turned(image_format: str, orientation: int = 6) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(Image.new("RGB", (6, 2), RED), image_format, exif=exif)


@pytest.mark.parametrize(
    "chunk",
    [
        (b"eXIf", b"nonsense!"),
        (b"zTXt", b"k\0\0" + zlib.compress(bytes(2**21))),
        (b"iCCP", b"k\0\0" + zlib.compress(bytes(2**22))),
        (b"iCCP", b"k\0\x05garbage"),
        (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0\xff<tiff:Orientation>9"),
        (b"tEXt", b"k\0a", 1),
        (b"pHYs", b"k"),
    ],
    ids=["EXIF", "text that unpacks", "ICC that unpacks", "ICC", "XMP", "checksum", "short"],
)
def test_a_png_with_broken_metadata_is_shown(chunk):
    assert open_rgb(with_chunk(saved(Image.new("RGB", (6, 2), RED)), *chunk)).getpixel((0, 0)) == RED


@pytest.mark.parametrize(
    "segment",
    [
        (0xE1, b"Exif\0\0nonsense"),
        (0xE2, b"ICC_PROFILE\0"),
        (0xE2, b"MPF\0II*\0"),
        (0xED, b"Photoshop 3.0\x008BIM\x03"),
        (0xEE, b"Adobe"),
        (0xE0, b"JFIF\0"),
    ],
)
def test_a_jpeg_with_broken_metadata_is_shown(segment):
    shown = open_rgb(with_segment(saved(Image.new("RGB", (6, 2), RED), "JPEG"), *segment))
    assert np.abs(np.array(shown.getpixel((0, 0))) - RED).max() <= 2


def test_broken_text_leaves_a_good_orientation():
    assert open_rgb(with_chunk(turned("PNG"), b"pHYs", b"k")).size == (2, 6)
    assert open_rgb(with_segment(turned("JPEG"), 0xE2, b"ICC_PROFILE\0")).size == (2, 6)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize(("orientation", "size"), [(1, (6, 2)), (6, (2, 6)), (8, (2, 6)), (0, (6, 2)), (99, (6, 2))])
def test_a_picture_is_turned_once_and_only_as_it_says(image_format, orientation, size):
    assert open_rgb(turned(image_format, orientation)).size == size


@given(orientation=st.integers(1, 8))
def test_upright_is_what_pillow_makes_upright(orientation):
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    source = saved(Image.linear_gradient("L").crop((0, 0, 9, 200)), exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(source))).convert("RGB")
    assert open_rgb(source).tobytes() == upright.tobytes()


# ---- what is no picture ----


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_half_a_file_is_refused(image_format):
    source = saved(Image.effect_noise((64, 64), 90).convert("RGB"), image_format)
    with pytest.raises(InputError):
        open_rgb(source[: len(source) // 2])


def test_postscript_is_not_run():
    with pytest.raises(InputError, match=r"format that is read: .*PNG"):
        open_rgb(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
    for path, kind in (
        (tmp_path, "directory"), (tmp_path / "fifo", "FIFO"), (tmp_path / "socket", "socket"), ("/dev/zero", "device"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=f"{path} cannot be read: it is a {kind}, not a regular file"):
            open_rgb(Path(path))


def test_a_file_over_the_limit_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("adallava.tasks.images.MAX_IMAGE_BYTES", 50)
    (tmp_path / "large.png").write_bytes(bytes(51))
    monkeypatch.setattr(Path, "open", lambda *_: pytest.fail("it was opened"))
    with pytest.raises(InputError, match="over the limit of 50 bytes"):
        open_rgb(tmp_path / "large.png")


def test_a_header_with_a_huge_size_is_refused_in_plain_words():
    source = bytearray(saved(Image.new("P", (4, 4)), "GIF"))
    source[6:10] = b"\xff" * 4  # 65535 x 65535
    with pytest.raises(InputError, match=r"^image of \d+ bytes is over the limit of \d+ pixels: make it smaller$"):
        open_rgb(bytes(source))


def test_a_name_with_a_nul_is_no_file():
    with pytest.raises(InputError, match="NUL"):
        open_rgb(Path("a\0b.png"))


def test_a_tile_larger_than_the_limit_is_not_unpacked():
    source = tiff([[0, 1]], "u1", UNSIGNED)
    rows = source.index(struct.pack("<HHII", 277, 3, 1, 1))
    tiled = source[:rows] + struct.pack("<HHIIHHII", 322, 4, 1, 60_000, 323, 4, 1, 60_000) + source[rows + 24 :]
    with pytest.raises(InputError, match="tiles of 60000x60000"):
        open_rgb(tiled)


def test_a_picture_without_pixels_is_refused():
    with pytest.raises(InputError, match="0x3"):
        as_rgb(Image.new("RGB", (0, 3)))
