"""What a run asks for: the one configuration of the command line, a sweep, `run.json` and lmms-eval's settings."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, PlainSerializer, ValidationError

from adallava.budget import MAX_COUNT, MAX_SEED, Latency, TokenBudget
from adallava.errors import AdallavaError, InputError
from adallava.records.estimates import Record
from adallava.records.names import EngineName, PositionsName, QuantizationName, SampleName

MAX_DRAWS = 1000
MAX_TIMED_BATCH = 4096
"""Images of a batch that is timed: it is filled up to its size by repeating the task's, and all are in memory."""


def _read_by(parse_all: Callable[[Any], Any]) -> BeforeValidator:
    def read(values: Any) -> Any:
        """Parse a list of values; leave the rest to pydantic."""
        # None is a mistake of asking, and no damage to a file.
        return parse_all(values) if values and isinstance(values, list | tuple) else values

    return BeforeValidator(read)


_AsText = PlainSerializer(str, return_type=str)
_Budgets = Annotated[tuple[Annotated[TokenBudget, _AsText], ...], _read_by(TokenBudget.parse_all)]
_Latencies = Annotated[tuple[Annotated[Latency, _AsText], ...], _read_by(Latency.parse_all)]
_Options = dict[str, dict[str, bool | int | float | str]]


class Decoding(Record):
    """How answers are decoded. Nothing else of a checkpoint's `generation_config.json` counts."""

    options: dict[str, Any] = Field(default_factory=dict)
    """Options that were asked for, by transformers' names; empty for greedy decoding."""
    eos_token_ids: list[int] = Field(default_factory=list)
    """The checkpoint's: any of them ends an answer. None before it is loaded."""
    pad_token_id: int | None = None
    """The checkpoint's, or the first that ends an answer: it fills up answers that end earlier than others."""

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
    """What was asked for, with the defaults of asking; in `run.json` all of it is resolved to what was taken.

    Two of them share a run folder only if `records.run_identity` takes them for one.
    """

    model: str
    """Bundled name, folder or hub id."""
    task: str = ""
    """Bundled name, path of a `.jsonl` or `.parquet` file, or `lmms:NAME`; empty where no task gives the questions."""
    methods: tuple[str, ...]
    """Besides the full-token model, which always runs; `all` for every one that the model can run."""
    token_budgets: _Budgets
    """Crossed with the methods."""
    limit: int | None = 100
    """Samples to take; None for all."""
    batch_size: int = 8
    seed: int = 0
    """Seed of random methods, the random sample and the bootstrap."""
    max_new_tokens: int | None = None
    """The longest answer; None for what the task says, else 16."""
    positions: tuple[PositionsName, ...] = ("original",)
    """Position ids of the kept tokens; crossed with the methods."""
    draws: int = 3
    """How often a random method answers each question, each time with a seed of its own."""
    timing_batch_sizes: tuple[int, ...] = ()
    """Batch sizes at which every cell is timed: all that were ever asked for in this folder, since they decide no
    answer."""
    schedulers: tuple[str, ...] = ()
    latencies: _Latencies = (Latency(ratio=1.0),)
    """Crossed with the schedulers, the methods and the token budgets."""
    scheduler_options: _Options = Field(default_factory=dict)
    """Options of schedulers that are not learned and not at their defaults, by scheduler."""
    method_options: _Options = Field(default_factory=dict)
    """Options of training-free methods that are not at their defaults, by method."""
    dtype: str = "auto"
    """Type of the weights; `auto` keeps the stored one."""
    device: str | None = None
    """None for the first GPU, else the CPU."""
    attn_implementation: str = "sdpa"
    engine: EngineName = "auto"
    """What runs the LLM; in `run.json` the preferred engine: each answer's own is in its record."""
    quantization: QuantizationName = "none"
    """Of the LLM's layers."""
    columns: dict[str, str] = Field(default_factory=dict)
    """For a local file: which of its columns is `image`, `question`, `answer`, `id`, `kind`."""
    split: str | None = None
    sample: SampleName = "first"
    """Which samples `limit` takes; a random sample is drawn by `seed`."""
    metric: str | None = None
    """What a score is: a name of `tasks.METRICS`, or a metric of the task's own harness. None for the task's."""
    metric_version: int | None = None
    """See `tasks.scoring.METRIC_VERSIONS`; None before the task is loaded."""
    question_suffix: str = ""
    """Appended to every question, for models that need to know how to answer."""
    decoding: Decoding | None = Decoding()
    """None where a file does not say: then the checkpoint's own `generation_config.json` counted, too."""
    pad_to_square: bool = False
    """Whether the run pads images to squares, whatever the model's processor does."""
    least_pixels: int | None = Field(default=None, ge=1)
    most_pixels: int | None = Field(default=None, ge=1)
    """Pixels of an image, at most (`least_pixels`: at least), for models with native image sizes; None for the
    processor's limit."""
    title: str = ""
    """Title of the report: the last one given to a sweep of this folder; it decides no answer. Empty for model and
    task."""

    @classmethod
    def asked(cls, **given: Any) -> Self:
        """Return the configuration of what a caller wrote.

        Raises:
            BudgetError: for a budget or latency that means nothing.
            InputError: for any other value that means nothing, by the name of its option.
        """
        try:
            config = cls(**given)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            cause = first.get("ctx", {}).get("error")
            if isinstance(cause, AdallavaError):
                raise cause from None
            field = ".".join(map(str, first["loc"]))
            raise InputError(f"{field} is {first['input']!r}: {first['msg']}") from error
        config._check_values()
        return config

    @classmethod
    def from_options(cls, options: Mapping[str, Any], **own: Any) -> Self:
        """Return the configuration of a command's options, those that have a field's name, and `own` instead of them.

        Raises:
            BudgetError, InputError: as `asked`.
        """
        return cls.asked(**{name: options[name] for name in cls.model_fields if name in options} | own)

    @property
    def generation_options(self) -> dict[str, Any]:
        """How to decode, by transformers' names; none is greedy."""
        return {} if self.decoding is None else self.decoding.options

    @property
    def latencies_below(self) -> str:
        """The latencies that leave layers out, as text; empty where all layers run."""
        return ", ".join(str(latency) for latency in self.latencies if not latency.is_full)

    def check_scheduler(self) -> None:
        """Refuse latencies that leave layers out where nothing says which.

        Raises:
            InputError: naming them.
        """
        if self.latencies_below and not self.schedulers:
            raise InputError(
                f"--latency {self.latencies_below} leaves layers of the LLM out: name a --scheduler that says which"
            )

    def _check_values(self) -> None:
        TokenBudget.parse_all(self.token_budgets)
        Latency.parse_all(self.latencies)
        counts = [
            ("--batch-size", self.batch_size, MAX_COUNT),
            ("--max-new-tokens", 1 if self.max_new_tokens is None else self.max_new_tokens, MAX_COUNT),
            ("--draws", self.draws, MAX_DRAWS),
            ("--limit", 1 if self.limit is None else self.limit, MAX_COUNT),
            *(("--timing-batch-sizes", size, MAX_TIMED_BATCH) for size in self.timing_batch_sizes),
        ]
        for option, value, most in counts:
            if not 1 <= value <= most:
                raise InputError(f"{option} is {value}: give at least 1 and at most {most}")
        if not 0 <= self.seed <= MAX_SEED:
            raise InputError(f"--seed is {self.seed}: give a whole number from 0 to {MAX_SEED}")
        if not self.positions:
            raise InputError("--positions is empty: give original, compact or both")
