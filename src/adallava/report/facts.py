"""What was run and on what, in words."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from adallava.records import Results, Run, RunConfig
from adallava.records.counted_nouns import counted
from adallava.records.setting_words import value_words
from adallava.report import formats


@dataclass(frozen=True)
class Fact:
    """One line of what was run. `width` is the share of the page it needs; narrow facts go first."""

    name: str
    value: str
    is_digest: bool = False

    @property
    def width(self) -> str:
        """Return `narrow`, `half` or `wide`."""
        return "narrow" if len(self.value) <= 30 else "half" if len(self.value) <= 64 else "wide"


def subject(run: Run) -> str:
    """Return which model answered which task."""
    return f"{run.config.model} on {run.config.task}"


def run_facts(run: Run, results: Results) -> list[Fact]:
    """Return what was run and on what, in reading order within each width."""
    config, origin = run.config, run.provenance
    facts = [
        ("Model", config.model),
        ("Task", config.task + (f", split {config.split}" if config.split else "")),
        ("Samples", _samples(results, config)),
        ("Methods", ", ".join(config.methods)),
        ("Token budgets", ", ".join(map(str, config.token_budgets))),
        ("Batch size", str(config.batch_size)),
        ("Timed at batch", ", ".join(map(str, config.timing_batch_sizes))),
        ("Method options", _pairs({name: _pairs(options) for name, options in config.method_options.items()})),
        ("Draws of random methods", str(config.draws)),
        ("Seed", str(config.seed)),
        ("New tokens at most", str(config.max_new_tokens)),
        ("Decoding", "not recorded" if config.decoding is None else config.decoding.words),
        (
            "Precision, device",
            config.dtype
            + (f", {config.quantization} in the LLM's layers" if config.quantization != "none" else "")
            + f", {config.device}, {config.attn_implementation} attention",
        ),
        ("Positions", ", ".join(config.positions)),
        ("Appended to questions", config.question_suffix),
        ("Images", _pictures(config)),
        ("Columns", _pairs(config.columns)),
        ("Hardware", _hardware(origin.hardware)),
        ("Versions", _pairs({"adallava": origin.adallava_version, **origin.versions})),
        (
            "Commit",
            (origin.git_commit or "not in a git checkout") + (", with uncommitted changes" * bool(origin.git_dirty)),
        ),
        ("Started", origin.started_at),
    ]
    digests = [
        ("SHA-256 of the weights", origin.weights_sha256),
        *((f"SHA-256 of the adapter “{method}”", digest) for method, digest in origin.adapter_sha256.items()),
        ("SHA-256 of the task's file", origin.task_sha256),
    ]
    shown = [Fact(name, value) for name, value in facts if value]
    shown += [Fact(name, digest, is_digest=True) for name, digest in digests if digest]
    return sorted(shown, key=lambda fact: ("narrow", "half", "wide").index(fact.width))


def _pictures(config: RunConfig) -> str:
    limits = (("at least", config.least_pixels), ("at most", config.most_pixels))
    said = ["padded to squares"] * config.pad_to_square
    return ", ".join([*said, *(f"{words} {pixels} pixels" for words, pixels in limits if pixels is not None)])


def _samples(results: Results, config: RunConfig) -> str:
    counts = [cell.num_samples for cell in results.cells]
    samples = formats.count(max(counts, default=0))
    if counts and min(counts) != max(counts):
        samples = f"{formats.count(min(counts))} to {samples}, by cell"
    how = ", at random" * (config.sample == "random")
    return samples if config.limit is None else f"{samples} (limit {config.limit}{how})"


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _hardware(values: Mapping[str, Any]) -> str:
    """Return `AMD EPYC, 2 CPU cores, 1 torch thread, 23.5 GiB memory, no GPU, Linux-6.18`."""
    known: dict[str, Callable[[Any], str]] = {
        "cpu": str,
        "cpu_cores": lambda cores: counted(cores, "CPU core"),
        "torch_threads": lambda threads: counted(threads, "torch thread"),
        "memory_bytes": lambda size: f"{size / 2**30:.1f} GiB memory",
        "cuda_devices": lambda names: ", ".join(names) or "no GPU",
        "system": str,
    }
    return ", ".join(
        known[name](value) if name in known else f"{name} {value_words(value)}"
        for name, value in values.items()
        if value is not None
    )
