"""Are two cells the same, within a margin that was stated before? Not being told apart is not that."""

import numpy as np
from numpy.typing import NDArray

from adallava.analysis.clusters import Clusters
from adallava.analysis.distributions import student_sf


def equivalence_p_value(differences: NDArray[np.float64], clusters: Clusters, margin: float) -> float:
    """Return the larger p-value of two one-sided tests against plus and minus a margin.

    Schuirmann (1987, J. Pharmacokinet. Biopharm. 15); by Student's t over images. To the variance seen is added that
    of the rarest way in which the mean could still be at the margin: some images more that differ wholly. Otherwise
    no difference on ten samples would be proof of sameness.

    Args:
        differences: one a sample, finite.
        clusters: which samples share an image.
        margin: above 0.
    """
    room = margin - abs(float(differences.mean()))
    unseen = max(room, 0.0) * (1.0 - max(room, 0.0)) / clusters.effective
    error = float(np.sqrt(clusters.mean_variance(differences) + unseen))
    return student_sf(room / error, clusters.degrees_of_freedom) if error else 1.0
