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

from adallava.dials import FixedShare
from adallava.estimates import Interval, PairedDifference
from adallava.records import Cell

from .scores import ScoreTable
from .statistics import CONFIDENCE, paired_difference, resampled_means

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
    values = np.round(values[:, np.isfinite(values).all(axis=0)], 12)
    if not values.shape[1]:
        return None
    resampled = resampled_means(values, seed)

    def difference(a: int, b: int) -> PairedDifference:
        return paired_difference(values[a], values[b], seed, resampled=resampled[:, a] - resampled[:, b])

    over_random, alike = difference(0, 2), len(set(prefixes.values())) == 1
    return FixedShare(
        scheduler=scheduler,
        latency_asked=latency,
        prefix_layers=prefixes,
        cells=[names[0] for names in chosen],
        learned_over_random=over_random,
        fixed_over_random=difference(1, 2),
        learned_over_fixed=difference(0, 1),
        share=_ratio(values, resampled) if alike and over_random.low > 0 else None,
    )


def _ratio(values: NDArray[np.float64], resampled: NDArray[np.float64]) -> Interval:
    """Return the share. The caller has seen that its denominator is above 0 in 97.5 % of the resamples."""
    learned, fixed, drawn = values.mean(axis=1)
    above, gained = resampled[:, 1] - resampled[:, 2], resampled[:, 0] - resampled[:, 2]
    # Where a resample's denominator is not above 0 the share has no bound.
    shares = np.divide(above, gained, out=np.full(len(gained), np.inf), where=gained > 0)
    tails = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    low, high = np.quantile(shares, tails, method="lower")
    return Interval(
        mean=float((fixed - drawn) / (learned - drawn)), low=float(low), high=float(high), n=values.shape[1]
    )
