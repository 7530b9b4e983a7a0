"""The area under each method's accuracy-cost curve: one number a method, at equal cost for all of them.

Given the costs of its cells, a method's area is a weighted mean of its cells' accuracies. So it is the mean over
samples of the same weighted mean of a sample's scores, and has intervals and paired tests like any other mean.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from adallava.records import Area, Axis, Cell, PositionsName

from .front import AXES, cell_cost
from .scores import ScoreTable
from .statistics import mean_interval

_Key = TypeVar("_Key")


@dataclass(frozen=True)
class Curve:
    """One method's curve on one axis, over the costs that it shares with others.

    Attributes:
        method: id of the method.
        positions: of its cells.
        axis: what cost is.
        low: smallest cost.
        high: largest cost.
        areas: of each sample alone, [samples]; their mean is the method's area.
    """

    method: str
    positions: PositionsName
    axis: Axis
    low: float
    high: float
    areas: NDArray[np.float64]


def find_curves(cells: Sequence[Cell], scores: ScoreTable) -> list[Curve]:
    """Return the curve of each method with cells at two costs or more, per axis, over the samples all cells answered.

    Args:
        cells: of the run.
        scores: of the same cells.
    """
    shared = scores.shared()
    if not shared.any():
        return []
    by_method: dict[tuple[str, PositionsName], list[Cell]] = defaultdict(list)
    for cell in cells:
        if cell.accuracy is not None:
            by_method[cell.method, cell.positions].append(cell)
    curves = []
    for axis in AXES:
        costs = {
            key: np.array([cell_cost(cell, axis) for cell in members])
            for key, members in by_method.items()
            if _spans(members, axis)
        }
        low, high, inside = common_range({key: (float(c.min()), float(c.max())) for key, c in costs.items()})
        for method, positions in inside:
            key = (method, positions)
            rows = np.stack([scores.row(cell.cell)[shared] for cell in by_method[key]])
            # Rounded, so that equal answers under weights that sum to 1 but for rounding give equal areas.
            areas = np.round(curve_weights(costs[key], low, high) @ rows, 12)
            curves.append(Curve(method, positions, axis, low, high, areas))
    return curves


def sum_up_areas(curves: Sequence[Curve], resampled: NDArray[np.float64], seed: int) -> list[Area]:
    """Return each curve's area with its interval.

    Args:
        curves: over the same samples.
        resampled: [RESAMPLES, curves], their areas under one bootstrap over samples.
        seed: of the bootstrap.
    """
    return [
        Area(
            method=curve.method,
            positions=curve.positions,
            axis=curve.axis,
            area=mean_interval(curve.areas, seed, resampled=resampled[:, number]),
            from_cost=curve.low,
            to_cost=curve.high,
        )
        for number, curve in enumerate(curves)
    ]


def common_range(ranges: Mapping[_Key, tuple[float, float]]) -> tuple[float, float, list[_Key]]:
    """Return the costs that as many methods as possible have in common, and which methods those are.

    Usually they are all of them. A method that is nowhere as cheap, or as dear, as the others would leave no cost in
    common at all; it is left out then, rather than everybody. Of ranges with equally many methods the widest in
    ratio wins.

    Args:
        ranges: smallest and largest cost by method, both above 0.
    """
    best: tuple[int, float, float, float, list[_Key]] = (0, 0.0, 0.0, 0.0, [])
    for low in sorted({low for low, _ in ranges.values()}):
        inside = [key for key, (first, last) in ranges.items() if first <= low < last]
        if inside:
            high = min(ranges[key][1] for key in inside)
            best = max(best, (len(inside), high / low, low, high, inside), key=lambda found: found[:2])
    _, _, low, high, inside = best
    return low, high, inside


def curve_weights(costs: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    """Return the weight of each cell in the mean accuracy over costs from `low` to `high`; they sum to 1.

    Between cells the curve is a straight line over the logarithm of the cost, and every doubling of the cost counts
    the same. Cells of equal cost share their place.

    Args:
        costs: of one method's cells, above 0, in any order.
        low: not below the smallest of them.
        high: above `low`, not above the largest of them.
    """
    places, which, counts = np.unique(np.log(costs), return_inverse=True, return_counts=True)
    first, last = np.log(low), np.log(high)
    corners = np.unique(np.concatenate([[first], places[(places > first) & (places < last)], [last]]))
    shares = np.stack([np.interp(corners, places, one) for one in np.eye(len(places))])
    weights: NDArray[np.float64] = np.trapezoid(shares, corners, axis=1) / (last - first)
    return (weights / counts)[which]


def _spans(cells: Sequence[Cell], axis: Axis) -> bool:
    costs = {cell_cost(cell, axis) for cell in cells}
    return len(costs) > 1 and min(costs) > 0.0
