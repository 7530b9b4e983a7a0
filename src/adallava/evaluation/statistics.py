"""Means with the uncertainty that so many samples leave.

The bootstrap of one mean resamples the *counts of distinct values* (a multinomial) instead of the values: the same
distribution as drawing samples with replacement, at a cost that does not grow with the number of samples. Where
many means are to be resampled together, on the same draws of samples, `resampled_means` counts samples.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from adallava.records import Interval, PairedDifference

RESAMPLES = 10_000
CONFIDENCE = 0.95

_BLOCK_COUNTS = 2_000_000
"""Counts of `resampled_means` that are held at a time, to bound its memory."""

Scores = Sequence[float] | NDArray[np.float64]

_TAILS = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]


def mean_interval(scores: Scores, seed: int = 0, *, resampled: NDArray[np.float64] | None = None) -> Interval:
    """Return the mean of scores in [0, 1] with its percentile bootstrap interval.

    If all scores are equal every resample is, and the interval would have no width even for three samples.
    Wilson's interval for a share takes its place then.

    Args:
        scores: one a sample.
        seed: of the bootstrap.
        resampled: the mean under resampling, where that is known already.

    Raises:
        ValueError: without scores.
    """
    values = np.asarray(scores, dtype=np.float64)
    mean = float(values.mean()) if len(values) else _refuse_empty()
    if np.ptp(values) == 0.0:
        low, high = _wilson(round(mean * len(values)), len(values))
        low, high = min(low, mean), max(high, mean)
    else:
        low, high = _tails(_resample_distinct(values, seed) if resampled is None else resampled)
    return Interval(mean=mean, low=low, high=high, n=len(values))


def paired_difference(
    scores: Scores, other_scores: Scores, seed: int = 0, *, resampled: NDArray[np.float64] | None = None
) -> PairedDifference:
    """Return the mean of `scores - other_scores`, sample by sample, with its paired bootstrap interval.

    If all differences are equal, Wilson's bound on the share of samples that could still differ takes the
    bootstrap's place: identical answers on 100 samples say `0, within 0.04`, not `exactly 0`.

    Args:
        scores: in [0, 1].
        other_scores: of the same samples in the same order.
        seed: of the bootstrap.
        resampled: the mean difference under resampling, where that is known already.

    Raises:
        ValueError: without scores, or with differing numbers of them.
    """
    if len(scores) != len(other_scores):
        raise ValueError(f"{len(scores)} scores cannot be paired with {len(other_scores)}")
    values = np.asarray(scores, dtype=np.float64) - np.asarray(other_scores, dtype=np.float64)
    mean = float(values.mean()) if len(values) else _refuse_empty()
    if np.ptp(values) == 0.0:
        possible = _wilson(0, len(values))[1]
        low, high = max(mean - possible, -1.0), min(mean + possible, 1.0)
    else:
        low, high = _tails(_resample_distinct(values, seed) if resampled is None else resampled)
    return PairedDifference(mean=mean, low=low, high=high, n=len(values))


def resampled_means(values: NDArray[np.float64], seed: int = 0) -> NDArray[np.float64]:
    """Return the means of all rows under one bootstrap over samples: [RESAMPLES, rows].

    Every row sees the same draws of samples, so that differences of columns are paired.

    Args:
        values: [rows, samples], finite.
        seed: of the bootstrap.
    """
    num_samples = values.shape[1]
    generator = np.random.default_rng(seed)
    block = max(1, _BLOCK_COUNTS // num_samples)
    means = []
    for start in range(0, RESAMPLES, block):
        rows = min(block, RESAMPLES - start)
        drawn = generator.integers(num_samples, size=(rows, num_samples)) + np.arange(rows)[:, None] * num_samples
        counts = np.bincount(drawn.ravel(), minlength=rows * num_samples).reshape(rows, num_samples)
        means.append(counts @ values.T / num_samples)
    return np.concatenate(means)


def _resample_distinct(values: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    distinct, counts = np.unique(values, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(len(values), counts / len(values), size=RESAMPLES)
    means: NDArray[np.float64] = drawn @ distinct / len(values)
    return means


def _tails(means: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.quantile(means, _TAILS)
    return float(low), float(high)


def _wilson(successes: int, trials: int) -> tuple[float, float]:
    interval = binomtest(successes, trials).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def _refuse_empty() -> float:
    raise ValueError("no scores, no mean")
