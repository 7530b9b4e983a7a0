"""Which cells and methods a reader would compare, and what may be said of them."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from adallava.records import FULL_METHOD, AreaComparison, Cell, Comparison

from .areas import Curve
from .plan import FULL_CELL
from .scores import ScoreTable
from .significance import ALPHA, holm, sign_flip_p_value
from .statistics import paired_difference


def cell_pairs(cells: Sequence[Cell]) -> Iterator[tuple[str, str]]:
    """Yield what is compared: a cell with the full-token model, two methods at one budget, two kinds of positions."""
    yield from ((cell.cell, FULL_CELL) for cell in cells if cell.method != FULL_METHOD)
    for first, second in combinations([cell for cell in cells if cell.method != FULL_METHOD], 2):
        same_method = first.method == second.method
        same_positions = first.positions == second.positions
        if first.budget_asked == second.budget_asked and same_method != same_positions:
            yield first.cell, second.cell


def curve_pairs(curves: Sequence[Curve]) -> Iterator[tuple[int, int]]:
    """Yield the places of two methods' curves on one axis, with the same positions."""
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for number, curve in enumerate(curves):
        groups[curve.axis, curve.positions].append(number)
    for numbers in groups.values():
        yield from combinations(numbers, 2)


def compare(
    cells: Sequence[Cell],
    scores: ScoreTable,
    curves: Sequence[Curve],
    resampled: NDArray[np.float64],
    seed: int,
) -> tuple[list[Comparison], list[AreaComparison]]:
    """Test every pair, and correct all p-values together.

    Args:
        cells: of the run.
        scores: of the same cells.
        curves: of its methods.
        resampled: [RESAMPLES, curves], their areas under one bootstrap over samples.
        seed: of the bootstrap.
    """
    named = [(a, b, scores.row(a), scores.row(b)) for a, b in cell_pairs(cells)]
    tested = [(a, b, x[both], y[both]) for a, b, x, y in named if (both := np.isfinite(x) & np.isfinite(y)).any()]
    areas = list(curve_pairs(curves))
    p_values = [sign_flip_p_value(x - y) for _, _, x, y in tested]
    p_values += [sign_flip_p_value(curves[a].areas - curves[b].areas) for a, b in areas]
    adjusted = holm(p_values)
    chances = list(zip(p_values, adjusted, strict=True))
    comparisons = [
        Comparison(
            cell_a=a,
            cell_b=b,
            difference=paired_difference(x, y, seed),
            p_value=p_value,
            p_adjusted=p_adjusted,
            significant=p_adjusted < ALPHA,
        )
        for (a, b, x, y), (p_value, p_adjusted) in zip(tested, chances[: len(tested)], strict=True)
    ]
    area_comparisons = [
        AreaComparison(
            method_a=curves[a].method,
            method_b=curves[b].method,
            positions=curves[a].positions,
            axis=curves[a].axis,
            difference=paired_difference(
                curves[a].areas, curves[b].areas, seed, resampled=resampled[:, a] - resampled[:, b]
            ),
            p_value=p_value,
            p_adjusted=p_adjusted,
            significant=p_adjusted < ALPHA,
        )
        for (a, b), (p_value, p_adjusted) in zip(areas, chances[len(tested) :], strict=True)
    ]
    return comparisons, area_comparisons
