"""What may be said of paired differences: ahead, the same, or not told apart and what could have been."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adallava.analysis.clusters import Clusters
from adallava.analysis.corrections import Corrected, correct, holm
from adallava.analysis.distributions import normal_sf, student_isf
from adallava.analysis.equivalence import equivalence_p_value
from adallava.analysis.power import least_detectable
from adallava.analysis.significance import ALPHA, paired_p_value
from adallava.analysis.statistics import paired_difference
from adallava.records.estimates import TestName


@dataclass(frozen=True)
class PairedTest:
    """Two sides on the same samples.

    Attributes:
        a: scores, [samples]; NaN where there is none.
        b: the same of the other side. One sample at least has both.
        planned: whether the comparison was fixed before anything ran.
        resampled: the mean difference under resampling, where that is known already.
    """

    a: NDArray[np.float64]
    b: NDArray[np.float64]
    planned: bool
    resampled: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class _Single:
    """One test by itself."""

    differences: NDArray[np.float64]
    clusters: Clusters
    p_value: float
    p_equivalence: float
    name: TestName


def judge(tests: Sequence[PairedTest], clusters: Clusters, seed: int, margin: float) -> list[dict[str, Any]]:
    """Return the fields of a `Verdict` for each test.

    Planned ones are corrected for each other alone, so that looking at more pairs takes nothing from them. Any other is
    corrected for all: whoever picks a pair after the fact has looked at all of them.

    Args:
        tests: of one run.
        clusters: which samples share an image.
        seed: of bootstrap and joint flips.
        margin: within which two sides are the same.
    """
    singles = [_single(test, clusters, margin) for test in tests]
    planned = [place for place, test in enumerate(tests) if test.planned]
    families = [list(range(len(tests))), planned]
    # The narrower family last: what it says of its own tests counts.
    found: dict[int, dict[str, Any]] = {}
    for family in families if len(planned) < len(tests) else families[1:]:
        sums = np.stack([_sums(tests[place], clusters) for place in family]) if family else np.zeros((0, 1))
        corrected = correct([singles[place].p_value for place in family], sums, clusters, seed)
        same = holm([singles[place].p_equivalence for place in family])
        for number, place in enumerate(family):
            found[place] = _fields(singles[place], corrected, number, same[number])
    return [
        {
            "difference": _difference(test, single, seed),
            **found[place],
            "family": "planned" if test.planned else "exploratory",
            "equivalence_margin": margin,
        }
        for place, (test, single) in enumerate(zip(tests, singles, strict=True))
    ]


def _single(test: PairedTest, clusters: Clusters, margin: float) -> _Single:
    both = np.isfinite(test.a) & np.isfinite(test.b)
    differences, own = test.a[both] - test.b[both], clusters.among(both)
    p_value, name = paired_p_value(differences, own)
    return _Single(differences, own, p_value, equivalence_p_value(differences, own, margin), name)


def _sums(test: PairedTest, clusters: Clusters) -> NDArray[np.float64]:
    return clusters.sums(np.nan_to_num(test.a - test.b))


def _difference(test: PairedTest, single: _Single, seed: int) -> Any:
    both = np.isfinite(test.a) & np.isfinite(test.b)
    return paired_difference(test.a[both], test.b[both], seed, clusters=single.clusters, resampled=test.resampled)


def _fields(single: _Single, corrected: Corrected, number: int, p_equivalence: float) -> dict[str, Any]:
    p_adjusted = corrected.p_values[number]
    return {
        "p_value": single.p_value,
        "p_adjusted": p_adjusted,
        "significant": p_adjusted < ALPHA,
        "test": single.name,
        "num_tests": len(corrected.p_values),
        "correction": corrected.method,
        "least_detectable": _least_detectable(single, corrected),
        "p_equivalence": p_equivalence,
        "equivalent": p_equivalence < ALPHA,
    }


def _least_detectable(single: _Single, corrected: Corrected) -> float | None:
    pictures, num_samples = single.clusters, len(single.differences)
    if len(corrected.p_values) * 2.0 ** (1 - pictures.num) >= ALPHA:
        # Were all differences of one sign, chance could still have done it.
        return None
    discordance = float(np.square(single.differences).mean())
    variance = float(np.square(pictures.sums(single.differences)).sum()) / num_samples**2
    # As many independent samples as would leave the mean as uncertain.
    samples = pictures.effective if variance == 0.0 else min(discordance / variance, num_samples)
    critical = corrected.critical
    if single.name == "cluster-t":
        critical = student_isf(normal_sf(critical), pictures.degrees_of_freedom)
    return least_detectable(samples, discordance, critical)
