"""What the page of two runs may say of each cell that both have: the same tests as `adallava compare`."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from adallava.analysis.clusters import Clusters
from adallava.analysis.judge import PairedTest, judge
from adallava.analysis.margins import MARGIN
from adallava.records.estimates import Verdict


def judge_changes(
    here: Sequence[NDArray[np.float64]],
    there: Sequence[NDArray[np.float64]],
    sample_ids: Sequence[str],
    pictures: Mapping[str, str | None],
) -> list[Verdict]:
    """Return one verdict a cell, corrected for all of them; they are planned, as the two runs were.

    Args:
        here: scores of the cells in one run, [cells][samples]; NaN where there is none. Each cell has one sample at
            least that both runs scored.
        there: the same in the other.
        sample_ids: of the samples.
        pictures: what tells them apart, by sample id.
    """
    tests = [PairedTest(a, b, planned=True) for a, b in zip(here, there, strict=True)]
    clusters = Clusters.by_picture(sample_ids, pictures)
    return [Verdict(**fields) for fields in judge(tests, clusters, seed=0, margin=MARGIN)] if tests else []
