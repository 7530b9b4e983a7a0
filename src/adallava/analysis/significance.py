"""Is a paired difference more than chance? And more than one would find among so many comparisons: `corrections`."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len

from adallava.analysis.clusters import Clusters
from adallava.analysis.distributions import fair_coins, student_sf
from adallava.records.estimates import TestName

ALPHA = 0.05
"""A corrected p-value below this is called significant."""

SMALLEST_P = 1e-12
"""Smaller p-values are not told apart: the Fourier transform rounds."""

_DENOMINATORS = (*range(1, 25), 30, 60)
_ENUMERATED = 2**14
_MOST_STEPS = 2**17
_LEAST_STEPS = 2**14
_STEPS_BY_ROOT = 640
"""Times the root of the number of samples: what rounding then adds to a p-value is the same for few and for many."""
_DEVIATIONS = 8.0
_NEGLIGIBLE = 1e-20
_CHANCES = np.logspace(-1, -14, 14)


def paired_p_value(differences: NDArray[np.float64], clusters: Clusters) -> tuple[float, TestName]:
    """Return the two-sided p-value that the mean difference is 0, and how it was found.

    Of samples that share images the signs of an image's differences are flipped together: the flips of its sum. Of
    few images the larger p-value of that and of Student's t over images is taken. The flips alone would be exact
    where sides are exchangeable, t does without; but sums of few rights and wrongs have no normal tails, and t alone
    would call 8 equal sums certain.

    Args:
        differences: one a sample, finite.
        clusters: which samples share an image.
    """
    p_value = sign_flip_p_value(clusters.sums(differences))
    if not clusters.shared:
        return p_value, "sign-flip"
    if not clusters.few:
        return p_value, "sign-flip-by-picture"
    return max(p_value, _cluster_t_p_value(differences, clusters)), "cluster-t"


def _cluster_t_p_value(differences: NDArray[np.float64], clusters: Clusters) -> float:
    variance = clusters.mean_variance(differences)
    if variance == 0.0:
        return 0.0
    ratio = abs(float(differences.mean())) / float(np.sqrt(variance))
    return 2.0 * student_sf(ratio, clusters.degrees_of_freedom)


def sign_flip_p_value(differences: NDArray[np.float64]) -> float:
    """Return the two-sided p-value of the paired permutation test.

    If the two sides of every pair are exchangeable, each difference is as likely with the other sign. The p-value
    is the share of all sign patterns whose sum is at least as far from zero as the sum seen. For scores of 0 and 1
    this is McNemar's exact test.

    It is exact where the differences are multiples of a common step (scores of right and wrong, means over draws,
    tenths), by the characteristic function of the sum, the product of cos(t d); and where they take so few values
    that all sums can be listed (all of one size, two sizes, up to 14 of any size). Otherwise the differences are
    rounded to fine steps, and every sum that rounding could have kept from being as far out as the one seen counts
    as that far: the p-value is then slightly too large, never too small.

    Args:
        differences: one a sample, finite.
    """
    sizes = np.abs(differences[differences != 0.0])
    if len(sizes) == 0:
        return 1.0
    largest = float(sizes.max())
    seen = abs(float(differences.sum())) / largest
    # Rounded, so that sizes that are equal but for rounding are one.
    sizes, counts = np.unique(np.round(sizes / largest, 12), return_counts=True)
    step = _common_step(sizes, counts, largest)
    if step is None and np.log2(counts + 1.0).sum() <= np.log2(_ENUMERATED):
        p_value = _enumerated(sizes, counts, seen)
    else:
        p_value = _on_lattice(sizes, counts, step or _fine_step(sizes, counts), seen)
    return min(1.0, max(p_value, SMALLEST_P))


def _common_step(sizes: NDArray[np.float64], counts: NDArray[np.int64], largest: float) -> float | None:
    """Return a step that all sizes are multiples of; None if there is none within reason.

    Tried are fractions of 1, which scores are, and of the smallest size.

    Args:
        sizes: distinct, in units of the largest.
        counts: of each size.
        largest: the largest size itself.
    """
    for unit in (1.0 / largest, float(sizes[0])):
        for denominator in _DENOMINATORS:
            step = unit / denominator
            scaled = sizes / step
            if np.allclose(scaled, np.rint(scaled), rtol=0.0, atol=1e-9) and scaled[0] > 0.5:
                return step if _reach(sizes, counts) / step <= _MOST_STEPS else None
    return None


def _fine_step(sizes: NDArray[np.float64], counts: NDArray[np.int64]) -> float:
    num_steps = max(_LEAST_STEPS, _STEPS_BY_ROOT * int(np.sqrt(counts.sum())))
    return _reach(sizes, counts) / num_steps


def _reach(sizes: NDArray[np.float64], counts: NDArray[np.int64]) -> float:
    """Return how far from zero the sum is looked at: as far as it gets, or eight standard deviations.

    By Hoeffding's inequality (1963, J. Am. Stat. Assoc. 58) it lies farther out with a chance below 3e-14.
    """
    return min(float(counts @ sizes), _DEVIATIONS * float(np.sqrt(counts @ np.square(sizes))))


def _on_lattice(sizes: NDArray[np.float64], counts: NDArray[np.int64], step: float, seen: float) -> float:
    """Return the p-value with sizes rounded to multiples of a step, and what rounding may hide added to it."""
    whole = np.rint(sizes / step).astype(np.int64)
    errors = np.abs(sizes - whole * step)
    reach = int(np.ceil(_reach(whole.astype(np.float64), counts)))
    outside = 2.0 * np.exp(-0.5 * _DEVIATIONS**2) if reach < counts @ whole else 0.0
    # The sum s is at index s modulo the length, and its distribution is symmetric.
    length = next_fast_len(2 * reach + 1, real=True)
    chances = irfft(_characteristic(whole, counts, length), length)[: reach + 1]
    beyond = np.append(np.cumsum(chances[::-1])[::-1], 0.0)

    def tail(shift: float) -> float:
        """Return the two-sided chance of a sum at least as large as the one seen less `shift`."""
        first = int(np.ceil((seen - shift) / step - 1e-6))
        return 1.0 if first <= 0 else 2.0 * float(beyond[min(first, reach + 1)]) + outside

    return min(tail(shift) + chance for shift, chance in _rounding_bounds(errors, counts))


def _characteristic(whole: NDArray[np.int64], counts: NDArray[np.int64], length: int) -> NDArray[np.float64]:
    """Return the product of cos(t d) at the frequencies of a real Fourier transform of `length`."""
    cosines = np.cos(2.0 * np.pi / length * np.arange(length))
    product = np.ones(length // 2 + 1)
    alive = np.arange(length // 2 + 1)
    # What shrinks the product most comes first, and frequencies that no longer matter are let go.
    for place in np.argsort(-counts * np.square(whole.astype(np.float64))):
        product[alive] *= cosines[(alive * whole[place]) % length] ** counts[place]
        alive = alive[np.abs(product[alive]) > _NEGLIGIBLE]
    return product


def _rounding_bounds(errors: NDArray[np.float64], counts: NDArray[np.int64]) -> Iterable[tuple[float, float]]:
    """Yield how far rounding may have moved the sum, and a bound on the chance that it was farther.

    It cannot be farther than all errors together. With random signs it is rarely near that: Hoeffding's inequality.
    """
    yield float(counts @ errors), 0.0
    deviation = float(np.sqrt(counts @ np.square(errors)))
    for chance in _CHANCES:
        yield deviation * float(np.sqrt(2.0 * np.log(2.0 / chance))), float(chance)


def _enumerated(sizes: NDArray[np.float64], counts: NDArray[np.int64], seen: float) -> float:
    sums, chances = np.zeros(1), np.ones(1)
    for size, count in zip(sizes, counts, strict=True):
        positive = np.arange(count + 1)
        sums = np.add.outer(sums, size * (2.0 * positive - count)).ravel()
        chances = np.outer(chances, fair_coins(positive, count)).ravel()
    # Slack for sums that are equal but for rounding.
    return float(chances[np.abs(sums) >= seen - 1e-9 * float(counts @ sizes)].sum())
