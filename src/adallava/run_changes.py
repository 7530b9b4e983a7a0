"""What `adallava compare` says of two runs over the same samples, as data. No torch here."""

from .estimates import Interval, Record, Verdict


class CellChange(Verdict):
    """One cell in two runs over the same samples; the difference is the score in a minus the score in b."""

    cell: str
    accuracy_a: Interval
    accuracy_b: Interval
    """Both over the samples that both runs answered."""
    right_in_a_only: list[str]
    """Samples that a has right and b has wrong; right is a score of at least 0.5."""
    right_in_b_only: list[str]


class RunComparison(Record):
    """What changed between two runs, cell by cell."""

    num_samples: int
    cells: list[CellChange]
    cells_in_a_only: list[str]
    cells_in_b_only: list[str]
    cells_not_answered: list[str]
    """Cells in common of which no sample was answered by both runs."""
