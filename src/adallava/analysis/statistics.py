"""Means with the uncertainty that so many samples, on so many images, leave.

The bootstrap of one mean resamples the *counts of distinct values* (a multinomial) instead of the values: the same
distribution as drawing samples with replacement, at a cost that does not grow with the number of samples. Where
many means are to be resampled together, on the same draws of samples, `resampled_means` counts samples. Of samples
that share images, images are drawn.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adallava.analysis.clusters import Clusters
from adallava.analysis.distributions import normal_isf, student_isf
from adallava.records import Interval, PairedDifference
from adallava.records.estimates import IntervalMethod

RESAMPLES = 10_000
CONFIDENCE = 0.95

_BLOCK_COUNTS = 2_000_000
"""Counts of `resampled_means` that are held at a time, to bound its memory."""

Scores = Sequence[float] | NDArray[np.float64]

_TAILS = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]


def mean_interval(scores: Scores, clusters: Clusters | None = None) -> Interval:
    """Return the mean of scores in [0, 1] with Wilson's interval (1927, J. Am. Stat. Assoc. 22).

    Of partial scores it is Wilson's formula on their mean: no scores in [0, 1] vary more than rights and wrongs of the
    same mean, so it is somewhat too wide, and never has no width. Of samples that share images, n is what as many
    independent samples would tell (n over the design effect, Kish 1965; Korn & Graubard 1998, Survey Methodology 24),
    with Student's t for the normal quantile.

    Args:
        scores: one a sample.
        clusters: which samples share an image; None if none do.

    Raises:
        ValueError: without scores.
    """
    values = _filled(scores)
    clusters = clusters or Clusters.distinct(len(values))
    mean = float(values.mean())
    low, high = _wilson(mean, _effective_samples(values, clusters), _critical(clusters))
    method: IntervalMethod = "wilson" if np.isin(values, (0.0, 1.0)).all() else "wilson-on-mean"
    return Interval(mean=mean, low=min(low, mean), high=max(high, mean), **_behind(clusters, method))


def resampled_interval(values: NDArray[np.float64], resampled: NDArray[np.float64], clusters: Clusters) -> Interval:
    """Return the mean of values in [0, 1], such as areas, with its percentile bootstrap interval.

    Where all values are equal, no resampling can show a width, and Wilson's bound is used; where samples share few
    images, Student's t over images.

    Args:
        values: one a sample.
        resampled: their mean under resampling.
        clusters: which samples share an image.
    """
    if np.ptp(values) == 0.0:
        return mean_interval(values, clusters)
    low, high, method = _around(values, resampled, clusters)
    return Interval(mean=float(values.mean()), low=max(low, 0.0), high=min(high, 1.0), **_behind(clusters, method))


def paired_difference(
    scores: Scores,
    other_scores: Scores,
    seed: int = 0,
    *,
    clusters: Clusters | None = None,
    resampled: NDArray[np.float64] | None = None,
) -> PairedDifference:
    """Return the mean of `scores - other_scores`, sample by sample, with its paired bootstrap interval.

    If all differences are equal, Wilson's bound on the share of images that could still differ takes the
    bootstrap's place: identical answers on 100 samples say `0, within 0.04`, not `exactly 0`. Where samples share few
    images, Student's t over images does.

    Args:
        scores: in [0, 1].
        other_scores: of the same samples in the same order.
        seed: of the bootstrap.
        clusters: which samples share an image; None if none do.
        resampled: the mean difference under resampling, where that is known already.

    Raises:
        ValueError: without scores, or with differing numbers of them.
    """
    if len(scores) != len(other_scores):
        raise ValueError(f"{len(scores)} scores cannot be paired with {len(other_scores)}")
    values = _filled(scores) - np.asarray(other_scores, dtype=np.float64)
    clusters = clusters or Clusters.distinct(len(values))
    method: IntervalMethod
    mean = float(values.mean())
    if np.ptp(values) == 0.0:
        possible = unseen_share(clusters)
        low, high, method = mean - possible, mean + possible, "wilson"
    else:
        if resampled is None and not clusters.few:
            resampled = _resample_distinct(values, clusters, seed)
        low, high, method = _around(values, resampled, clusters)
    return PairedDifference(mean=mean, low=max(low, -1.0), high=min(high, 1.0), **_behind(clusters, method))


def resampled_means(
    values: NDArray[np.float64], seed: int = 0, clusters: Clusters | None = None
) -> NDArray[np.float64]:
    """Return the means of all rows under one bootstrap over samples, or the images they share: [RESAMPLES, rows].

    Every row sees the same draws, so that differences of columns are paired.

    Args:
        values: [rows, samples], finite.
        seed: of the bootstrap.
        clusters: which samples share an image; None if none do.
    """
    clusters = clusters or Clusters.distinct(values.shape[1])
    sums, num = clusters.sums(values).T, clusters.num
    generator = np.random.default_rng(seed)
    block = max(1, _BLOCK_COUNTS // num)
    means = []
    for start in range(0, RESAMPLES, block):
        rows = min(block, RESAMPLES - start)
        drawn = generator.integers(num, size=(rows, num)) + np.arange(rows)[:, None] * num
        counts = np.bincount(drawn.ravel(), minlength=rows * num).reshape(rows, num)
        means.append(counts @ sums / (counts @ clusters.sizes)[:, None])
    return np.concatenate(means)


def unseen_share(clusters: Clusters) -> float:
    """Return Wilson's bound on the share of images that could be otherwise where all seen are alike."""
    return _wilson(0.0, clusters.effective, _critical(clusters))[1]


def t_interval(estimate: float, variance: float, degrees_of_freedom: float) -> tuple[float, float]:
    """Return estimate plus and minus Student's quantile of standard errors."""
    reach = _student_quantile(degrees_of_freedom) * float(np.sqrt(variance))
    return estimate - reach, estimate + reach


def _around(
    values: NDArray[np.float64], resampled: NDArray[np.float64] | None, clusters: Clusters
) -> tuple[float, float, IntervalMethod]:
    if clusters.few or resampled is None:
        # Of few images those that differ most may be missing: half of one more that differs wholly, as Agresti & Min
        # (2005, Statistics in Medicine 24) count half a pair more of each kind for rights and wrongs.
        variance = clusters.mean_variance(values) + 0.5 / (clusters.effective + 2.0) ** 2
        low, high = t_interval(float(values.mean()), variance, clusters.degrees_of_freedom)
        return low, high, "cluster-t"
    low, high = (float(bound) for bound in np.quantile(resampled, _TAILS))
    return low, high, "cluster-bootstrap" if clusters.shared else "bootstrap"


def _resample_distinct(values: NDArray[np.float64], clusters: Clusters, seed: int) -> NDArray[np.float64]:
    generator = np.random.default_rng(seed)
    if not clusters.shared:
        distinct, counts = np.unique(values, return_counts=True)
        drawn = generator.multinomial(len(values), counts / len(values), size=RESAMPLES)
        return np.asarray(drawn @ distinct / len(values), dtype=np.float64)
    pairs = np.stack([clusters.sums(values), clusters.sizes], axis=1)
    kinds, counts = np.unique(pairs, axis=0, return_counts=True)
    sums, sizes = (generator.multinomial(clusters.num, counts / clusters.num, size=RESAMPLES) @ kinds).T
    return np.asarray(sums / sizes, dtype=np.float64)


def _effective_samples(values: NDArray[np.float64], clusters: Clusters) -> float:
    """Return how many independent samples tell as much: n over the design effect.

    A rare answer may be seen on no image, or on too few to show whether it comes alone. So the design effect is that
    of the values and one more image which is wholly of the rarer answer.
    """
    if not clusters.shared:
        return float(clusters.num_samples)
    rare = 0.0 if values.mean() >= 0.5 else 1.0
    size = max(1, round(clusters.num_samples / clusters.num))
    more = np.concatenate([values, np.full(size, rare)])
    among = Clusters(np.concatenate([clusters.of_samples, np.full(size, clusters.num)]))
    alone = float(more.var(ddof=1)) / len(more)
    return clusters.num_samples / max(1.0, among.mean_variance(more) / alone)


def _critical(clusters: Clusters) -> float:
    return _student_quantile(clusters.degrees_of_freedom) if clusters.shared else _NORMAL_QUANTILE


_NORMAL_QUANTILE = normal_isf(_TAILS[0])


@lru_cache(maxsize=4096)
def _student_quantile(degrees_of_freedom: float) -> float:
    """Return the quantile; SciPy takes a millisecond for it, and a summary asks thousands of times for a few."""
    return student_isf(_TAILS[0], degrees_of_freedom)


def _wilson(mean: float, samples: float, critical: float) -> tuple[float, float]:
    spread = critical**2 / samples
    middle = (mean + spread / 2.0) / (1.0 + spread)
    reach = float(np.sqrt(spread * mean * (1.0 - mean) + spread**2 / 4.0)) / (1.0 + spread)
    return max(middle - reach, 0.0), min(middle + reach, 1.0)


def _behind(clusters: Clusters, method: IntervalMethod) -> dict[str, Any]:
    return {"n": clusters.num_samples, "num_pictures": clusters.num, "method": method}


def _filled(scores: Scores) -> NDArray[np.float64]:
    values = np.asarray(scores, dtype=np.float64)
    if not len(values):
        raise ValueError("no scores, no mean")
    return values
