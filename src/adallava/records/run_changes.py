"""What `adallava compare` says of two runs over the same samples, as data. No torch here."""

from pydantic import Field

from adallava.records.estimates import Interval, Record, Verdict


class CellChange(Verdict):
    """One cell in two runs over the same samples; the difference is the score in a minus the score in b."""

    cell: str
    accuracy_a: Interval
    accuracy_b: Interval
    """Both over the samples that both runs answered."""
    right_in_a_only: list[str]
    """Samples that a has right and b has wrong; right is a score of at least 0.5."""
    right_in_b_only: list[str]


class RunDifference(Record):
    """A field of `run.json` that is not the same in both, as text; "none" where a run has it not."""

    name: str
    a: str
    b: str


class RunComparison(Record):
    """What changed between two runs, cell by cell, over the samples that both took."""

    num_samples: int
    """In both runs."""
    samples_in_a_only: list[str] = Field(default_factory=list)
    samples_in_b_only: list[str] = Field(default_factory=list)
    differences: list[RunDifference] = Field(default_factory=list)
    """Between what the runs were asked for and ran on."""
    cells: list[CellChange]
    cells_in_a_only: list[str]
    cells_in_b_only: list[str]
    cells_not_answered: list[str]
    """Cells in common without a sample that both runs answered."""
