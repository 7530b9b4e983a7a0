"""The scores of a run as one table: cells by samples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adallava.analysis.clusters import Clusters
from adallava.records.answer_places import AnswerKey

RIGHT = 0.5
"""From this score on an answer counts as right: with several draws, if at least half of them are."""


@dataclass(frozen=True)
class ScoreTable:
    """One score for each cell and sample.

    Attributes:
        cells: ids, one a row.
        values: [cells, samples]; the mean over a sample's draws; NaN where any of them failed or is missing.
        clusters: which samples share an image; None if none do.
    """

    cells: tuple[str, ...]
    values: NDArray[np.float64]
    clusters: Clusters | None = None

    def row(self, cell: str) -> NDArray[np.float64]:
        """Return the scores of one cell, [samples]."""
        scores: NDArray[np.float64] = self.values[self.cells.index(cell)]
        return scores

    def clusters_among(self, samples: NDArray[np.bool_]) -> Clusters:
        """Return which of some samples share an image."""
        return (self.clusters or Clusters.distinct(self.values.shape[1])).among(samples)

    def shared(self) -> NDArray[np.bool_]:
        """Return which samples every cell answered, [samples]; cells that answered nothing are not asked."""
        answered = np.isfinite(self.values)
        return np.asarray(answered[answered.any(axis=1)].all(axis=0), dtype=np.bool_)


def tabulate_scores(
    cells: Sequence[str], sample_ids: Sequence[str], scores: Mapping[AnswerKey, float | None]
) -> ScoreTable:
    """Average each sample's draws.

    Args:
        cells: ids, in order.
        sample_ids: of the columns, in order.
        scores: of the answers; None for one that failed.
    """
    row = {cell: number for number, cell in enumerate(cells)}
    column = {sample_id: number for number, sample_id in enumerate(sample_ids)}
    sums = np.zeros((len(cells), len(sample_ids)))
    counts = np.zeros_like(sums)
    for (cell, sample_id, _), score in scores.items():
        place = row[cell], column[sample_id]
        sums[place] += np.nan if score is None else score
        counts[place] += 1
    values = np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
    return ScoreTable(tuple(cells), values)
