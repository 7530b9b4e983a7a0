"""Which layers a pass runs, and in which pieces: one graph for a plan that comes often, a graph a layer for others."""

from collections import Counter
from collections.abc import Sequence

from adallava.engines.layer_pass import LayerStep, Segment

OFTEN = 3
"""Calls after which a plan gets a graph of its own: a capture costs about a tenth of a second, and saves about a tenth
of each pass."""

RunByLayer = Sequence[Sequence[bool]]
"""For each layer, the rows that run it."""


def layer_steps(runs: RunByLayer) -> tuple[LayerStep, ...]:
    """Return the layers that some row runs; where another row does not, masked.

    A layer costs one row of a decoded token as much as eight, so that a batch saves the layers that no row runs.
    """
    return tuple(LayerStep(index, masked=not all(rows)) for index, rows in enumerate(runs) if any(rows))


class Pieces:
    """Cuts a pass into segments, and counts how often each plan came."""

    def __init__(self) -> None:
        """Count from nothing."""
        self._calls: Counter[tuple[LayerStep, ...]] = Counter()

    def count(self, layers: tuple[LayerStep, ...]) -> None:
        """Note that a call runs this plan."""
        self._calls[layers] += 1
        if len(self._calls) > 4096:  # Plans of a scheduler that decides anew for every sample.
            self._calls = Counter({plan: calls for plan, calls in self._calls.items() if calls >= OFTEN})

    def cut(self, layers: tuple[LayerStep, ...], *, enter: bool, is_whole: bool = False) -> list[Segment]:
        """Return the segments of a pass, or of its rest behind a prefix.

        Args:
            layers: to run.
            enter: whether it begins with what enters the LLM.
            is_whole: whether every layer runs, for all rows.
        """
        if is_whole or self._calls[layers] >= OFTEN:
            return [Segment(layers, enter=enter, leave=True)]
        begin = [Segment((), enter=True)] if enter else []
        return [*begin, *(Segment((layer,)) for layer in layers), Segment((), leave=True)]
