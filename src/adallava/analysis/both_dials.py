"""Both dials together: plans, what a fixed plan is worth, and what the second dial adds to the first."""

from collections.abc import Mapping, Sequence, Set

from adallava.analysis.areas import SharedScores
from adallava.analysis.fixed_share import fixed_shares
from adallava.analysis.front_gains import compare_fronts
from adallava.analysis.scores import ScoreTable
from adallava.records import Cell
from adallava.records.dials import CellPlans, Dials


def sum_up_dials(
    cells: Sequence[Cell],
    plans: Sequence[CellPlans],
    learned: Set[str],
    scores: ScoreTable,
    shared: SharedScores,
    prefixes: Mapping[str, int],
    seed: int,
) -> Dials | None:
    """Return what a run says of both dials, or None if it has no scheduler.

    Args:
        cells: of the run.
        plans: of the cells that leave layers out.
        learned: ids of the cells whose scheduler is learned.
        scores: of the cells.
        shared: scores of the samples that every cell answered.
        prefixes: P of each scheduler, how many first layers always run.
        seed: of the bootstrap.
    """
    if all(cell.scheduler is None for cell in cells):
        return None
    return Dials(
        plans=list(plans),
        fixed_shares=fixed_shares(cells, learned, prefixes, scores, seed),
        fronts=compare_fronts(cells, shared, seed),
    )
