"""What every record is made of: the base class, and figures with the uncertainty that so many samples leave."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from adallava.records import older_files

IntervalMethod = Literal[
    "bootstrap", "cluster-bootstrap", "cluster-t", "wilson", "wilson-on-mean", "corrected-halvings", "fieller"
]
"""How an interval was made (docs/concepts/protocol.md): by resampling samples, or images; by Student's t over
images; by Wilson's formula, of right and wrong or of the mean of partial scores; by random halvings; by Fieller's, of
a ratio."""

TestName = Literal["sign-flip", "sign-flip-by-picture", "cluster-t"]
"""The paired test: signs of the samples' differences flipped, those of the images' sums, or Student's t over images
(never below the flips by image)."""

Family = Literal["planned", "exploratory"]
"""`planned`: a comparison that was fixed before anything ran; `exploratory`: any other pair."""

Correction = Literal["holm", "max-t"]


class Record(BaseModel):
    """Frozen, and strict about names: a field that it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class OfResults(Record):
    """A part of `results.json` or `timings.jsonl`: what a file of an older version left out is put in."""

    @model_validator(mode="before")
    @classmethod
    def _of_file(cls, data: Any) -> Any:
        return older_files.complete_part(cls.__name__, data) if isinstance(data, dict) else data


class Interval(OfResults):
    """An estimate with its two-sided 95 % interval and its sample count."""

    mean: float
    low: float
    high: float
    n: int
    num_pictures: int | None
    """Different ones among the n samples; None in older files, which took every sample for one of its own."""
    method: IntervalMethod | None
    """None in older files."""


class PairedDifference(OfResults):
    """A score minus another on the same samples, with a 95 % paired interval."""

    mean: float
    low: float
    high: float
    n: int
    num_pictures: int | None
    """See `Interval`."""
    method: IntervalMethod | None
    """None in older files."""


class Verdict(OfResults):
    """A paired difference and what may be said of it. "Better" only where `significant`, "the same" only where
    `equivalent`; elsewhere the two are not told apart, and `least_detectable` says what could have been.
    """

    difference: PairedDifference
    p_value: float
    """Two-sided and paired, for this comparison only."""
    p_adjusted: float
    """Corrected for the comparisons of its family; in older files by Holm's method for all of the run."""
    significant: bool
    """`p_adjusted` < 0.05."""
    test: TestName | None
    """None in older files, where it is `sign-flip`."""
    family: Family | None
    """None in older files, which had one family of all comparisons."""
    num_tests: int | None
    """Comparisons that `p_adjusted` is corrected for."""
    correction: Correction | None
    least_detectable: float | None
    """The least true difference that such a run calls significant in four of five cases; None in older files, or if
    no difference would be."""
    equivalence_margin: float | None
    """Differences within plus or minus this are called the same; None in older files."""
    p_equivalence: float | None
    """P-value of two one-sided tests against the margin, corrected by Holm's method for the comparisons of its
    family."""
    equivalent: bool | None
    """`p_equivalence` < 0.05."""
