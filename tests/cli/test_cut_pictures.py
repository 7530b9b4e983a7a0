"""A picture of 400 x 100, of which the model sees a quarter: every place that must say so."""

import json
import os

import numpy as np
import pytest
from models import tiny_llava
from PIL import Image
from sweep_inputs import samples, sweep

from adallava.cli.main import main
from adallava.records import Results, Run

WARNING = (
    "1 of 2 images is cut by the processor's center crop, the worst to 25 %: evidence may be cut off; "
    "--pad-to-square shows all of each"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, a task of a wide and a square picture, and a link to the wide one."""
    folder = tmp_path_factory.mktemp("cut")
    tiny_llava(folder / "model")
    wide = Image.new("RGB", (400, 100), (0, 0, 255))
    wide.paste((255, 0, 0), (0, 0, 150, 100))
    wide.save(folder / "wide.png")
    Image.new("RGB", (60, 60), (0, 0, 255)).save(folder / "square.png")
    rows = [{"image": f"{name}.png", "question": "what is red?", "answer": "red"} for name in ("wide", "square")]
    (folder / "task.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def swept(folder):
    """Run folders, cut and padded."""
    for output, options in (("cut", []), ("padded", ["--pad-to-square"])):
        task = ["--task", str(folder / "task.jsonl"), "--method", "uniform", "--token-budget", "4"]
        sweep(str(folder / "model"), folder / output, *task, *options)
    return folder


def test_a_sweep_records_what_is_seen(swept):
    wide, square = samples(swept / "cut")[:2]
    assert (wide.frames, wide.seen_share) == ([(0.375, 0.0, 0.625, 1.0)], 0.25)
    assert (square.frames, square.seen_share) == ([(0.0, 0.0, 1.0, 1.0)], 1.0)
    seen = Results.model_validate_json((swept / "cut" / "results.json").read_bytes()).seen
    assert (seen.num_pictures, seen.num_cut, seen.least_share) == (2, 1, 0.25)
    assert not Run.model_validate_json((swept / "cut" / "run.json").read_bytes()).config.pad_to_square


def test_the_doctor_finds_cut_pictures_and_none_that_are_padded(swept, capsys):
    for output, status in (("cut", "found"), ("padded", "passed")):
        main(["doctor", str(swept / output), "--json"])
        outcomes = json.loads(capsys.readouterr().out)["diagnoses"][0]["outcomes"]
        assert [one["status"] for one in outcomes if one["check"] == "pictures-cut"] == [status]


def test_a_padded_sweep_sees_all_and_is_another_run(swept, capsys):
    wide, _ = samples(swept / "padded")[:2]
    assert (wide.frames, wide.seen_share) == ([(0.0, -1.5, 1.0, 2.5)], 1.0)
    assert Run.model_validate_json((swept / "padded" / "run.json").read_bytes()).config.pad_to_square
    assert "cut-pictures" not in (swept / "padded" / "report.html").read_text()
    capsys.readouterr()
    task = ["--task", str(swept / "task.jsonl"), "--method", "uniform", "--token-budget", "4"]
    assert sweep(str(swept / "model"), swept / "padded", *task) == 2
    assert "--pad-to-square was yes and is no" in capsys.readouterr().err


def test_table_and_report_say_it(swept, capsys):
    task = ["--task", str(swept / "task.jsonl"), "--method", "uniform", "--token-budget", "4"]
    sweep(str(swept / "model"), swept / "cut", *task)
    assert f"! {WARNING}\n" in capsys.readouterr().out
    page = (swept / "cut" / "report.html").read_text()
    assert WARNING.replace("'", "&#39;") in page
    start = page.index('"frames":') + len('"frames":')
    frames, _ = json.JSONDecoder().raw_decode(page[start:])
    assert sorted(frames) == [[[0.0, 0.0, 1.0, 1.0]], [[0.375, 0.0, 0.625, 1.0]]]


def generate(folder, *options):
    asked = ["--question", "what is red?", "--method", "uniform", "--token-budget", "4", "--max-new-tokens", "2"]
    return main(["generate", "--model", str(folder / "model"), *asked, *options])


def test_generate_says_it_and_draws_the_whole_picture(folder, tmp_path, capsys):
    assert generate(folder, "--image", str(folder / "wide.png"), "--output-image", str(tmp_path / "cut.png")) == 0
    assert "1 of 1 image is cut" in capsys.readouterr().out
    with Image.open(tmp_path / "cut.png") as drawn:
        assert drawn.width > 3 * drawn.height, "four squares wide, and a caption"
        left = np.asarray(drawn)[drawn.height // 2, drawn.width // 8]
    assert left.max() < 128, "what is cut off is dark"


def test_generate_padded(folder, tmp_path, capsys):
    wide = ["--image", str(folder / "wide.png"), "--output-image", str(tmp_path / "padded.png")]
    assert generate(folder, *wide, "--pad-to-square", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["seen_shares"], document["pad_to_square"]) == ([1.0], True)


@pytest.mark.parametrize("spelling", ["same", "relative", "symbolic link", "hard link", "folder"])
def test_a_picture_is_never_written_over(folder, tmp_path, monkeypatch, capsys, spelling):
    monkeypatch.setattr("adallava.model.AdaLlava.from_pretrained", lambda *_, **__: pytest.fail("work was done"))
    monkeypatch.chdir(tmp_path)
    photo = tmp_path / "photo.uniform@4.png"
    photo.write_bytes((folder / "wide.png").read_bytes())
    (tmp_path / "photo.png").write_bytes(photo.read_bytes())
    os.symlink(photo, "symbolic.png")
    os.link(photo, "hard.png")
    outputs = {
        "same": str(photo), "relative": f"../{tmp_path.name}/{photo.name}", "symbolic link": "symbolic.png",
        "hard link": "hard.png", "folder": "../" + tmp_path.name,
    }  # fmt: skip
    assert generate(folder, "--image", "photo.png", str(photo), "--output-image", outputs[spelling]) == 2
    assert "--output-image" in capsys.readouterr().err
    assert photo.read_bytes() == (folder / "wide.png").read_bytes()


def test_a_report_is_not_written_over_its_run(swept, capsys):
    before = (swept / "cut" / "samples.jsonl").read_bytes()
    assert main(["report", str(swept / "cut"), "--output", str(swept / "cut" / "samples.jsonl")]) == 2
    assert "is not a report page" in capsys.readouterr().err
    assert (swept / "cut" / "samples.jsonl").read_bytes() == before
