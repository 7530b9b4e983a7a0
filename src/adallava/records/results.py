"""What was measured and summed up: a line of `timings.jsonl`, and `results.json`."""

from collections.abc import Collection

from adallava.records.alarms import Alarm, MajorityBaseline
from adallava.records.dials import Dials
from adallava.records.estimates import Interval, OfResults, PairedDifference, Record, Verdict
from adallava.records.names import FULL_LATENCY, SCHEMA_VERSION, Axis, PositionsName
from adallava.records.picture_frames import CUT_BELOW


class Spread(Record):
    """The middle and the tails of repeated measurements: median, 10th and 90th percentile."""

    median: float
    low: float
    high: float


class MachineLoad(OfResults):
    """How busy the machine was with anything else during a measurement."""

    num_cores: int
    load_before: float | None
    """Processes that ran or waited, this one among them, by core, over the minute before; None where unknown."""
    load_after: float | None
    cpu_by_others: float | None
    """Share of all cores that other processes used meanwhile; None off Linux."""
    gpu_processes_by_others: int | None
    """Other processes on the device; None on a CPU, and without pynvml."""
    gpu_bytes_by_others: int | None
    """Memory of the device in use by others, with the context of this process, some 0.5 GB; None on a CPU."""


class Timing(OfResults):
    """Milliseconds of one cell at one batch size: after a warm-up, the same batch repeated."""

    batch_size: int
    repeats: int
    part_ms: dict[str, Spread]
    """Milliseconds of the whole batch by part (`PART_NAMES`), and `time_to_first_token` (all but decode), `total` and
    `decode_per_token`."""
    peak_memory_bytes: int | None
    drift: float | None
    """Median time to the first token of the last third of the repeats, divided by that of the first third; None in
    older files."""
    machine: MachineLoad | None
    """While all cells took turns at this batch size; None in older files."""


class TimingRecord(Record):
    """The timing of one cell at one batch size: a line of `timings.jsonl`."""

    cell: str
    batch_size: int
    timing: Timing | None
    error: str | None = None
    """Why there is no timing, such as a batch that does not fit into memory."""


class Cell(OfResults):
    """One method at one budget, summed up."""

    cell: str
    method: str
    """A curve's name: the selection method, followed by `/<scheduler>@<latency>` where layers are left out."""
    budget_asked: str
    positions: PositionsName
    scheduler: str | None
    latency_asked: str
    layer_share: float
    """Mean share of the LLM's layers that ran."""
    kv_bytes: float | None
    """Mean bytes of keys and values when an answer ended."""
    draws: int
    """Repeated draws of a random method; a sample's score is then its mean over the draws."""
    num_samples: int
    num_failed: int
    """Samples that failed in any draw; they are in no mean."""
    accuracy: Interval | None
    """None if every sample failed."""
    accuracy_by_kind: dict[str, Interval]
    accuracy_hard: Interval | None
    """Only on the hard split, see `HardSplit`; None if the run has none, and for the cell of `downsample` that defines
    it, which is wrong there by construction (in older files, for `none` too)."""
    accuracy_hard_by_kind: dict[str, Interval]
    difference_to_full: PairedDifference | None
    """None for the full-token cell itself."""
    empties: dict[str, int]
    """Number of empty responses by `EmptyCause`."""
    empty_share: float
    flagged: bool
    """True if more than 1 % of the responses are empty or a sample failed: do not trust the score then."""
    flag_reason: str | None
    num_vision_tokens: float
    """Mean N."""
    tokens_kept: float
    """Mean vision tokens that entered the LLM's first layer."""
    tokens_kept_layer_average: float
    """Mean over the LLM's layers; equal to `tokens_kept` for methods that select before the LLM."""
    prompt_length: float
    answer_length: float
    flops: dict[str, float]
    """Mean FLOPs per sample by part, and `total`; empty where none are known."""
    part_ms: dict[str, float]
    """Median measured ms per sample by part, `total`, and `time_to_first_token` (all but decode)."""
    first_token_spread: Spread | None
    """Spread of `time_to_first_token` over the samples; None in older files."""
    cpu_by_others: float | None
    """Mean over the samples."""
    peak_memory_bytes: int | None
    on_front: list[Axis]
    """Axes on which no other cell is both cheaper and more accurate (the Pareto front)."""
    timings: list[Timing]
    """By batch size, if the sweep has a timing pass."""

    @property
    def selection(self) -> str:
        """The selection method alone, without the scheduler that `method` names after it."""
        return self.method if self.scheduler is None else self.method.removesuffix(self.schedule)

    @property
    def schedule(self) -> str:
        """What follows the method's id where layers are left out: `/<scheduler>@<latency>`, or nothing."""
        return "" if self.scheduler is None else f"/{self.scheduler}@{self.latency_asked}"

    @property
    def runs_all_layers(self) -> bool:
        """Whether every layer ran: without a scheduler, or at a latency that is the whole LLM (1.0, or 32 of 32)."""
        return self.scheduler is None or self.latency_asked == FULL_LATENCY or self.layer_share == 1.0

    @property
    def keeps_all_tokens(self) -> bool:
        """Whether the LLM's layers all read every vision token."""
        return self.tokens_kept_layer_average == self.num_vision_tokens


class Comparison(Verdict):
    """Two cells on the same samples; the difference is the score of a minus the score of b."""

    cell_a: str
    cell_b: str


class Area(OfResults):
    """Area under one method's accuracy-cost curve, divided by the width of the axis: a mean accuracy over costs."""

    method: str
    positions: PositionsName
    axis: Axis
    area: Interval
    from_cost: float
    to_cost: float
    """The range of costs that all methods of the run have in common."""


class AreaComparison(Verdict):
    """Two methods at equal cost: area of a minus area of b on one axis, over the costs that both reach."""

    method_a: str
    method_b: str
    positions: PositionsName
    axis: Axis
    from_cost: float
    to_cost: float
    same_grid: bool | None
    """Whether both have cells at about the same costs there. If not, both curves are drawn through the costs of the one
    with fewer, the other read between its cells. None in older files, which drew each through its own cells."""


class HardSplit(OfResults):
    """What is left where `none` knows no answer, and a smaller image shows none. Right is a score of at least 0.5."""

    num_samples: int
    """Samples that the cells which define the split answered; the others are in no part of it."""
    right_without_image: int | None
    """Right with no image token at all (`none`), by knowing or by luck. None in older files."""
    answered_without_image: int
    """Of these, as many as `none` is right on beyond luck, drawn by id. In older files all of them, luck included."""
    answered_downsampled: int
    """Of the others, right from a smaller image (`downsample`); where `none` is right by luck, as many as elsewhere."""
    downsample_cell: str | None
    """The cell of `downsample` with the fewest tokens; None if the run has none: the split rests on `none` then."""
    num_hard: int
    """The rest, which is the hard split."""
    sample_ids: list[str] | None
    """Those in it. None in older files, where they are those that both cells have wrong."""


class SeenPictures(Record):
    """How much of the images the model sees: its processor may cut their edges off."""

    num_pictures: int
    """Images for which it is known, each counted once."""
    num_cut: int
    """Images that the model sees less of than `picture_frames.CUT_BELOW`."""
    least_share: float
    """The least share seen of any image."""

    @classmethod
    def of(cls, shares: Collection[float]) -> "SeenPictures | None":
        """Sum up the share that is seen of each image; None if there is none."""
        if not shares:
            return None
        num_cut = sum(share < CUT_BELOW for share in shares)
        return cls(num_pictures=len(shares), num_cut=num_cut, least_share=min(shares))


class Results(OfResults):
    """`results.json`: the cells in the order they were asked for, the full-token model first."""

    schema_version: int = SCHEMA_VERSION
    cells: list[Cell]
    num_pictures: int | None
    """Different ones among the run's samples; None where not all are known, as in older files: the others count as
    images of their own."""
    comparisons: list[Comparison]
    areas: list[Area]
    area_comparisons: list[AreaComparison]
    hard_split: HardSplit | None
    dials: Dials | None
    """Only if a cell leaves layers out."""
    alarms: list[Alarm]
    """Why the accuracies say nothing about the methods; older files were not checked."""
    majority: MajorityBaseline | None
    """Accuracy without a model; None in older files, and where the task's own metric scores only a model's answers."""
    seen: SeenPictures | None
    """None in older files, and if it is not known for any image."""


class TaskFigures(Record):
    """`task_figures.json`: what a task of another harness computes over all responses of a cell, by metric."""

    task: str
    cells: dict[str, dict[str, float | None]]
    """None for a metric that has no value over these responses."""
