"""The samples that are left where neither no image nor a smaller one helped, and luck did not choose.

`none` is right by knowing (the question gives its answer away) or by luck (one of four answers it is, sometimes). To
leave out all that it has right would leave out its luck: a method that guesses as `none` does where it sees nothing
would have no lucky guess left, and another as good as it all of its own. So only as many are left out as `none` knows:
what it has right beyond luck, and other cells have right with it.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adallava.analysis.scores import RIGHT, ScoreTable
from adallava.records import DOWNSAMPLE_METHOD, NONE_METHOD, HardSplit
from adallava.records.cells import split_cell

MIN_SAMPLES_OF_GROUP = 20
"""Question types with fewer samples are taken together: how much `none` knows cannot be known from a few."""

_OTHER_ANSWERS = 10
"""Of `none`, to other questions of the type, that each sample is scored with to find what luck is worth there."""

_KNOWS_Z = 1.645
"""Standard errors by which `none` has to be above luck: one-sided, 5 %."""


@dataclass(frozen=True)
class BlindAnswers:
    """What `none` answered, and what its answers to other questions of the type would have scored.

    Attributes:
        ids: of the samples, in order.
        groups: [samples], their question types, the small ones taken together.
        luck: [samples], share of such answers that are right; NaN where there is none.
    """

    ids: tuple[str, ...]
    groups: NDArray[np.int64]
    luck: NDArray[np.float64]


@dataclass(frozen=True)
class HardSamples:
    """The hard split of a run.

    Attributes:
        split: its counts.
        hard: [samples], True for those in it.
        defining: the cell that is wrong on it by construction, if there is one.
    """

    split: HardSplit
    hard: NDArray[np.bool_]
    defining: frozenset[str]


def blind_answers(
    ids: Sequence[str],
    kinds: Mapping[str, str | None],
    responses: Mapping[str, str],
    score: Callable[[str, str], float],
    seed: int,
) -> BlindAnswers:
    """Score each sample with answers that `none` gave to other questions of its type.

    Args:
        ids: of the samples.
        kinds: question types by id.
        responses: of `none` by id; samples that it failed on are missing.
        score: of a response to a sample.
        seed: of the choice of answers.
    """
    groups = _groups([kinds.get(sample_id) for sample_id in ids])
    luck = np.full(len(ids), np.nan)
    generator = np.random.default_rng(seed)
    answered = np.array([sample_id in responses for sample_id in ids], dtype=np.bool_)
    for group in np.unique(groups):
        places = np.flatnonzero((groups == group) & answered).tolist()
        for own, place in enumerate(places):
            # Those after it in a circle of random order: every other one, or ten of them.
            number = min(_OTHER_ANSWERS, len(places) - 1)
            steps = 1 + generator.choice(len(places) - 1, number, replace=False, shuffle=False) if number else ()
            others = [responses[ids[places[(own + step) % len(places)]]] for step in steps]
            if others:
                # Most types have few different answers.
                right = {response: score(ids[place], response) >= RIGHT for response in set(others)}
                luck[place] = np.mean([right[response] for response in others])
    return BlindAnswers(tuple(ids), groups, luck)


def split_hard(scores: ScoreTable, tokens_kept: Mapping[str, float], blind: BlindAnswers) -> HardSamples | None:
    """Return the hard split, or None for a run without answers of `none`.

    Args:
        scores: of the run.
        tokens_kept: mean vision tokens by cell; of `downsample`, the cell with the fewest decides.
        blind: what the answers of `none` are worth elsewhere.
    """
    answered = {cell: scores.row(cell) for cell in scores.cells if np.isfinite(scores.row(cell)).any()}
    none = next((cell for cell in answered if split_cell(cell)[0] == NONE_METHOD), None)
    if none is None:
        return None
    smaller = [cell for cell in answered if split_cell(cell)[0] == DOWNSAMPLE_METHOD]
    coarse = min(smaller, key=lambda cell: tokens_kept[cell], default=None)
    judged = np.isfinite(answered[none])
    by_coarse = np.zeros_like(judged)
    if coarse is not None:
        judged &= np.isfinite(answered[coarse])
        by_coarse = judged & (answered[coarse] >= RIGHT)
    by_none = judged & (answered[none] >= RIGHT)
    known, seen = np.zeros_like(judged), np.zeros_like(judged)
    others = [row >= RIGHT for cell, row in answered.items() if cell not in (none, coarse)]
    shared = _shared_share(others, judged, by_none, blind.groups)
    for group in np.unique(blind.groups):
        own = judged & (blind.groups == group)
        share = min(shared, _known_share(by_none[own], blind.luck[own]))
        known |= _first(blind.ids, own & by_none, share)
        seen |= own & by_coarse & ~by_none
        # Where `none` is right by luck, a smaller image counts as seen as often as where `none` is wrong.
        both = own & by_coarse & by_none & ~known
        seen |= _first(blind.ids, both, _ratio(_share(by_coarse, own & ~by_none), _share(by_coarse, own & by_none)))
    hard = judged & ~known & ~seen
    split = HardSplit(
        num_samples=int(judged.sum()),
        right_without_image=int(by_none.sum()),
        answered_without_image=int(known.sum()),
        answered_downsampled=int((seen & ~known).sum()),
        downsample_cell=coarse,
        num_hard=int(hard.sum()),
        sample_ids=[sample_id for sample_id, is_hard in zip(blind.ids, hard, strict=True) if is_hard],
    )
    return HardSamples(split, hard, frozenset() if coarse is None else frozenset({coarse}))


def _known_share(right: NDArray[np.bool_], luck: NDArray[np.float64]) -> float:
    """Return which share of what `none` has right it knows: what it is right on beyond luck, as in Cohen's kappa.

    Cohen (1960, Educ. Psychol. Meas. 20). Zero if it is not above luck by more than chance.

    Args:
        right: [samples] of one group.
        luck: [samples], see `BlindAnswers`.
    """
    finite = np.isfinite(luck)
    if finite.sum() < 2 or not right.any():
        return 0.0
    beyond = right[finite] - luck[finite]
    excess, lucky = float(beyond.mean()), float(luck[finite].mean())
    error = float(beyond.std(ddof=1) / np.sqrt(len(beyond)))
    if excess <= 0.0 or excess <= _KNOWS_Z * error or lucky >= 1.0:
        return 0.0
    return min(1.0, excess / (1.0 - lucky) / float(right.mean()))


def _shared_share(
    others: Sequence[NDArray[np.bool_]],
    judged: NDArray[np.bool_],
    by_none: NDArray[np.bool_],
    groups: NDArray[np.int64],
) -> float:
    """Return which share of what `none` has right the other cells have right for that reason, too.

    What the question gives away, it gives to every cell; luck is shared by those alone that guess as `none` does. So
    the cells that agree least with `none` tell: of all cells' shares the one that a tenth of them lies below.

    Args:
        others: of each other cell, what it has right, [samples].
        judged: [samples].
        by_none: what `none` has right, [samples].
        groups: [samples].
    """
    shares = []
    for right in others:
        expected = np.zeros(len(judged))
        for group in np.unique(groups):
            own = judged & (groups == group)
            expected[own] = _share(right, own & ~by_none)
        room = float((1.0 - expected)[judged & by_none].sum())
        excess = float((right - expected)[judged & by_none].sum())
        if room > 0.0:
            shares.append(min(1.0, max(0.0, excess / room)))
    return float(np.quantile(shares, 0.1)) if shares else 1.0


def _first(ids: Sequence[str], among: NDArray[np.bool_], share: float) -> NDArray[np.bool_]:
    """Return a share of some samples, drawn by a hash of their ids: the same on every machine."""
    digests = {
        place: hashlib.sha256(ids[place].encode(errors="replace")).digest() for place in np.flatnonzero(among).tolist()
    }
    chosen = np.zeros_like(among)
    chosen[sorted(digests, key=digests.__getitem__)[: round(share * len(digests))]] = True
    return chosen


def _share(which: NDArray[np.bool_], among: NDArray[np.bool_]) -> float:
    return float(which[among].mean()) if among.any() else 0.0


def _ratio(part: float, whole: float) -> float:
    return min(1.0, part / whole) if whole else 0.0


def _groups(kinds: Sequence[str | None]) -> NDArray[np.int64]:
    """Return a number for each question type; 0 for the small ones, and where there are no types."""
    numbers = {kind: number for number, kind in enumerate(dict.fromkeys(kinds), start=1)}
    groups = np.array([numbers[kind] for kind in kinds], dtype=np.int64)
    counts = np.bincount(groups, minlength=len(numbers) + 1)
    return np.where(counts[groups] >= MIN_SAMPLES_OF_GROUP, groups, 0)
