"""`adallava generate`: what it prints, what it writes, and its exit codes."""

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from models import tiny_image, tiny_llava
from PIL import Image
from rich.console import Console

from adallava.cli.console import fitting, natural_width
from adallava.cli.generate_table import _LEFT_OUT, _table_of
from adallava.cli.main import main
from adallava.records import WhatRan
from adallava.runs.budget_result import BudgetResult

N = 16


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llava(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def arguments(model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The options that all calls share, in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    tiny_image(3).save("noise.png")
    options = ["--image", "noise.png", "--question", "what is red?", "--model", str(model_folder)]
    return ["generate", *options, "--device", "cpu", "--max-new-tokens", "4"]


def as_json(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    code = main([*arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_every_budget_gets_its_answer_and_its_picture(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, document = as_json([*arguments, "--token-budget", "1.0", "0.5,3"], capsys)
    assert code == 0
    assert document["method"] == "question"
    full, half, three = document["results"]
    assert [result["tokens_kept"] for result in document["results"]] == [N, 8, 3]
    assert [len(result["kept_indices"][0]) for result in document["results"]] == [N, 8, 3]
    # The text is the same at every budget, so the prompts differ by the vision tokens alone.
    assert full["prompt_length"] - half["prompt_length"] == N - 8
    assert half["prompt_length"] - three["prompt_length"] == 8 - 3
    assert all(result["answer_length"] == 4 and result["finish_reason"] == "length" for result in (full, half))
    assert half["score_range"][0] < half["score_range"][1]
    assert three["picture"] == "noise.question@3.png"
    assert sorted(path.name for path in Path().glob("noise.*@*.png")) == [
        "noise.question@0.5.png",
        "noise.question@1.0.png",
        "noise.question@3.png",
    ]


def test_the_table_says_what_was_kept_and_where_the_pictures_are(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--method", "uniform", "--token-budget", "0.25", "--output-image", "drawn"]) == 0
    output = capsys.readouterr().out
    assert "N = 16" in output
    assert "0.25" in output
    assert "kept patches: drawn/noise.uniform@0.25.png" in output
    assert Path("drawn/noise.uniform@0.25.png").is_file()


def test_a_file_gets_all_budgets_side_by_side(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    call = [*arguments, "--method", "random", "--token-budget", "0.5", "0.25", "--no-generate"]
    one, two = Path("one.png"), Path("sub/two.png")
    assert main([*call[:-2], "--no-generate", "--output-image", str(one)]) == 0
    code, document = as_json([*call, "--output-image", str(two)], capsys)
    assert code == 0
    assert {result["picture"] for result in document["results"]} == {str(two)}
    with Image.open(one) as narrow, Image.open(two) as wide:
        assert wide.width > 1.9 * narrow.width


def test_kept_patches_keep_their_colour_and_dropped_ones_fade(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (28, 28), (200, 20, 20)).save("noise.png")
    _, document = as_json([*arguments, "--method", "uniform", "--token-budget", "4", "--no-generate"], capsys)
    (result,) = document["results"]
    (kept,) = result["kept_indices"]
    with Image.open(result["picture"]) as picture:
        drawn = picture.convert("RGB")
    # The drawing is a square of 4 x 4 cells at the right and lower end, below the caption.
    gap = 12
    side = drawn.width - 2 * gap
    cell, top = side // 4, drawn.height - gap - side
    for index in range(N):
        row, column = divmod(index, 4)
        red, green, _ = drawn.getpixel((gap + int((column + 0.5) * cell), top + int((row + 0.5) * cell)))
        assert (red - green > 150) == (index in kept)


def test_selection_alone_answers_nothing(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, document = as_json([*arguments, "--token-budget", "4", "--no-generate", "--no-image"], capsys)
    assert code == 0
    (result,) = document["results"]
    assert result["answer"] is None
    assert result["answer_length"] is None
    assert result["tokens_kept"] == 4
    assert result["picture"] is None


def test_selection_is_that_of_the_answer(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    call = [*arguments, "--method", "random", "--seed", "7", "--token-budget", "5", "--no-image"]
    _, answered = as_json(call, capsys)
    _, selected = as_json([*call, "--no-generate"], capsys)
    assert answered["results"][0]["kept_indices"] == selected["results"][0]["kept_indices"]
    assert answered["results"][0]["prompt_length"] == selected["results"][0]["prompt_length"]


def test_a_method_inside_the_llm_shows_the_way_to_k(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    call = [*arguments, "--method", "pyramiddrop", "--token-budget", "2", "--positions", "compact", "--no-image"]
    _, answered = as_json(call, capsys)
    _, selected = as_json([*call, "--no-generate"], capsys)
    for document in (answered, selected):
        (result,) = document["results"]
        assert (result["tokens_asked"], result["tokens_kept"]) == (2, N)
        assert result["tokens_kept_by_layer"] == [16, 8, 4, 2]
        assert len(result["kept_indices"][0]) == 2
    assert answered["results"][0]["kept_indices"] == selected["results"][0]["kept_indices"]
    assert main(call) == 0
    assert "16 → 8 → 4 → 2" in capsys.readouterr().out


def test_several_images_share_the_budget(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    tiny_image(4).save("second.png")
    call = ["generate", "--image", "noise.png", "second.png", *arguments[3:]]
    _, document = as_json([*call, "--method", "uniform", "--token-budget", "0.5"], capsys)
    (result,) = document["results"]
    assert result["num_vision_tokens"] == 2 * N
    assert [len(image) for image in result["kept_indices"]] == [8, 8]


def test_a_method_that_ignores_the_budget_runs_once(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    _, document = as_json([*arguments, "--method", "none", "--token-budget", "0.5", "0.25"], capsys)
    (result,) = document["results"]
    assert (result["budget_asked"], result["tokens_kept"]) == ("none", 0)
    assert Path("noise.none@none.png").is_file()


def test_an_empty_answer_is_named_and_exits_1(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from adallava.model import AdaLlava

    honest = AdaLlava.generate

    def ends_at_once(self: AdaLlava, **kwargs: Any) -> Any:
        eos = self.base.generation_config.eos_token_id
        return honest(self, **{**kwargs, "forced_eos_token_id": eos, "max_new_tokens": 1})

    monkeypatch.setattr(AdaLlava, "generate", ends_at_once)
    assert main([*arguments, "--no-image"]) == 1
    assert "empty: first-token-eos" in capsys.readouterr().out


def test_an_answer_outlives_its_picture(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from adallava.records import durable

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    capsys.readouterr()
    monkeypatch.setattr(durable.os, "fsync", full)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert "K kept" in captured.out
    assert ".png.partial cannot be written (No space left on device)" in captured.err
    assert not list(Path().glob("*@*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--token-budget", "1.5"], "1.5"),
        (["--image", "missing.png"], "missing.png"),
        (["--image", "text.png"], "text.png"),
        (["--method", "questions"], "did you mean 'question'"),
        (["--method", "full", "--token-budget", "0.5"], "keeps them all"),
        (["--max-new-tokens", "0"], "at least 1"),
        (["--output-image", "file"], "file exists and is not a folder"),
        (["--output-image", "pipe.png"], "pipe.png exists and is not a file"),
        (["--model", "no-such-folder"], "no-such-folder"),
        (["--model", "no-such-folder", "--scheduler", "frist"], "frist"),
        (["--scheduler-adapter", "somewhere"], "--scheduler-adapter somewhere: name the --scheduler that it holds"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(
    arguments: list[str], options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("text.png").write_text("this is no picture")
    Path("file").write_text("")
    os.mkfifo("pipe.png")
    capsys.readouterr()
    assert main([*arguments, *options]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.strip().count("\n") == 0
    assert not list(Path().glob("*@*.png"))


def test_options_of_a_method_reach_it_and_are_recorded(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    option = ["--method", "cdpruner", "--token-budget", "5", "--method-option"]
    code, document = as_json([*arguments, *option, "cdpruner.relevance=none"], capsys)
    assert code == 0
    assert document["method_options"] == {"relevance": "none"}
    assert document["results"][0]["tokens_kept"] == 5
    assert main([*arguments, *option, "mmtok.alpha=1"]) == 2
    assert "names mmtok, but --method does not" in capsys.readouterr().err


def test_what_fails_inside_transformers_is_one_line(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise ValueError("a constraint that\nnobody knows")

    monkeypatch.setattr("adallava.model.AdaLlava.generate", fails)
    assert main([*arguments, "--token-budget", "3"]) == 2
    told = capsys.readouterr().err
    assert "question@3 cannot be answered: ValueError: a constraint that nobody knows" in " ".join(told.split())
    assert "Traceback" not in told


@pytest.mark.parametrize(("width", "columns"), [(60, 4), (120, 9)])
def test_a_narrow_terminal_goes_without_columns_and_a_wide_one_has_all(width: int, columns: int) -> None:
    asked = {"method": "uniform", "budget_asked": "0.5", "positions": "original"}
    ran = WhatRan.nothing(**asked).model_copy(update={"score_range": (0.25, 0.75), "finish_reason": "length"})
    result = BudgetResult(ran, "a" * 300, None, 1000.0, None)
    console = Console(width=width)
    table, left_out = fitting(partial(_table_of, None, [result], False), console, *_LEFT_OUT)
    headers = [column.header for column in table.columns]
    assert {"budget", "K kept", "answer", "ms"} <= set(headers)
    assert len(headers) == columns
    assert len(left_out) == 9 - columns
    assert natural_width(table, console) <= width
