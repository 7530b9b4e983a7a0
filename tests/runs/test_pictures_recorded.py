"""Samples about one picture are known by the picture's pixels, whatever its file is called or how it is packed."""

from models import tiny_processor
from PIL import Image

from adallava.records import Comparison, Interval, PairedDifference
from adallava.runs.batches import picture_sha256, prepare_batch
from adallava.tasks import TaskSample
from adallava.tasks.images import open_rgb


def picture(color, size=(4, 6)):
    return Image.new("RGB", size, color)


def sample(name, load):
    return TaskSample(name, "What?", ("a",), None, load)


def broken():
    raise OSError("no picture")


def test_two_questions_about_one_picture_share_its_hash_and_a_failed_sample_has_none():
    red, blue = picture("red"), picture("blue")
    samples = [
        sample("a", lambda: [red]),
        sample("b", broken),
        sample("c", lambda: [red.copy()]),
        sample("d", lambda: [blue]),
    ]
    batch = prepare_batch(tiny_processor(), samples)
    assert [one.id for one in batch.samples] == ["a", "c", "d"]
    first, again, other = batch.picture_sha256
    assert first == again != other


def test_a_sample_with_several_pictures_has_the_hash_and_the_frame_of_each_and_a_prompt_for_all():
    red, wide = picture("red", (8, 8)), picture("blue", (16, 8))
    batch = prepare_batch(tiny_processor(), [sample("a", lambda: [red, wide]), sample("b", lambda: [red])])
    assert batch.picture_sha256 == (f"{picture_sha256(red)}+{picture_sha256(wide)}", picture_sha256(red))
    assert [len(batch.frames[name]) for name in "ab"] == [2, 1]
    # Cut to its middle square.
    assert batch.frames["a"][1] == (0.25, 0.0, 0.75, 1.0)
    image_id = tiny_processor().tokenizer.convert_tokens_to_ids("<image>")
    assert [int((row == image_id).sum()) for row in batch.inputs["input_ids"]] == [32, 16]


def test_a_question_with_places_for_other_pictures_than_it_has_fails_alone():
    red = picture("red")
    asked = TaskSample("b", "<image> or <image>?", ("a",), None, lambda: [red, red, red])
    batch = prepare_batch(tiny_processor(), [sample("a", lambda: [red]), asked])
    assert [one.id for one in batch.samples] == ["a"]
    assert "holds <image> 2 times, and has 3 images" in batch.failures[0][1]


def test_equal_pixels_in_another_shape_are_another_picture():
    assert picture_sha256(picture("red", (4, 6))) != picture_sha256(picture("red", (6, 4)))


def test_the_file_format_does_not_matter(tmp_path):
    noisy = Image.effect_noise((8, 8), 80).convert("RGB")
    for name in ("one.png", "two.bmp"):
        noisy.save(tmp_path / name)
    one, two = (picture_sha256(open_rgb(tmp_path / name)) for name in ("one.png", "two.bmp"))
    assert one == two


def test_older_files_say_nothing_of_pictures_tests_and_margins():
    difference = PairedDifference(mean=0.1, low=0.0, high=0.2, n=10)
    old = Comparison(cell_a="a", cell_b="b", difference=difference, p_value=0.1, p_adjusted=0.2, significant=False)
    assert (old.test, old.family, old.equivalent, old.least_detectable) == (None, None, None, None)
    assert Interval(mean=0.5, low=0.4, high=0.6, n=9).method is None
