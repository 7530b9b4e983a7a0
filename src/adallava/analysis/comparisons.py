"""Which cells and methods a reader would compare, and what may be said of them."""

from collections import defaultdict
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from adallava.analysis.areas import Curve, CurveArea, SharedScores, area_between, common_costs, common_grid, same_grid
from adallava.analysis.front import AXES
from adallava.analysis.judge import PairedTest, judge
from adallava.analysis.margins import MARGIN
from adallava.analysis.scores import ScoreTable
from adallava.records import FULL_METHOD, AreaComparison, Cell, Comparison, PositionsName
from adallava.records.cells import FULL_CELL, CellPlan

BASELINES = ("random", "uniform")
"""Methods, and the first of them that a run has is the one that every other method is planned to be compared with."""

SCHEDULER_BASELINES = ("random", "spaced", "first")
"""The same of schedulers."""


class PlacedCell(Protocol):
    """What decides which comparisons a cell is in: a summed-up `Cell` has it, and a `CellPlan` before anything ran."""

    @property
    def cell(self) -> str:
        """Its name."""
        ...

    @property
    def selection(self) -> str:
        """Method and positions, or whatever chooses tokens."""
        ...

    @property
    def budget_asked(self) -> str:
        """As it was asked for."""
        ...

    @property
    def latency_asked(self) -> str:
        """As it was asked for."""
        ...

    @property
    def positions(self) -> PositionsName:
        """Original or compact."""
        ...

    @property
    def scheduler(self) -> str | None:
        """Of the LLM's layers, if it has one."""
        ...


def cell_pairs(cells: Sequence[PlacedCell]) -> Iterator[tuple[str, str]]:
    """Yield what is compared: a cell with the full-token model, and two cells that differ in one thing alone.

    That is the method, the kind of positions, or the scheduler; at one budget and one latency.
    """
    yield from ((a.cell, b.cell) for a, b in _placed_pairs(cells))


def planned_pairs(cells: Sequence[PlacedCell]) -> frozenset[tuple[str, str]]:
    """Return those of `cell_pairs` that answer what a reader asks before seeing anything.

    Is a cell worse than the full-token model? Is a method's choice, or a scheduler's, better than the baseline's at the
    same budget? Do positions matter?
    """
    method = _baseline({cell.selection for cell in cells}, BASELINES)
    scheduler = _baseline({cell.scheduler for cell in cells}, SCHEDULER_BASELINES)
    return frozenset(
        (a.cell, b.cell)
        for a, b in _placed_pairs(cells)
        if b.cell == FULL_CELL
        or a.positions != b.positions
        or (a.selection != b.selection and method in (a.selection, b.selection))
        or (a.scheduler != b.scheduler and scheduler in (a.scheduler, b.scheduler))
    )


def count_planned(plans: Sequence[CellPlan]) -> int:
    """Return how many comparisons of cells and of areas a run plans; a method may turn out to have no area."""
    budgets: dict[tuple[str, str], set[str]] = defaultdict(set)
    for plan in plans:
        if plan.scheduler is None and plan.method != FULL_METHOD:
            budgets[plan.method, plan.positions].add(plan.budget_asked)
    curves = [place for place, own in budgets.items() if len(own) > 1]
    baseline = _baseline({method for method, _ in curves}, BASELINES)
    against = sum(method != baseline and (baseline, positions) in curves for method, positions in curves)
    return len(planned_pairs(plans)) + len(AXES) * against


def _placed_pairs(cells: Sequence[PlacedCell]) -> Iterator[tuple[PlacedCell, PlacedCell]]:
    full = next(cell for cell in cells if cell.cell == FULL_CELL)
    others = [cell for cell in cells if cell.cell != FULL_CELL]
    yield from ((cell, full) for cell in others)
    for first, second in combinations(others, 2):
        same_dials = (first.budget_asked, first.latency_asked) == (second.budget_asked, second.latency_asked)
        differing = [
            first.selection != second.selection,
            first.positions != second.positions,
            first.scheduler != second.scheduler,
        ]
        if same_dials and sum(differing) == 1:
            yield first, second


def _baseline(there: Set[str | None] | Set[str], candidates: Sequence[str]) -> str | None:
    return next((name for name in candidates if name in there), None)


def curve_pairs(curves: Sequence[Curve]) -> Iterator[tuple[Curve, Curve]]:
    """Yield two methods' curves on one axis, with the same positions."""
    for first, second in combinations(curves, 2):
        if first.axis == second.axis and first.positions == second.positions:
            yield first, second


def compare(
    cells: Sequence[Cell],
    scores: ScoreTable,
    curves: Sequence[Curve],
    shared: SharedScores,
    seed: int,
    margin: float = MARGIN,
) -> tuple[list[Comparison], list[AreaComparison]]:
    """Test every pair of cells and of curves. The planned ones are corrected together, the others together with all.

    Args:
        cells: of the run.
        scores: of the same cells.
        curves: of its methods.
        shared: scores of the samples that every cell answered.
        seed: of the bootstrap and of the joint flips.
        margin: within which accuracies are the same.
    """
    planned = planned_pairs(cells)
    pairs = [(a, b, scores.row(a), scores.row(b)) for a, b in cell_pairs(cells)]
    pairs = [pair for pair in pairs if np.isfinite(pair[2] + pair[3]).any()]
    by_area = [AreaPair.of(a, b, shared) for a, b in curve_pairs(curves)] if shared.values.shape[1] else []
    baseline = _baseline({curve.method for curve in curves}, BASELINES)
    tests = [PairedTest(x, y, (a, b) in planned) for a, b, x, y in pairs]
    everyone = scores.shared()
    tests += [pair.test(everyone, baseline in (pair.a.method, pair.b.method)) for pair in by_area]
    verdicts = judge(tests, scores.clusters_among(np.ones_like(everyone)), seed, margin)
    comparisons = [
        Comparison(cell_a=a, cell_b=b, **verdict)
        for (a, b, _, _), verdict in zip(pairs, verdicts[: len(pairs)], strict=True)
    ]
    areas = [pair.compared(verdict) for pair, verdict in zip(by_area, verdicts[len(pairs) :], strict=True)]
    return comparisons, areas


@dataclass(frozen=True)
class AreaPair:
    """Two curves over the costs that both reach, whatever a third method costs, through one grid."""

    a: Curve
    b: Curve
    low: float
    high: float
    area_a: CurveArea
    area_b: CurveArea

    @classmethod
    def of(cls, a: Curve, b: Curve, shared: SharedScores) -> "AreaPair":
        """Return two curves with their areas."""
        low, high = common_costs([a, b])
        grid = common_grid([a, b], low, high)
        return cls(a, b, low, high, *(area_between(curve, low, high, grid, shared) for curve in (a, b)))

    def test(self, everyone: NDArray[np.bool_], planned: bool) -> PairedTest:
        """Return the comparison as one of samples.

        Args:
            everyone: [samples], those that every cell answered, which areas are of.
            planned: whether it was planned.
        """
        of_a, of_b = (np.full(len(everyone), np.nan) for _ in range(2))
        of_a[everyone], of_b[everyone] = self.area_a.of_samples, self.area_b.of_samples
        return PairedTest(of_a, of_b, planned, self.area_a.resampled - self.area_b.resampled)

    def compared(self, verdict: dict[str, Any]) -> AreaComparison:
        """Return it with what was found."""
        return AreaComparison(
            method_a=self.a.method,
            method_b=self.b.method,
            positions=self.a.positions,
            axis=self.a.axis,
            from_cost=self.low,
            to_cost=self.high,
            same_grid=same_grid([self.a, self.b], self.low, self.high),
            **verdict,
        )
