"""Which samples are in the hard split: the records say how many, the rule says which."""

from adallava.records import Results
from adallava.report.sample_table import SampleTable, is_right


def hard_samples(results: Results, table: SampleTable) -> frozenset[str] | None:
    """Return the ids of the samples that were answered, and wrongly, both without the image and from a smaller one.

    None if the run has no hard split, or if the rule does not give as many samples as `Results.hard_split` states:
    then nobody can tell which samples were meant, and a filter would mislead.
    """
    split = results.hard_split
    if split is None:
        return None
    defining = [cell.cell for cell in results.cells if cell.method == "none"][:1]
    defining += [split.downsample_cell] if split.downsample_cell is not None else []
    ids = frozenset(
        row.sample_id for row in table.rows if all(_is_wrong(table.score(cell, row.sample_id)) for cell in defining)
    )
    return ids if len(ids) == split.num_hard else None


def _is_wrong(score: float | None) -> bool:
    return score is not None and not is_right(score)
