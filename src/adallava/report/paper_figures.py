"""Accuracy against cost as PDF and PNG, fit for a paper: the curves of the page, drawn by matplotlib."""

import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from adallava.errors import InputError
from adallava.records import FULL_METHOD, Cell, Interval, PositionsName, Results
from adallava.records.durable import make_folder, write_atomically
from adallava.report import formats
from adallava.report.alarm_lines import MAJORITY_NAME, majority_count, majority_of
from adallava.report.axes import CostAxis, cost_axes, is_blind, place_on
from adallava.report.dodge import stand_apart
from adallava.report.marks import Mark, method_marks

Split = Literal["all", "hard"]

FORMATS = ("pdf", "png")

_SPLITS: tuple[Split, ...] = ("all", "hard")
_POSITIONS: tuple[PositionsName, ...] = ("original", "compact")

_MARKERS = {
    "circle": "o", "square": "s", "triangle-up": "^", "diamond": "D", "triangle-down": "v", "cross": "P",
    "hexagon": "h", "x": "X", "star": "*", "triangle-left": "<", "triangle-right": ">", "pentagon": "p",
    "diamond-tall": "d", "star-diamond": (4, 1, 0), "hexagon2": "H",
    "hourglass": [(-1, 1), (1, 1), (-1, -1), (1, -1), (-1, 1)], "bowtie": [(-1, 1), (-1, -1), (1, 1), (1, -1), (-1, 1)],
}  # fmt: skip
_LINES = {"solid": "-", "dash": "--", "dashdot": "-.", "dot": ":"}
_WIDTH_INCHES, _PLOT_HEIGHT_INCHES, _LEGEND_ROW_INCHES = 6.3, 3.3, 0.17
_LEGEND_COLUMNS = 4
_DPI = 300
_STYLE = {
    "font.family": "serif",
    "font.size": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "pdf.fonttype": 42,
}


def write_figures(results: Results, folder: Path) -> list[Path]:
    """Write `accuracy-AXIS.pdf` and `.png` for every axis that the run has.

    Where there are such cells, `accuracy-hard-AXIS` is the same over the hard split, and `-compact` after either is
    for compact positions. The same results give the same bytes.

    Raises:
        InputError: if matplotlib is not installed.
    """
    load_matplotlib()
    make_folder(folder)
    paths = []
    for axis in cost_axes(results):
        for split, positions in itertools.product(_SPLITS, _POSITIONS):
            cells = [cell for cell in results.cells if _is_fixed(cell) or cell.positions == positions]
            if any(accuracy_of(cell, split) and not _is_fixed(cell) for cell in cells) or positions == "original":
                name = f"accuracy{'-hard' * (split == 'hard')}-{axis.key}{'-compact' * (positions == 'compact')}"
                paths += _write(results, cells, axis, split, folder / name)
    return paths


def _is_fixed(cell: Cell) -> bool:
    """Return whether a cell is drawn whatever the positions: the ends that the curves lie between."""
    return cell.method == FULL_METHOD or is_blind(cell)


def load_matplotlib() -> Any:
    """Return the module.

    Raises:
        InputError: if it is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise InputError("figures need matplotlib, which is not installed: pip install 'adallava[figures]'") from error
    return matplotlib


def _write(results: Results, cells: Sequence[Cell], axis: CostAxis, split: Split, stem: Path) -> list[Path]:
    curves = _curves(cells, axis, split)
    if not curves:
        return []
    rows = -(-(len(curves) + 2) // _LEGEND_COLUMNS)
    with styled_figure(_WIDTH_INCHES, _PLOT_HEIGHT_INCHES + rows * _LEGEND_ROW_INCHES) as figure:
        plot = figure.add_subplot()
        # Marks go by the whole run, so that a method looks the same in every figure.
        _draw(plot, cells, method_marks(cell.method for cell in results.cells), axis, split, curves)
        _draw_majority(plot, majority_of(results, split), _majority_label(results, split))
        figure.legend(loc="outside lower center", ncols=_LEGEND_COLUMNS, frameon=False, fontsize=7.5, handlelength=3.2)
        return save_figure(figure, stem)


@contextmanager
def styled_figure(width_inches: float, height_inches: float) -> Iterator[Any]:
    """Give an empty figure; what is drawn within has the style of all figures."""
    matplotlib = load_matplotlib()
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        yield Figure(figsize=(width_inches, height_inches), layout="constrained")


def save_figure(figure: Any, stem: Path) -> list[Path]:
    """Write a figure in every format, and return the paths."""
    paths = []
    for kind in FORMATS:
        path = stem.with_name(f"{stem.name}.{kind}")
        # Without the date, so that the file follows from the results alone.
        metadata = {"CreationDate": None} if kind == "pdf" else {"Software": None}
        drawn = io.BytesIO()
        figure.savefig(drawn, format=kind, dpi=_DPI, metadata=metadata)
        write_atomically(path, [drawn.getvalue()])
        paths.append(path)
    return paths


def accuracy_of(cell: Cell, split: Split) -> Interval | None:
    """Return a cell's accuracy over all samples or over the hard split."""
    return cell.accuracy if split == "all" else cell.accuracy_hard


def _curves(shown: Sequence[Cell], axis: CostAxis, split: Split) -> dict[tuple[str, str], list[Cell]]:
    """Return the cells to draw by method and positions, each curve in ascending cost."""
    curves: dict[tuple[str, str], list[Cell]] = {}
    for cell in shown:
        if accuracy_of(cell, split) is not None and not is_blind(cell) and place_on(axis, cell) is not None:
            curves.setdefault((cell.method, cell.positions), []).append(cell)
    return {key: sorted(cells, key=lambda cell: place_on(axis, cell) or 0.0) for key, cells in curves.items()}


def _draw(
    plot: Any,
    shown: Sequence[Cell],
    marks: Mapping[str, Mark],
    axis: CostAxis,
    split: Split,
    curves: dict[tuple[str, str], list[Cell]],
) -> None:
    for cell in shown:
        accuracy = accuracy_of(cell, split)
        if accuracy is not None and _is_fixed(cell):
            plot.axhline(
                100 * accuracy.mean,
                color=marks[cell.method].colour,
                linewidth=0.9,
                linestyle=":" if is_blind(cell) else "--",
                label=f"{_plain(cell.method)} (no vision token)" if is_blind(cell) else None,
                zorder=1,
            )
    places = stand_apart(
        {key: [place_on(axis, cell) or 1.0 for cell in cells] for key, cells in curves.items() if key[0] != FULL_METHOD}
    )
    for (method, positions), cells in curves.items():
        drawn_at = places.get((method, positions), [place_on(axis, cell) or 1.0 for cell in cells])
        _curve(plot, marks[method], method, positions, cells, drawn_at, split)
    plot.set_xscale("log")
    cost_ticks(plot, [x for cells in curves.values() for cell in cells if (x := place_on(axis, cell)) is not None])
    counts = sorted({accuracy.n for cell in shown if (accuracy := accuracy_of(cell, split))})
    n = formats.count(counts[0]) if len(counts) == 1 else f"{formats.count(counts[0])} to {formats.count(counts[-1])}"
    plot.set_xlabel(f"{axis.title} (log scale)")
    plot.set_ylabel(f"accuracy{', hard split' if split == 'hard' else ''}, % (n = {n})")
    plot.grid(color="#e4e2dc", linewidth=0.5)
    plot.set_axisbelow(True)


def _majority_label(results: Results, split: Split) -> str:
    counted = "" if results.majority is None or split == "hard" else majority_count(results.majority)
    return f"{MAJORITY_NAME} ({counted})" if counted else MAJORITY_NAME


def _draw_majority(plot: Any, accuracy: Interval | None, label: str) -> None:
    if accuracy is not None:
        plot.axhline(100 * accuracy.mean, color="#8a8a8a", linewidth=0.9, linestyle=(0, (1, 3)), label=label, zorder=1)


def _curve(
    plot: Any, mark: Mark, method: str, positions: str, cells: Sequence[Cell], places: Sequence[float], split: Split
) -> None:
    intervals = [interval for cell in cells if (interval := accuracy_of(cell, split))]
    means = [100 * interval.mean for interval in intervals]
    is_full, compact = method == FULL_METHOD, positions == "compact"
    plot.errorbar(
        places,
        means,
        yerr=[
            [max(0.0, mean - 100 * interval.low) for mean, interval in zip(means, intervals, strict=True)],
            [max(0.0, 100 * interval.high - mean) for mean, interval in zip(means, intervals, strict=True)],
        ],
        color=mark.colour,
        marker=_MARKERS[mark.symbol],
        markerfacecolor="white" if compact else mark.colour,
        markersize=9 if is_full else 4.5,
        linestyle="" if is_full else _LINES[mark.dash],
        linewidth=1.1,
        elinewidth=0.6,
        capsize=1.5,
        label="full-token model" if is_full else _plain(method) + ("+compact" if compact else ""),
        zorder=3,
    )


def cost_ticks(plot: Any, costs: Sequence[float]) -> None:
    """Label the costs themselves where they are few and apart; else leave it to matplotlib, in plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    values = sorted({float(f"{cost:.3g}") for cost in costs})
    apart = all(high / low >= 1.25 for low, high in itertools.pairwise(values))
    if apart and len(values) <= 8:
        plot.set_xticks(values)
    else:
        plot.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    plot.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.4g}"))
    plot.xaxis.set_minor_formatter(NullFormatter())


def _plain(name: str) -> str:
    """Return a name that matplotlib does not read as mathematics."""
    return name.replace("$", r"\$").lstrip("_")
