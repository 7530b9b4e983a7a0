"""Whether a run's accuracies say anything of its methods: are responses answers at all, and does the image help?"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adallava.analysis.clusters import Clusters
from adallava.analysis.majority import MajorityScores
from adallava.analysis.scores import ScoreTable
from adallava.analysis.statistics import mean_interval, paired_difference
from adallava.records import NONE_METHOD, Interval, PairedDifference, SampleRecord
from adallava.records.alarms import Alarm, AlarmKind, AlarmSeverity
from adallava.records.cells import FULL_CELL, split_cell
from adallava.tasks.normalising import normalise_answer

MIN_SAMPLES = 10
"""Fewer samples than these raise a caution only: a task of three may well be answered wrong three times."""

TINY_SHARE = 0.05
"""If a smaller share of the responses is among the task's answers, right or wrong, model and task do not meet."""

SMALL_GAIN = 0.05
"""If the full-token model is not told apart from what needs no image, and cannot be further above it than this, the
sample is large enough to say so."""

_SHOWN = 3
_SHOWN_CHARACTERS = 40


@dataclass(frozen=True)
class ResponseTally:
    """The responses of one cell or more that are neither failed nor empty.

    Attributes:
        scored: how many score above 0: answers, whatever the metric takes for equal.
        others: the rest, as they are compared, with their numbers.
    """

    scored: int
    others: Counter[str]

    def __add__(self, other: "ResponseTally") -> "ResponseTally":
        """Return the tally of both."""
        return ResponseTally(self.scored + other.scored, self.others + other.others)


NO_RESPONSES = ResponseTally(0, Counter())


def tally(given: Iterable[tuple[str, float | None]]) -> ResponseTally:
    """Count responses with their scores; of a failed sample the score is None."""
    scored, texts = 0, Counter[str]()
    for response, score in given:
        if score is None or not response.strip():
            continue
        if score <= 0.0:
            texts[response] += 1
        else:
            scored += 1
    others = Counter[str]()
    for text, count in texts.items():
        others[normalise_answer(text)] += count
    return ResponseTally(scored, others)


def tally_records(records: Iterable[SampleRecord]) -> ResponseTally:
    """Count the responses of records."""
    return tally((record.response, record.score) for record in records)


def alarm_of_answers(told: ResponseTally, answers: Iterable[Sequence[str]]) -> Alarm | None:
    """Return an alarm if no response, or hardly any, is one of the task's answers, of whichever sample.

    Args:
        told: of all cells.
        answers: the right ones of each sample.
    """
    of_samples = list(answers)
    known = {normal for own in of_samples for answer in own if (normal := normalise_answer(answer))}
    outside = Counter({text: count for text, count in told.others.items() if text not in known})
    total = told.scored + told.others.total()
    within = total - outside.total()
    if total == 0 or within >= TINY_SHARE * total:
        return None
    if not known:
        return _alarm_of_signs(of_samples, within, total)
    share = f"{within:,} of {total:,} responses ({100 * within / total:.1f} %)"
    head = f"none of {total:,} responses is" if within == 0 else f"only {share} are"
    frequent = ", ".join(f"{_quoted(text)} ({count:,})" for text, count in outside.most_common(_SHOWN))
    return Alarm(
        kind="answers-outside-task",
        severity=_severity(len(of_samples)),
        message=f"{head} {_answers_words(sorted(known))}, right or wrong; the most frequent: {frequent}",
        count=within,
        total=total,
    )


def _alarm_of_signs(of_samples: Sequence[Sequence[str]], within: int, total: int) -> Alarm | None:
    given = dict.fromkeys(answer for own in of_samples for answer in own if answer.strip())
    if not given:
        return None
    return Alarm(
        kind="answers-outside-task",
        severity=_severity(len(of_samples)),
        message=(
            f"{within:,} of {total:,} responses are right, and the task's answers are only punctuation "
            f"({', '.join(map(_quoted, list(given)[:_SHOWN]))}), which exact-match never counts as right"
        ),
        count=within,
        total=total,
    )


def alarm_of_floor(
    kind: AlarmKind, full: NDArray[np.float64], floor: NDArray[np.float64], words: str, seed: int, clusters: Clusters
) -> Alarm | None:
    """Return an alarm if the full-token model is not above a floor that needs no image.

    It is one if the model's mean is not higher, or if it is not told apart and at most `SMALL_GAIN` higher; a caution
    if the samples are too few to tell.

    Args:
        kind: which floor.
        full: scores of the full-token model, [samples]; NaN where there is none.
        floor: scores of the floor, in the same order.
        words: the floor's name in the message.
        seed: of the bootstrap.
        clusters: which samples share an image.
    """
    both = np.isfinite(full) & np.isfinite(floor)
    if not both.any():
        return None
    own_clusters = clusters.among(both)
    difference = paired_difference(full[both], floor[both], seed, clusters=own_clusters)
    if difference.low > 0.0:
        return None
    told = difference.mean <= 0.0 or difference.high < SMALL_GAIN
    own, other = (mean_interval(scores[both], own_clusters) for scores in (full, floor))
    relation = "is not above" if told else "is not told apart from"
    return Alarm(
        kind=kind,
        severity=_severity(difference.num_pictures or difference.n) if told else "caution",
        message=(
            f"the full-token model {relation} {words}: {_interval(own)} against {_interval(other)}, difference "
            f"{100 * difference.mean:+.1f} points [{100 * difference.low:+.1f}, {100 * difference.high:+.1f}], "
            f"n = {difference.n:,}{_pictures_words(difference)}"
        ),
        full=own,
        other=other,
        difference=difference,
    )


def find_alarms(
    scores: ScoreTable,
    told: ResponseTally,
    answers: Iterable[Sequence[str]],
    majority: MajorityScores | None,
    seed: int,
) -> list[Alarm]:
    """Return what is alarming about a run.

    Args:
        scores: of its cells.
        told: responses of all of them.
        answers: the right ones of each sample.
        majority: scores of the most frequent answers, in the order of the samples; None where they are not known.
        seed: of the bootstrap.
    """
    full = scores.row(FULL_CELL) if FULL_CELL in scores.cells else np.full(scores.values.shape[1], np.nan)
    blind = next((cell for cell in scores.cells if split_cell(cell)[0] == NONE_METHOD), None)
    clusters = scores.clusters_among(np.ones_like(full, dtype=np.bool_))
    found = [alarm_of_answers(told, answers)]
    if blind is not None:
        words = f"{NONE_METHOD}, which sees no image"
        found.append(alarm_of_floor("full-not-above-none", full, scores.row(blind), words, seed, clusters))
    if majority is not None:
        words = majority_words(majority)
        found.append(alarm_of_floor("full-not-above-majority", full, majority.best, words, seed, clusters))
    return [alarm for alarm in found if alarm is not None]


def majority_words(majority: MajorityScores) -> str:
    """Name the majority baseline in a message."""
    if majority.answers_by_kind:
        return "the most frequent answer of each question type"
    return f"the most frequent answer, {_quoted(majority.answer)}, given to every question"


def _answers_words(known: Sequence[str]) -> str:
    named = ", ".join(map(_quoted, known[:_SHOWN])) + (", …" if len(known) > _SHOWN else "")
    if len(known) == 1:
        return f"the task's one answer ({named})"
    return f"one of the task's {len(known):,} answers ({named})"


def _pictures_words(difference: PairedDifference) -> str:
    shared = difference.num_pictures is not None and difference.num_pictures < difference.n
    return f" on {difference.num_pictures:,} images" if shared else ""


def _severity(num_samples: int) -> AlarmSeverity:
    return "alarm" if num_samples >= MIN_SAMPLES else "caution"


def _quoted(text: str) -> str:
    # repr, so that no control character of a response reaches a terminal.
    return repr(text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…")


def _interval(estimate: Interval) -> str:
    return f"{100 * estimate.mean:.1f} % [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"
