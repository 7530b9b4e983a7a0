"""The files of a run folder, as data: the boundary between running and analysing. No torch here.

A run folder holds `run.json` (`Run`), `samples.jsonl` (one `SampleRecord` a line), `timings.jsonl` (one
`TimingRecord` a line, if the sweep was asked to time), `results.json` (`Results`) and `report.html`. Everything a
report or a doctor says is read from these.
"""

from collections.abc import Collection
from typing import Any, Literal

from pydantic import Field

from adallava.records.alarms import Alarm, MajorityBaseline
from adallava.records.dials import Dials
from adallava.records.estimates import Interval as Interval
from adallava.records.estimates import PairedDifference as PairedDifference
from adallava.records.estimates import Record, Verdict
from adallava.records.picture_frames import CUT_BELOW, Frame, seen_share

SCHEMA_VERSION = 2

FULL_METHOD = "full"
"""The method id of the full-token model, which every run contains."""

NONE_METHOD = "none"
"""The method id of answers without any vision token."""

DOWNSAMPLE_METHOD = "downsample"
"""The method id of answers from a smaller image."""

FULL_LATENCY = "1.0"
"""The latency of an answer that every layer of the LLM ran for."""

PositionsName = Literal["original", "compact"]
"""`original`: a token keeps the position it had in the full prompt; `compact`: positions are counted anew."""

SampleName = Literal["first", "random"]
"""Which samples of a task a limit takes: the first ones, or a random sample that the seed decides."""

Axis = Literal["tokens", "flops", "ms"]
"""What a cell's cost is counted in: vision tokens averaged over the LLM's layers, FLOPs of an answer, measured
milliseconds to the first token."""

FinishReason = Literal["eos", "length", "error"]
"""`eos`: the model ended its answer; `length`: max_new_tokens was reached; `error`: no answer at all."""

EmptyCause = Literal["first-token-eos", "whitespace-only", "special-tokens-only", "no-new-tokens", "error"]
"""Why a response is empty: the model's first new token was EOS (a finding about the model); it wrote only
white space; only special tokens; generation returned nothing new (a bug of a harness); the sample failed."""

PART_NAMES = ("vision", "selector", "projector", "prefill", "decode")
"""The parts of an answer, in the order they run; FLOPs and milliseconds are reported under these keys."""


class SampleRecord(Record):
    """One answer of one cell: a line of `samples.jsonl`."""

    cell: str
    """`<method>@<budget>`, for instance `question@0.25`, `uniform@64`, `full@1.0`, `none@none`; with `+compact`
    behind it where positions are counted anew, and `/<scheduler>@<latency>` where layers of the LLM are left out."""
    sample_id: str
    draw: int = 0
    """Which of the repeated draws of a method that draws at random; 0 for every other method."""
    positions: PositionsName = "original"
    """Position ids of the kept tokens."""
    question: str
    answers: list[str]
    kind: str | None = None
    """Question type, where the task has one."""
    response: str
    score: float | None
    """In [0, 1]; None only for a failed sample."""
    method: str
    budget_asked: str
    """As the caller wrote it, in the form `TokenBudget` prints."""
    num_vision_tokens: int
    """N, over all images of the sample."""
    tokens_asked: int
    """K the budget resolves to."""
    tokens_kept: int
    """Vision tokens that really entered the LLM's first layer."""
    tokens_planned: int | None = None
    """K the method said beforehand that it keeps where it cannot keep K asked (`downsample`: the largest square); None
    in older files, where it is K asked."""
    tokens_kept_by_layer: list[int] | None = None
    """Vision tokens that each LLM layer read, for methods that drop tokens inside the LLM; None where every layer
    reads `tokens_kept`."""
    kept_indices: list[list[int]] | None = None
    """Per image, the kept patches in ascending order (if merged, those that stand for the tokens)."""
    picture_sha256: str | None = None
    """Of the decoded picture's size and pixels: samples about one picture share it, and are no independent ones. None
    for a sample that failed, and in older files."""
    grids: list[tuple[int, int]] | None = None
    """(rows, columns) of each image's tokens, which are N together. A picture may be several images: whole, and in
    tiles. None in older files, where all images have equally many."""
    frames: list[Frame] | None = None
    """Of each picture, which part the model sees. None in older files, for failed samples, and for image processors
    whose steps are not known."""
    scheduler: str | None = None
    """Which scheduler chose the LLM's layers; None where all ran, and in older files."""
    latency_asked: str = FULL_LATENCY
    """As the caller wrote it, in the form `Latency` prints."""
    groups_run: list[list[int]] | None = None
    """For each LLM layer, the groups of heads that ran: `[0]` or `[]` where a layer is one group. None = all."""
    groups_per_layer: int = 1
    """Groups that each layer is split into."""
    latency_tokens: int = 0
    """In the prompt, where a learned scheduler chose; `prompt_length` counts them."""
    kv_bytes: int | None = None
    """Keys and values of this sample when its answer ended, padding excluded; None in older files."""
    merged: bool = False
    """True for a method that combines patches: what `kept_indices` leaves out is not lost."""
    chosen_per_sample: bool = False
    """True for a method whose choice depends on the sample; False for a fixed grid, and in older files."""
    prompt_length: int
    """Tokens that entered the LLM, vision tokens included, padding excluded."""
    answer_length: int
    """New tokens, EOS included, padding excluded."""
    finish_reason: FinishReason
    empty_cause: EmptyCause | None = None
    """Set if and only if `response` is empty or white space."""
    batch_ms: float
    """Wall time of the batch that the sample was answered in."""
    batch_size: int
    part_ms: dict[str, float]
    """Measured milliseconds by part (`PART_NAMES`) of the batch, divided by `batch_size`."""
    flops: dict[str, int]
    """Closed-form FLOPs of this sample by part; empty where the model's have no closed form here."""
    peak_memory_bytes: int | None = None
    """Peak of the device's allocator during the batch (CUDA), or of the process (CPU)."""
    cpu_by_others: float | None = None
    """Share of the machine's cores that other processes used during the batch; None off Linux, and in older files."""
    error: str | None = None
    """Why the sample failed, if it did: `<error type>: <message>`."""

    @property
    def tokens_per_image(self) -> list[int]:
        """N of each image."""
        if self.grids is not None:
            return [rows * columns for rows, columns in self.grids]
        images = max(1, len(self.kept_indices or []))
        return [self.num_vision_tokens // images] * images

    @property
    def seen_share(self) -> float | None:
        """Share of its picture that the model sees, of several pictures the least; None where it is not known."""
        return min(map(seen_share, self.frames)) if self.frames else None

    @property
    def tokens_at_end(self) -> int:
        """Vision tokens that the LLM's last layer read: what the budget's K counts."""
        return self.tokens_kept_by_layer[-1] if self.tokens_kept_by_layer else self.tokens_kept

    @property
    def layer_share(self) -> float:
        """Share of the LLM's layers that ran, groups of heads counted as parts of a layer."""
        run = self.groups_run
        return 1.0 if run is None else sum(map(len, run)) / (len(run) * self.groups_per_layer)

    @property
    def tokens_kept_layer_average(self) -> float:
        """Vision tokens that a layer read, on average over the LLM's layers."""
        by_layer = self.tokens_kept_by_layer
        return sum(by_layer) / len(by_layer) if by_layer else float(self.tokens_kept)


class Spread(Record):
    """The middle and the tails of repeated measurements: median, 10th and 90th percentile."""

    median: float
    low: float
    high: float


class MachineLoad(Record):
    """How busy the machine was with anything else during a measurement."""

    num_cores: int
    load_before: float | None
    """Processes that ran or waited, this one among them, by core, over the minute before; None where unknown."""
    load_after: float | None
    cpu_by_others: float | None
    """Share of all cores that other processes used meanwhile; None off Linux."""
    gpu_processes_by_others: int | None = None
    """Other processes on the device; None on a CPU, and without pynvml."""
    gpu_bytes_by_others: int | None = None
    """Memory of the device in use by others, with the context of this process, some 0.5 GB; None on a CPU."""


class Timing(Record):
    """What the clock says of one cell at one batch size: warm, the same batch repeated."""

    batch_size: int
    repeats: int
    part_ms: dict[str, Spread]
    """Milliseconds of the whole batch by part (`PART_NAMES`), and `time_to_first_token` (all but decode), `total` and
    `decode_per_token`."""
    peak_memory_bytes: int | None
    drift: float | None = None
    """Median time to the first token of the last third of the repeats, divided by that of the first third; None in
    older files."""
    machine: MachineLoad | None = None
    """While all cells took turns at this batch size; None in older files."""


class TimingRecord(Record):
    """What came of timing one cell at one batch size: a line of `timings.jsonl`."""

    cell: str
    batch_size: int
    timing: Timing | None
    error: str | None = None
    """Why there is no timing, such as a batch that does not fit into memory."""


class Cell(Record):
    """One method at one budget, summed up."""

    cell: str
    method: str
    """A curve's name: the selection method, with `/<scheduler>@<latency>` behind it where layers are left out."""
    budget_asked: str
    positions: PositionsName = "original"
    scheduler: str | None = None
    latency_asked: str = FULL_LATENCY
    layer_share: float = 1.0
    """Mean share of the LLM's layers that ran."""
    kv_bytes: float | None = None
    """Mean bytes of keys and values when an answer ended."""
    draws: int = 1
    """Repeated draws of a random method; a sample's score is then its mean over the draws."""
    num_samples: int
    num_failed: int
    """Samples that failed in any draw; they are in no mean."""
    accuracy: Interval | None
    """None if every sample failed."""
    accuracy_by_kind: dict[str, Interval]
    accuracy_hard: Interval | None = None
    """On the hard split alone, see `HardSplit`; None if the run has none, and for the cell of `downsample` that defines
    it, which is wrong there by construction (in older files, for `none` too)."""
    accuracy_hard_by_kind: dict[str, Interval] = Field(default_factory=dict)
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
    first_token_spread: Spread | None = None
    """Of `time_to_first_token` over the samples; None in older files."""
    cpu_by_others: float | None = None
    """Mean of the samples'."""
    peak_memory_bytes: int | None
    on_front: list[Axis] = Field(default_factory=list)
    """Axes on which no other cell is both cheaper and more accurate (the Pareto front)."""
    timings: list[Timing] = Field(default_factory=list)
    """By batch size, if the sweep was asked to time."""

    @property
    def selection(self) -> str:
        """The selection method alone, without the scheduler that `method` names behind it."""
        return self.method if self.scheduler is None else self.method.removesuffix(self.schedule)

    @property
    def schedule(self) -> str:
        """What stands behind the method's id where layers are left out: `/<scheduler>@<latency>`, or nothing."""
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


class Area(Record):
    """Area under one method's accuracy-cost curve, divided by the width of the axis: a mean accuracy over costs."""

    method: str
    positions: PositionsName = "original"
    axis: Axis
    area: Interval
    from_cost: float
    to_cost: float
    """The range of costs that all methods of the run have in common."""


class AreaComparison(Verdict):
    """Two methods at equal cost: area of a minus area of b on one axis, over the costs that both reach."""

    method_a: str
    method_b: str
    positions: PositionsName = "original"
    axis: Axis
    from_cost: float
    to_cost: float
    same_grid: bool | None = None
    """Whether both have cells at about the same costs there. If not, both curves are drawn through the costs of the one
    with fewer, the other read between its cells. None in older files, which drew each through its own cells."""


class HardSplit(Record):
    """What is left where `none` knows no answer, and a smaller image shows none. Right is a score of at least 0.5."""

    num_samples: int
    """Samples that the cells which define the split answered; the others are in no part of it."""
    right_without_image: int | None = None
    """Right with no image token at all (`none`), by knowing or by luck. None in older files."""
    answered_without_image: int
    """Of these, as many as `none` is right on beyond luck, drawn by id. In older files all of them, luck included."""
    answered_downsampled: int
    """Of the others, right from a smaller image (`downsample`); where `none` is right by luck, as many as elsewhere."""
    downsample_cell: str | None
    """The cell of `downsample` with the fewest tokens; None if the run has none: the split rests on `none` then."""
    num_hard: int
    """The rest: what the hard split holds."""
    sample_ids: list[str] | None = None
    """Those in it. None in older files, where they are those that both cells have wrong."""


class SeenPictures(Record):
    """How much of the pictures the model sees: its processor may cut their edges off."""

    num_pictures: int
    """Of which it is known, each counted once whatever the cells."""
    num_cut: int
    """Of which less than `picture_frames.CUT_BELOW` is seen."""
    least_share: float
    """Of all pictures the least that is seen."""

    @classmethod
    def of(cls, shares: Collection[float]) -> "SeenPictures | None":
        """Sum up the share that is seen of each picture; None if there is none."""
        if not shares:
            return None
        num_cut = sum(share < CUT_BELOW for share in shares)
        return cls(num_pictures=len(shares), num_cut=num_cut, least_share=min(shares))


class Results(Record):
    """`results.json`: the cells in the order they were asked for, the full-token model first."""

    schema_version: int = SCHEMA_VERSION
    cells: list[Cell]
    num_pictures: int | None = None
    """Different ones among the run's samples; None where not all are known, as in older files: the others count as
    pictures of their own."""
    comparisons: list[Comparison] = Field(default_factory=list)
    areas: list[Area] = Field(default_factory=list)
    area_comparisons: list[AreaComparison] = Field(default_factory=list)
    hard_split: HardSplit | None = None
    dials: Dials | None = None
    """If layers were left out in any cell."""
    alarms: list[Alarm] = Field(default_factory=list)
    """Why the accuracies say nothing of the methods; in older files nobody looked."""
    majority: MajorityBaseline | None = None
    """What needs no model; None in older files, and where the task's own metric scores no answer but a model's."""
    seen: SeenPictures | None = None
    """None in older files, and where it is known of no picture."""


class TaskFigures(Record):
    """`task_figures.json`: what a task of another harness computes over all responses of a cell, by metric."""

    task: str
    cells: dict[str, dict[str, float | None]]
    """None for a metric that has no value over these responses."""


class Decoding(Record):
    """How answers were decoded. Nothing else of a checkpoint's `generation_config.json` had a part in it."""

    options: dict[str, Any] = Field(default_factory=dict)
    """Asked for, by transformers' names; none is greedy decoding."""
    eos_token_ids: list[int]
    """Of the checkpoint: any of them ends an answer."""
    pad_token_id: int | None
    """Of the checkpoint, or the first that ends an answer: what fills up an answer that ended earlier than others."""

    @property
    def num_beams(self) -> int:
        """Rows that are searched for each answer; 1 without a search."""
        return int(self.options.get("num_beams", 1))

    @property
    def samples(self) -> bool:
        """Whether tokens are drawn at random."""
        return bool(self.options.get("do_sample", False))

    @property
    def words(self) -> str:
        """The options, such as `num_beams 4`, or `greedy`."""
        return ", ".join(f"{name} {value}" for name, value in sorted(self.options.items())) or "greedy"


class RunConfig(Record):
    """What was asked for. Two of them share a run folder only if `evaluation.run_identity` takes them for one."""

    model: str
    task: str
    methods: list[str]
    token_budgets: list[str]
    limit: int | None
    batch_size: int
    seed: int
    max_new_tokens: int
    positions: list[PositionsName] = Field(default=["original"])
    draws: int = 1
    """Draws of each random method."""
    timing_batch_sizes: list[int] = Field(default_factory=list)
    """At which every cell is timed: all that a folder's run was ever asked for with, since they decide no answer."""
    schedulers: list[str] = Field(default_factory=list)
    latencies: list[str] = Field(default_factory=lambda: [FULL_LATENCY])
    """Crossed with the schedulers, the methods and the token budgets."""
    scheduler_options: dict[str, dict[str, bool | int | float | str]] = Field(default_factory=dict)
    """Options of schedulers that are not learned and not at their defaults, by scheduler."""
    method_options: dict[str, dict[str, bool | int | float | str]] = Field(default_factory=dict)
    """Options of training-free methods that are not at their defaults, by method."""
    dtype: str
    device: str
    attn_implementation: str
    columns: dict[str, str] = Field(default_factory=dict)
    """For a local file: which of its columns is `image`, `question`, `answer`, `id`, `kind`."""
    split: str | None = None
    sample: SampleName = "first"
    """Which samples `limit` takes; a random sample is drawn by `seed`."""
    metric: str = "exact-match"
    """What a score is: a name of `tasks.METRICS`, or a metric of the task's own harness."""
    metric_version: int = 1
    """See `tasks.scoring.METRIC_VERSIONS`; 1 in older files."""
    question_suffix: str = ""
    """Appended to every question, for models that want to be told how to answer."""
    decoding: Decoding | None = None
    """None in older files, which did not record it: a checkpoint's own `generation_config.json` had a part in it."""
    pad_to_square: bool = False
    """Whether pictures were padded to squares on the run's own wish, and not as the model's processor says."""


class Provenance(Record):
    """What it ran on. `started_at` is the only field that two equal runs may differ in on one machine."""

    adallava_version: str
    versions: dict[str, str]
    git_commit: str | None
    git_dirty: bool | None
    weights_sha256: str
    adapter_sha256: dict[str, str]
    """By method, for learned methods."""
    scheduler_sha256: dict[str, str] = Field(default_factory=dict)
    """By scheduler, for learned schedulers."""
    weight_counts: dict[str, int] = Field(default_factory=dict)
    """Of the matrices that a first token reads, by part: `vision`, `projector`, the LLM's `layers` and `output`."""
    model_files_sha256: dict[str, str] | None = None
    """By name, of the checkpoint's files beside its weights that decide an answer: configuration, tokenizer, templates.
    None in older files."""
    task_sha256: str | None
    """Of a local file's bytes; None for a bundled task, whose generator is versioned with the package."""
    hardware: dict[str, Any]
    command: str
    started_at: str


class Run(Record):
    """`run.json`."""

    schema_version: int = SCHEMA_VERSION
    config: RunConfig
    provenance: Provenance
