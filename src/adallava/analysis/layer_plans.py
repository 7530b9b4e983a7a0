"""Do plans differ between samples? How many there are in a cell, and how common the most common one is.

A plan is what `groups_run` records. Of `adallava-heads`, which chooses heads and MLP slices apart, that is the heads
alone: plans that differ in slices only count as one.
"""

from collections import Counter
from collections.abc import Sequence

from adallava.records import SampleRecord
from adallava.records.dials import CellPlans, PlanCount


def count_plans(cell: str, records: Sequence[SampleRecord]) -> CellPlans | None:
    """Count the plans of a cell; of several draws, those of the first. None for a cell that leaves no layer out.

    Args:
        cell: its id.
        records: its answers.
    """
    planned = [record for record in records if record.ran.groups_run is not None and record.draw == 0]
    if not planned:
        return None
    kinds = sorted({record.kind for record in planned if record.kind is not None})
    by_kind = {kind: _count([record for record in planned if record.kind == kind]) for kind in kinds}
    return CellPlans(
        cell=cell, groups_per_layer=planned[0].ran.groups_per_layer, of_all=_count(planned), by_kind=by_kind
    )


def _count(records: Sequence[SampleRecord]) -> PlanCount:
    plans = Counter(record.ran.groups_run or () for record in records)
    # Of equally common ones the first in order, not the first that happened to be answered.
    most_common, times = min(plans.items(), key=lambda item: (-item[1], item[0]))
    return PlanCount(
        num_samples=len(records),
        num_plans=len(plans),
        most_common=[list(groups) for groups in most_common],
        most_common_share=times / len(records),
    )
