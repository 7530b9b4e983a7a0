"""Scores whose truth is known, for the audit of the statistics: cells by samples, on pictures."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from adallava.analysis.areas import SharedScores, share_scores
from adallava.analysis.clusters import Clusters
from adallava.analysis.scores import ScoreTable
from adallava.records import Cell

LIKENESS = 0.8
"""Share of what makes an answer right that all cells have in common: two cells of accuracy 0.6 differ on 20 %."""


@dataclass(frozen=True)
class Design:
    """How many questions are asked about each picture, and how alike the questions of one are.

    Attributes:
        sizes: questions of each picture.
        correlation: between any figure of two questions about one picture, 0 to 1.
    """

    sizes: tuple[int, ...]
    correlation: float = 0.0

    @classmethod
    def distinct(cls, samples: int) -> "Design":
        return cls((1,) * samples)

    @classmethod
    def ten_each(cls, pictures: int, correlation: float) -> "Design":
        return cls((10,) * pictures, correlation)

    @property
    def clusters(self) -> Clusters:
        return Clusters(np.repeat(np.arange(len(self.sizes)), self.sizes))

    def spread(self, generator: np.random.Generator, draw):
        """Return one column a sample: by chance the picture's own, or one of the sample's.

        Args:
            generator: of the chance.
            draw: from a number to as many columns, [..., number].
        """
        of_pictures = draw(len(self.sizes))[..., self.clusters.of_samples]
        own = draw(sum(self.sizes))
        return np.where(generator.random(sum(self.sizes)) < np.sqrt(self.correlation), of_pictures, own)


def rights(generator: np.random.Generator, design: Design, accuracies, likeness: float = LIKENESS) -> np.ndarray:
    """Return 1 or 0 for each cell and sample, [cells, samples]; a row's expectation is its accuracy."""
    bounds = norm.ppf(np.asarray(accuracies))[:, None]

    def draw(number: int) -> np.ndarray:
        common, own = generator.normal(size=(1, number)), generator.normal(size=(len(bounds), number))
        return (np.sqrt(likeness) * common + np.sqrt(1.0 - likeness) * own < bounds).astype(float)

    return design.spread(generator, draw)


def partial(generator: np.random.Generator, design: Design, values, chances) -> np.ndarray:
    """Return scores of given values with given chances, [samples]."""
    return design.spread(generator, lambda number: generator.choice(values, size=number, p=chances))


def shared(scores: np.ndarray, design: Design, seed: int = 0) -> SharedScores:
    """Return what areas and fronts are computed from; cells are named by their places."""
    names = tuple(map(str, range(len(scores))))
    return share_scores(ScoreTable(names, scores, design.clusters), seed)


def cell(name: str, method: str, cost: float, latency: str = "1.0") -> Cell:
    """Return a cell of which the comparison of fronts reads cost and dials alone."""
    nothing = {"mean": 0.5, "low": 0.0, "high": 1.0, "n": 1}
    left_out = latency != "1.0"
    return Cell.model_validate(
        {
            "cell": name,
            "method": method + (f"/layers@{latency}" if left_out else ""),
            "budget_asked": "1",
            "scheduler": "layers" if left_out else None,
            "latency_asked": latency,
            "layer_share": float(latency),
            "num_samples": 1,
            "num_failed": 0,
            "accuracy": nothing,
            "accuracy_by_kind": {},
            "difference_to_full": None,
            "empties": {},
            "empty_share": 0.0,
            "flagged": False,
            "flag_reason": None,
            "num_vision_tokens": 9.0,
            "tokens_kept": 1.0,
            "tokens_kept_layer_average": 1.0,
            "prompt_length": 1.0,
            "answer_length": 1.0,
            "flops": {"total": cost},
            "part_ms": {},
            "peak_memory_bytes": None,
        }
    )
