"""What a report says first where a run's accuracies say nothing of its methods, and the line of the majority answer."""

from typing import Literal

from adallava.records import Interval, Results
from adallava.records.alarms import MajorityBaseline, raised
from adallava.report import formats

MAJORITY_NAME = "majority answer"
"""What tables and legends call it."""


def has_leaders(results: Results) -> bool:
    """Return whether a cell of the run may be called the highest: no alarm is raised, and something was right."""
    means = [cell.accuracy.mean for cell in results.cells if cell.accuracy is not None]
    return not raised(results.alarms) and max(means, default=0.0) > 0.0


def alarm_lines(results: Results) -> list[tuple[str, str]]:
    """Return (severity, message) of what is to be said first, the alarms before the cautions."""
    return [
        (alarm.severity, alarm.message)
        for severity in ("alarm", "caution")
        for alarm in results.alarms
        if alarm.severity == severity
    ]


def without_leaders(results: Results) -> Results:
    """Return the results as a report may show them: without Pareto fronts where no cell may be called the highest."""
    if has_leaders(results):
        return results
    cells = [cell.model_copy(update={"on_front": []}) for cell in results.cells]
    dials = results.dials and results.dials.model_copy(update={"fronts": []})
    return results.model_copy(update={"cells": cells, "dials": dials})


def majority_of(results: Results, split: Literal["all", "hard"]) -> Interval | None:
    """Return the majority answer's line over all samples or over the hard split; None where nobody counted it."""
    if results.majority is None:
        return None
    return results.majority.line if split == "all" else results.majority.accuracy_hard


def majority_words(majority: MajorityBaseline) -> str:
    """Say what the most frequent answers are and score."""
    one = f"{shown_answer(majority.answer)} to every question is right on {_score(majority.accuracy)}"
    by_kind = majority.accuracy_with_kinds
    if by_kind is None:
        return f"{MAJORITY_NAME}: {one}"
    named = ", ".join(f"{kind} {shown_answer(answer)}" for kind, answer in majority.answers_by_kind.items())
    return f"{MAJORITY_NAME}: {one}; that of each question type ({named}) on {_score(by_kind)}"


def shown_answer(answer: str) -> str:
    """Return an answer as text of one line, in quotes, without characters that a terminal would obey."""
    return repr(answer if len(answer) <= 40 else answer[:39] + "…")


def _score(accuracy: Interval) -> str:
    return f"{formats.percent(accuracy.mean)} % ({formats.interval(accuracy)}), n = {formats.count(accuracy.n)}"
