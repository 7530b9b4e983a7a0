"""What a cell costs on each axis, and which cells no other one beats."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from adallava.analysis.measured_ms import cell_ms, table_batch_size
from adallava.records import Axis, Cell

AXES: tuple[Axis, ...] = ("tokens", "flops", "ms")


def axis_costs(cells: Sequence[Cell], axis: Axis) -> dict[str, float]:
    """Return what each cell costs: vision tokens averaged over the LLM's layers, FLOPs of an answer, or ms to the
    first token.

    Which clock milliseconds are read from, `report.measured_ms` says: the timing pass if there was one, since only
    there the cells took turns. The medians over the answers also hold the machine's drift from cell to cell.

    Args:
        cells: answered ones.
        axis: one of `AXES`.

    Returns:
        The cost by cell, without those that have none.
    """
    if axis == "tokens":
        return {cell.cell: cell.tokens_kept_layer_average for cell in cells}
    if axis == "flops":
        return {cell.cell: total for cell in cells if (total := cell.flops.get("total")) is not None}
    size = table_batch_size(cells)
    ms = {cell.cell: cell_ms(cell, "time_to_first_token", size) for cell in cells}
    return {name: value for name, value in ms.items() if value is not None}


def pareto_front(costs: Sequence[float], values: Sequence[float]) -> NDArray[np.bool_]:
    """Return which points no other one dominates: at most as dear, at least as good, and not equal in both."""
    cost, value = np.asarray(costs, dtype=np.float64), np.asarray(values, dtype=np.float64)
    no_worse = (cost[None, :] <= cost[:, None]) & (value[None, :] >= value[:, None])
    better = (cost[None, :] < cost[:, None]) | (value[None, :] > value[:, None])
    return np.asarray(~(no_worse & better).any(axis=1), dtype=np.bool_)
