"""Which samples are in the hard split: the records name them; in older files the rule says which."""

from adallava.records import HardSplit, Results
from adallava.report.sample_table import SampleTable, is_right


def hard_samples(results: Results, table: SampleTable) -> frozenset[str] | None:
    """Return the ids of the samples in the hard split.

    In older files they are those that were answered, and wrongly, both without the image and from a smaller one. None
    if the run has no hard split, or if that rule does not give as many samples as `Results.hard_split` states: then
    nobody can tell which samples were meant, and a filter would mislead.
    """
    split = results.hard_split
    if split is None:
        return None
    if split.sample_ids is not None:
        return frozenset(split.sample_ids)
    defining = [cell.cell for cell in results.cells if cell.method == "none"][:1]
    defining += [split.downsample_cell] if split.downsample_cell is not None else []
    ids = frozenset(
        row.sample_id for row in table.rows if all(_is_wrong(table.score(cell, row.sample_id)) for cell in defining)
    )
    return ids if len(ids) == split.num_hard else None


def hard_words(split: HardSplit) -> str:
    """Say what was left out of the split, and what it holds."""
    more = f"; of the others {split.answered_downsampled:,} are right from a smaller image ({split.downsample_cell})"
    right = split.answered_without_image if split.right_without_image is None else split.right_without_image
    blind = f"`none` is right on {right:,} of {split.num_samples:,} samples, without the image"
    if split.right_without_image is None:
        rest = "what `none` got wrong; its lucky guesses are left out, at the expense of methods that guess alike"
    else:
        blind += f", on {split.answered_without_image:,} of them beyond luck, which are left out"
        rest = "what `none` got wrong, or guessed"
    return f"{blind}{more * bool(split.downsample_cell)}. The other {split.num_hard:,} are the hard split: {rest}"


def _is_wrong(score: float | None) -> bool:
    return score is not None and not is_right(score)
