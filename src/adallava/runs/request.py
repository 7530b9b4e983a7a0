"""What may be asked of a sweep, with every default in one place. No torch here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adallava.analysis.margins import MARGIN, check_margin
from adallava.budget import MAX_COUNT, MAX_SEED, Latency, TokenBudget
from adallava.costs.roofline import hardware
from adallava.errors import InputError
from adallava.records import PositionsName, SampleName
from adallava.runs.decoding_options import check_options

MAX_DRAWS = 1000
MAX_TIMED_BATCH = 4096
"""Pictures of a batch that is timed: it is filled up to its size by repeating the task's, and all are in memory."""

_MOST = {"--draws": MAX_DRAWS, "--timing-batch-sizes": MAX_TIMED_BATCH}


@dataclass(frozen=True)
class SweepRequest:
    """What to sweep. The full-token model is always part of it.

    Attributes:
        model: bundled name, folder or hub id.
        task: bundled name, or path of a `.jsonl` or `.parquet` file.
        methods: names, `all` among them for every one.
        budgets: crossed with the methods.
        output: the run folder.
        split: of a bundled task.
        limit: samples to take; None for all of a file.
        sample: which: the first, or a random sample.
        batch_size: samples answered together.
        seed: of random methods, the random sample and the bootstrap.
        max_new_tokens: after which an answer is cut; None for what the task says, else 16.
        positions: of the kept tokens, see `AdaLlava.generate`; methods cross them, too.
        draws: of every method that draws at random, each with a seed of its own.
        timing_batch_sizes: at which every cell is timed after all answers; none for no timing.
        dtype: of the weights; `auto` is what they are stored in.
        device: None for CUDA where there is one, else the CPU.
        attn_implementation: as in transformers.
        adapters: folder by method or scheduler, for learned ones whose adapter is not beside the model.
        method_options: constructor arguments of training-free methods, by method.
        columns: of a local file, see `load_task`.
        metric: that scores responses, see `load_task`.
        include_path: folder with further tasks of lmms-eval.
        allow_outside: let a local file name pictures outside of its folder.
        schedulers: of the LLM's layers, crossed with the latencies below 1.0, the methods and the budgets.
        latencies: how much of the LLM runs.
        scheduler_options: constructor arguments of schedulers that are not learned, by scheduler.
        generation_options: how to decode, by transformers' names, see `decoding_options`; none is greedy. Of the
            checkpoint's own configuration only token ids are taken.
        question_suffix: appended to every question, as many models expect ("Answer in one word.").
        pad_to_square: pad pictures to squares, so that the processor cuts none.
        retry_failed: run failed samples of a resumed run again.
        report: write `report.html`.
        roofline: hardware whose bound stands beside the report's milliseconds; None for that of the run, if known.
        equivalence_margin: accuracies no further apart than this are called the same.
        command: the command line, for the record.
    """

    model: str
    task: str
    methods: tuple[str, ...]
    budgets: tuple[TokenBudget, ...]
    output: Path
    split: str | None = None
    limit: int | None = 100
    sample: SampleName = "first"
    batch_size: int = 8
    seed: int = 0
    max_new_tokens: int | None = None
    positions: tuple[PositionsName, ...] = ("original",)
    draws: int = 3
    timing_batch_sizes: tuple[int, ...] = ()
    dtype: str = "auto"
    device: str | None = None
    attn_implementation: str = "sdpa"
    adapters: Mapping[str, Path] = field(default_factory=dict)
    method_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    metric: str | None = None
    include_path: Path | None = None
    allow_outside: bool = False
    schedulers: tuple[str, ...] = ()
    latencies: tuple[Latency, ...] = (Latency(ratio=1.0),)
    scheduler_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    generation_options: Mapping[str, Any] = field(default_factory=dict)
    question_suffix: str = ""
    pad_to_square: bool = False
    retry_failed: bool = False
    report: bool = True
    roofline: str | None = None
    equivalence_margin: float = MARGIN
    command: str = ""

    def __post_init__(self) -> None:
        """Refuse numbers that leave nothing to run.

        Raises:
            InputError: naming the option and its value.
        """
        counts = [
            ("--batch-size", self.batch_size),
            ("--max-new-tokens", 1 if self.max_new_tokens is None else self.max_new_tokens),
            ("--draws", self.draws),
            ("--limit", 1 if self.limit is None else self.limit),
            *(("--timing-batch-sizes", size) for size in self.timing_batch_sizes),
        ]
        for option, value in counts:
            most = _MOST.get(option, MAX_COUNT)
            if not 1 <= value <= most:
                raise InputError(f"{option} is {value}: give at least 1 and at most {most}")
        if not 0 <= self.seed <= MAX_SEED:
            raise InputError(f"--seed is {self.seed}: give a whole number from 0 to {MAX_SEED}")
        check_options(self.generation_options)
        check_margin(self.equivalence_margin)
        if self.roofline is not None:
            hardware(self.roofline)
        if not self.positions:
            raise InputError("--positions is empty: give original, compact or both")
        below = [str(latency) for latency in self.latencies if not latency.is_full]
        if below and not self.schedulers:
            raise InputError(
                f"--latency {', '.join(below)} leaves layers of the LLM out: name a --scheduler that says which"
            )
        if self.schedulers and not below:
            raise InputError(
                f"--scheduler {', '.join(self.schedulers)} has nothing to leave out: give a --latency below 1.0"
            )
