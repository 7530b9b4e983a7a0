"""`adallava bench` from end to end, on shapes that take no time."""

import json

import pytest

from adallava.bench.shapes import SHAPES
from adallava.cli.bench_table import _figures
from adallava.cli.main import build_parser, main

QUICK = ("--repeats", "1", "--warm-ups", "0", "--text-tokens", "8", "--new-tokens", "3", "--device", "cpu")


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Two cells under two engines, one of which this model cannot run; the exit code, and the folder."""
    folder = tmp_path_factory.mktemp("bench") / "out"
    cells = ("uniform@16/spaced@0.5", "cdpruner@16")
    command = ["bench", "--shapes", "toy", "--cell", *cells, "--engine", "auto", "eager", "--batch-size", "2", *QUICK]
    return main([*command, "--output", str(folder)]), folder


def test_every_cell_has_its_figures_and_stock_transformers_is_among_them(ran):
    made = json.loads((ran[1] / "bench.json").read_text())
    assert {"kind", "command", "date", "versions", "hardware", "ceilings", "machine_load"} <= set(made)
    assert (made["shapes"], made["num_vision_tokens"], made["new_tokens"]) == ("toy", 64, 3)
    by_name = {(cell["engine"], cell["cell"]): cell for cell in made["cells"]}
    measured = [name for name, cell in by_name.items() if "error" not in cell]
    cells = ("full@1.0", "uniform@16/spaced@0.5")
    assert measured == [
        ("transformers", "full@1.0"),
        *((engine, cell) for cell in cells for engine in ("auto", "eager")),
    ]
    for name in measured:
        cell = by_name[name]
        ms, floor = cell["ms"], cell["floor_ms"]
        assert all(0.0 < ms[part]["low"] <= ms[part]["high"] for part in ms if part != "decode_per_token")
        assert cell["tokens_per_s"]["median"] == pytest.approx(1000.0 * 2 * 3 / ms["total"]["median"])
        assert cell["over_floor"]["total"] == pytest.approx(ms["total"]["median"] / floor["total"])
        assert cell["peak_memory_bytes"] is None
    ours = by_name["eager", cells[1]]
    assert {"vision", "selector", "projector", "prefill"} <= set(ours["ms"])
    assert (ours["tokens_kept"], ours["prompt_lengths"], ours["engine_ran"]) == ([16, 16], [24, 24], "eager")
    assert by_name["auto", cells[1]]["engine_ran"] == "stock"
    # Half of the layers are read for half of the tokens, so that its floor is lower.
    assert ours["floor_ms"]["total"] < by_name["eager", "full@1.0"]["floor_ms"]["total"]
    assert by_name["transformers", "full@1.0"]["floor_ms"] == by_name["auto", "full@1.0"]["floor_ms"]


def test_a_cell_that_fails_says_why_and_the_exit_code_tells(ran):
    failed = [cell for cell in json.loads((ran[1] / "bench.json").read_text())["cells"] if "error" in cell]
    assert ran[0] == 1
    assert [cell["cell"] for cell in failed] == ["cdpruner@16"] * 2
    assert all("text tower" in cell["error"] for cell in failed)


def test_the_page_draws_what_was_measured_and_fetches_nothing(ran):
    page = (ran[1] / "bench.html").read_text().replace("\\u002f", "/")
    assert "uniform@16/spaced@0.5, eager" in page
    assert "uniform@16/spaced@0.5, auto (stock ran)" in page
    assert "text tower" in page
    assert "default-src 'none'" in page
    assert "<script src" not in page
    assert "plotly.js v" in page


def test_a_checkpoint_is_measured_and_the_table_printed(model, capsys, tmp_path):
    file = tmp_path / "speed.json"
    asked = ["--method", "question,divprune", "--token-budget", "4", "--output", str(file)]
    assert main(["bench", "--model", model, *asked, *QUICK]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["speed.json"], "a file is the figures alone"
    said = capsys.readouterr().out
    assert "question@4" in said
    floors = {cell["method"]: set(cell["floor_ms"]) for cell in json.loads(file.read_text())["cells"]}
    assert floors["question"] - floors["divprune"] == {"projector"}
    assert floors["divprune"] - floors["question"] == {"selector"}, "which chooses behind the projector"
    assert "transformers" in said
    assert "tokens/s" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--shapes", "huge"), "llava-1.5-7b"),
        (("--model", "tiny", "--shapes", "toy"), "either --model"),
        (("--engine", "fast"), "is not one of auto"),
        (("--engine", "graphs", "--device", "cpu"), "needs a CUDA device"),
        (("--latency", "0.5"), "no --scheduler"),
        (("--cell", "uniform"), "METHOD@BUDGET"),
        (("--cell", "uniform@4", "--method", "pool"), "--method pool with --cell"),
        (("--cell", "uniform@4", "--latency", "0.5"), "--latency 0.5 with --cell"),
        (("--new-tokens", "1"), "at least 2"),
        (("--batch-size", "0"), "--batch-size"),
        (("--shapes", "toy", "--text-tokens", "2000000000"), "give fewer"),
        (("--method-option", "tome.x=1"), "no cell runs"),
        (("--adapter", "question=a", "--method", "question", "--shapes", "toy"), "random weights"),
    ],
)
def test_a_mistake_is_one_line(words, said, capsys):
    assert main(["bench", *words]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert said in shown.err
    assert shown.err.count("\n") == 1


def test_no_file_of_something_else_is_written_over(tmp_path, capsys):
    other = tmp_path / "mine.json"
    other.write_text('{"kept": 1}')
    assert main(["bench", "--shapes", "toy", *QUICK, "--output", str(other)]) == 2
    assert "give another name" in capsys.readouterr().err
    assert json.loads(other.read_text()) == {"kept": 1}


def test_a_time_that_is_none_is_a_dash():
    spread = {"median": 2.0, "low": 1.0, "high": 3.0}
    ms = {"time_to_first_token": spread, "total": spread, "decode_per_token": {**spread, "median": -0.5}}
    cell = {"tokens_kept": [4], "ms": ms, "over_floor": {}, "peak_memory_bytes": None, "tokens_per_s": spread}
    shown = _figures(cell)
    assert shown[5].startswith("2.00 ")
    assert shown[7] == "-"


def test_help_names_every_shape():
    (option,) = (
        action
        for action in build_parser(["bench"])._subparsers._group_actions[0].choices["bench"]._actions
        if action.dest == "shapes"
    )
    assert [name for name in SHAPES if name not in option.help] == []
