"""Both dials together: plans, what a fixed plan is worth, and what the second dial adds to the first."""

from collections.abc import Mapping, Sequence

from adallava.dials import Dials
from adallava.records import Cell, SampleRecord

from .areas import SharedScores
from .fixed_share import fixed_shares
from .front_gains import compare_fronts
from .layer_plans import count_plans
from .scores import ScoreTable


def sum_up_dials(
    cells: Sequence[Cell],
    by_cell: Mapping[str, Sequence[SampleRecord]],
    scores: ScoreTable,
    shared: SharedScores,
    prefixes: Mapping[str, int],
    seed: int,
) -> Dials | None:
    """Return what a run says of both dials, or None if it has no scheduler.

    Args:
        cells: of the run.
        by_cell: their answers.
        scores: of the cells.
        shared: scores of the samples that every cell answered.
        prefixes: P of each scheduler, how many first layers always run.
        seed: of the bootstrap.
    """
    if all(cell.scheduler is None for cell in cells):
        return None
    # Only a learned scheduler reads a latency token.
    learned = {cell for cell, records in by_cell.items() if any(record.latency_tokens for record in records)}
    return Dials(
        plans=count_plans({cell.cell: by_cell[cell.cell] for cell in cells}),
        fixed_shares=fixed_shares(cells, learned, prefixes, scores, seed),
        fronts=compare_fronts(cells, shared, seed),
    )
