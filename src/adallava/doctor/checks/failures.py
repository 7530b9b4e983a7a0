"""Samples that failed with an error, and what the error says: failure 8, and parts of failures 3 and 5."""

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from adallava.doctor.answers import Answer, AnswerFile, Sightings, percent
from adallava.doctor.findings import Observation, found, not_visible, passed

ErrorClass = Literal["devices", "placeholders", "off-by-one", "other"]

# The wording of PyTorch and transformers; a message that matches none of them stays `other`.
_DEVICES = re.compile(
    r"expected all tensors to be on the same device"
    r"|at least two devices"
    r"|is on \S+, different from other tensors"
    r"|input type \(\S+\) and weight type \(\S+\) should be the same",
    re.IGNORECASE,
)
_PLACEHOLDERS = re.compile(r"image features and image tokens do not match|masked_scatter", re.IGNORECASE)
_SIZES = re.compile(
    r"(?:size of tensor a \((?P<a>\d+)\) must match the size of tensor b \((?P<b>\d+)\))"
    r"|(?:tokens: (?P<c>\d+),? (?:image )?features:? (?P<d>\d+))",
    re.IGNORECASE,
)


def error_class(message: str) -> ErrorClass:
    """Name the failure that an error message is the trace of."""
    if _DEVICES.search(message):
        return "devices"
    sizes = _SIZES.search(message)
    if sizes:
        first, second = (int(size) for size in sizes.groups() if size is not None)
        return "off-by-one" if abs(first - second) == 1 else "placeholders"
    return "placeholders" if _PLACEHOLDERS.search(message) else "other"


@dataclass
class Failures:
    """Failed samples, and what their errors say."""

    seen: Sightings = field(default_factory=Sightings)
    messages: Counter[str] = field(default_factory=Counter)

    def add(self, answer: Answer) -> None:
        """Count one more."""
        self.seen.add(answer)
        if answer.error:
            self.messages[(answer.error.splitlines() or [""])[0][:200]] += 1

    def lines(self) -> list[str]:
        """Evidence: each error message with how often it was recorded, the most frequent first."""
        return [f"{count} samples failed with: {message}" for message, count in self.messages.most_common(3)]


def failed_as(file: AnswerFile, kind: ErrorClass) -> Failures:
    """The failed samples whose error is of the given class."""
    failures = Failures()
    for answer in file.answers:
        if answer.error and error_class(answer.error) == kind:
            failures.add(answer)
    return failures


def check_devices(file: AnswerFile) -> Observation:
    """Failure 8: parts of the model, or their inputs, on two devices."""
    failed = failed_as(file, "devices")
    # Some wrappers of lmms-eval write the exception where the answer should be.
    written = Sightings.of(answer for answer in file.answers if _DEVICES.search(answer.response))
    if failed.seen.count or written.count:
        evidence = failed.lines()
        if written.count:
            evidence.append(f"{written.count} answers are an error message: {written.first.response[:200]}")
        return found("harness-bug", evidence, failed.seen.names + written.names)
    if file.form == "lmms-eval":
        return not_visible("lmms-eval does not record errors with its samples; see its log")
    return passed("no recorded error mentions devices")


def check_failed_samples(file: AnswerFile) -> Observation:
    """Additional: samples that failed for any other reason."""
    others, total = Failures(), 0
    for answer in file.answers:
        total += 1
        if answer.failed and (answer.error is None or error_class(answer.error) == "other"):
            others.add(answer)
    if others.seen.count:
        return found("cannot-tell", [f"{percent(others.seen.count, total)} failed", *others.lines()], others.seen.names)
    if file.form == "lmms-eval":
        return not_visible("lmms-eval does not record errors with its samples; a failed one looks empty")
    return passed(f"{total} answers, none failed for an unexplained reason")
