"""What an image column refers to, and how far it may lead."""

import base64
import io
import json
import os

import pytest
from PIL import Image

from adallava.errors import InputError
from adallava.tasks import load_task

HASH = "0123456789abcdef" * 4


def png(size: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (size, size)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def folder(tmp_path):
    inside = tmp_path / "data"
    inside.mkdir()
    (inside / "a.png").write_bytes(png(4))
    (tmp_path / "secret.png").write_bytes(png(7))
    return inside


def loaded(folder, image, **options):
    """Return the only sample of a file with this image."""
    (folder / "t.jsonl").write_text(json.dumps({"image": image, "question": "?", "answer": "x"}))
    (sample,) = load_task(str(folder / "t.jsonl"), **options).samples
    return sample


def size(folder, image, **options) -> int:
    return loaded(folder, image, **options).load_images()[0].width


@pytest.mark.parametrize("name", [HASH, "A" * 64, "data:1,2.png", "x" * 64 + "=="])
def test_a_file_that_is_there_wins_over_a_guess(folder, name):
    (folder / name).write_bytes(png(5))
    assert size(folder, name) == size(folder, {"path": name}) == size(folder, {"path": name, "bytes": None}) == 5


def test_a_name_like_a_hash_without_its_file_is_a_missing_file(folder):
    with pytest.raises(InputError, match=f"{HASH} cannot be read: No such file"):
        loaded(folder, HASH).load_images()[0]


_TEXT = base64.b64encode(png(9)).decode()
_LINES = "\r\n".join(_TEXT[i : i + 76] for i in range(0, len(_TEXT), 76)) + "\n"


@pytest.mark.parametrize(
    "image",
    [
        _TEXT,
        _LINES,
        {"bytes": _LINES},
        f"data:image/png;base64,{_LINES}",
        f"data:image/png;charset=x;base64,{_TEXT.replace('+', '%2B').replace('/', '%2F')}",
        f"DATA:;BASE64,{_TEXT}",
        "data:image/png," + "".join(f"%{byte:02x}" for byte in png(9)),
    ],
)
def test_pictures_inside_the_file_in_every_usual_form(folder, image):
    assert size(folder, image) == 9


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ("a\0.png", "NUL byte"),
        ("\ud83d.png", "half a surrogate pair"),
        ("é" * 300, "File name too long"),
        ("x." * 3000, "no path, and not base64"),
        (".", "not a file"),
        ("pipe", "not a file"),
        ("loop", "cannot be read"),
        ("data:image/png;base64", "without a comma"),
        ({"url": "x"}, "neither bytes nor path"),
        ({"path": 3}, "holds a number"),
        ("x://../../secret.png", "is a URL"),
    ],
)
def test_what_leads_to_no_picture_fails_its_sample_with_a_reason(folder, image, reason):
    os.mkfifo(folder / "pipe")
    (folder / "loop").symlink_to("loop")
    sample = loaded(folder, image)
    with pytest.raises(InputError, match=reason):
        sample.load_images()[0]


@pytest.mark.parametrize(
    "image", ["../secret.png", "{outside}/secret.png", "link.png", "up/secret.png", "../missing.png"]
)
@pytest.mark.parametrize("form", [lambda path: path, lambda path: {"path": path}], ids=["text", "object"])
def test_a_picture_outside_of_the_folder_is_refused_by_row_unless_it_is_allowed(folder, image, form):
    (folder / "link.png").symlink_to(folder.parent / "secret.png")
    (folder / "up").symlink_to(folder.parent)
    image = form(image.format(outside=folder.parent))
    with pytest.raises(InputError, match=r"line 1: column 'image' names .* outside .*--allow-outside"):
        loaded(folder, image)
    if "missing" not in str(image):
        assert size(folder, image, allow_outside=True) == 7


@pytest.mark.parametrize("image", ["{inside}/a.png", "sub/../a.png", "inner.png"])
def test_a_path_that_stays_inside_is_none_of_these(folder, image):
    (folder / "sub").mkdir()
    (folder / "inner.png").symlink_to(folder / "a.png")
    assert size(folder, image.format(inside=folder)) == 4


def test_the_folder_of_a_file_that_is_a_link_is_that_of_the_link_and_that_of_the_file(folder, tmp_path):
    loaded(folder, "a.png")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "link.jsonl").symlink_to(folder / "t.jsonl")
    (sample,) = load_task(str(elsewhere / "link.jsonl")).samples
    assert sample.load_images()[0].width == 4
    (elsewhere / "a.png").write_bytes(png(6))
    assert sample.load_images()[0].width == 6


def test_a_path_that_turns_into_a_link_outwards_after_reading_is_not_followed(folder):
    sample = loaded(folder, "a.png")
    (folder / "a.png").unlink()
    (folder / "a.png").symlink_to(folder.parent / "secret.png")
    with pytest.raises(InputError, match="outside"):
        sample.load_images()[0]


@pytest.mark.parametrize("with_bytes", [True, False])
def test_parquet_names_a_picture_outside_only_where_it_holds_no_bytes(folder, with_bytes):
    import pyarrow
    import pyarrow.parquet

    # As `datasets` writes it: the bytes, beside the path that they once had.
    images = [
        {"bytes": png(3), "path": "/home/me/1.png"},
        {"bytes": png(5) if with_bytes else None, "path": "../secret.png"},
    ]
    table = pyarrow.table({"image": images, "question": ["?"] * 2, "answer": ["x"] * 2})
    pyarrow.parquet.write_table(table, folder / "t.parquet")
    if with_bytes:
        assert [sample.load_images()[0].width for sample in load_task(str(folder / "t.parquet")).samples] == [3, 5]
    else:
        with pytest.raises(InputError, match=r"row 1: column 'image' names '\.\./secret\.png'"):
            load_task(str(folder / "t.parquet"))
