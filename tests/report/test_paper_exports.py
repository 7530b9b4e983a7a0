import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich_runs import RichRun, made_cells, rich_results
from run_folders import FakeRun, fake_results, fake_run

from adallava.errors import InputError
from adallava.records import Results
from adallava.report import formats, paper_figures
from adallava.report.axes import cost_axes
from adallava.report.paper_figures import write_figures
from adallava.report.paper_tables import paper_tables, write_tables
from adallava.report.plain_table import Entry, PaperTable, to_latex, to_markdown

SMALL = FakeRun(methods=("random", "question", "none"), budgets=("8", "32"), num_samples=40)
RUN = fake_run(SMALL)


@cache
def rich() -> Results:
    spec = RichRun(methods=("random", "uniform", "pyramiddrop"), num_samples=300, budgets=(8, 32), batch_sizes=(1,))
    return rich_results(spec, made_cells(spec))


@pytest.fixture
def fewer_axes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw over the first axis and the last alone: a figure takes a third of a second."""
    monkeypatch.setattr(paper_figures, "cost_axes", lambda results: cost_axes(results)[:: len(cost_axes(results)) - 1])


def test_every_axis_has_a_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def not_drawn(_: Any, stem: Path) -> list[Path]:
        return [stem]

    monkeypatch.setattr(paper_figures, "save_figure", not_drawn)
    assert sorted(path.name for path in write_figures(fake_results(SMALL), tmp_path)) == [
        "accuracy-first-token",
        "accuracy-gflops",
        "accuracy-layer-tokens",
        "accuracy-tokens",
        "accuracy-total-ms",
    ]


def test_an_axis_has_a_pdf_and_a_png_fit_for_print(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paper_figures, "cost_axes", lambda results: cost_axes(results)[:1])
    paths = write_figures(fake_results(SMALL), tmp_path)

    assert sorted(path.suffix for path in paths) == [".pdf", ".png"]
    for path in paths:
        if path.suffix == ".pdf":
            assert path.read_bytes().startswith(b"%PDF-")
            assert b"/Type /Font" in path.read_bytes(), "its text is text"
        else:
            with Image.open(path) as image:
                assert image.width == round(6.3 * 300)
                assert len(image.convert("RGB").getcolors(10**6)) > 50, "something is drawn"


@pytest.mark.long
def test_hard_split_positions_and_timed_batches_have_figures_of_their_own(tmp_path: Path, fewer_axes: None) -> None:
    names = {path.stem for path in write_figures(rich(), tmp_path)}

    assert names == {
        f"accuracy{hard}-{axis}{compact}"
        for axis in ("layer-tokens", "timed-1")
        for hard in ("", "-hard")
        for compact in ("", "-compact")
    }


def test_figures_follow_from_the_results_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paper_figures, "cost_axes", lambda results: cost_axes(results)[-1:])
    first, second = (write_figures(fake_results(SMALL), tmp_path / name) for name in "ab")

    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_a_run_with_nothing_to_draw_has_no_figures(tmp_path: Path) -> None:
    nothing = FakeRun(methods=(), num_samples=5, failing=frozenset({"full@1.0"}))

    assert write_figures(fake_results(nothing), tmp_path) == []


def test_a_name_is_not_read_as_mathematics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paper_figures, "cost_axes", lambda results: cost_axes(results)[:1])
    results = fake_results(SMALL)
    cells = [c.model_copy(update={"method": "$\\frac$_x"}) if c.method == "random" else c for c in results.cells]

    assert write_figures(Results(cells=cells), tmp_path)


def test_without_matplotlib_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)

    with pytest.raises(InputError, match=r"pip install 'adallava\[figures\]'"):
        paper_figures.write_figures(fake_results(SMALL), tmp_path)


def test_every_score_of_the_table_has_its_interval_and_the_caption_its_count() -> None:
    results = fake_results(SMALL)
    accuracy = paper_tables(RUN, results)[0]
    cell = next(cell for cell in results.cells if cell.cell == "question@8")
    row = next(row for row in accuracy.rows if row[0].text == "question")

    assert accuracy.head == ("method", "8", "32")
    assert row[1].text == formats.percent(cell.accuracy.mean)
    assert row[1].note == f"[{formats.percent(cell.accuracy.low)}, {formats.percent(cell.accuracy.high)}]"
    assert "n = 40" in accuracy.caption
    assert re.search(r"full: [\d.]+ \[[\d.]+, [\d.]+\]; none: [\d.]+ \[", accuracy.caption)


def test_a_method_that_sets_its_own_budget_has_a_column_that_says_so() -> None:
    results = fake_results(SMALL)
    cells = [
        cell.model_copy(update={"budget_asked": "none", "cell": "random@none"}) if cell.cell == "random@8" else cell
        for cell in results.cells
    ]

    assert paper_tables(RUN, Results(cells=cells))[0].head == ("method", "own K", "32", "8")


def test_bold_is_only_what_is_ahead_of_all_others() -> None:
    results = rich()
    bold = {
        (row[0].text, head)
        for table in paper_tables(RUN, results)[:1]
        for row in table.rows
        for head, entry in zip(table.head, row, strict=True)
        if entry.bold
    }

    for method, budget in bold:
        others = [p for p in results.comparisons if f"{method}@{budget}" in (p.cell_a, p.cell_b)]
        assert others
        assert all(pair.significant for pair in others)
    assert not any(entry.bold for row in paper_tables(RUN, fake_results(SMALL))[0].rows for entry in row)


def test_a_leader_that_is_not_told_apart_is_not_bold() -> None:
    results = rich()
    untold = [pair.model_copy(update={"significant": False}) for pair in results.comparisons]
    table = paper_tables(RUN, results.model_copy(update={"comparisons": untold}))[0]

    assert not any(entry.bold for row in table.rows for entry in row)


def test_the_hard_split_has_its_own_table_with_its_own_count() -> None:
    results = rich()
    tables = {table.name: table for table in paper_tables(RUN, results)}

    assert list(tables) == ["accuracy", "accuracy-hard", "costs"]
    assert f"n = {results.hard_split.num_hard}" in tables["accuracy-hard"].caption


def test_costs_are_the_timing_passs_where_there_is_one_and_choosing_inside_the_llm_is_a_dash() -> None:
    results = rich()
    costs = paper_tables(RUN, results)[-1]
    cells = {(row[0].text, row[1].text): dict(zip(costs.head, row, strict=True)) for row in costs.rows}
    row = cells["uniform", "32"]
    # What the synthetic run was timed at; its selector spends 1,000,000 FLOPs a letter.
    assert row["decode per token, ms"].text == "1.50"
    assert row["peak memory, MiB"].text == formats.mebibytes(609_000_000)
    assert row["selector GFLOPs"].text == "0.007"
    assert "timing pass at batch 1, cells in turns" in costs.caption
    assert "timed under prefill" in costs.caption

    untimed = [cell.model_copy(update={"timings": []}) for cell in results.cells]
    costs = paper_tables(RUN, results.model_copy(update={"cells": untimed}))[-1]
    cells = {(row[0].text, row[1].text): dict(zip(costs.head, row, strict=True)) for row in costs.rows}
    assert cells["pyramiddrop", "32"]["selector, ms"].text == formats.DASH
    assert cells["uniform", "32"]["selector, ms"].text == formats.figures3(7e6 / 2.2e8)
    assert cells["uniform", "32"]["decode per token, ms"].text == formats.DASH
    assert "cells one after the other" in costs.caption


DANGEROUS = PaperTable(
    "t", "50 % of #1 & _all_", ("a_b", "c|d"), ((Entry("x\\y{z}^~$"), Entry("−1.5", "[0, 1]", bold=True)),)
)


def test_latex_is_escaped_and_every_row_has_its_columns() -> None:
    latex = to_latex(DANGEROUS)

    assert r"\caption{50 \% of \#1 \& \_all\_}" in latex
    assert r"x\textbackslash{}y\{z\}\textasciicircum{}\textasciitilde{}\$" in latex
    assert r"\textbf{$-$1.5} {\scriptsize [0, 1]}" in latex
    assert r"\begin{tabular}{lr}" in latex
    rows = re.findall(r"^(.*) \\\\$", latex, re.MULTILINE)
    assert all(len(re.findall(r"(?<!\\)&", row)) == 1 for row in rows)
    assert latex.count("{") - latex.count(r"\{") == latex.count("}") - latex.count(r"\}")


def test_markdown_is_escaped_and_every_row_has_its_columns() -> None:
    markdown = to_markdown(DANGEROUS)
    head, rule, row = markdown.splitlines()[2:]

    assert head == r"| a\_b | c\|d |"
    assert rule == "| --- | ---: |"
    assert row.endswith("| **−1.5** [0, 1] |")
    assert len(re.findall(r"(?<!\\)\|", row)) == 3


def test_tables_are_written_as_both(tmp_path: Path) -> None:
    names = sorted(path.name for path in write_tables(RUN, rich(), tmp_path))

    assert names == ["accuracy-hard.md", "accuracy-hard.tex", "accuracy.md", "accuracy.tex", "costs.md", "costs.tex"]
    text = (tmp_path / "accuracy.tex").read_text()
    # The head, three methods, two of them also with compact positions, and the smaller image at a budget of its own.
    assert text.count("&") == 7 * 3
