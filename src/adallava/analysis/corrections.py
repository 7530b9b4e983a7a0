"""P-values corrected for how many were looked at, so that any false "ahead" of a family has a chance of 5 % at most."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adallava.analysis.clusters import FEW, Clusters
from adallava.analysis.distributions import normal_isf
from adallava.analysis.significance import ALPHA
from adallava.records.estimates import Correction

FLIPS = 9_999
"""Joint sign flips of `max_t`: corrected p-values are multiples of 1 / (FLIPS + 1) = 0.0001."""

_BLOCK_SIGNS = 4_000_000
_SLACK = 1e-5
"""By which float32 may miss a statistic that equals the one seen."""


@dataclass(frozen=True)
class Corrected:
    """P-values of one family, corrected together.

    Attributes:
        p_values: in the order of the tests.
        method: of the correction.
        critical: what |mean| / (its standard error if the mean is 0) must reach to be called significant.
    """

    p_values: list[float]
    method: Correction
    critical: float


def correct(p_values: Sequence[float], sums: NDArray[np.float64], clusters: Clusters, seed: int) -> Corrected:
    """Correct p-values: by max-T, or by Holm's method below 40 images, where joint flips are not a good likeness.

    Args:
        p_values: of each test alone.
        sums: of its differences over each image, [tests, images]; 0 for an image that it lacks.
        clusters: of the samples.
        seed: of the flips.
    """
    holm_p_values = holm(p_values)
    if clusters.effective < FEW or len(p_values) < 2:
        critical = normal_isf(ALPHA / 2.0 / max(1, len(p_values)))
        return Corrected(holm_p_values, "holm", critical)
    adjusted, critical = max_t(sums, seed)
    # At the floor flips say no more than "at most that"; Holm's method, of exact p-values, may.
    floor = 1.0 / (FLIPS + 1)
    below = np.where(adjusted <= floor, np.minimum(adjusted, holm_p_values), adjusted)
    return Corrected([float(p_value) for p_value in below], "max-t", critical)


def max_t(sums: NDArray[np.float64], seed: int) -> tuple[NDArray[np.float64], float]:
    """Return step-down max-T p-values (Westfall & Young 1993, algorithm 2.8), and the level's critical value.

    All tests see the same flips, so that tests which say nearly the same count as hardly more than one. A test's
    statistic is |sum| over the root of the sum of squares, which flips leave as it is. A single test by flips is exact
    where sides are exchangeable; the family is so only as far as flips keep how its tests depend on each other, which
    holds for many images (covariances are kept) and was seen by simulation.

    Args:
        sums: of each test's differences over each image, [tests, images].
        seed: of the flips.
    """
    lengths = np.sqrt(np.square(sums).sum(axis=1))
    scaled = np.divide(sums, lengths[:, None], out=np.zeros_like(sums), where=lengths[:, None] > 0.0)
    seen = np.abs(scaled.sum(axis=1))
    order = np.argsort(-seen, kind="stable")
    columns, ranked = scaled[order].T.astype(np.float32), seen[order] - _SLACK
    counts, largest = np.zeros(len(order), dtype=np.int64), []
    for signs in _signs(sums.shape[1], seed):
        # The largest statistic among each test and all that were seen smaller: [flips, tests].
        beyond = np.maximum.accumulate(np.abs(signs @ columns)[:, ::-1], axis=1)[:, ::-1]
        counts += (beyond >= ranked).sum(axis=0)
        largest.append(beyond[:, 0])
    adjusted = np.empty(len(order))
    adjusted[order] = np.maximum.accumulate((1.0 + counts) / (FLIPS + 1.0))
    return adjusted, float(np.quantile(np.concatenate(largest), 1.0 - ALPHA))


def _signs(num: int, seed: int) -> Iterator[NDArray[np.float32]]:
    generator = np.random.default_rng(seed)
    block = max(1, min(FLIPS, _BLOCK_SIGNS // num))
    for start in range(0, FLIPS, block):
        rows = min(block, FLIPS - start)
        bits = np.unpackbits(generator.integers(256, size=(rows, -(-num // 8)), dtype=np.uint8), axis=1)[:, :num]
        yield bits.astype(np.float32) * np.float32(2.0) - np.float32(1.0)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number, in the same order (Holm 1979, Scand. J. Statist. 6).

    The chance that any true null hypothesis falls below a level is at most that level, whatever the dependence.
    """
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(factors * np.asarray(p_values)[order]), 1.0)
    return [float(p_value) for p_value in adjusted]
