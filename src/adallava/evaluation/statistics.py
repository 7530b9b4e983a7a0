"""Means with the uncertainty that so many samples leave.

The bootstrap resamples the *counts of distinct values* (a multinomial) instead of the values: the same
distribution as drawing samples with replacement, at a cost that does not grow with the number of samples.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from adallava.records import Interval, PairedDifference

RESAMPLES = 10_000
CONFIDENCE = 0.95

_TAILS = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]


def mean_interval(scores: Sequence[float], seed: int = 0) -> Interval:
    """Return the mean of scores in [0, 1] with its percentile bootstrap interval.

    If all scores are equal every resample is, and the interval would have no width even for three samples.
    Wilson's interval for a share takes its place then.

    Raises:
        ValueError: without scores.
    """
    values = np.asarray(scores, dtype=np.float64)
    mean = float(values.mean()) if len(values) else _refuse_empty()
    if np.ptp(values) == 0.0:
        low, high = _wilson(round(mean * len(values)), len(values))
        low, high = min(low, mean), max(high, mean)
    else:
        low, high = _bootstrap_mean(values, seed)
    return Interval(mean=mean, low=low, high=high, n=len(values))


def paired_difference(scores: Sequence[float], full_scores: Sequence[float], seed: int = 0) -> PairedDifference:
    """Return the mean of `scores - full_scores`, sample by sample, with its paired bootstrap interval.

    If all differences are equal, Wilson's bound on the share of samples that could still differ takes the
    bootstrap's place: identical answers on 100 samples say `0, within 0.04`, not `exactly 0`.

    Args:
        scores: in [0, 1].
        full_scores: of the same samples in the same order.

    Raises:
        ValueError: without scores, or with differing numbers of them.
    """
    if len(scores) != len(full_scores):
        raise ValueError(f"{len(scores)} scores cannot be paired with {len(full_scores)}")
    values = np.asarray(scores, dtype=np.float64) - np.asarray(full_scores, dtype=np.float64)
    mean = float(values.mean()) if len(values) else _refuse_empty()
    if np.ptp(values) == 0.0:
        possible = _wilson(0, len(values))[1]
        low, high = max(mean - possible, -1.0), min(mean + possible, 1.0)
    else:
        low, high = _bootstrap_mean(values, seed)
    return PairedDifference(mean=mean, low=low, high=high, n=len(values))


def _bootstrap_mean(values: NDArray[np.float64], seed: int) -> tuple[float, float]:
    distinct, counts = np.unique(values, return_counts=True)
    draws = np.random.default_rng(seed).multinomial(len(values), counts / len(values), size=RESAMPLES)
    low, high = np.quantile(draws @ distinct / len(values), _TAILS)
    return float(low), float(high)


def _wilson(successes: int, trials: int) -> tuple[float, float]:
    interval = binomtest(successes, trials).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def _refuse_empty() -> float:
    raise ValueError("no scores, no mean")
