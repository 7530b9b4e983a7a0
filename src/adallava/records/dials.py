"""What `results.json` says of a run that turned both dials: vision tokens, and layers of the LLM."""

from typing import Literal

from adallava.records.estimates import Interval, OfResults, PairedDifference, Record

GroupsRun = list[list[int]]
"""For each LLM layer, the groups of heads that ran: `[0]` or `[]` where a layer is one group."""

Dial = Literal["tokens", "layers"]

FrontAxis = Literal["flops", "ms"]
"""FLOPs of an answer, or milliseconds to the first token."""


class PlanCount(Record):
    """How much the plans of one cell's samples differ. A plan is which layers, or groups, ran."""

    num_samples: int
    num_plans: int
    """Different ones among them."""
    most_common: GroupsRun
    most_common_share: float
    """Of the samples."""


class CellPlans(Record):
    """The plans of a cell that leaves layers out. Of several draws the first is looked at."""

    cell: str
    groups_per_layer: int
    of_all: PlanCount
    by_kind: dict[str, PlanCount]
    """By question type."""


class FixedShare(OfResults):
    """What a learned scheduler gains over random plans, and how much of that one plan for all samples gains too."""

    scheduler: str
    """The learned one."""
    latency_asked: str
    prefix_layers: dict[str, int]
    """By scheduler, how many first layers always run; empty in older files."""
    cells: list[str]
    """Of the learned scheduler; with several, scores are means over them."""
    learned_over_random: PairedDifference
    """Against the mean over the draws of `random`."""
    fixed_over_random: PairedDifference
    learned_over_fixed: PairedDifference
    share: Interval | None
    """`fixed_over_random / learned_over_random`; None where the learned scheduler is not ahead of random (its interval
    reaches 0): a share of nothing means nothing. Also None where `prefix_layers` differ."""


class Saving(Record):
    """A cost as a share of another one, at the same accuracy, with its 95 % interval."""

    ratio: float
    low: float
    high: float


class FrontGain(Record):
    """What both dials gain over one alone at one cost, where that one alone has a cell on its front."""

    cost: float
    cell_alone: str
    """The most accurate cell of the one dial that costs no more, over all samples."""
    cell_both: str
    """The same among all cells."""
    accuracy_alone: Interval
    """Chosen on one half of the samples and measured on the other, as `accuracy_both` and `gain`."""
    accuracy_both: Interval
    gain: PairedDifference
    cheaper_cell: str
    """The cheapest of all cells that is as accurate as `cell_alone`, over all samples."""
    saving: Saving
    """Its cost over that of `cell_alone`; under every resample the choice is made again."""
    cheaper_difference: PairedDifference
    """Its accuracy minus that of `cell_alone`, chosen on one half and measured on the other: 0 if it is as accurate."""


class FrontComparison(Record):
    """The front of all cells against that of one dial alone, on one axis."""

    alone: Dial
    """`tokens`: cells in which every layer ran, with or without a scheduler; `layers`: the full-token model's cells."""
    axis: FrontAxis
    batch_size: int | None
    """Batch size of the timing pass; None for FLOPs, and for the milliseconds of ordinary answers."""
    front: list[str]
    """Cells of both dials that no other one beats, in ascending cost."""
    front_alone: list[str]
    mean_gain: PairedDifference
    """Over the costs of `gains`, each counting the same."""
    gains: list[FrontGain]


class Dials(OfResults):
    """Both dials together: which plans ran, what a fixed one is worth, and what the second dial adds."""

    plans: list[CellPlans]
    fixed_shares: list[FixedShare]
    fronts: list[FrontComparison]
