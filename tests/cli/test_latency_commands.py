"""The second dial from the command line."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from adallava import AdaLlava
from adallava.cli.main import main
from adallava.doctor.sources.run_folder import load_run_folder
from adallava.records import Results, Run, SampleRecord
from adallava.runs.loading import check_drops
from adallava.runs.observer import SweepObserver

PICTURE = ["--question", "how many shapes are there?", "--no-image"]


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "a.png"
    Image.new("RGB", (224, 224), (200, 30, 30)).save(path)
    return path


def _generate(picture: Path, *options: str) -> int:
    return main(["generate", "--image", str(picture), *PICTURE, *options])


def test_generate_prints_and_draws_which_layers_ran(picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--latency", "1.0", "75%", "4", "--scheduler", "fixed", "--scheduler-option", "fixed.plans=5+7"]
    assert _generate(picture, *options, "--token-budget", "0.5") == 0
    printed = capsys.readouterr().out
    for drawn in ("████████", "████·█·█", "████····"):
        assert drawn in printed
    assert _generate(picture, *options, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["scheduler"] == "fixed"
    assert [result["latency_asked"] for result in document["results"]] == ["1.0", "0.75", "4"]
    assert document["results"][0]["groups_run"] is None
    assert document["results"][1]["groups_run"] == [[0], [0], [0], [0], [], [0], [], [0]]


def test_the_picture_shows_under_the_patches_which_layers_ran(picture: Path, tmp_path: Path) -> None:
    options = ["--latency", "1.0", "75%", "--scheduler", "fixed", "--scheduler-option", "fixed.plans=5+7"]
    call = ["generate", "--image", str(picture), *PICTURE[:2], "--max-new-tokens", "2", "--token-budget", "0.5"]
    assert main([*call, *options, "--output-image", str(tmp_path / "strips")]) == 0
    assert main([*call, "--output-image", str(tmp_path / "plain")]) == 0
    whole, left_out = (
        Image.open(tmp_path / "strips" / f"a.question@0.5{suffix}.png").convert("RGB") for suffix in ("", "+fixed@0.75")
    )
    plain = Image.open(tmp_path / "plain" / "a.question@0.5.png").convert("RGB")
    assert whole.height > plain.height
    assert [_ran(whole, layer) for layer in range(8)] == [True] * 8
    assert [_ran(left_out, layer) for layer in range(8)] == [True] * 4 + [False, True, False, True]


def _ran(drawn: Image.Image, layer: int) -> bool:
    """Look into the middle of a layer's box, in the strip at the picture's foot, within margins of 12 pixels."""
    red, _, blue = drawn.getpixel((12 + int((layer + 0.5) * (drawn.width - 24) / 8), drawn.height - 12 - 9))  # type: ignore[misc]
    return blue > red + 100


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--latency", "0.75"], "name a --scheduler"),
        (["--latency", "0.4", "--scheduler", "first"], "give at least 0.5, or 4 layers"),
        (["--latency", "0.75", "--scheduler", "frist"], "did you mean 'first'"),
        (["--latency", "0.75", "--scheduler", "heads"], "has no adapter for the learned scheduler 'heads'"),
        (["--latency", "0.75", "--scheduler", "first", "--no-generate"], "--no-generate leaves out"),
        (["--scheduler-option", "fixed.plans=4"], "--scheduler-option names fixed, but --scheduler does not"),
        (["--latency", "soon", "--scheduler", "first"], "is not a number"),
    ],
)
def test_a_mistake_is_told_without_a_traceback(
    picture: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert _generate(picture, *options) == 2
    assert message in capsys.readouterr().err


def _sweep(folder: Path, *options: str) -> int:
    fixed = ["--limit", "3", "--max-new-tokens", "3", "--device", "cpu", "--output", str(folder)]
    return main(["sweep", *fixed, *options])


@pytest.mark.long
def test_a_sweep_crosses_both_dials(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--method", "uniform,none", "--token-budget", "0.5,0.25", "--scheduler", "first,random", "--draws", "2"]
    assert _sweep(tmp_path, *asked, "--latency", "1.0,0.75") == 0
    printed = capsys.readouterr().out
    assert "uniform/first@0.75" in printed
    results = Results.model_validate_json((tmp_path / "results.json").read_bytes())
    cells = {cell.cell: cell for cell in results.cells}
    assert list(cells) == [
        "full@1.0",
        "uniform@0.5",
        "uniform@0.25",
        "none@none",
        "full@1.0/first@0.75",
        "uniform@0.5/first@0.75",
        "uniform@0.25/first@0.75",
        "full@1.0/random@0.75",
        "uniform@0.5/random@0.75",
        "uniform@0.25/random@0.75",
    ]
    assert {name: cell.layer_share for name, cell in cells.items() if "/" not in name} == dict.fromkeys(
        ["full@1.0", "uniform@0.5", "uniform@0.25", "none@none"], 1.0
    )
    grid = cells["uniform@0.5/random@0.75"]
    assert (grid.method, grid.scheduler, grid.latency_asked) == ("uniform/random@0.75", "random", "0.75")
    assert (grid.layer_share, grid.draws) == (0.75, 2)
    assert grid.flops["prefill"] < 0.76 * cells["uniform@0.5"].flops["prefill"]
    assert grid.kv_bytes is not None
    assert grid.kv_bytes == pytest.approx(0.75 * (cells["uniform@0.5"].kv_bytes or 0), rel=0.05)
    records = [SampleRecord.model_validate_json(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    first = next(record for record in records if record.cell == "uniform@0.25/first@0.75")
    assert first.ran.groups_run == ((0,),) * 6 + ((),) * 2
    assert (first.ran.method, first.ran.latency_asked, first.ran.layer_share) == ("uniform", "0.75", 0.75)
    assert "uniform/first@0.75" in (tmp_path / "report.html").read_text()
    assert {cell.method for cell in load_run_folder(tmp_path).cells} >= {"full", "full/first@0.75"}
    run = Run.model_validate_json((tmp_path / "run.json").read_bytes())
    assert (run.config.schedulers, list(map(str, run.config.latencies))) == (("first", "random"), ["1.0", "0.75"])
    # The same command resumes; another latency is another run.
    assert _sweep(tmp_path, *asked, "--latency", "1.0,0.75") == 0
    assert _sweep(tmp_path, *asked, "--latency", "1.0,0.5") == 2
    assert "--latency was 1.0,0.75 and is 1.0,0.5" in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--latency", "0.75"], "name a --scheduler"),
        (["--scheduler", "first"], "has nothing to leave out"),
        (["--scheduler", "first", "--latency", "0.3"], "give at least 0.5"),
        (["--scheduler", "first", "--latency", "0.75", "--scheduler-option", "fixed.plans=4"], "but --scheduler does"),
    ],
)
def test_a_mistake_in_a_sweep_is_told_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[Any], message: str
) -> None:
    assert _sweep(tmp_path, "--method", "uniform", *options) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "samples.jsonl").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--scheduler", "fixed", "--scheduler-option", "fixed.plans=5"], "has no plan of 2 layers after the prefix"),
        (["--scheduler", "spaced", "--method", "pyramiddrop"], "'pyramiddrop' cannot run with a latency below 1.0"),
    ],
)
def test_what_no_answer_could_run_with_is_told_before_the_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    call = ["sweep", "--latency", "1.0,0.75", "--token-budget", "16", "--limit", "2", "--output", str(tmp_path / "run")]
    assert main([*call, *options] if "--method" in options else [*call, "--method", "uniform", *options]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run" / "samples.jsonl").exists()


def test_of_all_methods_those_that_drop_behind_a_prefix_are_left_out(tmp_path: Path) -> None:
    told: list[str] = []

    class Listener(SweepObserver):
        def note(self, message: str) -> None:
            told.append(message)

    full = AdaLlava.from_pretrained("tiny", method="full", device="cpu")
    models = {"full": full, "fastv": full.with_method("fastv"), "pyramiddrop": full.with_method("pyramiddrop")}
    schedulers = {"spaced": full.with_scheduler("spaced")}
    left = check_drops(models, schedulers, {"fastv": False, "pyramiddrop": False}, Listener())
    assert list(left) == ["full", "fastv"]
    (note,) = told
    assert note.startswith("method pyramiddrop is left out: it drops tokens after the first 4 layers")
