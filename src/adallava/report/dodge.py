"""Where points that would fall on each other are drawn: a little apart, so that each shows its error bar."""

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

Key = TypeVar("Key")

_STEP = 0.01
"""Share of the axis between neighbors: the width of an error bar's cap in a figure as wide as a page."""

_MOST = 0.09
"""Share of the axis that points of one cost take at most: the bars of very many methods are closer together."""


def stand_apart(curves: Mapping[Key, Sequence[float]]) -> dict[Key, list[float]]:
    """Return where each curve's points are drawn on a logarithmic axis.

    Points of several curves that lie within a step of each other are spread evenly around their middle, in the order
    of their costs, and of the curves where costs are equal. Every other point stays where it is.

    Args:
        curves: costs of each curve's points, above 0.
    """
    points = sorted(
        (math.log(cost), rank, place) for rank, costs in enumerate(curves.values()) for place, cost in enumerate(costs)
    )
    if not points:
        return {}
    step = _STEP * (points[-1][0] - points[0][0] or math.log(10))
    drawn = [list(costs) for costs in curves.values()]
    for group in _groups(points, step):
        if len({rank for _, rank, _ in group}) == 1:
            continue
        middle = (group[0][0] + group[-1][0]) / 2
        apart = min(step, step * _MOST / _STEP / (len(group) - 1))
        for number, (_, rank, place) in enumerate(group):
            drawn[rank][place] = math.exp(middle + apart * (number - (len(group) - 1) / 2))
    return dict(zip(curves, drawn, strict=True))


def _groups(points: Sequence[tuple[float, int, int]], step: float) -> list[list[tuple[float, int, int]]]:
    """Return runs of points, each less than a step above the one before."""
    groups = [[points[0]]]
    for point in points[1:]:
        if point[0] - groups[-1][-1][0] < step:
            groups[-1].append(point)
        else:
            groups.append([point])
    return groups
