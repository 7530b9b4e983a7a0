"""Synthetic run folders for the report's tests: made-up but plausible answers, summed up as a sweep would.

Nothing here was measured. Every figure follows from a seed, so that a test can say what the page must show.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from adallava.records import (
    Cell,
    Interval,
    PairedDifference,
    Results,
    Run,
    SampleRecord,
)

SIDE = 16
NUM_TOKENS = SIDE * SIDE
KINDS = ("attribute", "existence", "counting", "comparison", "relation", "number", "locate")
WORDS = {
    "attribute": ("What colour is the large triangle?", ("red", "blue", "green", "yellow")),
    "existence": ("Is there a small purple circle?", ("yes", "no")),
    "counting": ("How many squares are there?", ("1", "2", "3", "4")),
    "comparison": ("Are there more circles than squares?", ("yes", "no")),
    "relation": ("Is the red square left of the number?", ("yes", "no")),
    "number": ("What number is written in the picture?", ("7", "42", "318", "9056")),
    "locate": ("Where is the blue star?", ("row 2 column 5", "row 4 column 1", "row 7 column 7")),
}
# Tokens at which a method is half-way between guessing and what the full model reaches.
HALF_WAY = {"question": 2.5, "budget-token": 26.0, "pool": 18.0, "uniform": 34.0, "random": 40.0}


@dataclass(frozen=True)
class FakeRun:
    """What to make up."""

    methods: tuple[str, ...] = ("random", "uniform", "pool", "budget-token", "question", "none")
    budgets: tuple[str, ...] = ("8", "16", "32", "64", "128", "0.75")
    num_samples: int = 200
    kinds: tuple[str, ...] = KINDS
    failing: frozenset[str] = frozenset()
    """Cells in which every sample fails."""
    first_token_eos: dict[str, int] = field(default_factory=dict)
    """Number of empty answers by cell."""
    question: str | None = None
    response: str | None = None
    """Texts to put in place of the made-up ones."""
    seed: int = 0


def write_fake_run(folder: Path, spec: FakeRun) -> Path:
    """Write `run.json`, `samples.jsonl` and `results.json`, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    cells = fake_cells(spec)
    records = [record for cell in cells for record in fake_records(spec, cell)]
    (folder / "run.json").write_text(fake_run(spec).model_dump_json(indent=2))
    (folder / "samples.jsonl").write_text("".join(record.model_dump_json() + "\n" for record in records))
    (folder / "results.json").write_text(summed_up(records, cells).model_dump_json(indent=2))
    return folder


def fake_results(spec: FakeRun) -> Results:
    cells = fake_cells(spec)
    return summed_up([record for cell in cells for record in fake_records(spec, cell)], cells)


def fake_cells(spec: FakeRun) -> list[tuple[str, str]]:
    """Return (method, budget) of each cell, the full-token model first."""
    cells = [("full", "1.0")]
    for method in spec.methods:
        cells += [("none", "none")] if method == "none" else [(method, budget) for budget in spec.budgets]
    return cells


def tokens_of(budget: str) -> int:
    return 0 if budget == "none" else int(budget) if budget.isdigit() else int(float(budget) * NUM_TOKENS)


def fake_records(spec: FakeRun, cell: tuple[str, str]) -> list[SampleRecord]:
    return [_record(spec, *cell, number) for number in range(spec.num_samples)]


def _record(spec: FakeRun, method: str, budget: str, number: int) -> SampleRecord:
    name, kept = f"{method}@{budget}", tokens_of(budget)
    kind = spec.kinds[number % len(spec.kinds)] if spec.kinds else None
    question, words = WORDS[kind or "attribute"]
    sample = np.random.default_rng([spec.seed, number])
    difficulty, answer = float(sample.random()), words[int(sample.integers(len(words)))]
    failed, empty = name in spec.failing, number < spec.first_token_eos.get(name, 0)
    right = not failed and not empty and difficulty < _chance_of_right(method, kept, len(words))
    wrong = words[(words.index(answer) + 1) % len(words)]
    response = "" if failed or empty else (spec.response or (answer if right else wrong))
    flops = fake_flops(method, kept)
    return SampleRecord(
        cell=name,
        sample_id=f"scenes-{spec.seed}-{number:05d}",
        question=spec.question or question,
        answers=[answer],
        kind=kind,
        response=response,
        score=None if failed else float(right),
        method=method,
        budget_asked=budget,
        num_vision_tokens=NUM_TOKENS,
        tokens_asked=kept,
        tokens_kept=kept,
        kept_indices=[fake_kept(method, kept, number)],
        merged=method == "pool",
        chosen_per_sample=method in ("random", "question", "budget-token"),
        prompt_length=kept + 14,
        answer_length=0 if failed else 1 if empty else 3,
        finish_reason="error" if failed else "eos",
        empty_cause="error" if failed else "first-token-eos" if empty else None,
        batch_ms=320.0,
        batch_size=8,
        part_ms={part: value / 2.2e8 for part, value in flops.items()},
        flops=flops,
        peak_memory_bytes=611_000_000,
        error="OSError: image file is truncated" if failed else None,
    )


def _chance_of_right(method: str, kept: int, num_words: int) -> float:
    guess = 1.0 / num_words
    if method == "none":
        return guess
    if method == "full":
        return 0.975
    return guess + (0.97 - guess) / (1 + (HALF_WAY.get(method, 30.0) / kept) ** 1.6)


def fake_flops(method: str, kept: int) -> dict[str, int]:
    return {
        "vision": 0 if method == "none" else 1_900_000_000,
        "selector": 34_000_000 if method == "question" else 120_000 if method == "budget-token" else 0,
        "projector": 350_000 * kept,
        "prefill": 21_000_000 * (kept + 14),
        "decode": 44_000_000,
    }


def fake_kept(method: str, kept: int, number: int) -> list[int]:
    """Return patches in the manner of the method: scattered, on a grid, or around one place."""
    if method in ("uniform", "pool"):
        columns = math.ceil(math.sqrt(kept))
        places = (np.arange(columns) + 0.5) * SIDE / columns
        grid = np.add.outer(places.astype(int) * SIDE, places.astype(int)).ravel()
        return sorted(grid[np.linspace(0, len(grid) - 1, kept).astype(int)].tolist())
    if method == "question":
        rng = np.random.default_rng([7, number])
        centre = rng.uniform(4, 12, 2)
        rows, columns = np.divmod(np.arange(NUM_TOKENS), SIDE)
        distance = np.hypot(rows - centre[0], columns - centre[1]) + rng.normal(0, 0.9, NUM_TOKENS)
        return sorted(np.argsort(distance)[:kept].tolist())
    return sorted(np.random.default_rng([number, len(method)]).permutation(NUM_TOKENS)[:kept].tolist())


def fake_picture(number: int, size: tuple[int, int] = (224, 224)) -> Image.Image:
    """Return a textured picture with a few coloured shapes."""
    rng = np.random.default_rng(number)
    noise = rng.integers(70, 190, (size[1] // 8 + 1, size[0] // 8 + 1, 3), dtype=np.uint8)
    picture = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)
    brush = ImageDraw.Draw(picture)
    for _ in range(7):
        x, y, r = rng.uniform(0.1, 0.9) * size[0], rng.uniform(0.1, 0.9) * size[1], rng.uniform(0.05, 0.13)
        box = (x - r * size[0], y - r * size[1], x + r * size[0], y + r * size[1])
        colour = tuple(int(c) for c in rng.integers(0, 256, 3))
        (brush.ellipse if rng.random() < 0.5 else brush.rectangle)(box, fill=colour)
    return picture


def picture_of(sample_id: str) -> Sequence[Image.Image]:
    """Return the made-up picture of a made-up sample id."""
    return [fake_picture(int(sample_id.rsplit("-", 1)[1]))]


def fake_run(spec: FakeRun) -> Run:
    return Run(
        config={
            "model": "tiny",
            "task": "scenes",
            "methods": list(spec.methods),
            "token_budgets": list(spec.budgets),
            "limit": spec.num_samples,
            "batch_size": 8,
            "seed": spec.seed,
            "max_new_tokens": 16,
            "dtype": "float32",
            "device": "cpu",
            "attn_implementation": "sdpa",
            "split": "test",
        },
        provenance={
            "adallava_version": "0.1.0",
            "versions": {"python": "3.11.2", "torch": "2.11.0", "transformers": "5.17.0", "numpy": "2.3.0"},
            "git_commit": "0123456789abcdef0123456789abcdef01234567",
            "git_dirty": False,
            "weights_sha256": "5e" * 32,
            "adapter_sha256": {"budget-token": "a1" * 32, "question": "b2" * 32},
            "task_sha256": None,
            "hardware": {"cpu": "AMD EPYC 7B13", "cores": 2, "memory_gib": 7.8},
            "command": (
                f"adallava sweep --model tiny --task scenes --method {','.join(spec.methods)} "
                f"--token-budget {','.join(spec.budgets)} --limit {spec.num_samples} --output runs/tiny"
            ),
            "started_at": "2026-01-05T09:30:00+00:00",
        },
    )


def summed_up(records: list[SampleRecord], cells: list[tuple[str, str]]) -> Results:
    by_cell: dict[str, list[SampleRecord]] = {f"{method}@{budget}": [] for method, budget in cells}
    for record in records:
        by_cell[record.cell].append(record)
    full = {r.sample_id: r.score for r in by_cell["full@1.0"]}
    return Results(cells=[_cell(name, of_cell, full) for name, of_cell in by_cell.items()])


def _cell(name: str, records: list[SampleRecord], full: dict[str, float | None]) -> Cell:
    first = records[0]
    scored = [r for r in records if r.score is not None]
    failed = len(records) - len(scored)
    causes: dict[str, int] = {}
    for record in records:
        if record.empty_cause:
            causes[record.empty_cause] = causes.get(record.empty_cause, 0) + 1
    empty_share = sum(causes.values()) / len(records)
    flops = {**first.flops, "total": sum(first.flops.values())}
    total_ms = sum(first.part_ms.values())
    pairs = [r.score - full[r.sample_id] for r in scored if full[r.sample_id] is not None]
    reason = f"{failed} samples failed" if failed else f"{empty_share:.1%} of the answers are empty"
    kinds = sorted({r.kind for r in scored if r.kind})
    return Cell(
        cell=name,
        method=first.ran.method,
        budget_asked=first.ran.budget_asked,
        num_samples=len(records),
        num_failed=failed,
        accuracy=_interval([r.score for r in scored]) if scored else None,
        accuracy_by_kind={kind: _interval([r.score for r in scored if r.kind == kind]) for kind in kinds},
        difference_to_full=PairedDifference(**_normal(pairs)) if pairs and first.ran.method != "full" else None,
        empties=causes,
        empty_share=empty_share,
        flagged=bool(failed) or empty_share > 0.01,
        flag_reason=reason if failed or empty_share > 0.01 else None,
        num_vision_tokens=NUM_TOKENS,
        tokens_kept=first.ran.tokens_kept,
        tokens_kept_layer_average=first.ran.tokens_kept,
        prompt_length=first.ran.prompt_length,
        answer_length=3.0,
        flops=flops,
        part_ms={
            **first.part_ms,
            "total": total_ms,
            "time_to_first_token": total_ms - first.part_ms["decode"],
        },
        peak_memory_bytes=first.peak_memory_bytes,
    )


def _interval(scores: list[float]) -> Interval:
    values = _normal(scores)
    return Interval(**{**values, "low": max(0.0, values["low"]), "high": min(1.0, values["high"])})


def _normal(values: list[float]) -> dict[str, float]:
    mean = sum(values) / len(values)
    spread = 1.96 * math.sqrt(sum((v - mean) ** 2 for v in values)) / len(values)
    return {"mean": mean, "low": mean - spread, "high": mean + spread, "n": len(values)}
