"""Synthetic run folders with all that a protocol records: draws, positions, hard split, tests, areas, timings.

Nothing here was measured. Scores follow from a seed, and every summary from the scores, so that a test can say what
the page must show. Fast enough for 10,000 samples by 15 methods.
"""

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from run_folders import FakeRun, fake_run
from scipy.stats import norm

from adallava.records import (
    Area,
    AreaComparison,
    Cell,
    Comparison,
    HardSplit,
    Interval,
    PairedDifference,
    Results,
    RunConfig,
    Spread,
    Timing,
)

SIDE = 16
NUM_TOKENS = SIDE * SIDE
NUM_LAYERS = 8
KINDS = ("attribute", "counting", "reading", "locating", "existence")
COLOURS = ("red", "blue", "green", "yellow")
INSIDE = ("fastv", "sparsevlm", "pyramiddrop")
MERGING = ("pool", "tome", "prumerge")
METHODS = (
    "random", "uniform", "pool", "question", "prumerge", "visionzip", "divprune", "cdpruner", "mmtok", "tome",
    "cls-attention", "feature-norm", "fastv", "sparsevlm", "pyramiddrop",
)  # fmt: skip


@dataclass(frozen=True)
class RichRun:
    """What to make up."""

    methods: tuple[str, ...] = METHODS
    budgets: tuple[int, ...] = (8, 32, 128)
    num_samples: int = 200
    draws: int = 3
    compact: bool = True
    """Also with compact positions, for the methods that are not inside the LLM; at one budget."""
    batch_sizes: tuple[int, ...] = (1, 8, 32)
    seed: int = 0
    shift: float = 0.0
    """Added to every chance of being right: a second run that is a little better or worse."""
    question: str = "What colour is the {}?"


@dataclass(frozen=True)
class MadeCell:
    """One cell and its scores: [draws, samples]."""

    method: str
    budget: int | None
    positions: str
    scores: NDArray[np.float64] = field(repr=False)

    @property
    def name(self) -> str:
        budget = {"full": "1.0", "none": "none"}.get(self.method, str(self.budget))
        return f"{self.method}@{budget}" + ("+compact" if self.positions == "compact" else "")

    @property
    def kept(self) -> int:
        return NUM_TOKENS if self.method == "full" else 0 if self.method == "none" else int(self.budget or 0)

    @property
    def before_llm(self) -> int:
        return NUM_TOKENS if self.method in INSIDE else self.kept

    @property
    def by_layer(self) -> list[int] | None:
        return [NUM_TOKENS] * 2 + [self.kept] * (NUM_LAYERS - 2) if self.method in INSIDE else None

    @property
    def layer_average(self) -> float:
        return float(np.mean(self.by_layer)) if self.by_layer else float(self.kept)


def write_rich_run(folder: Path, spec: RichRun) -> Path:
    """Write `run.json`, `samples.jsonl` and `results.json`, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    cells = made_cells(spec)
    run = fake_run(FakeRun(num_samples=spec.num_samples, seed=spec.seed))
    config = RunConfig(
        **{
            **run.config.model_dump(),
            "methods": spec.methods,
            "token_budgets": [str(budget) for budget in spec.budgets],
            "positions": ["original", "compact"] if spec.compact else ["original"],
            "draws": spec.draws,
            "timing_batch_sizes": spec.batch_sizes,
        }
    )
    (folder / "run.json").write_text(run.model_copy(update={"config": config}).model_dump_json(indent=1))
    with (folder / "samples.jsonl").open("w") as file:
        for record in rich_records(spec, cells):
            file.write(json.dumps(record) + "\n")
    (folder / "results.json").write_text(rich_results(spec, cells).model_dump_json())
    return folder


def made_cells(spec: RichRun) -> list[MadeCell]:
    """Return the cells with their scores; `full` first."""
    cells = [_made(spec, "full", None, "original")]
    for method, budget in itertools.product(spec.methods, spec.budgets):
        cells.append(_made(spec, method, budget, "original"))
    if spec.compact:
        middle = spec.budgets[len(spec.budgets) // 2]
        cells += [_made(spec, method, middle, "compact") for method in spec.methods if method not in INSIDE]
    return [*cells, _made(spec, "downsample", spec.budgets[-1] // 2, "original"), _made(spec, "none", None, "original")]


def _made(spec: RichRun, method: str, budget: int | None, positions: str) -> MadeCell:
    names = ("full", "none", "downsample", *METHODS)
    rank = names.index(method)
    difficulty = np.random.default_rng([spec.seed, 1]).random(spec.num_samples)
    kept = NUM_TOKENS if method == "full" else 0 if method == "none" else (budget or 0)
    reach = 0.25 if kept == 0 else 0.25 + 0.7 / (1 + ((8 + 3 * rank) / kept) ** 1.3)
    reach -= 0.04 * (positions == "compact")
    draws = spec.draws if method == "random" else 1
    noise = np.random.default_rng([spec.seed, rank, kept, positions == "compact"]).normal(
        0, 0.12, (draws, spec.num_samples)
    )
    return MadeCell(method, budget, positions, (difficulty + noise < reach + spec.shift).astype(np.float64))


def rich_records(spec: RichRun, cells: list[MadeCell]) -> Iterator[dict[str, object]]:
    """Yield the lines of `samples.jsonl` as dictionaries."""
    answers = np.random.default_rng([spec.seed, 2]).integers(0, len(COLOURS), spec.num_samples)
    for number, cell in enumerate(cells):
        budget = {"full": "1.0", "none": "none"}.get(cell.method, str(cell.budget))
        flops = _flops(cell)
        fixed = {
            "cell": cell.name,
            "positions": cell.positions,
            "method": cell.method,
            "budget_asked": budget,
            "num_vision_tokens": NUM_TOKENS,
            "tokens_asked": cell.kept,
            "tokens_kept": cell.before_llm,
            "tokens_kept_by_layer": cell.by_layer,
            "merged": cell.method in MERGING,
            "prompt_length": cell.before_llm + 14,
            "answer_length": 2,
            "finish_reason": "eos",
            "batch_ms": 80.0,
            "batch_size": 8,
            "part_ms": {part: value / 2.2e8 for part, value in flops.items()},
            "flops": flops,
            "peak_memory_bytes": 611_000_000,
        }
        patches = np.random.default_rng([spec.seed, 3, number])
        kept_sets = [sorted(patches.permutation(NUM_TOKENS)[: cell.kept].tolist()) for _ in range(64)]
        for draw, sample in itertools.product(range(len(cell.scores)), range(spec.num_samples)):
            right = cell.scores[draw, sample]
            answer = int(answers[sample])
            yield {
                **fixed,
                "sample_id": f"rich-{spec.seed}-{sample:05d}",
                "draw": draw,
                "question": spec.question.format(f"thing {sample}"),
                "answers": [COLOURS[answer]],
                "kind": KINDS[sample % len(KINDS)],
                "response": COLOURS[answer if right else (answer + 1) % len(COLOURS)],
                "score": float(right),
                "kept_indices": [kept_sets[(sample + draw) % 64]]
                if cell.method not in ("none", "downsample")
                else None,
            }


def rich_results(spec: RichRun, cells: list[MadeCell]) -> Results:
    """Return the summary: everything but timings follows from the scores."""
    scores = {cell.name: cell.scores.mean(axis=0) for cell in cells}
    downsample = next(cell.name for cell in cells if cell.method == "downsample")
    blind, small = scores["none@none"] >= 0.5, scores[downsample] >= 0.5
    hard = ~blind & ~small
    made = [_cell(spec, cell, scores, hard) for cell in cells]
    fronts = {axis: _front(made, axis) for axis in ("tokens", "flops", "ms")}
    made = [
        cell.model_copy(update={"on_front": [axis for axis, names in fronts.items() if cell.cell in names]})
        for cell in made
    ]
    return Results(
        cells=made,
        comparisons=_comparisons(cells, scores),
        areas=_areas(spec, made),
        area_comparisons=_area_comparisons(cells, scores),
        hard_split=HardSplit(
            num_samples=spec.num_samples,
            answered_without_image=int(blind.sum()),
            answered_downsampled=int((small & ~blind).sum()),
            downsample_cell=downsample,
            num_hard=int(hard.sum()),
        ),
    )


def _flops(cell: MadeCell) -> dict[str, int]:
    return {
        "vision": 0 if cell.method == "none" else 1_900_000_000,
        "selector": 1_000_000 * len(cell.method),
        "projector": 350_000 * cell.before_llm,
        "prefill": int(21_000_000 * (cell.layer_average + 14)),
        "decode": 44_000_000,
    }


def _cell(spec: RichRun, cell: MadeCell, scores: dict[str, NDArray[np.float64]], hard: NDArray[np.bool_]) -> Cell:
    own, full, flops = scores[cell.name], scores["full@1.0"], _flops(cell)
    kind_of = np.arange(spec.num_samples) % len(KINDS)
    total = sum(flops.values()) / 2.2e8
    of_kind = {kind: kind_of == number for number, kind in enumerate(KINDS)}
    return Cell(
        cell=cell.name,
        method=cell.method,
        budget_asked={"full": "1.0", "none": "none"}.get(cell.method, str(cell.budget)),
        positions=cell.positions,
        draws=len(cell.scores),
        num_samples=spec.num_samples,
        num_failed=0,
        accuracy=_interval(own),
        accuracy_by_kind={kind: _interval(own[mask]) for kind, mask in of_kind.items() if mask.any()},
        # The cells that define the split are wrong on it by construction.
        accuracy_hard=_interval(own[hard]) if hard.any() and cell.method not in ("none", "downsample") else None,
        accuracy_hard_by_kind={
            kind: _interval(own[mask & hard])
            for kind, mask in of_kind.items()
            if (mask & hard).any() and cell.method not in ("none", "downsample")
        },
        difference_to_full=None if cell.method == "full" else _difference(own - full),
        empties={},
        empty_share=0.0,
        flagged=False,
        flag_reason=None,
        num_vision_tokens=NUM_TOKENS,
        tokens_kept=cell.before_llm,
        tokens_kept_layer_average=cell.layer_average,
        prompt_length=cell.before_llm + 14,
        answer_length=2,
        flops={**flops, "total": sum(flops.values())},
        part_ms={
            **{part: value / 2.2e8 for part, value in flops.items()},
            "total": total,
            "time_to_first_token": total - flops["decode"] / 2.2e8,
        },
        peak_memory_bytes=611_000_000,
        timings=[_timing(size, total) for size in spec.batch_sizes],
    )


def _timing(batch_size: int, total_ms: float) -> Timing:
    first = total_ms * batch_size**0.8
    return Timing(
        batch_size=batch_size,
        repeats=20,
        part_ms={
            "time_to_first_token": Spread(median=first, low=0.97 * first, high=1.08 * first),
            "decode_per_token": Spread(median=1.5, low=1.4, high=1.7),
        },
        peak_memory_bytes=600_000_000 + 9_000_000 * batch_size,
    )


def _bounds(values: NDArray[np.float64]) -> dict[str, float]:
    mean, spread = float(values.mean()), 1.96 * float(values.std()) / np.sqrt(len(values))
    return {"mean": mean, "low": mean - spread, "high": mean + spread, "n": len(values)}


def _interval(values: NDArray[np.float64]) -> Interval:
    bounds = _bounds(values)
    return Interval(**{**bounds, "low": max(0.0, bounds["low"]), "high": min(1.0, bounds["high"])})


def _difference(values: NDArray[np.float64]) -> PairedDifference:
    return PairedDifference(**_bounds(values))


def _comparisons(cells: list[MadeCell], scores: dict[str, NDArray[np.float64]]) -> list[Comparison]:
    """Return every pair at one budget and one kind of positions, with Holm's correction."""
    groups: dict[tuple[int | None, str], list[str]] = {}
    for cell in cells:
        if cell.budget is not None and cell.method != "downsample":
            groups.setdefault((cell.budget, cell.positions), []).append(cell.name)
    pairs = [pair for names in groups.values() for pair in itertools.combinations(names, 2)]
    p_values = []
    for a, b in pairs:
        difference = scores[a] - scores[b]
        error = difference.std() / np.sqrt(len(difference))
        p_values.append(float(2 * norm.sf(abs(difference.mean()) / error)) if error > 0 else 1.0)
    adjusted, worst = np.ones(len(pairs)), 0.0
    for rank, place in enumerate(np.argsort(p_values)):
        worst = max(worst, min(1.0, p_values[place] * (len(pairs) - rank)))
        adjusted[place] = worst
    return [
        Comparison(
            cell_a=a,
            cell_b=b,
            difference=_difference(scores[a] - scores[b]),
            p_value=p,
            p_adjusted=float(p_adjusted),
            significant=bool(p_adjusted < 0.05),
        )
        for (a, b), p, p_adjusted in zip(pairs, p_values, adjusted, strict=True)
    ]


def _area_comparisons(cells: list[MadeCell], scores: dict[str, NDArray[np.float64]]) -> list[AreaComparison]:
    """Return the first two methods at equal cost, on one axis where they differ and on one where they do not."""
    methods = list(dict.fromkeys(cell.method for cell in cells if cell.budget and cell.method != "downsample"))[:2]
    if len(methods) < 2:
        return []
    a, b = (next(scores[cell.name] for cell in cells if cell.method == method) for method in methods)
    return [
        AreaComparison(
            method_a=methods[0],
            method_b=methods[1],
            axis=axis,
            from_cost=1e9,
            to_cost=2e9,
            difference=_difference(a - b),
            p_value=p,
            p_adjusted=p,
            significant=p < 0.05,
        )
        for axis, p in (("flops", 0.01), ("ms", 0.7))
    ]


def _cost(cell: Cell, axis: str) -> float:
    if axis == "tokens":
        return cell.tokens_kept_layer_average
    return cell.flops["total"] if axis == "flops" else cell.part_ms["time_to_first_token"]


def _front(cells: list[Cell], axis: str) -> set[str]:
    names, best = set(), -1.0
    for cell in sorted(cells, key=lambda cell: (_cost(cell, axis), -cell.accuracy.mean)):
        if cell.accuracy.mean > best:
            names.add(cell.cell)
            best = cell.accuracy.mean
    return names


def _areas(spec: RichRun, cells: list[Cell]) -> list[Area]:
    areas = []
    for method, axis in itertools.product(spec.methods, ("tokens", "flops", "ms")):
        of_method = [cell for cell in cells if cell.method == method and cell.positions == "original"]
        mean = float(np.mean([cell.accuracy.mean for cell in of_method]))
        ends = [_cost(cell, axis) for cell in of_method]
        areas.append(
            Area(
                method=method,
                axis=axis,
                area=Interval(mean=mean, low=mean - 0.02, high=mean + 0.02, n=spec.num_samples),
                from_cost=min(ends),
                to_cost=max(ends),
            )
        )
    return areas
