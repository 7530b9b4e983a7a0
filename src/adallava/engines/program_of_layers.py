"""Which layers a pass runs, and in which pieces: one graph for a plan that comes often, a graph a layer for others."""

from collections import Counter
from collections.abc import Sequence

from adallava.engines.layer_pass import LayerStep, Segment

OFTEN = 3
"""Calls after which a plan gets a graph of its own: a capture costs about a tenth of a second, and saves about a tenth
of each pass."""

MOST_COUNTED = 4096
"""Plans, of a scheduler that decides again for every sample; those that came once or twice are forgotten then."""

PartsByLayer = Sequence[Sequence[Sequence[bool]]]
"""For each layer and row, whether each part of the layer runs; of whole layers there is one part."""


def layer_steps(runs: PartsByLayer, groups: int = 1) -> tuple[LayerStep, ...]:
    """Return the layers that some row runs: masked, all of them, if some row does not run all of one of them.

    A layer costs one row of a decoded token as much as eight, so that a batch saves the layers that no row runs.
    Masking costs next to nothing, and batches whose rows differ in other layers share their graphs. Parts of a layer
    are masked, too: at a few rows a layer's time is that of its whole weights, which lie as one run.

    Args:
        runs: of each layer, each row, and each part.
        groups: that each layer is split into.
    """
    needed = [index for index, rows in enumerate(runs) if any(map(any, rows))]
    masked = any(not all(map(all, runs[index])) for index in needed)
    return tuple(LayerStep(index, masked and groups == 1, groups if masked else 1) for index in needed)


class Pieces:
    """Counts how often each plan came."""

    def __init__(self) -> None:
        """Count from nothing."""
        self._calls: Counter[tuple[LayerStep, ...]] = Counter()

    def in_one(self, layers: tuple[LayerStep, ...], *, num_layers: int) -> bool:
        """Return whether a plan is to have graphs of its own, and count this call of it."""
        if len(layers) == num_layers:
            return True
        self._calls[layers] += 1
        if len(self._calls) > MOST_COUNTED:
            self._calls = Counter({plan: calls for plan, calls in self._calls.items() if calls >= OFTEN})
        return self._calls[layers] >= OFTEN


def cut(layers: tuple[LayerStep, ...], *, enter: bool, in_one: bool) -> list[Segment]:
    """Return the segments of a pass, or of its rest after a prefix.

    Args:
        layers: to run.
        enter: whether it begins with what enters the LLM.
        in_one: whether it is one segment; else each layer is one.
    """
    if in_one:
        return [Segment(layers, enter=enter, leave=True)]
    begin = [Segment((), enter=True)] if enter else []
    return [*begin, *(Segment((layer,)) for layer in layers), Segment((), leave=True)]
