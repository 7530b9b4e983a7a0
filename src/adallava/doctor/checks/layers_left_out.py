"""Runs that leave layers out: did the latency reach the model, and did it leave the choice of patches alone?"""

import math
from collections.abc import Iterator

from adallava.budget import Latency
from adallava.doctor.answers import MIN_SAMPLES_TO_COMPARE, Answer, AnswerCell, AnswerFile
from adallava.errors import BudgetError
from adallava.records.index_sets import num_common

_MIN_COMMON = 0.9
"""Of the patches that a sample keeps, so many must stay whatever layers are left out. Not all: a method that reads the
LLM's attention runs with other rows, and of two patches alike rounding may let the other win."""

_SLACK = 1e-6


def layers_as_asked(answer: Answer) -> bool:
    """Return whether as many layers ran as were asked for, rounded down to whole groups."""
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
            count, total = 0, 0.0
            for share in _common_shares(first, cell):
                count, total = count + 1, total + share
            if count >= MIN_SAMPLES_TO_COMPARE and total / count < _MIN_COMMON:
                yield first, cell, total / count


def _common_shares(first: AnswerCell, second: AnswerCell) -> Iterator[float]:
    others = {(answer.sample_id, answer.draw): answer.kept_sets for answer in second.answered}
    for answer in first.answered:
        kept, other = answer.kept_sets, others.get((answer.sample_id, answer.draw))
        if kept is not None and other is not None and answer.num_kept:
            yield sum(num_common(a, b) for a, b in zip(kept, other, strict=False)) / answer.num_kept
