"""Which cells and methods a reader would compare, and what may be said of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from adallava.records import FULL_METHOD, AreaComparison, Cell, Comparison

from .areas import Curve, CurveArea, SharedScores, area_between, common_costs
from .plan import FULL_CELL
from .scores import ScoreTable
from .significance import ALPHA, holm, sign_flip_p_value
from .statistics import paired_difference


def cell_pairs(cells: Sequence[Cell]) -> Iterator[tuple[str, str]]:
    """Yield what is compared: a cell with the full-token model, and two cells that differ in one thing alone.

    That is the method, the kind of positions, or the scheduler; at one budget and one latency.
    """
    yield from ((cell.cell, FULL_CELL) for cell in cells if cell.method != FULL_METHOD)
    for first, second in combinations([cell for cell in cells if cell.method != FULL_METHOD], 2):
        same_dials = (first.budget_asked, first.latency_asked) == (second.budget_asked, second.latency_asked)
        differing = [
            first.selection != second.selection,
            first.positions != second.positions,
            first.scheduler != second.scheduler,
        ]
        if same_dials and sum(differing) == 1:
            yield first.cell, second.cell


def curve_pairs(curves: Sequence[Curve]) -> Iterator[tuple[Curve, Curve]]:
    """Yield two methods' curves on one axis, with the same positions."""
    for first, second in combinations(curves, 2):
        if first.axis == second.axis and first.positions == second.positions:
            yield first, second


def compare(
    cells: Sequence[Cell], scores: ScoreTable, curves: Sequence[Curve], shared: SharedScores, seed: int
) -> tuple[list[Comparison], list[AreaComparison]]:
    """Test every pair of cells and of curves, and correct all p-values together.

    Args:
        cells: of the run.
        scores: of the same cells.
        curves: of its methods.
        shared: scores of the samples that every cell answered.
        seed: of the bootstrap.
    """
    named = [(a, b, scores.row(a), scores.row(b)) for a, b in cell_pairs(cells)]
    tested = [(a, b, x[both], y[both]) for a, b, x, y in named if (both := np.isfinite(x) & np.isfinite(y)).any()]
    by_area = [_AreaPair.of(a, b, shared) for a, b in curve_pairs(curves)] if shared.values.shape[1] else []
    p_values = [sign_flip_p_value(x - y) for _, _, x, y in tested]
    p_values += [sign_flip_p_value(pair.area_a.of_samples - pair.area_b.of_samples) for pair in by_area]
    chances: list[dict[str, Any]] = [
        {"p_value": p_value, "p_adjusted": adjusted, "significant": adjusted < ALPHA}
        for p_value, adjusted in zip(p_values, holm(p_values), strict=True)
    ]
    comparisons = [
        Comparison(cell_a=a, cell_b=b, difference=paired_difference(x, y, seed), **chance)
        for (a, b, x, y), chance in zip(tested, chances[: len(tested)], strict=True)
    ]
    area_comparisons = [
        pair.compared(seed, **chance) for pair, chance in zip(by_area, chances[len(tested) :], strict=True)
    ]
    return comparisons, area_comparisons


@dataclass(frozen=True)
class _AreaPair:
    """Two curves over the costs that both reach, whatever a third method costs."""

    a: Curve
    b: Curve
    low: float
    high: float
    area_a: CurveArea
    area_b: CurveArea

    @classmethod
    def of(cls, a: Curve, b: Curve, shared: SharedScores) -> "_AreaPair":
        low, high = common_costs([a, b])
        return cls(a, b, low, high, area_between(a, low, high, shared), area_between(b, low, high, shared))

    def compared(self, seed: int, **chance: Any) -> AreaComparison:
        resampled = self.area_a.resampled - self.area_b.resampled
        return AreaComparison(
            method_a=self.a.method,
            method_b=self.b.method,
            positions=self.a.positions,
            axis=self.a.axis,
            from_cost=self.low,
            to_cost=self.high,
            difference=paired_difference(self.area_a.of_samples, self.area_b.of_samples, seed, resampled=resampled),
            **chance,
        )
