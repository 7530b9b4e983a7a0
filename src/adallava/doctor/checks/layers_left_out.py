"""Runs that leave layers out: did the latency reach the model, and did it leave the choice of patches alone?"""

import math
from collections.abc import Iterator

from adallava.budget import Latency
from adallava.doctor.answers import MIN_SAMPLES_TO_COMPARE, Answer, AnswerCell, AnswerFile
from adallava.errors import BudgetError

_MIN_COMMON = 0.9
"""Of the patches that a sample keeps, so many must stay whatever layers are left out. Not all: a method that reads the
LLM's attention runs beside other rows, and of two patches alike rounding may let the other win."""

_SLACK = 1e-6


def unscheduled(cell: AnswerCell) -> list[Answer]:
    """Return the answers that ran another number of layers than was asked for, rounded down to whole groups."""
    return [answer for answer in cell.answered if not _as_many_as_asked(answer)]


def layers_run(answer: Answer) -> float:
    """Return how many layers ran, groups of heads counted as parts of one."""
    return sum(map(len, answer.groups_run or ())) / answer.groups_per_layer


def moved_selections(file: AnswerFile) -> Iterator[tuple[AnswerCell, AnswerCell, float]]:
    """Yield cells that differ in their layers alone and yet kept other patches, with the share in common.

    Tokens are chosen before layers are left out.
    """
    firsts: dict[tuple[object, ...], AnswerCell] = {}
    for cell in sorted(file.cells, key=lambda cell: bool(cell.schedule)):
        first = firsts.setdefault((cell.task, cell.selection, cell.budget, cell.positions), cell)
        if first is not cell:
            shares = list(_common_shares(first, cell))
            if len(shares) >= MIN_SAMPLES_TO_COMPARE and sum(shares) / len(shares) < _MIN_COMMON:
                yield first, cell, sum(shares) / len(shares)


def _as_many_as_asked(answer: Answer) -> bool:
    if answer.groups_run is None or answer.latency_asked is None:
        return True
    try:
        latency = Latency.parse(answer.latency_asked)
    except BudgetError:
        return False
    num_layers = len(answer.groups_run)
    asked = float(min(latency.count, num_layers)) if latency.count is not None else (latency.ratio or 0.0) * num_layers
    # A unit may be several groups, and then they come together: those of a layer are a multiple of it.
    unit = math.gcd(*map(len, answer.groups_run)) / answer.groups_per_layer
    return asked - unit + _SLACK < layers_run(answer) < asked + _SLACK


def _common_shares(first: AnswerCell, second: AnswerCell) -> Iterator[float]:
    others = {(answer.sample_id, answer.draw): answer.kept_indices for answer in second.answered}
    for answer in first.answered:
        kept, other = answer.kept_indices, others.get((answer.sample_id, answer.draw))
        if kept is not None and other is not None and any(kept):
            common = sum(len(set(a) & set(b)) for a, b in zip(kept, other, strict=False))
            yield common / sum(map(len, kept))
