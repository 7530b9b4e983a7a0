"""The files of a run folder, as data: the boundary between running and analysing. No torch here.

A run folder holds `run.json` (`Run`), `samples.jsonl` (one `SampleRecord` a line), `results.json` (`Results`)
and `report.html`. Everything a report or a doctor says is read from these.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION = 1

FULL_METHOD = "full"
"""The method id of the full-token model, which every run contains."""

FinishReason = Literal["eos", "length", "error"]
"""`eos`: the model ended its answer; `length`: max_new_tokens was reached; `error`: no answer at all."""

EmptyCause = Literal["first-token-eos", "whitespace-only", "special-tokens-only", "no-new-tokens", "error"]
"""Why a response is empty: the model's first new token was EOS (a finding about the model); it wrote only
white space; only special tokens; generation returned nothing new (a bug of a harness); the sample failed."""

PART_NAMES = ("vision", "selector", "projector", "prefill", "decode")
"""The parts of an answer, in the order they run; FLOPs and milliseconds are reported under these keys."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SampleRecord(_Record):
    """One answer of one cell: a line of `samples.jsonl`."""

    cell: str
    """`<method>@<budget>`, for instance `question@0.25`, `uniform@64`, `full@1.0`, `none@none`."""
    sample_id: str
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
    """Vision tokens that really entered the LLM."""
    kept_indices: list[list[int]] | None = None
    """Per image, the kept patches in ascending order (if merged, those that stand for the tokens)."""
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
    """Closed-form FLOPs of this sample by part."""
    peak_memory_bytes: int | None = None
    """Peak of the device's allocator during the batch (CUDA), or of the process (CPU)."""
    error: str | None = None
    """Why the sample failed, if it did: `<error type>: <message>`."""


class Interval(_Record):
    """An estimate with its two-sided 95 % bootstrap interval and the count behind it."""

    mean: float
    low: float
    high: float
    n: int


class PairedDifference(_Record):
    """Score minus the full-token model's score on the same samples, with a 95 % paired bootstrap interval."""

    mean: float
    low: float
    high: float
    n: int


class Cell(_Record):
    """One method at one budget, summed up."""

    cell: str
    method: str
    budget_asked: str
    num_samples: int
    num_failed: int
    accuracy: Interval | None
    """None if every sample failed."""
    accuracy_by_kind: dict[str, Interval]
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
    """Mean vision tokens kept before the LLM."""
    tokens_kept_layer_average: float
    """Mean over the LLM's layers; equal to `tokens_kept` for methods that select before the LLM."""
    prompt_length: float
    answer_length: float
    flops: dict[str, float]
    """Mean FLOPs per sample by part, and `total`."""
    part_ms: dict[str, float]
    """Median measured ms per sample by part, `total`, and `time_to_first_token` (all but decode)."""
    peak_memory_bytes: int | None


class Results(_Record):
    """`results.json`: the cells in the order they were asked for, the full-token model first."""

    schema_version: int = SCHEMA_VERSION
    cells: list[Cell]


class RunConfig(_Record):
    """What was asked for: equal configurations may share a run folder, others never do."""

    model: str
    task: str
    methods: list[str]
    token_budgets: list[str]
    limit: int | None
    batch_size: int
    seed: int
    max_new_tokens: int
    positions: Literal["original", "compact"] = "original"
    dtype: str
    device: str
    attn_implementation: str
    columns: dict[str, str] = Field(default_factory=dict)
    """For a local file: which of its columns is `image`, `question`, `answer`, `id`, `kind`."""
    split: str | None = None
    question_suffix: str = ""
    """Appended to every question, for models that want to be told how to answer."""


class Provenance(_Record):
    """What it ran on. `started_at` is the only field that two equal runs may differ in on one machine."""

    adallava_version: str
    versions: dict[str, str]
    git_commit: str | None
    git_dirty: bool | None
    weights_sha256: str
    adapter_sha256: dict[str, str]
    """By method, for learned methods."""
    task_sha256: str | None
    """Of a local file's bytes; None for a bundled task, whose generator is versioned with the package."""
    hardware: dict[str, Any]
    command: str
    started_at: str


class Run(_Record):
    """`run.json`."""

    schema_version: int = SCHEMA_VERSION
    config: RunConfig
    provenance: Provenance
