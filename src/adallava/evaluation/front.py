"""What a cell costs on each axis, and which cells no other one beats."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from adallava.records import Axis, Cell

AXES: tuple[Axis, ...] = ("tokens", "flops", "ms")


def axis_costs(cells: Sequence[Cell], axis: Axis) -> dict[str, float]:
    """Return what each cell costs: vision tokens averaged over the LLM's layers, FLOPs of an answer, or ms to the
    first token.

    Milliseconds come from the timing pass, at the smallest batch size at which all the cells were timed: only there
    the cells took turns. Without one they are the medians over the answers, which also hold the machine's drift from
    cell to cell.

    Args:
        cells: answered ones.
        axis: one of `AXES`.
    """
    if axis == "tokens":
        return {cell.cell: cell.tokens_kept_layer_average for cell in cells}
    if axis == "flops":
        return {cell.cell: cell.flops["total"] for cell in cells}
    timed = [{timing.batch_size: timing for timing in cell.timings} for cell in cells]
    sizes = set.intersection(*map(set, timed)) if timed else set()
    if not sizes:
        return {cell.cell: cell.part_ms["time_to_first_token"] for cell in cells}
    return {
        cell.cell: by_size[min(sizes)].part_ms["time_to_first_token"].median / min(sizes)
        for cell, by_size in zip(cells, timed, strict=True)
    }


def pareto_front(costs: Sequence[float], values: Sequence[float]) -> NDArray[np.bool_]:
    """Return which points no other one dominates: at most as dear, at least as good, and not equal in both."""
    cost, value = np.asarray(costs, dtype=np.float64), np.asarray(values, dtype=np.float64)
    no_worse = (cost[None, :] <= cost[:, None]) & (value[None, :] >= value[:, None])
    better = (cost[None, :] < cost[:, None]) | (value[None, :] > value[:, None])
    return np.asarray(~(no_worse & better).any(axis=1), dtype=np.bool_)
