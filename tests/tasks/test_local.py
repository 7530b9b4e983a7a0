import base64
import hashlib
import io
import json
import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from adallava.errors import InputError
from adallava.tasks import images as images_module
from adallava.tasks import load_task
from adallava.tasks.images import open_rgb


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def flat(color: tuple[int, int, int], size: tuple[int, int] = (4, 3)) -> Image.Image:
    return Image.new("RGB", size, color)


RED, BLUE = (200, 10, 20), (5, 6, 250)


def write_jsonl(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_parquet(path: Path, columns: dict, row_group_size: int = 1000) -> Path:
    pyarrow.parquet.write_table(pyarrow.table(columns), path, row_group_size=row_group_size)
    return path


def first_pixel(sample) -> tuple[int, ...]:
    image = sample.load_images()[0]
    assert image.mode == "RGB"
    return image.getpixel((0, 0))


# ---- JSONL ----


def test_jsonl_by_path_relative_to_the_file(tmp_path):
    (tmp_path / "pictures").mkdir()
    flat(RED).save(tmp_path / "pictures" / "one.png")
    file = write_jsonl(
        tmp_path / "t.jsonl", [{"id": 7, "image": "pictures/one.png", "question": "Colour?", "answer": "red"}]
    )
    task = load_task(str(file))
    (sample,) = task.samples
    assert (sample.id, sample.question, sample.answers, sample.kind) == ("7", "Colour?", ("red",), None)
    assert first_pixel(sample) == RED
    assert task.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert task.split is None
    assert task.columns == {"image": "image", "question": "question", "answer": "answer", "id": "id"}


def test_jsonl_images_inline(tmp_path):
    text = base64.b64encode(png(flat(BLUE))).decode()
    values = [text, f"data:image/png;base64,{text}", {"bytes": text, "path": None}, {"bytes": text, "path": "gone.png"}]
    rows = [{"image": value, "question": "?", "answer": "blue"} for value in values]
    samples = load_task(str(write_jsonl(tmp_path / "t.jsonl", rows))).samples
    assert [sample.id for sample in samples] == ["row-0", "row-1", "row-2", "row-3"]
    assert [first_pixel(sample) for sample in samples] == [BLUE] * 4


def test_jsonl_image_struct_with_a_path(tmp_path):
    flat(RED).save(tmp_path / "one.png")
    rows = [{"image": {"path": "one.png"}, "question": "?", "answer": "red"}]
    assert first_pixel(load_task(str(write_jsonl(tmp_path / "t.jsonl", rows))).samples[0]) == RED


def test_blank_lines_do_not_shift_the_pictures(tmp_path):
    flat(RED).save(tmp_path / "r.png")
    flat(BLUE).save(tmp_path / "b.png")
    lines = [json.dumps({"image": f"{name}.png", "question": "é?", "answer": name}) for name in "rb"]
    (tmp_path / "t.jsonl").write_text("\n" + lines[0] + "\n\n" + lines[1])
    samples = load_task(str(tmp_path / "t.jsonl")).samples
    assert [first_pixel(sample) for sample in samples] == [RED, BLUE]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("red", ("red",)),
        (["red", "crimson"], ("red", "crimson")),
        (3, ("3",)),
        (True, ("yes", "true")),
        ([{"answer": "yes", "answer_id": 1}, {"answer": "yeah"}], ("yes", "yeah")),
        (["red", None, ""], ("red", "")),
    ],
)
def test_answers_in_every_usual_form(tmp_path, value, expected):
    file = write_jsonl(tmp_path / "t.jsonl", [{"image": "x.png", "question": "?", "answers": value}])
    assert load_task(str(file)).samples[0].answers == expected


@pytest.mark.parametrize(
    "image", [None, 5, "https://example.org/a.png", "missing.png", "data:image/png;base64,%%%", {"path": None}, []]
)
def test_a_bad_image_is_its_samples_error_not_the_files(tmp_path, image):
    file = write_jsonl(tmp_path / "t.jsonl", [{"image": image, "question": "?", "answer": "a"}])
    (sample,) = load_task(str(file)).samples
    with pytest.raises(InputError):
        sample.load_images()[0]


# ---- columns ----


def test_columns_can_be_named(tmp_path):
    flat(RED).save(tmp_path / "one.png")
    rows = [{"picture": "one.png", "sentence": "It is red", "label": "true", "key": "a", "type": "colour"}]
    columns = {"image": "picture", "question": "sentence", "id": "key", "kind": "type"}
    (sample,) = load_task(str(write_jsonl(tmp_path / "t.jsonl", rows)), columns=columns).samples
    assert (sample.id, sample.question, sample.answers, sample.kind) == ("a", "It is red", ("true",), "colour")
    assert first_pixel(sample) == RED


@pytest.mark.parametrize("columns", [{}, {"question": "sentense"}])
def test_a_missing_column_lists_those_there_are(tmp_path, columns):
    file = write_jsonl(tmp_path / "t.jsonl", [{"image": "x.png", "sentence": "It is red", "label": "true"}])
    with pytest.raises(InputError, match=r"image, sentence, label"):
        load_task(str(file), columns=columns)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": 1}, {"id": 1}], "'1' repeats"),
        ([{"id": None}], "needs an id"),
        ([{"id": " "}], "needs an id"),
        ([{"question": ""}], "no question"),
        ([{"question": 5}], "no question"),
        ([{"answer": []}], "no answer"),
        ([{"answer": None}], "no answer"),
    ],
)
def test_a_row_that_is_no_sample_is_named(tmp_path, rows, message):
    usual = {"id": 0, "image": "x.png", "question": "?", "answer": "a"}
    with pytest.raises(InputError, match=message):
        load_task(str(write_jsonl(tmp_path / "t.jsonl", [usual | row for row in rows])))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.jsonl", b"", "no rows"),
        ("t.jsonl", b"{broken\n", "line 1 is not JSON"),
        ("t.jsonl", b"[1]\n", "not an object"),
        ("t.jsonl", b'\n{"image": "\xff\xfe"}\n', "line 2 is not JSON"),
        ("t.parquet", b"PAR1 but not really PAR1", "not readable parquet"),
        ("t.parquet", b"", "not readable parquet"),
        ("t.csv", b"image,question,answer\n", "neither .jsonl nor .parquet: pandas writes it"),
    ],
)
def test_a_damaged_file_is_one_clear_error(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_task(str(tmp_path / name))


def test_a_missing_file_is_one_clear_error(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load_task(str(tmp_path / "nothing.jsonl"))


@pytest.mark.parametrize("limit", [0, -3])
def test_a_limit_that_leaves_nothing_is_refused(limit):
    with pytest.raises(InputError, match=f"limit {limit}"):
        load_task("scenes", limit=limit)


def test_a_split_of_a_local_file_is_refused(tmp_path):
    file = write_jsonl(tmp_path / "t.jsonl", [{"image": "x.png", "question": "?", "answer": "a"}])
    with pytest.raises(InputError, match="no splits"):
        load_task(str(file), split="test")


# ---- parquet ----


def test_parquet_by_struct_bytes_path_and_binary(tmp_path):
    flat(RED).save(tmp_path / "one.png")
    struct = [{"bytes": png(flat(BLUE)), "path": "gone.png"}, {"bytes": None, "path": "one.png"}]
    texts = {"question": ["?", "?"], "answer": ["a", "b"]}
    for number, (column, expected) in enumerate(
        [(struct, [BLUE, RED]), (["one.png", "one.png"], [RED, RED]), ([png(flat(RED)), png(flat(BLUE))], [RED, BLUE])]
    ):
        file = write_parquet(tmp_path / f"{number}.parquet", {"image": column, **texts})
        assert [first_pixel(sample) for sample in load_task(str(file)).samples] == expected


def test_parquet_pictures_belong_to_their_rows_in_any_order(tmp_path):
    count = 150
    pictures = [{"bytes": png(flat((i, 255 - i, 7))), "path": None} for i in range(count)]
    columns = {"image": pictures, "question": ["?"] * count, "answer": [str(i) for i in range(count)]}
    file = write_parquet(tmp_path / "t.parquet", columns, row_group_size=40)
    samples = load_task(str(file), limit=None).samples
    assert len(samples) == count
    order = [0, 1, 149, 40, 39, 41, 80, 79, 0, 120, 33]
    assert [first_pixel(samples[i]) for i in order] == [(i, 255 - i, 7) for i in order]


def test_limit_takes_the_first_rows(tmp_path):
    columns = {"image": ["x.png"] * 5, "question": ["?"] * 5, "answer": list("abcde")}
    samples = load_task(str(write_parquet(tmp_path / "t.parquet", columns)), limit=2).samples
    assert [sample.answers for sample in samples] == [("a",), ("b",)]


def test_a_parquet_file_that_ends_early_fails_the_sample_in_words(tmp_path, monkeypatch):
    columns = {"image": [png(flat(RED))], "question": ["?"], "answer": ["a"]}
    (sample,) = load_task(str(write_parquet(tmp_path / "t.parquet", columns))).samples
    monkeypatch.setattr(pyarrow.parquet.ParquetFile, "iter_batches", lambda *_, **__: iter(()))
    with pytest.raises(InputError, match="row 0 is not there: the file ends before"):
        sample.load_images()[0]


# ---- pictures nobody has vetted ----


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("RGBA", (400, 100), (0, 0, 0, 0)), (255, 255, 255)),
        (Image.new("RGBA", (400, 100), (255, 0, 0, 51)), (255, 204, 204)),
        (Image.new("LA", (3, 3), (0, 255)), (0, 0, 0)),
        (Image.new("L", (3, 3), 77), (77, 77, 77)),
        (Image.new("1", (3, 3), 1), (255, 255, 255)),
        (Image.new("RGB", (3, 3), RED).convert("P"), None),
        (Image.fromarray(np.full((3, 3), 32896, np.uint16)), (128, 128, 128)),
    ],
    ids=["transparent", "half", "LA", "L", "1", "P", "I;16"],
)
def test_every_mode_becomes_rgb(image, expected):
    rgb = open_rgb(png(image))
    assert (rgb.mode, rgb.size) == ("RGB", image.size)
    if expected is not None:
        assert rgb.getpixel((1, 1)) == expected


def test_a_palette_with_transparency_goes_onto_white():
    image = Image.new("P", (2, 2), 0)
    image.putpalette([0, 0, 0, 9, 9, 9])
    image.info["transparency"] = 0
    file = io.BytesIO()
    image.save(file, "PNG", transparency=0)
    assert open_rgb(file.getvalue()).getpixel((0, 0)) == (255, 255, 255)


def test_a_cmyk_jpeg_becomes_rgb():
    file = io.BytesIO()
    Image.new("CMYK", (8, 8), (0, 0, 0, 0)).save(file, "JPEG")
    assert open_rgb(file.getvalue()).getpixel((0, 0)) == (255, 255, 255)


def test_a_photo_is_turned_upright():
    image = Image.new("RGB", (6, 2))
    exif = image.getexif()
    exif[0x0112] = 6  # turned by a quarter
    file = io.BytesIO()
    image.save(file, "JPEG", exif=exif)
    assert open_rgb(file.getvalue()).size == (2, 6)


@pytest.mark.parametrize(
    "data",
    [b"", b"not a picture", png(flat(RED))[:33], png(flat(RED, (90, 90)))[:-40]],
    ids=["empty", "text", "header only", "truncated"],
)
def test_damaged_bytes_are_an_input_error(data):
    with pytest.raises(InputError):
        open_rgb(data)


def test_damaged_bytes_of_any_kind_are_an_input_error_or_a_picture():
    generator = np.random.default_rng(0)
    for image_format in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"):
        file = io.BytesIO()
        flat(RED, (40, 40)).save(file, image_format)
        for _ in range(40):
            data = bytearray(file.getvalue())
            for place in generator.integers(0, len(data), size=4):
                data[place] = generator.integers(256)
            with suppress(InputError):
                assert open_rgb(bytes(data)).mode == "RGB"


@pytest.mark.parametrize(("limit", "value"), [("MAX_IMAGE_BYTES", 50), ("MAX_IMAGE_PIXELS", 99)])
def test_oversized_pictures_are_refused(tmp_path, monkeypatch, limit, value):
    monkeypatch.setattr(images_module, limit, value)
    flat(RED, (10, 10)).save(tmp_path / "one.png")
    with pytest.raises(InputError, match="over the limit"):
        open_rgb(tmp_path / "one.png")


def test_a_decompression_bomb_is_refused_before_it_unpacks():
    bomb = png(Image.new("1", (12_000, 12_000)))
    assert len(bomb) < 200_000
    with pytest.raises(InputError):
        open_rgb(bomb)


def test_a_strip_that_scaling_would_blow_up_is_refused():
    with pytest.raises(InputError, match="1x60000"):
        open_rgb(png(Image.new("L", (1, 60_000))))


def test_a_folder_is_no_picture(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        open_rgb(tmp_path)


# ---- real files ----


@pytest.mark.shared_data
@pytest.mark.skipif("ADALLAVA_NLVR" not in os.environ, reason="ADALLAVA_NLVR does not name NLVR's parquet folder")
def test_nlvr_rows_are_samples():
    file = Path(os.environ["ADALLAVA_NLVR"]) / "dev.parquet"
    task = load_task(str(file), limit=100, columns={"question": "sentence"})
    assert len(task.samples) == 100
    assert {answer for sample in task.samples for answer in sample.answers} == {"true", "false"}
    picture = task.samples[60].load_images()[0]
    assert (picture.mode, picture.size) == ("RGB", (400, 100))


def test_pictures_are_counted_by_their_names_without_opening_them(tmp_path):
    def task(*images):
        rows = [{"image": image, "question": "?", "answer": "a"} for image in images]
        return load_task(str(write_jsonl(tmp_path / "t.jsonl", rows)))

    inline = base64.b64encode(png(flat(RED, (64, 64)))).decode()
    assert task("gone.png", "./gone.png", {"path": "other.png"}, inline, inline).num_pictures == 3
    assert task("gone.png", {"bytes": inline}).num_pictures is None
    assert load_task("scenes", limit=3).num_pictures is None


# ---- several pictures ----


def widths(sample) -> list[int]:
    return [image.width for image in sample.load_images()]


def test_jsonl_with_a_list_of_pictures(tmp_path):
    for width in (3, 5):
        flat(RED, (width, 4)).save(tmp_path / f"{width}.png")
    inline = base64.b64encode(png(flat(BLUE, (7, 7)))).decode()
    lists = [["3.png", "./5.png"], ["3.png"], ["5.png", inline], ["3.png", "gone.png"], [], ["3.png", ["5.png"]]]
    rows = [{"image": names, "question": "Same?", "answer": "no"} for names in lists]
    samples = load_task(str(write_jsonl(tmp_path / "t.jsonl", rows))).samples

    assert [widths(sample) for sample in samples[:3]] == [[3, 5], [3], [5, 7]]
    assert [sample.pictures for sample in samples[:2]] == [("3.png", "5.png"), ("3.png",)]
    for sample, reason in zip(
        samples[3:], ("image 2 of 2: image file .*gone.png", "empty list", "image 2 of 2: .* a list"), strict=True
    ):
        with pytest.raises(InputError, match=reason):
            sample.load_images()


def test_a_picture_of_a_list_may_not_lead_out_of_the_folder(tmp_path):
    (tmp_path / "data").mkdir()
    flat(RED).save(tmp_path / "outside.png")
    file = write_jsonl(
        tmp_path / "data" / "t.jsonl", [{"image": ["a.png", "../outside.png"], "question": "?", "answer": "a"}]
    )
    with pytest.raises(InputError, match=r"column 'image' names '../outside.png', which is outside"):
        load_task(str(file))


def test_parquet_with_a_list_of_pictures(tmp_path):
    flat(RED, (6, 4)).save(tmp_path / "six.png")
    named = {"bytes": None, "path": "six.png"}
    inline = {"bytes": png(flat(BLUE, (9, 9))), "path": "b.png"}
    columns = {"question": ["?"] * 3, "answer": ["a"] * 3}
    structs = write_parquet(tmp_path / "s.parquet", {**columns, "image": [[named, inline], [inline], []]})
    *good, empty = load_task(str(structs)).samples
    assert [widths(sample) for sample in good] == [[6, 9], [9]]
    with pytest.raises(InputError, match="empty list"):
        empty.load_images()
    held = write_parquet(
        tmp_path / "b.parquet", {**columns, "image": [[inline["bytes"]] * number for number in (1, 2, 3)]}
    )
    assert [widths(sample) for sample in load_task(str(held)).samples] == [[9], [9, 9], [9, 9, 9]]
