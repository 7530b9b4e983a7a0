"""Is the hard split fair? Two equally good methods, of which one guesses as `none` does, by simulation.

Both see each sample with the same chance. Where they see nothing, one gives the very answer of `none`, the other an
answer of its own, drawn alike; both know what `none` knows. Any difference on the split is then the split's own doing.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adallava.analysis.clusters import Clusters
from adallava.analysis.hard_split import blind_answers, split_hard
from adallava.analysis.scores import ScoreTable

CELLS = ("full@1.0", "none@none", "downsample@16", "alike@16", "other@16")


@dataclass(frozen=True)
class Trial:
    """What to simulate.

    Attributes:
        num_samples: of a run.
        options: answers of each question type; a guess is one of them, the first ones more often.
        sees: chance that a method sees what a sample asks about.
        knows: chance that the question alone gives the answer away.
        downsampled: chance that the smaller image shows it; None for a run without.
    """

    num_samples: int = 350
    options: tuple[int, ...] = (2, 4, 10)
    sees: float = 0.5
    knows: float = 0.0
    downsampled: float | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of each run: the method that guesses as `none` does, less the other, in [-1, 1].

    Attributes:
        on_all: over all samples, [runs].
        on_split: over the hard split, [runs].
        on_failed: over what `none` has wrong, as the split was until 0.1, [runs].
        num_hard: samples of the split, [runs].
    """

    on_all: NDArray[np.float64]
    on_split: NDArray[np.float64]
    on_failed: NDArray[np.float64]
    num_hard: NDArray[np.int64]


def simulate(trial: Trial, runs: int, seed: int) -> Outcome:
    """Return the differences of `runs` simulated runs."""
    generator = np.random.default_rng(seed)
    rows = [_one(trial, generator) for _ in range(runs)]
    on_all, on_split, on_failed, num_hard = (np.array(column) for column in zip(*rows, strict=True))
    return Outcome(on_all, on_split, on_failed, num_hard)


def _one(trial: Trial, generator: np.random.Generator) -> tuple[float, float, float, int]:
    n = trial.num_samples
    kinds = np.arange(n) % len(trial.options)
    counts = np.array(trial.options)[kinds]

    def drawn() -> NDArray[np.int64]:
        # The square makes the first answers of a type more frequent, in truth as in guesses.
        return np.asarray(counts * np.square(generator.random(n)), dtype=np.int64)

    truth, guess, known = drawn(), drawn(), generator.random(n) < trial.knows
    blind = np.where(known, truth, guess)
    own = np.where(known, truth, drawn())

    def answers(chance: float, unseen: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.where(generator.random(n) < chance, truth, unseen)

    small = answers(trial.downsampled or 0.0, blind)
    given = np.stack([answers(0.95, blind), blind, small, answers(trial.sees, blind), answers(trial.sees, own)])
    scores = (given == truth).astype(np.float64)
    cells = [place for place, cell in enumerate(CELLS) if trial.downsampled is not None or cell != CELLS[2]]
    table = ScoreTable(tuple(CELLS[place] for place in cells), scores[cells], Clusters.distinct(n))
    ids = [f"s{place}" for place in range(n)]
    right = dict(zip(ids, map(str, truth), strict=True))
    said = dict(zip(ids, map(str, blind), strict=True))
    kind_of = {sample_id: str(kind) for sample_id, kind in zip(ids, kinds, strict=True)}
    answered = blind_answers(ids, kind_of, said, lambda id_, response: float(response == right[id_]), seed=0)
    found = split_hard(table, dict.fromkeys(CELLS, 16.0), answered)
    assert found is not None
    difference = scores[3] - scores[4]
    failed = scores[1] == 0.0
    if trial.downsampled is not None:
        failed &= scores[2] == 0.0
    return (
        float(difference.mean()),
        float(difference[found.hard].mean()),
        float(difference[failed].mean()),
        int(found.hard.sum()),
    )
