"""The samples that need the picture and its detail: those that neither no image nor a smaller one answers."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adallava.records import DOWNSAMPLE_METHOD, NONE_METHOD, HardSplit

from .plan import split_cell
from .scores import RIGHT, ScoreTable


@dataclass(frozen=True)
class HardSamples:
    """The hard split of a run.

    Attributes:
        split: its counts.
        hard: [samples], True for those in it.
        defining: the cells that decide it.
    """

    split: HardSplit
    hard: NDArray[np.bool_]
    defining: frozenset[str]


def split_hard(scores: ScoreTable, tokens_kept: Mapping[str, float]) -> HardSamples | None:
    """Return the hard split, or None for a run without answers of `none`.

    Args:
        scores: of the run.
        tokens_kept: mean vision tokens by cell; of `downsample`, the cell with the fewest decides.
    """
    answered = {cell: scores.row(cell) for cell in scores.cells if np.isfinite(scores.row(cell)).any()}
    blind = next((cell for cell in answered if split_cell(cell)[0] == NONE_METHOD), None)
    if blind is None:
        return None
    smaller = [cell for cell in answered if split_cell(cell)[0] == DOWNSAMPLE_METHOD]
    coarse = min(smaller, key=lambda cell: tokens_kept[cell], default=None)
    judged = np.isfinite(answered[blind])
    by_coarse = np.zeros_like(judged)
    if coarse is not None:
        judged &= np.isfinite(answered[coarse])
        by_coarse = answered[coarse] >= RIGHT
    by_blind = judged & (answered[blind] >= RIGHT)
    by_coarse &= judged & ~by_blind
    hard = judged & ~by_blind & ~by_coarse
    split = HardSplit(
        num_samples=int(judged.sum()),
        answered_without_image=int(by_blind.sum()),
        answered_downsampled=int(by_coarse.sum()),
        downsample_cell=coarse,
        num_hard=int(hard.sum()),
    )
    return HardSamples(split, hard, frozenset(filter(None, (blind, coarse))))
