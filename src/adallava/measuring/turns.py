"""Cells take turns, round by round.

A machine drifts (clocks, heat, neighbors), and cells that take turns drift together: none is favored by when it ran.
The same for a sweep's timing pass, `adallava bench` and the benchmarks.
"""

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np

from adallava.errors import in_short
from adallava.records import Spread

Measured = TypeVar("Measured")
Name = TypeVar("Name", bound=Hashable)


@dataclass
class Turns(Generic[Measured]):
    """What the turns of one cell gave.

    Attributes:
        results: of the rounds that are recorded, in order.
        error: why it was left out from then on; None if it was not.
    """

    results: list[Measured] = field(default_factory=list)
    error: str | None = None


def take_turns(
    cells: Mapping[Name, Callable[[], Measured]],
    *,
    warm_ups: int,
    repeats: int,
    seconds: float = float("inf"),
    describe: Callable[[Exception], str] = in_short,
) -> dict[Name, Turns[Measured]]:
    """Run every cell once a round. One that raises, for want of memory for instance, is left out from then on.

    Args:
        cells: by name; each call is one turn, and measures itself.
        warm_ups: rounds that are not recorded.
        repeats: rounds that are.
        seconds: no round begins after so many, but one round is recorded in any case.
        describe: says in a line what was raised.
    """
    turns: dict[Name, Turns[Measured]] = {name: Turns() for name in cells}
    end = time.monotonic() + seconds
    for number in range(warm_ups + repeats):
        for name, run in cells.items():
            own = turns[name]
            if own.error is not None:
                continue
            try:
                result = run()
            except Exception as error:  # most often a batch that does not fit into memory: the others still may
                own.error = describe(error)
                continue
            if number >= warm_ups:
                own.results.append(result)
        if number >= warm_ups and time.monotonic() > end:
            break
    return turns


def spread_of(values: Sequence[float]) -> Spread:
    """Return median, 10th and 90th percentile (numpy's linear ones) of at least one value."""
    low, median, high = np.percentile(values, (10, 50, 90))
    return Spread(median=float(median), low=float(low), high=float(high))
