"""Accuracy against what it cost, as plotly figures. Pure functions of `Results`."""

import html
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from adallava.records import FULL_METHOD, Cell, Interval, Results
from adallava.report import formats
from adallava.report.marks import Mark, method_marks
from adallava.report.tables import is_blind

FONT = "'Source Serif 4', 'Iowan Old Style', 'Palatino Linotype', Palatino, Georgia, serif"
_INK, _RULE, _FAINT = "#1a1a1a", "#8a8a8a", "#e4e2dc"
_DODGE = 0.006
"""Share of the axis by which neighbouring methods move apart where they have the same x, so that their error
bars do not hide one another."""


@dataclass(frozen=True)
class CostAxis:
    """One choice of x: `value` reads it off a cell, None where the cell has none."""

    key: str
    label: str
    """On the button."""
    title: str
    """Under the axis."""
    value: Callable[[Cell], float | None]
    shared: bool = False
    """True if methods have exactly the same x by construction."""


def _gflops_total(cell: Cell) -> float | None:
    flops = cell.flops.get("total")
    return None if flops is None else flops / 1e9


AXES = (
    CostAxis("gflops", "GFLOPs", "GFLOPs per answer, all parts", _gflops_total),
    CostAxis("tokens", "Tokens kept", "vision tokens kept before the LLM", lambda c: c.tokens_kept, True),
    CostAxis(
        "first-token",
        "ms to first token",
        "ms to the first token",
        lambda c: c.part_ms.get("time_to_first_token"),
    ),
    CostAxis("total-ms", "ms total", "ms per answer, all parts", lambda c: c.part_ms.get("total")),
)


@dataclass(frozen=True)
class Point:
    """One cell on the plot: x > 0 in the axis' unit, accuracy with its interval in per cent."""

    cell: Cell
    x: float
    mean: float
    low: float
    high: float


def points_of(results: Results, axis: CostAxis) -> dict[str, list[Point]]:
    """Return each method's points in ascending x; cells without a place on the axis are left out."""
    found: dict[str, list[Point]] = {cell.method: [] for cell in results.cells}
    for cell in results.cells:
        x = axis.value(cell)
        if cell.accuracy is None or is_blind(cell) or x is None or not math.isfinite(x) or x <= 0:
            continue
        found[cell.method].append(Point(cell, x, *_in_percent(cell.accuracy)))
    return {method: sorted(points, key=lambda point: point.x) for method, points in found.items()}


def not_drawn(results: Results, axis: CostAxis) -> dict[str, str]:
    """Return, by cell, why `accuracy_figure` does not draw it."""
    reasons = {}
    for cell in results.cells:
        x = axis.value(cell)
        if cell.accuracy is None:
            reasons[cell.cell] = "every sample failed"
        elif not is_blind(cell) and (x is None or not math.isfinite(x) or x <= 0):
            reasons[cell.cell] = "not measured"
    return reasons


def accuracy_figure(results: Results, axis: CostAxis) -> go.Figure:
    """Return accuracy against the axis, one curve a method, with 95 % intervals; x is logarithmic.

    The full-token model is a star and a dashed line across; a method that keeps no token is a dotted
    line across. It skips the vision tower too, so its cost lies far from all others' and would squeeze
    them together; on an axis of tokens, which is logarithmic, it has no place at all. Cells flagged as
    not to be trusted have open markers.
    """
    marks = method_marks(cell.method for cell in results.cells)
    placed = points_of(results, axis)
    low, high = _x_range(placed)
    figure = go.Figure(layout=_layout(axis, placed, (low, high), results))
    for cell in results.cells:
        if cell.accuracy is not None and cell.method == FULL_METHOD:
            figure.add_trace(_line(cell, marks[cell.method], (low, high)))
    curves = [method for method in placed if method != FULL_METHOD and placed[method]]
    for rank, method in enumerate(curves):
        shift = (rank - (len(curves) - 1) / 2) * _DODGE if axis.shared else 0.0
        figure.add_trace(_curve(method, placed[method], marks[method], (high / low) ** shift))
    for cell in results.cells:
        if is_blind(cell):
            figure.add_trace(_line(cell, marks[cell.method], (low, high)))
    if placed.get(FULL_METHOD):
        figure.add_trace(_curve(FULL_METHOD, placed[FULL_METHOD], marks[FULL_METHOD], 1.0))
    return figure


def _in_percent(accuracy: Interval) -> tuple[float, float, float]:
    return 100 * accuracy.mean, 100 * accuracy.low, 100 * accuracy.high


def _curve(method: str, points: Sequence[Point], mark: Mark, factor: float) -> go.Scatter:
    is_full = method == FULL_METHOD
    return go.Scatter(
        name="full-token model" if is_full else html.escape(method),
        x=[point.x * factor for point in points],
        y=[point.mean for point in points],
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [max(0.0, point.high - point.mean) for point in points],
            "arrayminus": [max(0.0, point.mean - point.low) for point in points],
            "thickness": 1.2,
            "width": 3,
        },
        mode="lines+markers",
        line={"color": mark.colour, "width": 2},
        marker={
            "symbol": [f"{mark.symbol}-open" if point.cell.flagged else mark.symbol for point in points],
            "size": 14 if is_full else 9,
            "color": mark.colour,
            "line": {"color": mark.colour, "width": 2},
        },
        customdata=[hover_text(point.cell) for point in points],
        hovertemplate="%{customdata}<extra></extra>",
    )


def _line(cell: Cell, mark: Mark, x_range: tuple[float, float]) -> go.Scatter:
    """Return a line across the whole axis at one cell's accuracy."""
    assert cell.accuracy is not None
    is_full = cell.method == FULL_METHOD
    return go.Scatter(
        name=f"{html.escape(cell.method)} (no vision token)",
        x=list(x_range),
        y=[100 * cell.accuracy.mean] * 2,
        mode="lines",
        line={"color": mark.colour, "width": 1.6, "dash": "dash" if is_full else "dot"},
        showlegend=not is_full,
        hoverinfo="skip" if is_full else "text",
        hovertext=None if is_full else hover_text(cell),
    )


def hover_text(cell: Cell) -> str:
    """Return what a pointer on a cell shows: plotly's small HTML, with everything foreign escaped."""
    lines = [f"<b>{html.escape(cell.method)}</b> at {html.escape(cell.budget_asked)}"]
    if cell.accuracy is not None:
        lines.append(
            f"accuracy {formats.percent(cell.accuracy.mean)} % "
            f"({formats.interval(cell.accuracy)}), n = {cell.accuracy.n}"
        )
    difference, bounds = formats.difference(cell.difference_to_full)
    if bounds:
        lines.append(f"against full: {difference} points ({bounds})")
    lines.append(f"{formats.count(cell.tokens_kept)} of {formats.count(cell.num_vision_tokens)} vision tokens")
    lines.append(f"{formats.gflops(cell.flops.get('total'))} GFLOPs")
    lines.append(
        f"{formats.figures3(cell.part_ms.get('time_to_first_token'))} ms to first token, "
        f"{formats.figures3(cell.part_ms.get('total'))} ms in all"
    )
    if cell.flagged:
        lines.append(f"<b>flagged</b>: {html.escape(cell.flag_reason or 'no reason recorded')}")
    return "<br>".join(lines)


def _x_range(placed: dict[str, list[Point]]) -> tuple[float, float]:
    """Return the axis' ends, a little beyond the outermost points."""
    xs = [point.x for points in placed.values() for point in points]
    if not xs:
        return 1.0, 10.0
    low, high = min(xs), max(xs)
    margin = max((high / low) ** 0.07, 1.04)
    return low / margin, high * margin


def _y_range(results: Results) -> tuple[float, float]:
    bounds = [b for cell in results.cells if cell.accuracy for b in _in_percent(cell.accuracy)[1:]]
    if not bounds:
        return 0.0, 100.0
    # In tens, so that runs of one model are read on the same scale more often than not.
    low = max(0, math.floor((min(bounds) - 1) / 10) * 10)
    high = min(100, math.ceil((max(bounds) + 1) / 10) * 10)
    return float(low), high + 0.03 * (high - low)


def log_ticks(low: float, high: float) -> list[float]:
    """Return round ticks between two positive numbers: 1, 2, 5 in each decade, or finer if these are few."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks: list[float] = []
    for mantissas in ((1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8), tuple(m / 10 for m in range(10, 100, 2))):
        ticks = [m * 10.0**decade for decade in decades for m in mantissas]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) >= 5:
            break
    return ticks


def token_ticks(counts: Sequence[float]) -> list[float] | None:
    """Return the kept counts themselves as ticks, if they are few and far enough apart to be labelled."""
    values = sorted({round(value) for value in counts if value >= 1})
    apart = all(high / low >= 1.25 for low, high in itertools.pairwise(values))
    return [float(value) for value in values] if values and len(values) <= 12 and apart else None


def _layout(
    axis: CostAxis, placed: dict[str, list[Point]], x_range: tuple[float, float], results: Results
) -> go.Layout:
    ticks = log_ticks(*x_range)
    if axis.key == "tokens":
        ticks = token_ticks([point.x for points in placed.values() for point in points]) or ticks
    y_low, y_high = _y_range(results)
    line = {"showline": True, "linecolor": _RULE, "ticks": "outside", "tickcolor": _RULE, "gridcolor": _FAINT}
    return go.Layout(
        template="none",
        font={"family": FONT, "size": 15, "color": _INK},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        height=480,
        margin={"l": 66, "r": 16, "t": 12, "b": 64},
        hoverlabel={
            "bgcolor": "#ffffff",
            "font": {"family": FONT, "size": 14, "color": _INK},
            "align": "left",
        },
        hovermode="closest",
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0, "itemsizing": "constant"},
        xaxis={
            "type": "log",
            "title": {"text": f"{axis.title} (log scale)", "standoff": 12, "font": {"size": 15}},
            "range": [math.log10(x_range[0]), math.log10(x_range[1])],
            "tickvals": ticks,
            "ticktext": [
                formats.figures3(tick).rstrip("0").rstrip(".") if tick < 1 else f"{tick:,.6g}" for tick in ticks
            ],
            **line,
        },
        yaxis={
            "title": {"text": "accuracy, %", "standoff": 10, "font": {"size": 15}},
            "range": [y_low, y_high],
            "zeroline": False,
            **line,
        },
    )
