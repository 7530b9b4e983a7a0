"""The cells of one or two runs as JSON: what the page's plot and ranking are drawn from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adallava.records import FULL_METHOD, Cell, Interval, PairedDifference, Results
from adallava.records.alarms import MajorityBaseline
from adallava.report import formats
from adallava.report.alarm_lines import MAJORITY_NAME, majority_count, shown_answer
from adallava.report.axes import axes_of, is_blind, not_drawn, place_on
from adallava.report.marks import method_marks
from adallava.report.pair_words import least_points, margin_points, outcome_of


@dataclass(frozen=True)
class NamedResults:
    """The results of a run under the name that the page gives it; the page's own run has an empty name."""

    name: str
    results: Results
    merging: frozenset[str] = frozenset()
    """Cells whose method combines patches."""


def column_name(run: NamedResults, cell: str) -> str:
    """Return the name of a cell that is unique on a page of two runs."""
    return f"{run.name}: {cell}" if run.name else cell


def cells_json(runs: Sequence[NamedResults]) -> dict[str, Any]:
    """Return axes, methods, cells and comparisons; every foreign text in it is plain text, never markup."""
    both = [cell for run in runs for cell in run.results.cells]
    axes, marks = axes_of(both), method_marks(cell.method for cell in both)
    scheduled = {cell.method for cell in both if cell.scheduler is not None}
    cells = [_cell(run, number, cell, axes) for number, run in enumerate(runs) for cell in run.results.cells]
    return {
        "runs": [run.name for run in runs],
        "axes": [
            {
                "key": axis.key,
                "title": axis.title,
                "unit": axis.unit,
                "shared": axis.shared,
                "note": f"{axis.note[0].upper()}{axis.note[1:]}." if axis.note else "",
                "missing": _missing(runs, axis),
            }
            for axis in axes
        ],
        "methods": [
            {
                "id": method,
                "colour": mark.colour,
                "dark": mark.dark_colour,
                "symbol": mark.symbol,
                "glyph": mark.glyph,
                "dash": mark.dash,
                "scheduled": method in scheduled,
            }
            for method, mark in marks.items()
        ],
        "cells": cells,
        "comparisons": _comparisons(runs),
        "majority": _majority(runs[0].results.majority),
    }


def _majority(majority: MajorityBaseline | None) -> dict[str, Any] | None:
    """Return the line of the majority answer, as accuracies of a cell are given."""
    if majority is None:
        return None
    return {
        "name": MAJORITY_NAME,
        "accuracy": {
            "all": {**_by_kind(majority.accuracy_by_kind), "": _bounds(majority.line)},
            "hard": {**_by_kind(majority.accuracy_hard_by_kind), "": _bounds(majority.accuracy_hard)},
        },
        "answer": shown_answer(majority.answer) if majority.accuracy_with_kinds is None else "by question type",
        "count": majority_count(majority),
    }


def _missing(runs: Sequence[NamedResults], axis: Any) -> list[str]:
    return [
        f"{column_name(run, cell)}: {reason}" for run in runs for cell, reason in not_drawn(run.results, axis).items()
    ]


def _cell(run: NamedResults, run_number: int, cell: Cell, axes: Sequence[Any]) -> dict[str, Any]:
    return {
        "name": column_name(run, cell.cell),
        "run": run_number,
        "method": cell.method,
        "full": cell.method == FULL_METHOD,
        "blind": is_blind(cell),
        "budget": cell.budget_asked,
        "positions": cell.positions,
        "draws": cell.draws,
        "x": {axis.key: x for axis in axes if (x := place_on(axis, cell)) is not None},
        # By question type; over all types under the empty name.
        "accuracy": {
            "all": {**_by_kind(cell.accuracy_by_kind), "": _bounds(cell.accuracy)},
            "hard": {**_by_kind(cell.accuracy_hard_by_kind), "": _bounds(cell.accuracy_hard)},
        },
        "difference": _bounds(cell.difference_to_full),
        "tokens": cell.num_vision_tokens,
        "kept": cell.tokens_kept,
        "merges": cell.cell in run.merging,
        "inside": cell.tokens_kept != cell.tokens_kept_layer_average,
        "lines": detail_lines(cell),
        "flag": (cell.flag_reason or "no reason recorded") if cell.flagged else None,
    }


def _by_kind(accuracy: Mapping[str, Interval]) -> dict[str, list[float] | None]:
    return {kind: _bounds(interval) for kind, interval in accuracy.items()}


def _bounds(estimate: Interval | PairedDifference | None) -> list[float] | None:
    """Return mean, low and high, rounded to what a screen shows, and n."""
    if estimate is None:
        return None
    return [round(estimate.mean, 5), round(estimate.low, 5), round(estimate.high, 5), estimate.n]


def detail_lines(cell: Cell) -> list[str]:
    """Return what a pointer on a cell shows besides its accuracy."""
    lines = []
    difference, bounds = formats.difference(cell.difference_to_full)
    if bounds:
        lines.append(f"against full: {difference} points ({bounds})")
    kept, average = formats.count(cell.tokens_kept), formats.count(cell.tokens_kept_layer_average)
    lines.append(f"{kept} of {formats.count(cell.num_vision_tokens)} vision tokens before the LLM, {average} a layer")
    if cell.scheduler is not None:
        lines.append(f"{formats.percent(cell.layer_share)} % of the LLM's layers")
    first, total = cell.part_ms.get("time_to_first_token"), cell.part_ms.get("total")
    gflops = f"{formats.gflops(cell.flops.get('total'))} GFLOPs, " if cell.flops else ""
    lines.append(f"{gflops}{formats.figures3(first)} ms to first token, {formats.figures3(total)} ms in all")
    for timing in cell.timings:
        spread = timing.part_ms.get("time_to_first_token")
        if spread is not None:
            lines.append(
                f"batch {timing.batch_size}: {formats.figures3(spread.median)} ms to first token "
                f"({formats.figures3(spread.low)} to {formats.figures3(spread.high)})"
            )
    if cell.draws > 1:
        lines.append(f"{cell.draws} random draws")
    if cell.on_front:
        lines.append(f"on the Pareto front: {', '.join(cell.on_front)}")
    return lines


def _comparisons(runs: Sequence[NamedResults]) -> list[list[Any]]:
    """Return [a, b, mean, low, high, n, adjusted p, outcome, least difference, margin] for every tested pair."""
    return [
        [
            column_name(run, pair.cell_a),
            column_name(run, pair.cell_b),
            *(_bounds(pair.difference) or []),
            float(f"{pair.p_adjusted:.3g}"),
            outcome_of(pair),
            least_points(pair),
            margin_points(pair),
        ]
        for run in runs
        for pair in run.results.comparisons
    ]
