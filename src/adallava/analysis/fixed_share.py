"""How much of what a learned scheduler gains over random plans one plan for all samples gains too.

`(fixed - random) / (learned - random)`, at one latency, on the same samples. Numerator and denominator are resampled
together, on the same draws of samples; where the denominator may well be 0 there is no share. Nor is there one where
the three do not always run the same first layers: then they choose among other plans, and a longer prefix alone makes
random plans better or worse.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from adallava.analysis.clusters import Clusters
from adallava.analysis.distributions import student_isf
from adallava.analysis.scores import ScoreTable
from adallava.analysis.statistics import CONFIDENCE, paired_difference, resampled_means
from adallava.records import Cell
from adallava.records.dials import FixedShare
from adallava.records.estimates import Interval, IntervalMethod, PairedDifference

_FIXED, _RANDOM = "fixed", "random"


def fixed_shares(
    cells: Sequence[Cell], learned: Collection[str], prefixes: Mapping[str, int], scores: ScoreTable, seed: int
) -> list[FixedShare]:
    """Return the share at each latency, over all cells that have the three schedulers and for each of them alone.

    Args:
        cells: of the run.
        learned: the cells whose plans a learned scheduler made.
        prefixes: P of each scheduler, how many first layers always run. It cannot be read off the answers: a fixed
            plan may well run more of them, and so may every random plan of a few samples.
        scores: of the cells.
        seed: of the bootstrap.
    """
    twins = {_key(cell, cell.scheduler): cell.cell for cell in cells if cell.scheduler is not None}
    groups: dict[tuple[str, str, str], list[tuple[str, str, str]]] = defaultdict(list)
    for cell in cells:
        fixed, drawn = twins.get(_key(cell, _FIXED)), twins.get(_key(cell, _RANDOM))
        if cell.cell in learned and fixed is not None and drawn is not None:
            groups[cell.scheduler or "", cell.latency_asked, cell.positions].append((cell.cell, fixed, drawn))
    shares = []
    for (scheduler, latency, _), found in groups.items():
        own = {name: prefixes[name] for name in (scheduler, _FIXED, _RANDOM)}
        for chosen in ([found] if len(found) > 1 else []) + [[one] for one in found]:
            share = _share(scheduler, latency, own, chosen, scores, seed)
            shares += [] if share is None else [share]
    return shares


def _key(cell: Cell, scheduler: str | None) -> tuple[str, str, str, str, str | None]:
    return cell.selection, cell.budget_asked, cell.positions, cell.latency_asked, scheduler


def _share(
    scheduler: str,
    latency: str,
    prefixes: dict[str, int],
    chosen: Sequence[tuple[str, str, str]],
    scores: ScoreTable,
    seed: int,
) -> FixedShare | None:
    # [learned, fixed, random; samples]: the mean over the cells, of samples that all of them answered.
    values = np.mean([[scores.row(name) for name in names] for names in chosen], axis=0)
    known = np.isfinite(values).all(axis=0)
    values, clusters = np.round(values[:, known], 12), scores.clusters_among(known)
    if not values.shape[1]:
        return None
    resampled = resampled_means(values, seed, clusters)

    def difference(a: int, b: int) -> PairedDifference:
        """Return row `a` minus row `b` over the same resampled pictures."""
        of_difference = resampled[:, a] - resampled[:, b]
        return paired_difference(values[a], values[b], seed, clusters=clusters, resampled=of_difference)

    over_random, alike = difference(0, 2), len(set(prefixes.values())) == 1
    return FixedShare(
        scheduler=scheduler,
        latency_asked=latency,
        prefix_layers=prefixes,
        cells=[names[0] for names in chosen],
        learned_over_random=over_random,
        fixed_over_random=difference(1, 2),
        learned_over_fixed=difference(0, 1),
        share=_ratio(values, resampled, clusters) if alike and over_random.low > 0 else None,
    )


def _ratio(values: NDArray[np.float64], resampled: NDArray[np.float64], clusters: Clusters) -> Interval:
    """Return the share. The caller has seen that its denominator's interval is above 0."""
    learned, fixed, drawn = values.mean(axis=1)
    above, gained = resampled[:, 1] - resampled[:, 2], resampled[:, 0] - resampled[:, 2]
    method: IntervalMethod = "cluster-bootstrap" if clusters.shared else "bootstrap"
    if clusters.few:
        low, high, method = *_fieller(values[1] - values[2], values[0] - values[2], clusters), "fieller"
    else:
        # Where a resample's denominator is not above 0 the share has no bound.
        shares = np.divide(above, gained, out=np.full(len(gained), np.inf), where=gained > 0)
        tails = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
        low, high = np.quantile(shares, tails, method="lower")
    return Interval(
        mean=float((fixed - drawn) / (learned - drawn)),
        low=float(low),
        high=float(high),
        n=values.shape[1],
        num_pictures=clusters.num,
        method=method,
    )


def _fieller(above: NDArray[np.float64], gained: NDArray[np.float64], clusters: Clusters) -> tuple[float, float]:
    """Return Fieller's interval of a ratio of means (1954, J. R. Stat. Soc. B 16), by Student's t over few images.

    It holds every share s with mean(above - s gained) within t standard errors of 0: between the roots of a parabola.
    """
    variances = [clusters.mean_variance(values) for values in (above, gained, above - gained)]
    covariance = (variances[0] + variances[1] - variances[2]) / 2.0
    reach = student_isf((1 - CONFIDENCE) / 2, clusters.degrees_of_freedom) ** 2
    means = float(above.mean()), float(gained.mean())
    square = means[1] ** 2 - reach * variances[1]
    linear = means[0] * means[1] - reach * covariance
    constant = means[0] ** 2 - reach * variances[0]
    root = float(np.sqrt(max(linear**2 - square * constant, 0.0)))
    return (linear - root) / square, (linear + root) / square
