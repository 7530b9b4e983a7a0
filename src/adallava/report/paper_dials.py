"""Both dials as PDF and PNG: the heat maps of the page, and its fronts, drawn by matplotlib."""

from pathlib import Path
from typing import Any

from adallava.records import Results
from adallava.report import formats
from adallava.report.alarm_lines import without_leaders
from adallava.report.axes import cost_axes, place_on
from adallava.report.dial_grid import HeatMap, heat_maps, shade_ends
from adallava.report.page_dials import fronts_json
from adallava.report.paper_figures import cost_ticks, save_figure, styled_figure

_MAPS_A_ROW, _MAP_INCHES, _WIDTH_INCHES = 3, 1.9, 6.3
_FRONTS = {"both": ("#E69F00", "both dials", 4.0), "tokens": ("#0072B2", "tokens alone", 1.4)}
_FRONTS |= {"layers": ("#009E73", "layers alone", 1.4)}


def write_dial_figures(results: Results, folder: Path) -> list[Path]:
    """Write `grid` with all heat maps, and `front-AXIS` for every cost that fronts are compared over.

    A run in which every layer ran has neither. The same results give the same bytes.
    """
    results = without_leaders(results)
    maps = heat_maps(results)
    if results.dials is None or not maps:
        return []
    paths = _write_maps(maps, folder / "grid")
    for key in dict.fromkeys(str(front["axis"]) for front in fronts_json(results)):
        paths += _write_fronts(results, key, folder / f"front-{key}")
    return paths


def _write_maps(maps: list[HeatMap], stem: Path) -> list[Path]:
    columns = min(_MAPS_A_ROW, len(maps))
    rows = -(-len(maps) // columns)
    with styled_figure(_WIDTH_INCHES, _MAP_INCHES * rows) as figure:
        places = figure.subplots(rows, columns, squeeze=False).ravel()
        for place in places[len(maps) :]:
            place.set_axis_off()
        for place, map_ in zip(places, maps, strict=False):
            _draw_map(place, map_, shade_ends(maps))
        return save_figure(figure, stem)


def _draw_map(plot: Any, map_: HeatMap, ends: tuple[float, float]) -> None:
    means = [[cell.accuracy.mean if cell and cell.accuracy else float("nan") for cell in row] for row in map_.cells]
    plot.imshow(means, cmap="Blues", vmin=ends[0], vmax=ends[1] + 0.8 * (ends[1] - ends[0] + 1e-9), aspect="auto")
    for row, cells in enumerate(map_.cells):
        for column, cell in enumerate(cells):
            accuracy = cell.accuracy if cell else None
            text = formats.DASH if accuracy is None else f"{formats.percent(accuracy.mean)}\n{_bounds(accuracy)}"
            bold = "bold" if cell and "flops" in cell.on_front else "normal"
            plot.text(column, row, text, ha="center", va="center", fontsize=5.5, fontweight=bold)
    plot.set_xticks(range(len(map_.budgets)), map_.budgets)
    plot.set_yticks(range(len(map_.latencies)), map_.latencies)
    plot.tick_params(length=0, labelsize=7)
    plot.set_title(f"{map_.method}, {map_.scheduler}".replace("$", r"\$"), fontsize=8)


def _bounds(accuracy: Any) -> str:
    return f"[{formats.percent(accuracy.low)}, {formats.percent(accuracy.high)}]"


def _write_fronts(results: Results, key: str, stem: Path) -> list[Path]:
    axis = next(axis for axis in cost_axes(results) if axis.key == key)
    points = {
        cell.cell: (x, 100 * cell.accuracy.mean)
        for cell in results.cells
        if cell.accuracy and cell.tokens_kept > 0 and (x := place_on(axis, cell)) is not None
    }
    with styled_figure(_WIDTH_INCHES, 3.3) as figure:
        plot = figure.add_subplot()
        plot.scatter(*zip(*points.values(), strict=True), s=9, color="#8a8a8a", label="a cell", zorder=1)
        fronts = [front for front in fronts_json(results) if front["axis"] == key]
        for name, cells in [("both", fronts[0]["both"]), *((str(front["alone"]), front["one"]) for front in fronts)]:
            colour, label, width = _FRONTS[name]
            places = zip(*(points[cell] for cell in cells), strict=True)  # type: ignore[attr-defined]
            plot.step(*places, where="post", color=colour, linewidth=width, label=label, zorder=2)
        plot.set_xscale("log")
        plot.set_xlabel(f"{axis.title} (log scale)")
        plot.set_ylabel("accuracy, %")
        cost_ticks(plot, [x for x, _ in points.values()])
        plot.grid(color="#e4e2dc", linewidth=0.5)
        plot.set_axisbelow(True)
        figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=7.5)
        return save_figure(figure, stem)
