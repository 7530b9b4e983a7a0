"""One answer, as a line of `samples.jsonl`."""

from adallava.records.estimates import Record
from adallava.records.names import FULL_LATENCY, EmptyCause, FinishReason, PositionsName
from adallava.records.picture_frames import Frame, seen_share


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
    """FLOPs of this sample by part; empty where the model's cannot be counted."""
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
