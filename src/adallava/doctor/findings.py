"""What the doctor says: one outcome a check, and the diagnosis they add up to."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Status = Literal["passed", "found", "not-visible"]
"""`not-visible` is not `passed`: the file or model does not hold what the check would have to read."""

Severity = Literal["harness-bug", "model-finding", "cannot-tell"]
"""Who is to blame: the code around the model, the model itself, or one of them (more evidence is needed)."""


@dataclass(frozen=True)
class Observation:
    """What a check saw. Built by `passed`, `found` and `not_visible`.

    Attributes:
        status: whether the failure is there.
        evidence: counts, values and names, one statement a line; for `not-visible`, what is missing.
        severity: set if and only if the failure was found.
        examples: ids of samples that show it, at most a few.
    """

    status: Status
    evidence: tuple[str, ...]
    severity: Severity | None = None
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """One check's observation together with what the check is.

    Attributes:
        check: the check's id, stable across versions.
        failure: its number in the list of known failures (docs/how_to/doctor.md), or None for an additional check.
        title: the failure in one line.
        status: whether it was found, with `severity`, `evidence` and `examples` as in `Observation`.
        remedy: what to do about it; None unless it was found.
    """

    check: str
    failure: int | None
    title: str
    status: Status
    severity: Severity | None
    evidence: tuple[str, ...]
    examples: tuple[str, ...]
    remedy: str | None


@dataclass(frozen=True)
class Diagnosis:
    """All outcomes for one run, file or model.

    Attributes:
        source: the path or model that was examined.
        form: what it was read as: `run-folder`, `lmms-eval` or `model`.
        summary: one line on its size, for a reader to see that the right thing was read.
        outcomes: in the order of the checks.
    """

    source: str
    form: str
    summary: str
    outcomes: tuple[Outcome, ...]

    @property
    def findings(self) -> tuple[Outcome, ...]:
        """The outcomes that found something."""
        return tuple(outcome for outcome in self.outcomes if outcome.status == "found")

    @property
    def healthy(self) -> bool:
        """True if no check found anything; what was not visible stays unknown."""
        return not self.findings

    def to_json(self) -> dict[str, Any]:
        """Return the diagnosis as plain data, with `healthy` added."""
        return {"healthy": self.healthy, **asdict(self)}


def passed(*evidence: str) -> Observation:
    """The failure is not there, and `evidence` says what was looked at."""
    return Observation("passed", evidence)


def not_visible(missing: str) -> Observation:
    """Nothing can be said, because `missing`."""
    return Observation("not-visible", (missing,))


def found(severity: Severity, evidence: Sequence[str], examples: Sequence[str] = ()) -> Observation:
    """The failure is there."""
    return Observation("found", tuple(evidence), severity, tuple(dict.fromkeys(examples))[:5])
