"""What both dials gain over one of them alone, at equal cost and at equal accuracy.

A front is the best of many cells, and the best of many is partly luck: the more cells, the more of it, and both dials
have more cells than one. So a gain in accuracy is never measured on the samples that chose: each half of the samples
chooses the best cells that cost no more, and the other half measures them, over many random halvings. Other samples
would also have chosen other cells, which the spread of the halves shows: the interval is from it. Samples that share a
image are in one half. A saving has no other half to be measured on, since a cost is not a mean of scores: there the
whole choice is made again under every resample, and whether the accuracy is equal is measured on the other half. FLOPs
are known. Milliseconds are readings of a clock, taken as they were read: their noise is in no interval.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adallava.analysis.areas import SharedScores
from adallava.analysis.clusters import Clusters
from adallava.analysis.front import axis_costs, pareto_front
from adallava.analysis.measured_ms import cell_ms, timed_batch_sizes
from adallava.analysis.statistics import CONFIDENCE, t_interval, unseen_share
from adallava.records import FULL_METHOD, Cell, Interval, PairedDifference
from adallava.records.dials import Dial, FrontAxis, FrontComparison, FrontGain, Saving

HALVINGS = 200
"""Random halvings of the samples; each half chooses once and measures once."""

_SAME_COST: dict[FrontAxis, float] = {"flops": 1.01, "ms": 1.10}
"""Costs that differ by no more are looked at once. In FLOPs answers of other lengths, and a latency token, make that
difference; in milliseconds the clock does: cells that do the same work were read up to a tenth apart."""

_EQUAL = 1e-9
"""Accuracies no further apart than this are equal but for rounding."""

_Floats = NDArray[np.float64]
_Flags = NDArray[np.bool_]
_Places = NDArray[np.intp]


def compare_fronts(cells: Sequence[Cell], shared: SharedScores, seed: int) -> list[FrontComparison]:
    """Compare the front of all cells with that of each dial alone, over FLOPs and over the run's clocks.

    A dial with cells at one cost only, or with all the cells, is not compared. Cells without any vision token are left
    out: they are a floor.

    Args:
        cells: of the run.
        shared: scores of the samples that every cell answered.
        seed: of the halvings.
    """
    if shared.clusters.num < 2:
        return []
    halves = _Halves.of(shared, seed)
    placed = [cell for cell in cells if cell.accuracy is not None and cell.tokens_kept > 0]
    compared = []
    for axis, batch_size, costs in _costs(placed):
        priced = sorted((cell for cell in placed if cell.cell in costs), key=lambda cell: costs[cell.cell])
        for dial in _DIALS:
            points = _place(priced, costs, dial, shared, halves)
            if not points.alone.all() and len(set(points.costs[points.alone])) > 1:
                compared.append(_compare(points, dial, axis, batch_size))
    return compared


_DIALS: tuple[Dial, ...] = ("tokens", "layers")


def _costs(cells: Sequence[Cell]) -> Iterator[tuple[FrontAxis, int | None, dict[str, float]]]:
    """Yield what cells cost: in FLOPs, and at each batch size of the timing pass or else during the answers."""
    yield "flops", None, axis_costs(cells, "flops")
    for size in timed_batch_sizes(cells) or (None,):
        ms = {cell.cell: cell_ms(cell, "time_to_first_token", size) for cell in cells}
        yield "ms", size, {name: value for name, value in ms.items() if value is not None}


@dataclass(frozen=True)
class _Points:
    """Cells with a cost, in ascending order of it.

    Attributes:
        names: ids.
        costs: [cells].
        alone: [cells], which of them turn one dial only.
        means: accuracy over all samples, [cells].
        resampled: accuracies, [RESAMPLES, cells].
        choosing: accuracies over the samples of a half that choose, [halves, cells].
        measuring: accuracies over the other samples, [halves, cells].
        clusters: which samples share an image.
    """

    names: tuple[str, ...]
    costs: _Floats
    alone: _Flags
    means: _Floats
    resampled: _Floats
    choosing: _Floats
    measuring: _Floats
    clusters: Clusters

    def front(self, among: _Places) -> list[int]:
        """Return the places that no other one beats, in ascending cost; of equals in both the first."""
        on_it = among[pareto_front(self.costs[among].tolist(), self.means[among].tolist())]
        _, firsts = np.unique(self.costs[on_it], return_index=True)
        return [int(place) for place in on_it[firsts]]

    def best(self, means: _Floats, cost: float, among: _Flags) -> _Places:
        """Return the most accurate cell that costs no more, and of equals the cheapest, for each row of `means`."""
        return np.asarray(np.where(among & (self.costs <= cost), means, -np.inf).argmax(axis=-1), dtype=np.intp)

    def cheapest(self, means: _Floats, as_accurate_as: _Places) -> _Places:
        """Return the cheapest cell that is as accurate as a given one, for each row of `means`."""
        asked = np.take_along_axis(means, as_accurate_as[..., None], axis=-1)
        return np.asarray((means >= asked - _EQUAL).argmax(axis=-1), dtype=np.intp)

    def measured(self, chosen: _Places) -> _Floats:
        """Return the accuracy of each half's choice over the samples without a part in it, [halves]."""
        return np.asarray(np.take_along_axis(self.measuring, chosen[:, None], axis=1)[:, 0], dtype=np.float64)


def _place(
    cells: Sequence[Cell], costs: dict[str, float], dial: Dial, shared: SharedScores, halves: "_Halves"
) -> _Points:
    rows = [shared.cells.index(cell.cell) for cell in cells]
    # Methods at their full budget are the full-token model to the bit, and are not named next to it.
    alone = [cell.runs_all_layers if dial == "tokens" else cell.selection == FULL_METHOD for cell in cells]
    return _Points(
        names=tuple(cell.cell for cell in cells),
        costs=np.array([costs[cell.cell] for cell in cells]),
        alone=np.array(alone, dtype=np.bool_),
        means=np.round(shared.values[rows].mean(axis=1), 12),
        resampled=shared.resampled[:, rows],
        choosing=halves.choosing[:, rows],
        measuring=halves.measuring[:, rows],
        clusters=shared.clusters,
    )


@dataclass(frozen=True)
class _Halves:
    """Accuracies of all cells over both halves of each halving, [2 * HALVINGS, cells].

    Attributes:
        choosing: over the half that chooses.
        measuring: over the other.
    """

    choosing: _Floats
    measuring: _Floats

    @classmethod
    def of(cls, shared: SharedScores, seed: int) -> "_Halves":
        """Halve the images at random; every sample measures once in each halving."""
        clusters, generator = shared.clusters, np.random.default_rng(seed)
        first = np.stack([generator.permutation(clusters.num) < clusters.num // 2 for _ in range(HALVINGS)])
        sums = clusters.sums(shared.values).T
        a, b = (np.round(half @ sums / (half @ clusters.sizes)[:, None], 12) for half in (first, ~first))
        return cls(np.concatenate([a, b]), np.concatenate([b, a]))


def _compare(points: _Points, dial: Dial, axis: FrontAxis, batch_size: int | None) -> FrontComparison:
    front_alone = points.front(np.flatnonzero(points.alone))
    levels = _apart([float(points.costs[place]) for place in front_alone], _SAME_COST[axis])
    both, alone = zip(*(_measured_at(points, cost) for cost in levels), strict=True)
    return FrontComparison(
        alone=dial,
        axis=axis,
        batch_size=batch_size,
        front=[points.names[place] for place in points.front(np.arange(len(points.names)))],
        front_alone=[points.names[place] for place in front_alone],
        mean_gain=_difference(np.mean(both, axis=0) - np.mean(alone, axis=0), points.clusters),
        gains=[_gain(points, *row) for row in zip(levels, both, alone, strict=True)],
    )


def _apart(costs: Sequence[float], same_cost: float) -> list[float]:
    """Return ascending costs without those that a kept one hardly exceeds: they are one place on the axis.

    From the dearest downwards, so that no chain of small steps makes one place of distant costs.
    """
    kept: list[float] = []
    for cost in sorted(costs, reverse=True):
        if not kept or kept[-1] > same_cost * cost:
            kept.append(cost)
    return kept[::-1]


def _measured_at(points: _Points, cost: float) -> tuple[_Floats, _Floats]:
    """Return each half's accuracy with both dials and with one, at a cost: [halves]."""
    everything = np.ones_like(points.alone)
    both, alone = (points.measured(points.best(points.choosing, cost, among)) for among in (everything, points.alone))
    return both, alone


def _gain(points: _Points, cost: float, both: _Floats, alone: _Floats) -> FrontGain:
    best_alone = points.best(points.means, cost, points.alone)
    cheaper = points.cheapest(points.means, best_alone)
    chosen = points.best(points.choosing, cost, points.alone)
    as_good = points.cheapest(points.choosing, chosen)
    return FrontGain(
        cost=cost,
        cell_alone=points.names[best_alone],
        cell_both=points.names[points.best(points.means, cost, np.ones_like(points.alone))],
        accuracy_alone=Interval(**_over_halves(alone, points.clusters, 0.0)),
        accuracy_both=Interval(**_over_halves(both, points.clusters, 0.0)),
        gain=_difference(both - alone, points.clusters),
        cheaper_cell=points.names[cheaper],
        saving=_saving(points, cost, float(points.costs[cheaper] / points.costs[best_alone])),
        cheaper_difference=_difference(points.measured(as_good) - points.measured(chosen), points.clusters),
    )


def _difference(of_halves: _Floats, clusters: Clusters) -> PairedDifference:
    return PairedDifference(**_over_halves(of_halves, clusters, -1.0))


def _over_halves(of_halves: _Floats, clusters: Clusters, least: float) -> dict[str, Any]:
    """Return the mean over halves with the interval of Nadeau & Bengio (2003, Machine Learning 52).

    Halves of the same samples are not independent: their variance counts (1 / halves + measuring / choosing) times,
    and as many samples measure as choose. Where no half differs from another Wilson's bound on what could still differ
    takes its place, as in `paired_difference`.

    Args:
        of_halves: [halves].
        clusters: which samples share an image.
        least: possible value; the largest is 1.
    """
    mean = float(np.round(of_halves.mean(), 12))
    if np.ptp(of_halves) == 0.0:
        low, high, method = mean - unseen_share(clusters), mean + unseen_share(clusters), "wilson"
    else:
        variance = float(of_halves.var()) * (1.0 + 1.0 / len(of_halves))
        low, high = t_interval(mean, variance, clusters.degrees_of_freedom)
        method = "corrected-halvings"
    bounds = {"mean": mean, "low": max(low, least), "high": min(high, 1.0)}
    return {**bounds, "n": clusters.num_samples, "num_pictures": clusters.num, "method": method}


def _saving(points: _Points, cost: float, ratio: float) -> Saving:
    alone = points.best(points.resampled, cost, points.alone)
    ratios = points.costs[points.cheapest(points.resampled, alone)] / points.costs[alone]
    # Ratios of real cells: nothing between two of them is anybody's cost.
    low, high = np.quantile(ratios, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], method="inverted_cdf")
    return Saving(ratio=ratio, low=min(float(low), ratio), high=max(float(high), ratio))
