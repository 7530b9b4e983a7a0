"""The table of a sweep, in terminals of several widths."""

from pathlib import Path

import pytest
from rich.console import Console
from run_records import reader, sample_record

from adallava.analysis.summary import summarise
from adallava.budget import TokenBudget
from adallava.cli.console import make_console
from adallava.cli.sweep_table import areas_table, print_areas, print_cells
from adallava.records import Spread, Timing
from adallava.records.cells import plan_cells
from adallava.report.hard_samples import hard_words

IDS = [f"s{number}" for number in range(30)]


@pytest.fixture(scope="module")
def results():
    budgets = [TokenBudget(ratio=0.03125), TokenBudget(count=4)]
    plans = plan_cells(["budget-token", "none"], budgets, {"none"}, positions=["original", "compact"])
    records = []
    for number, plan in enumerate(plans):
        flops = {"vision": 8_000_000_000, "selector": 120_000, "prefill": 9_000_000_000 - 1_000_000_000 * number}
        by_layer = None if number == 1 else [16, 16 - 2 * number]
        records += [
            sample_record(
                plan.cell, sample_id, method=plan.method, budget_asked=plan.budget_asked, positions=plan.positions,
                score=float(place < 29 - number), flops=flops, tokens_kept_by_layer=by_layer,
                part_ms={"vision": 20.0, "selector": 1.25, "prefill": 100.0, "decode": 40.0},
            )
            for place, sample_id in enumerate(IDS)
        ]  # fmt: skip
    return summarise(plans, IDS, reader(records), seed=0)


def printed(print_on, width):
    console = Console(width=width, force_terminal=True, color_system=None)
    with console.capture() as capture:
        print_on(console)
    return [line.rstrip() for line in capture.get().splitlines()]


@pytest.mark.parametrize("width", [80, 100, 120, 160])
def test_no_cell_of_the_table_is_cut_off_or_wrapped(results, width):
    lines = printed(lambda console: print_cells(results, console), width)
    assert all(len(line) <= width for line in lines)
    table = lines[: 2 + len(results.cells)]
    assert "…" not in "".join(table)
    methods = ["full", *["budget-token"] * 2, *["budget-token+compact"] * 2, "none"]
    assert [line.split()[0] for line in table[2:]] == methods


def test_at_100_columns_tokens_costs_and_the_selectors_share_of_them_are_there(results):
    header, _, _, row, *_ = printed(lambda console: print_cells(results, console), 100)
    assert header.split() == [
        "method", "budget", "tokens", "/layer", "accuracy", "%", "GFLOPs", "select", "1st", "ms", "select",
    ]  # fmt: skip
    # 8 + 0.00012 + 8 GFLOPs; 20 + 1.25 + 100 ms.
    values = row.split()
    assert values[:4] == ["budget-token", "0.03125", "16", "16"]
    assert values[-4:] == ["16", "0.0001", "121.2", "1.25"]


def test_choosing_inside_the_llm_has_no_ms_of_its_own(results):
    inside = printed(lambda console: print_cells(results, console), 100)[5]
    # 16 and 10 tokens by layer.
    assert inside.split()[:4] == ["budget-token+compact", "0.03125", "16", "13"]
    assert inside.split()[-2:] == ["121.2", "-"]


def test_a_timed_run_shows_the_timing_pass_for_one_sample_and_says_so(results):
    def spread(median):
        return Spread(median=median, low=median, high=median)

    parts = {"time_to_first_token": spread(60.0), "selector": spread(3.0), "total": spread(90.0)}
    timings = [Timing(batch_size=size, repeats=10, part_ms=parts, peak_memory_bytes=None) for size in (2, 8)]
    timed = results.model_copy(update={"cells": [c.model_copy(update={"timings": timings}) for c in results.cells]})
    lines = printed(lambda console: print_cells(timed, console), 100)
    assert lines[3].split()[-2:] == ["30.0", "1.50"]
    assert "timing pass at batch 2, divided by it" in " ".join(lines)
    assert "cells one after the other" in " ".join(printed(lambda console: print_cells(results, console), 100))


def test_a_wide_terminal_has_every_column(results):
    header = printed(lambda console: print_cells(results, console), 160)[0]
    assert all(title in header for title in ("hard %", "difference to full", "all ms"))


NAMES = ["budget", "tokens", "/layer", "accuracy %", "hard %", "difference to full", "GFLOPs", "1st ms", "all ms"]
"""And two shares of choosing, which have one title."""


@pytest.mark.parametrize("width", [30, 60, 80, 100, 160])
def test_a_column_is_shown_or_named_as_left_out_and_nothing_is_cut(results, width):
    lines = printed(lambda console: print_cells(results, console, page=Path("report.html")), width)
    words = " ".join(" ".join(lines).split())
    told = words.partition("left out, ")[2]
    left_out = told.partition(": ")[2].partition(" (")[0].split(", ")

    assert "…" not in words
    if width >= 60:
        for name in NAMES:
            assert (name in lines[0]) != (name in left_out), name
        assert lines[0].count("select") + ("select GFLOPs" in left_out) + ("select ms" in left_out) == 2
    assert bool(told) == (width < 160)
    assert "less -S" in told or not told


def test_a_pipe_gets_every_column(results, capsys):
    print_cells(results, make_console())
    header = capsys.readouterr().out.splitlines()[0]

    assert all(name in header for name in NAMES)
    assert header.count("select") == 2


def test_areas_are_not_cut_on_a_narrow_terminal(results):
    lines = printed(lambda console: print_areas(results.areas, console), 40)
    assert "…" not in "".join(lines)
    assert all(len(line) <= 40 for line in lines)


def test_areas_and_the_hard_split_are_said_in_words(results):
    lines = printed(lambda console: console.print(areas_table(results.areas)), 100)
    assert [line.split()[0] for line in lines[2:4]] == ["budget-token", "budget-token+compact"]
    # Every answer is the same word, so that no answer of `none` says more than another: all of them are luck.
    assert hard_words(results.hard_split) == (
        "`none` is right on 24 of 30 samples, without the image, on 0 of them beyond luck, which are left out. The "
        "other 30 are the hard split: what `none` got wrong, or guessed"
    )
