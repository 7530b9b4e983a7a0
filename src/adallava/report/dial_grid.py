"""Accuracy over both dials: one heat map for each method and scheduler, layers down, vision tokens across."""

from collections.abc import Sequence
from dataclasses import dataclass

from adallava.records import FULL_LATENCY, FULL_METHOD, NONE_METHOD, Cell, Results

STOCK = "stock"
"""Heads the row without scheduler where the scheduler runs at latency 1.0 too: its token makes it another model."""

ALL_TOKENS = "all"
"""Heads the column of the full-token model: every method is that model at its full budget, to the bit."""


@dataclass(frozen=True)
class HeatMap:
    """One method with one scheduler.

    Attributes:
        method: with `+compact` after it where positions are counted again.
        scheduler: that leaves layers out.
        budgets: heads of the columns, from all tokens to the fewest.
        latencies: heads of the rows, from all layers to the fewest; `STOCK` before a row 1.0 of the scheduler's own.
        cells: one tuple a row, None where the run has no such cell.
    """

    method: str
    scheduler: str
    budgets: tuple[str, ...]
    latencies: tuple[str, ...]
    cells: tuple[tuple[Cell | None, ...], ...]


def heat_maps(results: Results) -> list[HeatMap]:
    """Return the maps of a run in the order of its cells; none if all layers ran in every cell."""
    schedulers = dict.fromkeys(cell.scheduler for cell in results.cells if cell.scheduler is not None)
    curves = dict.fromkeys(
        (cell.selection, cell.positions)
        for cell in results.cells
        if cell.selection not in (FULL_METHOD, NONE_METHOD) and cell.scheduler is not None
    )
    # Without any method there is still the full-token model, over layers alone.
    return [
        _heat_map(results.cells, method, positions, scheduler)
        for method, positions in curves or {(FULL_METHOD, "original"): None}
        for scheduler in schedulers
    ]


def shade_ends(maps: Sequence[HeatMap]) -> tuple[float, float]:
    """Return the lowest and the highest accuracy of all maps: they are shaded alike."""
    means = [cell.accuracy.mean for map_ in maps for row in map_.cells for cell in row if cell and cell.accuracy]
    return (min(means), max(means)) if means else (0.0, 1.0)


def _heat_map(cells: Sequence[Cell], method: str, positions: str, scheduler: str) -> HeatMap:
    here = [cell for cell in cells if cell.scheduler in (None, scheduler)]
    own = [cell for cell in here if (cell.selection, cell.positions) == (method, positions)]
    reduced = sorted((cell for cell in own if not cell.keeps_all_tokens), key=lambda cell: -cell.tokens_kept)
    full = [cell for cell in here if cell.selection == FULL_METHOD]
    has_own_whole = any(cell.scheduler is not None and cell.latency_asked == FULL_LATENCY for cell in here)

    def row_head(cell: Cell) -> str:
        """Return the latency, or what the row of the stock model is called beside one of its own."""
        return STOCK if has_own_whole and cell.scheduler is None else cell.latency_asked

    budgets = (ALL_TOKENS, *dict.fromkeys(cell.budget_asked for cell in reduced))
    latencies = tuple(
        dict.fromkeys(row_head(cell) for cell in sorted([*full, *own], key=lambda cell: -cell.layer_share))
    )
    found = {(row_head(cell), cell.budget_asked): cell for cell in reduced}
    found |= {(row_head(cell), ALL_TOKENS): cell for cell in full}
    rows = tuple(tuple(found.get((latency, budget)) for budget in budgets) for latency in latencies)
    return HeatMap(method + ("+compact" if positions == "compact" else ""), scheduler, budgets, latencies, rows)
