"""Which samples of a task a limit takes: the first ones, or a seeded random sample, stratified by kind and nested."""

import hashlib
from collections.abc import Sequence


def random_order(ids: Sequence[str], kinds: Sequence[str | None], seed: int) -> list[int]:
    """Return the places of all samples in an order of which every beginning is a random sample, stratified by kind.

    Of the first n, each kind has its share of n, rounded (Webster's method): the sample of rank r, from 0, among the m
    of a kind comes at (r + 1/2) / m of the way. Ranks are random, but follow from the seed and the id alone: they are
    the same on every machine, and a larger limit keeps what a smaller one took.

    Args:
        ids: of the samples, each once.
        kinds: of each; None is a kind like any other.
        seed: of the ranks.
    """
    ranks = [hashlib.sha256(f"{seed}:{sample_id}".encode()).digest() for sample_id in ids]
    strata: dict[str | None, list[int]] = {}
    for place in sorted(range(len(ids)), key=ranks.__getitem__):
        strata.setdefault(kinds[place], []).append(place)
    way = {place: (2 * rank + 1) / (2 * len(places)) for places in strata.values() for rank, place in enumerate(places)}
    return sorted(way, key=lambda place: (way[place], ranks[place]))
