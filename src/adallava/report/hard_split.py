"""Which samples are in the hard split: the records say how many, the rule says which."""

from adallava.records import Results
from adallava.report.sample_table import SampleTable, is_right


def blind_cell(results: Results) -> str | None:
    """Return the cell that answers without an image token, if the run has one."""
    return next((cell.cell for cell in results.cells if cell.method == "none"), None)


def hard_samples(results: Results, table: SampleTable) -> frozenset[str] | None:
    """Return the ids of the samples right neither without the image nor from a smaller one.

    None if the run has no hard split, or if the rule does not give as many samples as `Results.hard_split` states:
    then nobody can tell which samples were meant, and a filter would mislead.
    """
    split, blind = results.hard_split, blind_cell(results)
    if split is None:
        return None
    easy_cells = [cell for cell in (blind, split.downsample_cell) if cell is not None]
    ids = frozenset(
        row.sample_id
        for row in table.rows
        if not any(is_right(table.score(cell, row.sample_id)) for cell in easy_cells)
    )
    return ids if len(ids) == split.num_hard else None
