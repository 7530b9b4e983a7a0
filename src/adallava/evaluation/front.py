"""What a cell costs on each axis, and which cells no other one beats."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from adallava.records import Axis, Cell

AXES: tuple[Axis, ...] = ("tokens", "flops", "ms")


def cell_cost(cell: Cell, axis: Axis) -> float:
    """Return the mean vision tokens over the LLM's layers, the mean FLOPs of an answer, or the median ms to the first
    token."""
    if axis == "tokens":
        return cell.tokens_kept_layer_average
    return cell.flops["total"] if axis == "flops" else cell.part_ms["time_to_first_token"]


def pareto_front(costs: Sequence[float], values: Sequence[float]) -> NDArray[np.bool_]:
    """Return which points no other one dominates: at most as dear, at least as good, and not equal in both."""
    cost, value = np.asarray(costs, dtype=np.float64), np.asarray(values, dtype=np.float64)
    no_worse = (cost[None, :] <= cost[:, None]) & (value[None, :] >= value[:, None])
    better = (cost[None, :] < cost[:, None]) | (value[None, :] > value[:, None])
    return np.asarray(~(no_worse & better).any(axis=1), dtype=np.bool_)
