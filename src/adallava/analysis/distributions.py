"""Tails of distributions, by `scipy.special`: what `scipy.stats` computes, which takes a second more to import."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, ndtr, ndtri, stdtr, stdtrit


def normal_sf(value: float) -> float:
    """Return the chance that a standard normal variable is above a value."""
    return float(ndtr(-value))


def normal_isf(chance: float) -> float:
    """Return the value that a standard normal variable is above with a chance."""
    return float(-ndtri(chance))


def student_sf(value: float, degrees_of_freedom: float) -> float:
    """Return the chance that a variable of Student's t is above a value."""
    return float(stdtr(degrees_of_freedom, -value))


def student_isf(chance: float, degrees_of_freedom: float) -> float:
    """Return the value that a variable of Student's t is above with a chance."""
    return float(-stdtrit(degrees_of_freedom, chance))


def fair_coins(heads: NDArray[np.int64], tosses: int) -> NDArray[np.float64]:
    """Return the chance of so many heads in tosses of a fair coin, an array like `heads`."""
    ways = gammaln(tosses + 1) - gammaln(heads + 1) - gammaln(tosses - heads + 1)
    chances: NDArray[np.float64] = np.exp(ways - tosses * np.log(2.0))
    return chances
