"""What was asked for and what it ran on: `run.json`."""

from typing import Any

from pydantic import Field

from adallava.records.estimates import Record
from adallava.records.names import FULL_LATENCY, SCHEMA_VERSION, PositionsName, SampleName


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
    """What was asked for. Two of them share a run folder only if `records.run_identity` takes them for one."""

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
