"""Are two cells the same, within a margin that was stated before? Not being told apart is not that."""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from .clusters import Clusters


def equivalence_p_value(differences: NDArray[np.float64], clusters: Clusters, margin: float) -> float:
    """Return the larger p-value of two one-sided tests against plus and minus a margin.

    Schuirmann (1987, J. Pharmacokinet. Biopharm. 15); by Student's t over pictures. The variance is at least that of
    the rarest way to differ by the margin: one picture in 1 / margin wholly, all others not at all. Otherwise no
    difference on ten samples would be proof of sameness.

    Args:
        differences: one a sample, finite.
        clusters: which samples share a picture.
        margin: above 0.
    """
    least = margin * (1.0 - margin) / clusters.effective
    error = float(np.sqrt(max(clusters.mean_variance(differences), least)))
    room = margin - abs(float(differences.mean()))
    return float(student.sf(room / error, clusters.degrees_of_freedom))
