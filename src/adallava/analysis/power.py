"""What a number of samples can show: the least difference that would be found, and how many samples one would need.

By Connor's formula (1987, Biometrics 43) for paired rights and wrongs: with `discordance` the share of samples on which
the two sides differ, and never less than the difference itself, a true difference d of n samples is found with
`POWER` if d sqrt(n) = z sqrt(discordance) + z' sqrt(discordance - d^2). Of partial scores, discordance is the mean
square of the differences.
"""

import math

from scipy.optimize import brentq

from adallava.analysis.distributions import normal_isf
from adallava.analysis.significance import ALPHA
from adallava.records.counted_nouns import counted

POWER = 0.8
"""The chance of finding a difference that is called detectable."""

_POWER_QUANTILE = normal_isf(1.0 - POWER)

USUAL_DISCORDANCE = 0.1
"""Assumed before a run."""


def critical_value(tests: int) -> float:
    """Return the normal quantile that the most conservative step of Holm's method asks of one of so many tests."""
    return normal_isf(ALPHA / 2.0 / max(1, tests))


def least_detectable(samples: float, discordance: float, critical: float) -> float | None:
    """Return the least true difference found with `POWER`; None if even 1 would not be.

    Args:
        samples: as many as are independent.
        discordance: see above.
        critical: the normal quantile to reach, see `critical_value`.
    """

    def lacking(difference: float) -> float:
        """Return how far a true difference is above what these samples find; negative if it is below."""
        return difference * math.sqrt(samples) - _asked(difference, discordance, critical)

    return None if lacking(1.0) < 0.0 else float(brentq(lacking, 1e-12, 1.0))


def samples_needed(difference: float, discordance: float, critical: float) -> int:
    """Return how many independent samples find a true difference with `POWER`; arguments as above."""
    return math.ceil((_asked(difference, discordance, critical) / difference) ** 2)


def _asked(difference: float, discordance: float, critical: float) -> float:
    differing = max(discordance, difference)
    return critical * math.sqrt(differing) + _POWER_QUANTILE * math.sqrt(differing - difference**2)


def planning_line(samples: int, tests: int, pictures: int | None = None) -> str:
    """Say before a run what its samples can show.

    Args:
        samples: of the task.
        tests: planned comparisons.
        pictures: that the samples are about, None if that is not known. Questions that share one count for anything
            from one sample, if they are right or wrong together, to as many as they are.
    """
    critical = critical_value(tests)
    of_samples = least_detectable(samples, USUAL_DISCORDANCE, critical)
    differing = USUAL_DISCORDANCE if of_samples is None else max(USUAL_DISCORDANCE, of_samples)
    one, two, three = (f"{samples_needed(points / 100, USUAL_DISCORDANCE, critical):,}" for points in (1, 2, 3))
    planned = counted(tests, "planned comparison")
    about, condition, alike = "", "if each has its own image and", ""
    if pictures is not None and pictures < samples:
        about, condition = f" on {counted(pictures, 'image')}", "if questions about one image are independent and"
        of_pictures = least_detectable(pictures, USUAL_DISCORDANCE, critical)
        alike = f"; if they are right or wrong together, {_found_words(of_pictures)}"
    return (
        f"with {counted(samples, 'sample')}{about} and {planned}, {_found_words(of_samples)} (power {POWER:.0%}, "
        f"{condition} two cells differ on {differing:.0%} of them{alike}); to find 1, 2 or 3 points "
        f"takes {one}, {two} or {three} samples"
    )


def _found_words(difference: float | None) -> str:
    if difference is None:
        return "no difference can be found"
    return f"a difference of {100 * difference:.1f} points can be found"
