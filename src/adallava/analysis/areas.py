"""The area under each method's accuracy-cost curve: one number a method, at equal cost for all of them.

A curve goes through a method's cells and ends in the full-token model, which every method is at its full budget. Given
the costs of its cells, the area is a weighted mean of their accuracies. So it is the mean over samples of the same
weighted mean of a sample's scores, and has intervals and paired tests like any other mean.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adallava.analysis.clusters import Clusters
from adallava.analysis.front import AXES, axis_costs
from adallava.analysis.scores import ScoreTable
from adallava.analysis.statistics import resampled_interval, resampled_means
from adallava.records import Area, Axis, Cell, PositionsName
from adallava.records.cells import FULL_CELL

SAME_PLACE = 2**0.5
"""Cells whose costs differ by no more are at the same place of a grid: half of a step between budgets that halve."""


@dataclass(frozen=True)
class SharedScores:
    """Scores of the samples that every cell answered, and the cells' accuracies under one bootstrap over them.

    Attributes:
        cells: ids.
        values: [cells, samples]; 0 for a cell that answered nothing, which no curve goes through.
        resampled: [RESAMPLES, cells].
        clusters: which of the samples share an image.
    """

    cells: tuple[str, ...]
    values: NDArray[np.float64]
    resampled: NDArray[np.float64]
    clusters: Clusters


@dataclass(frozen=True)
class Curve:
    """One method's curve on one axis.

    Attributes:
        method: id of the method.
        positions: of its cells.
        axis: what cost is.
        cells: ids of its points, the full-token model among them.
        costs: of its points, in the same order.
    """

    method: str
    positions: PositionsName
    axis: Axis
    cells: tuple[str, ...]
    costs: tuple[float, ...]


@dataclass(frozen=True)
class CurveArea:
    """A curve's area between two costs.

    Attributes:
        of_samples: of each sample alone, [samples]; their mean is the area.
        resampled: [RESAMPLES].
    """

    of_samples: NDArray[np.float64]
    resampled: NDArray[np.float64]


def share_scores(scores: ScoreTable, seed: int) -> SharedScores:
    """Return the scores of the samples that every cell answered; of no sample if there is none."""
    shared = scores.shared()
    values, clusters = np.nan_to_num(scores.values[:, shared]), scores.clusters_among(shared)
    resampled = resampled_means(values, seed, clusters) if values.shape[1] else np.zeros((0, len(values)))
    return SharedScores(scores.cells, values, resampled, clusters)


def find_curves(cells: Sequence[Cell]) -> list[Curve]:
    """Return the curve of each method with cells at two costs or more, on each axis.

    A method whose every cell costs at least what the full-token model does saves nothing, and has no curve there.
    """
    # The curve of a scheduler does not end in the full-token model with all its layers.
    answered = [cell for cell in cells if cell.accuracy is not None and cell.scheduler is None]
    by_method: dict[tuple[str, PositionsName], list[str]] = defaultdict(list)
    for cell in answered:
        by_method[cell.method, cell.positions].append(cell.cell)
    curves = []
    for axis in AXES:
        cost_of = axis_costs(answered, axis)
        for (method, positions), answered_ones in by_method.items():
            names = [name for name in answered_ones if name in cost_of]
            own = {cost_of[name] for name in names}
            if len(own) > 1 and 0.0 < min(own) < cost_of.get(FULL_CELL, 0.0):
                points = (*names, FULL_CELL)
                curves.append(Curve(method, positions, axis, points, tuple(cost_of[name] for name in points)))
    return curves


def sum_up_areas(curves: Sequence[Curve], scores: SharedScores) -> list[Area]:
    """Return each curve's area over the costs that all curves of its axis have in common, through one grid.

    Args:
        curves: of a run.
        scores: of its cells.
    """
    areas = []
    for axis in AXES:
        here = [curve for curve in curves if curve.axis == axis]
        if not here:
            continue
        low, high = common_costs(here)
        grid = common_grid(here, low, high)
        for curve in here:
            area = area_between(curve, low, high, grid, scores)
            areas.append(
                Area(
                    method=curve.method,
                    positions=curve.positions,
                    axis=axis,
                    area=resampled_interval(area.of_samples, area.resampled, scores.clusters),
                    from_cost=low,
                    to_cost=high,
                )
            )
    return areas


def common_costs(curves: Sequence[Curve]) -> tuple[float, float]:
    """Return the lowest and the highest cost that all curves reach. They all reach the full-token model's."""
    return max(min(curve.costs) for curve in curves), min(max(curve.costs) for curve in curves)


def common_grid(curves: Sequence[Curve], low: float, high: float) -> tuple[float, ...]:
    """Return the costs between two others that all curves are drawn through: of the curve with fewest cells there.

    A curve that bends is drawn too low by straight lines, the more so the farther its cells lie apart. So curves
    compare only if their lines begin and end at the same costs.
    """
    return min((_inner(curve, low, high) for curve in curves), key=len)


def same_grid(curves: Sequence[Curve], low: float, high: float) -> bool:
    """Return whether all curves have cells at the same costs there, but for `SAME_PLACE`."""
    grid = common_grid(curves, low, high)
    return all(
        len(_inner(curve, low, high)) == len(grid)
        and all(_near(_inner(curve, low, high), cost) is not None for cost in grid)
        and _near(curve.costs, low) is not None
        for curve in curves
    )


def area_between(curve: Curve, low: float, high: float, grid: Sequence[float], scores: SharedScores) -> CurveArea:
    """Return a curve's mean accuracy over the costs from `low` to `high`, drawn through the costs of a grid.

    Where the curve has a cell within `SAME_PLACE` of one of them, it is drawn through that cell.
    """
    own = _inner(curve, low, high)
    through = [cost if (near := _near(own, cost)) is None else near for cost in grid]
    weights = curve_weights(np.array(curve.costs), low, high, through)
    rows = [scores.cells.index(cell) for cell in curve.cells]
    # Rounded, so that equal answers under weights that sum to 1 but for rounding give equal areas.
    return CurveArea(np.round(weights @ scores.values[rows], 12), scores.resampled[:, rows] @ weights)


def curve_weights(
    costs: NDArray[np.float64], low: float, high: float, through: Sequence[float] | None = None
) -> NDArray[np.float64]:
    """Return the weight of each point in the mean accuracy over costs from `low` to `high`; they sum to 1.

    Between its corners a curve is a straight line over the *logarithm* of the cost, and every doubling of the cost
    counts the same. Points of equal cost share their place.

    Args:
        costs: of one curve's points, above 0, in any order.
        low: not below the smallest of them.
        high: above `low`, not above the largest of them.
        through: the corners between `low` and `high`; None for its points there.
    """
    places, which, counts = np.unique(np.log(costs), return_inverse=True, return_counts=True)
    first, last = np.log(low), np.log(high)
    inner = places[(places > first) & (places < last)] if through is None else np.log(np.array(through))
    corners = np.unique(np.concatenate([[first], inner, [last]]))
    shares = np.stack([np.interp(corners, places, one) for one in np.eye(len(places))])
    weights = np.trapezoid(shares, corners, axis=1) / (last - first)
    return np.asarray((weights / counts)[which], dtype=np.float64)


def _inner(curve: Curve, low: float, high: float) -> tuple[float, ...]:
    return tuple(sorted({cost for cost in curve.costs if low < cost < high}))


def _near(costs: Sequence[float], cost: float) -> float | None:
    """Return the nearest of some costs if it is the same but for `SAME_PLACE`."""
    nearest = min(costs, key=lambda one: abs(np.log(one / cost)), default=None)
    return None if nearest is None or max(nearest, cost) > SAME_PLACE * min(nearest, cost) else nearest
