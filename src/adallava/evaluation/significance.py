"""Is a paired difference more than chance, and more than one would find among so many comparisons?"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len
from scipy.stats import norm

ALPHA = 0.05
"""A corrected p-value below this is called significant."""

SMALLEST_P = 1e-12
"""Smaller p-values are not told apart: the Fourier transform rounds."""

_DENOMINATORS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 30, 60)
_LARGEST_LATTICE = 2**20
_ENUMERATED = 14


def sign_flip_p_value(differences: NDArray[np.float64]) -> float:
    """Return the two-sided p-value of the paired permutation test.

    If the two sides of every pair are exchangeable, each difference is as likely with the other sign. The p-value
    is the share of all sign patterns whose sum is at least as far from zero as the sum seen. For scores of 0 and 1
    this is McNemar's exact test.

    It is exact where the differences are multiples of a common step (scores of right and wrong, means over draws,
    tenths), by the characteristic function of the sum, the product of cos(t d), and where at most 14 of them are
    not zero, by enumeration. Otherwise the sum's normal approximation is taken; its variance is exact, and since
    signs have lighter tails than the normal distribution it does not overstate significance.

    Args:
        differences: one a sample, finite.
    """
    sizes = np.abs(differences[differences != 0.0])
    if len(sizes) == 0:
        return 1.0
    seen = abs(float(differences.sum()))
    steps = _lattice(sizes)
    if steps is not None:
        p_value = _on_lattice(*steps, seen)
    elif len(sizes) <= _ENUMERATED:
        p_value = _enumerated(sizes, seen)
    else:
        p_value = 2.0 * float(norm.sf(seen / np.sqrt(np.square(sizes).sum())))
    return min(1.0, max(p_value, SMALLEST_P))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number, in the same order (Holm 1979, Scand. J. Statist. 6).

    The chance that any true null hypothesis falls below a level is at most that level, whatever the dependence.
    """
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(factors * np.asarray(p_values)[order]), 1.0)
    return [float(p_value) for p_value in adjusted]


def _lattice(sizes: NDArray[np.float64]) -> tuple[NDArray[np.int64], float] | None:
    """Return the sizes as whole numbers of a step, and the step; None if there is none within reason."""
    for denominator in _DENOMINATORS:
        scaled = sizes * denominator
        if np.allclose(scaled, np.rint(scaled), rtol=0.0, atol=1e-6):
            whole = np.rint(scaled).astype(np.int64)
            return (whole, 1.0 / denominator) if whole.sum() <= _LARGEST_LATTICE else None
    return None


def _on_lattice(whole: NDArray[np.int64], step: float, seen: float) -> float:
    largest, seen_steps = int(whole.sum()), round(seen / step)
    if seen_steps == 0:
        return 1.0
    length = next_fast_len(2 * largest + 1, real=True)
    angles = 2.0 * np.pi / length * np.arange(length // 2 + 1)
    distinct, counts = np.unique(whole, return_counts=True)
    characteristic = np.prod(np.cos(np.outer(distinct, angles)) ** counts[:, None], axis=0)
    # The sum s stands at index s modulo the length, and its distribution is symmetric.
    return 2.0 * float(irfft(characteristic, length)[seen_steps : largest + 1].sum())


def _enumerated(sizes: NDArray[np.float64], seen: float) -> float:
    sums = np.zeros(1)
    for size in sizes:
        sums = np.concatenate([sums + size, sums - size])
    # Slack for sums that are equal but for rounding.
    return float(np.mean(np.abs(sums) >= seen - 1e-9 * sizes.sum()))
