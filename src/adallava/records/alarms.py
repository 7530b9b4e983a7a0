"""Why a run's accuracies may say nothing of its methods, and the answer that needs no model. No torch here."""

from typing import Literal

from pydantic import Field

from adallava.records.estimates import Interval, PairedDifference, Record

AlarmKind = Literal["answers-outside-task", "full-not-above-none", "full-not-above-majority"]
"""`answers-outside-task`: hardly a response is one of the task's answers, right or wrong; the others: the full-token
model is not above what needs no image."""

AlarmSeverity = Literal["alarm", "caution"]
"""`alarm`: no cell of the run may be called the highest; `caution`: too few samples to tell, but look at it."""


class Alarm(Record):
    """One reason not to read a run's accuracies as a comparison of methods."""

    kind: AlarmKind
    severity: AlarmSeverity
    message: str
    """One line, with its counts and intervals."""
    count: int | None = None
    """For `answers-outside-task`: responses that are one of the task's answers, or score above 0."""
    total: int | None = None
    """Responses that were looked at: neither failed nor empty."""
    full: Interval | None = None
    """For the other kinds: accuracy of the full-token model, on the samples that both answered."""
    other: Interval | None = None
    """Accuracy of what it is compared with."""
    difference: PairedDifference | None = None
    """The first less the second."""


class MajorityBaseline(Record):
    """What the task's most frequent answer scores when it is given to every question, by the run's own metric.

    The answer is chosen on the same samples, as is usual: for few samples that flatters it.
    """

    answer: str
    """The one that scores most over all questions."""
    accuracy: Interval
    """Of that answer, given to every question."""
    answers_by_kind: dict[str, str] = Field(default_factory=dict)
    """The answer that scores most over a type's questions, for types of at least ten."""
    accuracy_by_kind: dict[str, Interval] = Field(default_factory=dict)
    """Of the answers below each type, or the one of all where the type has none of its own."""
    accuracy_with_kinds: Interval | None = None
    """Over all questions, if each is given its type's answer; None where no type has one of its own."""
    num_scored: int | None = None
    """Questions on which `answer` scores above 0; None in older files, as is the next."""
    num_scored_with_kinds: int | None = None
    """The same, if each question is given its type's answer."""
    accuracy_hard: Interval | None = None
    """On the hard split, each question given its type's answer."""
    accuracy_hard_by_kind: dict[str, Interval] = Field(default_factory=dict)

    @property
    def line(self) -> Interval:
        """What a chart draws: the most that an answer can score without looking at the question's image or words."""
        return self.accuracy if self.accuracy_with_kinds is None else self.accuracy_with_kinds

    @property
    def line_count(self) -> int | None:
        """Questions on which the line's answer scores above 0; None in older files."""
        return self.num_scored if self.accuracy_with_kinds is None else self.num_scored_with_kinds


def raised(alarms: list[Alarm]) -> bool:
    """Return whether any is more than a caution: then no cell may be called the highest."""
    return any(alarm.severity == "alarm" for alarm in alarms)
