"""Two runs laid beside each other: in numbers, and on the command line."""

import json
import re
from pathlib import Path

import pytest
from run_records import failed, reader, run, sample_record

from adallava.analysis.compare_runs import compare_runs, gather_answers
from adallava.analysis.summary import summarise
from adallava.budget import TokenBudget
from adallava.cli.main import main
from adallava.errors import InputError
from adallava.records.cells import plan_cells, split_cell
from adallava.records.run_changes import RunComparison


def answers(scores, cells=("full@1.0",), draw=0):
    return [
        sample_record(cell, f"s{number:02d}", score=score, draw=draw)
        for cell in cells
        for number, score in enumerate(scores)
    ]


def finished(records, **config):
    """What a sweep that made these answers was asked for, and its summary: every planned cell must be in them."""
    cells = [split_cell(cell) for cell in dict.fromkeys(record.cell for record in records)]
    chosen = [cell for cell in cells if cell[0] != "full"]
    asked = {
        "methods": list(dict.fromkeys(method for method, _, _ in chosen)),
        "token_budgets": list(dict.fromkeys(budget for _, budget, _ in chosen if budget != "none")),
        "positions": list(dict.fromkeys(positions for _, _, positions in chosen)) or ["original"],
        "draws": 1 + max(record.draw for record in records),
    }
    plans = plan_cells(
        asked["methods"],
        [TokenBudget.parse(budget) for budget in asked["token_budgets"]],
        {method for method, budget, _ in chosen if budget == "none"},
        positions=asked["positions"],
        drawing={record.ran.method for record in records if record.draw},
        draws=asked["draws"],
    )
    return run(asked | config), summarise(
        plans, sorted({record.sample_id for record in records}), reader(records), seed=0
    )


def gathered(records, name="a"):
    return gather_answers(name, *finished(records), records)


def test_what_changed_is_counted_and_named_on_both_sides():
    a = gathered(answers([1, 1, 1, 0, 0, 1]))
    b = gathered(answers([1, 0, 0, 1, 0, 0])[::-1], "b")
    (change,) = compare_runs(a, b).cells
    assert change.right_in_a_only == ["s01", "s02", "s05"]
    assert change.right_in_b_only == ["s03"]
    assert (change.accuracy_a.mean, change.accuracy_b.mean) == (pytest.approx(4 / 6), pytest.approx(2 / 6))
    assert change.difference.mean == pytest.approx(1 / 3)
    # Three against one of four discordant samples: 2 * (4 + 1) / 16.
    assert change.p_value == change.p_adjusted == pytest.approx(0.625)


def test_p_values_are_corrected_for_the_cells_in_common_and_the_rest_is_named():
    a = gathered(answers([1] * 9, ("full@1.0", "pool@8", "pool@4")))
    b = gathered(answers([0] * 9, ("full@1.0", "pool@8", "random@8")), "b")
    comparison = compare_runs(a, b)
    assert [change.cell for change in comparison.cells] == ["full@1.0", "pool@8"]
    assert [change.p_value for change in comparison.cells] == pytest.approx([2 * 2**-9] * 2)
    assert [change.p_adjusted for change in comparison.cells] == pytest.approx([4 * 2**-9] * 2)
    assert all(change.significant for change in comparison.cells)
    assert (comparison.cells_in_a_only, comparison.cells_in_b_only) == (["pool@4"], ["random@8"])


def test_draws_are_averaged_and_at_least_half_of_them_make_an_answer_right():
    full = answers([1, 1, 1])
    a = gathered([*full, *answers([1, 0, 0], ["random@8"]), *answers([0, 0, 1], ["random@8"], draw=1)])
    b = gathered([*full, *answers([0, 0, 0], ["random@8"]), *answers([0, 0, 0], ["random@8"], draw=1)], "b")
    _, change = compare_runs(a, b).cells
    assert change.accuracy_a.mean == pytest.approx(1 / 3)
    assert change.right_in_a_only == ["s00", "s02"]


def test_samples_that_failed_in_one_run_are_in_neither_mean():
    a = gathered(answers([1, 1, 0]))
    b = gathered([*answers([0, 1]), failed(sample_id="s02")], "b")
    (change,) = compare_runs(a, b).cells
    assert (change.difference.n, change.difference.mean) == (2, 0.5)
    nothing = gathered([failed(sample_id=f"s{number:02d}") for number in range(3)], "b")
    assert compare_runs(a, nothing).cells_not_answered == ["full@1.0"]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            [record.model_copy(update={"sample_id": f"t{record.sample_id}"}) for record in answers([1, 1])],
            "a has 3 of t.jsonl; b has 2 of t.jsonl; none is in both",
        ),
        (
            [record.model_copy(update={"answers": ["3"]}) for record in answers([1, 1, 0])],
            "3 samples .* another question or answer",
        ),
    ],
)
def test_runs_that_do_not_compare_are_refused(other, message):
    with pytest.raises(InputError, match=message):
        compare_runs(gathered(answers([1, 1, 0])), gathered(other, "b"))


def test_only_samples_that_both_runs_took_are_compared_and_the_others_are_named():
    a = gathered(answers([1, 1, 0, 1]))
    b = gathered([record for record in answers([0, 1, 0, 1, 0, 0]) if record.sample_id != "s01"][::-1], "b")
    comparison = compare_runs(a, b)
    assert comparison.num_samples == 3
    assert (comparison.samples_in_a_only, comparison.samples_in_b_only) == (["s01"], ["s05", "s04"])
    (change,) = comparison.cells
    # s00, s02 and s03 alone: 2 of 3 against 1 of 3.
    assert (change.accuracy_a.mean, change.accuracy_b.mean) == (pytest.approx(2 / 3), pytest.approx(1 / 3))
    assert (change.right_in_a_only, change.right_in_b_only) == (["s00"], [])


def test_what_differs_between_the_runs_is_named():
    records = answers([1, 0])
    asked, results = finished(records)
    changed = run(
        asked.config.model_dump() | {"seed": 1, "methods": []},
        {"weights_sha256": "f" * 64, "versions": {"torch": "2.12.0"}, "command": "another", "started_at": "later"},
    )
    a, b = (gather_answers(name, one, results, records) for name, one in (("a", asked), ("b", changed)))
    differing = {one.name: (one.a, one.b) for one in compare_runs(a, b).differences}
    assert differing == {
        "seed": ("0", "1"),
        "weights_sha256": ("0" * 64, "f" * 64),
        "versions python": ("3.11.2", "none"),
        "versions torch": ("2.11.0", "2.12.0"),
        "versions transformers": ("5.17.0", "none"),
    }
    assert compare_runs(a, a).differences == []


DRAWN = [
    *answers([1, 1], ["full@1.0", "random@8", "none@none"]),
    *answers([0, 1], ["random@8"], draw=1),
    *answers([0, 1], ["random@8"], draw=2),
]


@pytest.mark.parametrize(
    ("lost", "named"),
    [
        (lambda record: record.draw == 2 and record.sample_id == "s01", "1 of 10 answers .* 's01' in random@8, draw 2"),
        (lambda record: record.draw == 2, "2 of 10 answers .* 's00' in random@8, draw 2"),
        (lambda record: record.cell == "none@none", "2 of 10 answers .* 's00' in none@none, draw 0"),
        (lambda record: record.cell == "full@1.0" and record.sample_id == "s00", "'s00' in full@1.0"),
        (lambda record: record.sample_id == "s01", "1 of the 2 samples"),
        (lambda record: True, "0 of the 2 samples"),
    ],
)
def test_a_run_that_lacks_an_answer_is_refused_and_the_answer_named(lost, named):
    gather_answers("a", *finished(DRAWN), DRAWN)
    with pytest.raises(InputError, match=f"a is not finished: .*{named}"):
        gather_answers("a", *finished(DRAWN), [record for record in DRAWN if not lost(record)])


def test_a_run_whose_summary_lacks_a_planned_cell_is_refused():
    asked, results = finished(DRAWN)
    fewer = results.model_copy(update={"cells": results.cells[:1]})
    left = [record for record in DRAWN if record.cell == "full@1.0"]
    with pytest.raises(InputError, match=r"not finished: results\.json lacks random@8"):
        gather_answers("a", asked, fewer, left)


# ---- on the command line ----


@pytest.fixture
def folders(tmp_path):
    def write(name, records, **config):
        folder = tmp_path / name
        folder.mkdir()
        asked, results = finished(records, **config)
        (folder / "run.json").write_text(asked.model_dump_json())
        (folder / "results.json").write_text(results.model_dump_json())
        (folder / "samples.jsonl").write_text("".join(record.model_dump_json() + "\n" for record in records))
        return str(folder)

    cells = ["full@1.0", "pool@8+compact"]
    return (
        write("a", answers([1] * 8 + [0], cells)),
        write("b", answers([0] * 8 + [1], cells), seed=1),
        write(
            "other", [r.model_copy(update={"question": "How?"}) for r in answers([1] * 3, cells)], task="other.jsonl"
        ),
    )


def test_the_table_says_what_changed_and_the_list_names_it(folders, capsys):
    a, b, _ = folders
    assert main(["compare", a, b]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    (row,) = [row for row in rows if row[:1] == ["pool@8+compact"]]
    # 8 against 1 of 9: 2 * (1 + 9) / 2^9 = 0.039, twice that for two cells.
    assert row[1:4] == ["88.9", "11.1", "+77.8"]
    assert [row[-4], *row[-2:]] == ["0.0781", "8", "1"]
    assert main(["compare", a, b, "--list"]) == 0
    printed = capsys.readouterr().out
    assert "full@1.0, right in A only: s00, s01, s02, s03, s04, s05, s06, s07" in printed
    assert "pool@8+compact, right in B only: s08" in printed


def test_the_table_says_what_is_left_out_and_what_differs(tmp_path, folders, capsys):
    a, b, _ = folders
    main(["compare", a, b])
    printed = capsys.readouterr().out
    assert "differs: seed is 0 in A and 1 in B" in printed
    assert "left out" not in printed
    samples = Path(b) / "samples.jsonl"
    results = Path(b) / "results.json"
    samples.write_text("".join(line for line in samples.read_text().splitlines(True) if '"s00"' not in line))
    results.write_text(results.read_text().replace('"num_samples":9', '"num_samples":8'))
    main(["compare", a, b])
    assert "left out, 1 sample in A only: s00" in capsys.readouterr().out
    main(["compare", a, a])
    assert "both runs have the same settings, weights and versions" in capsys.readouterr().out


def test_a_narrow_terminal_shows_figures_whole_and_names_what_it_leaves_out(folders, capsys, monkeypatch):
    a, b, _ = folders
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "50")
    assert main(["compare", a, b]) == 0
    printed = " ".join(re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out).split())
    assert "…" not in printed
    assert "left out, 50 columns wide: found, in B only, right in A only" in printed
    assert "88.9 11.1 +77.8" in printed


def test_json_is_the_record(folders, capsys):
    a, b, _ = folders
    assert main(["compare", a, b, "--json"]) == 0
    comparison = RunComparison.model_validate(json.loads(capsys.readouterr().out))
    assert [change.cell for change in comparison.cells] == ["full@1.0", "pool@8+compact"]


def test_mistakes_are_one_line(folders, tmp_path, capsys):
    a, b, other = folders
    assert main(["compare", a, other]) == 2
    assert "not over the same samples" in capsys.readouterr().err
    (Path(b) / "results.json").unlink()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "run.json").write_text("{}")
    (tmp_path / "no-text").mkdir()
    (tmp_path / "no-text" / "run.json").write_bytes(b"\xff{}")
    samples = Path(other) / "samples.jsonl"
    samples.write_bytes(samples.read_bytes().replace(b"How", b"H\xff", 1))
    for arguments, expected in (
        ([a, b], "b/results.json cannot be read"),
        ([a, str(tmp_path / "nowhere")], "nowhere"),
        ([a, str(tmp_path / "damaged")], "damaged"),
        ([a, str(tmp_path / "no-text")], "no-text/run.json is not what"),
        ([a, other], "line 1 of"),
    ):
        assert main(["compare", *arguments]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert len(captured.err.splitlines()) == 1
        assert expected in captured.err


def test_runs_without_an_answer_in_common_are_refused_and_not_an_empty_table(folders, tmp_path, capsys):
    folder = tmp_path / "failed"
    folder.mkdir()
    records = [failed("full@1.0", sample_id) for sample_id in ("s00", "s01")]
    asked, results = finished(records)
    (folder / "run.json").write_text(asked.model_dump_json())
    (folder / "results.json").write_text(results.model_dump_json())
    (folder / "samples.jsonl").write_text("".join(record.model_dump_json() + "\n" for record in records))
    assert main(["compare", folders[0], str(folder)]) == 2
    assert "no cell has a sample that both" in capsys.readouterr().err
