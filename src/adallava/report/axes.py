"""What accuracy is drawn against: the ways to count what a cell costs."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from adallava.analysis.measured_ms import timed_batch_sizes
from adallava.records import FULL_METHOD, Cell, Results
from adallava.report.clock_notes import clock_note


@dataclass(frozen=True)
class CostAxis:
    """One choice of x: `value` reads it off a cell, None where the cell has none."""

    key: str
    label: str
    """On the button."""
    title: str
    """Under the axis."""
    unit: str
    """After a number."""
    value: Callable[[Cell], float | None]
    shared: bool = False
    """True if methods have exactly the same x by construction."""
    note: str = ""
    """Why places on the axis are not to be compared."""


def _gflops_total(cell: Cell) -> float | None:
    flops = cell.flops.get("total")
    return None if flops is None else flops / 1e9


_FIXED = (
    CostAxis(
        "layer-tokens",
        "Tokens, layer average",
        "vision tokens, averaged over the LLM's layers",
        "tokens",
        lambda cell: cell.tokens_kept_layer_average,
        shared=True,
    ),
    CostAxis(
        "tokens",
        "Tokens before the LLM",
        "vision tokens that enter the LLM",
        "tokens",
        lambda cell: cell.tokens_kept,
        shared=True,
    ),
    CostAxis("gflops", "GFLOPs", "GFLOPs per answer, all parts", "GFLOPs", _gflops_total),
    CostAxis(
        "first-token",
        "ms to first token",
        "ms to the first token, per sample, during the sweep",
        "ms",
        lambda cell: cell.part_ms.get("time_to_first_token"),
    ),
    CostAxis(
        "total-ms", "ms total", "ms per answer, all parts, during the sweep", "ms", lambda c: c.part_ms.get("total")
    ),
)


def cost_axes(results: Results) -> tuple[CostAxis, ...]:
    """Return the axes to choose from: the fixed ones, and one a batch size that the run was timed at."""
    return axes_of(results.cells)


def axes_of(cells: Sequence[Cell]) -> tuple[CostAxis, ...]:
    """Return the axes to choose from for the cells of one run, or of several."""
    answers = clock_note(cells, None)
    fixed = [replace(axis, note=answers) if axis.unit == "ms" else axis for axis in _FIXED]
    counted = [axis for axis in fixed if axis.key != "gflops" or any(cell.flops for cell in cells)]
    timed = [(size, clock_note(cells, size)) for size in timed_batch_sizes(cells)]
    return (*counted, *(replace(_timed_axis(size), note=note) for size, note in timed))


def has_flops(results: Results) -> bool:
    """Return whether FLOPs were counted: of some models they cannot be."""
    return any(cell.flops for cell in results.cells)


def place_on(axis: CostAxis, cell: Cell) -> float | None:
    """Return a cell's x on a logarithmic axis, or None where it has no place: not measured, or not above zero."""
    x = axis.value(cell)
    return x if x is not None and math.isfinite(x) and x > 0 else None


def not_drawn(results: Results, axis: CostAxis) -> dict[str, str]:
    """Return, by cell, why a plot over this axis does not show it."""
    reasons = {}
    for cell in results.cells:
        if cell.accuracy is None:
            reasons[cell.cell] = "every sample failed"
        elif not is_blind(cell) and place_on(axis, cell) is None:
            reasons[cell.cell] = "not measured"
    return reasons


def is_blind(cell: Cell) -> bool:
    """Return whether a cell answers without any vision token: a floor to compare the others with."""
    return cell.tokens_kept == 0 and cell.accuracy is not None and cell.method != FULL_METHOD


def _timed_axis(batch_size: int) -> CostAxis:
    def value(cell: Cell) -> float | None:
        """Return the median ms to the first token at this batch size; None if it was not timed."""
        timed = next((timing for timing in cell.timings if timing.batch_size == batch_size), None)
        spread = timed.part_ms.get("time_to_first_token") if timed else None
        return spread.median if spread else None

    return CostAxis(
        f"timed-{batch_size}",
        f"batch {batch_size}",
        f"ms to the first token, a whole batch of {batch_size}, warm, median",
        "ms",
        value,
    )
