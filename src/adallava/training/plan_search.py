"""The search for one plan of each length: over all of them where they are few, else from the whole LLM downwards.

    beam of width 2, units 0 … 3              length 3            length 2
    0123 ── leave one out, score all ──▶ 012 013 023 123 ──▶ the best two, leave one out ──▶ …

Pure Python: what a plan is worth is asked of a function.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import combinations
from math import comb

Plan = tuple[int, ...]
"""Units after the prefix that run, ascending."""

Score = Callable[[Sequence[Plan]], Mapping[Plan, float]]


def count_plans(num_units: int, lengths: Collection[int]) -> int:
    """Return how many plans of these lengths there are."""
    return sum(comb(num_units, length) for length in lengths)


def score_all(num_units: int, lengths: Collection[int], score: Score) -> dict[Plan, float]:
    """Return the worth of every plan of these lengths."""
    return dict(score([plan for length in sorted(lengths) for plan in combinations(range(num_units), length)]))


def score_beam(num_units: int, lengths: Collection[int], score: Score, beam_width: int) -> dict[Plan, float]:
    """Return the worth of the plans that a beam search from the whole LLM downwards meets, of these lengths.

    Of all plans of n + 1 units, the `beam_width` best go on; those of n units are theirs with one left out.
    """
    scored: dict[Plan, float] = {}
    beam: list[Plan] = [tuple(range(num_units))]
    for length in range(num_units - 1, min(lengths) - 1, -1):
        shorter = sorted({plan[:place] + plan[place + 1 :] for plan in beam for place in range(len(plan))})
        level = score(shorter)
        beam = _best(level, shorter)[:beam_width]
        if length in lengths:
            scored |= level
    return scored


def best_plans(scored: Mapping[Plan, float]) -> dict[int, Plan]:
    """Return the best plan of each length, by length; of equal ones, the first in order."""
    by_length: dict[int, list[Plan]] = {}
    for plan in sorted(scored):
        by_length.setdefault(len(plan), []).append(plan)
    return {length: _best(scored, by_length[length])[0] for length in sorted(by_length)}


def _best(scored: Mapping[Plan, float], plans: Sequence[Plan]) -> list[Plan]:
    return sorted(plans, key=lambda plan: -scored[plan])
