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


def nothing_right(results: Results) -> str | None:
    """Say that no cell has an accuracy above 0; None where one has, and where none has an accuracy at all."""
    cells = [cell for cell in results.cells if cell.accuracy is not None]
    if not cells or any(cell.accuracy.mean > 0.0 for cell in cells if cell.accuracy is not None):
        return None
    samples = max(cell.accuracy.n for cell in cells if cell.accuracy is not None)
    of = "the only cell" if len(cells) == 1 else f"all {formats.count(len(cells))} cells"
    return (
        f"accuracy is 0 in {of}: no answer to any of {formats.count(samples)} samples scored above 0, so there is no "
        "best method and nothing to compare; look at the answers and the right ones, at the metric, and at whether the "
        "question says what form an answer takes (--question-suffix)"
    )


def alarm_lines(results: Results) -> list[tuple[str, str]]:
    """Return (severity, message) of what is to be said first: that nothing is right, the alarms, the cautions."""
    nothing = nothing_right(results)
    return ([] if nothing is None else [("nothing right", nothing)]) + [
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
    score = _score(majority.accuracy, majority.num_scored)
    one = f"{shown_answer(majority.answer)} to every question is right on {score}"
    by_kind = majority.accuracy_with_kinds
    if by_kind is None:
        return f"{MAJORITY_NAME}: {one}"
    named = ", ".join(f"{kind} {shown_answer(answer)}" for kind, answer in majority.answers_by_kind.items())
    score = _score(by_kind, majority.num_scored_with_kinds)
    return f"{MAJORITY_NAME}: {one}; that of each question type ({named}) on {score}"


def shown_answer(answer: str) -> str:
    """Return an answer as text of one line, in quotes, without characters that a terminal would obey."""
    return repr(answer if len(answer) <= 40 else answer[:39] + "…")


def majority_count(majority: MajorityBaseline) -> str:
    """Say on how many samples the majority answer's line scores; empty in older files."""
    return _count_words(majority.line_count, majority.line.n)


def _count_words(num_scored: int | None, num_samples: int) -> str:
    # A metric of many people's answers gives a part of a point: "right" would be too much.
    return "" if num_scored is None else f"{formats.count(num_scored)} of {formats.count(num_samples)} score above 0"


def _score(accuracy: Interval, num_scored: int | None) -> str:
    counted = _count_words(num_scored, accuracy.n)
    words = f"{formats.percent(accuracy.mean)} % ({formats.interval(accuracy)}), n = {formats.count(accuracy.n)}"
    return f"{words} ({counted})" if counted else words
