"""A benchmark from end to end: batch size after batch size, all cells in turns, and what goes into its file."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any

from torch import Tensor

from adallava.bench.bench_models import Bench, load_bench
from adallava.bench.bench_request import GRAPH_WARM_UPS, PLAIN_WARM_UPS, BenchRequest
from adallava.bench.ceilings import FP8, dtype_name, measure_ceilings
from adallava.bench.floors import floors_of, row_of
from adallava.bench.made_up_prompts import make_prompts
from adallava.bench.measure import Answer, Turn, answer_by_model, answer_by_transformers, take_turn
from adallava.costs.roofline import Hardware
from adallava.errors import InputError
from adallava.measuring.machine_load import load_between, read_load
from adallava.measuring.provenance import collect_provenance
from adallava.measuring.turns import Turns, spread_of, take_turns
from adallava.pipeline.prompt_limit import device_memory_bytes, max_prompt_tokens
from adallava.records.cells import FULL_CELL, CellPlan

KIND = "adallava bench"
"""What the file says that it is."""

TRANSFORMERS = "transformers"
"""The engine of the cell that is not ours: stock `generate` on all tokens."""

Key = tuple[str, CellPlan]
"""An engine, and what it runs."""

Document = dict[str, Any]
"""JSON."""


def run_bench(
    request: BenchRequest,
    *,
    say: Callable[[str], None] = lambda _: None,
    keep: Callable[[Document], None] = lambda _: None,
) -> Document:
    """Measure, and return what the file holds.

    Args:
        request: what to measure.
        say: told a line before what takes long.
        keep: given the document after each batch size: one that is ended has lost nothing of those before.

    Raises:
        AdallavaError: as `load_bench` and `make_prompts`; a cell that fails raises none, and is in the document.
    """
    bench = load_bench(request)
    prompt = _one_prompt(bench)
    machine = measure_ceilings(bench.full.device, bench.full.dtype, in_fp8=request.quantization == FP8)
    warm_ups = request.warm_ups
    if warm_ups is None:
        warm_ups = GRAPH_WARM_UPS if bench.full.device.type == "cuda" else PLAIN_WARM_UPS
    document = _head(bench, machine) | {
        "num_vision_tokens": int((prompt == bench.full.family.image_token_id).sum()),
        "warm_ups": warm_ups,
        "machine_load": {},
        "cells": [],
    }
    for size in request.batch_sizes:
        say(f"batch size {size}: {len(_keys(bench))} cells in turns, {warm_ups} + {request.repeats} rounds at most …")
        before = read_load()
        cells = _cells(bench, size)
        turns = take_turns(
            cells, warm_ups=warm_ups, repeats=request.repeats, seconds=request.seconds / len(request.batch_sizes)
        )
        load = load_between(before, read_load(), bench.full.device)
        document["machine_load"][str(size)] = load.model_dump()
        document["cells"] += _rows(bench, machine, size, turns)
        keep(document)
    return document


def _one_prompt(bench: Bench) -> Tensor:
    """Return a prompt's ids, [1, L], before minutes are spent.

    Raises:
        InputError: for a prompt or an answer that has no place in the model's context.
    """
    text_tokens, new_tokens = bench.request.text_tokens, bench.request.new_tokens

    def one() -> Tensor:
        """Return the ids of one prompt, [1, L]."""
        ids: Tensor = make_prompts(bench.full, 1, text_tokens, bench.request.image)["input_ids"]
        return ids

    limit = max_prompt_tokens(bench.full.base.config, new_tokens, memory_bytes=device_memory_bytes(bench.full.device))
    if limit is None:
        return one()
    ids = one() if text_tokens <= limit.tokens else None
    if ids is None or ids.shape[1] > limit.tokens:
        raise InputError(
            f"--text-tokens {text_tokens} and an image are too many: {limit.holder} {limit.tokens} before "
            f"{new_tokens} new tokens; give fewer of either"
        )
    return ids


def _keys(bench: Bench) -> list[Key]:
    full = next(plan for plan in bench.plans if plan.cell == FULL_CELL)
    return [(TRANSFORMERS, full), *((engine, plan) for plan in bench.plans for engine in bench.engines)]


def _cells(bench: Bench, batch_size: int) -> dict[Key, Callable[[], Turn]]:
    """Return every cell's turn. Models and prompts are made in the first: what cannot be is an error of its cell."""
    inputs = cache(partial(make_prompts, bench.full, batch_size, bench.request.text_tokens, bench.request.image))

    def turn(made: Callable[[], Answer]) -> Turn:
        """Measure one call."""
        return take_turn(made(), bench.request.new_tokens, bench.full.device)

    def made(engine: str, plan: CellPlan) -> Answer:
        """Return what answers for an engine and a cell."""
        if engine == TRANSFORMERS:
            return answer_by_transformers(bench.full.base, inputs())
        return answer_by_model(bench.model(engine, plan), plan, inputs())

    return {key: partial(turn, cache(partial(made, *key))) for key in _keys(bench)}


def _rows(bench: Bench, machine: Hardware, batch_size: int, turns: Mapping[Key, Turns[Turn]]) -> list[Document]:
    rows = []
    of_all = next(
        (own.results for (engine, plan), own in turns.items() if engine != TRANSFORMERS and plan.cell == FULL_CELL), ()
    )
    for (engine, plan), own in turns.items():
        row: Document = {
            "batch_size": batch_size,
            "engine": engine,
            "cell": plan.cell,
            "method": plan.method,
            "token_budget": plan.budget_asked,
            "scheduler": plan.scheduler,
            "latency": plan.latency_asked,
        }
        if own.error is None:
            stock = engine == TRANSFORMERS
            model, answers = (bench.full, of_all) if stock else (bench.engines[engine], own.results)
            least = _floors(bench, machine, plan.method, answers, model.quantization)
            row |= _measured(own.results, batch_size, bench.request.new_tokens, least, bench.idle_bytes(model))
        else:
            row["error"] = own.error
        rows.append(row)
    return rows


def _floors(bench: Bench, machine: Hardware, method: str, turns: Sequence[Turn], quantization: str) -> dict[str, float]:
    """Return a cell's floors; nothing for one without records, or of a model whose costs are not known."""
    records = turns[-1].answered.records if turns else ()
    if not records or bench.costs is None:
        return {}
    chose, picture = bench.selector(method), bench.full.shape.num_vision_tokens
    rows = [row_of(record, bench.costs, chose, picture) for record in records]
    dtype, value_bytes = dtype_name(bench.full.dtype), bench.full.dtype.itemsize
    floors = floors_of(
        machine,
        bench.costs,
        rows,
        bench.request.new_tokens,
        dtype=dtype,
        value_bytes=value_bytes,
        llm_dtype=FP8 if quantization == FP8 else dtype,
        layer_value_bytes=value_bytes if quantization == "none" else 1,
    )
    if bench.projects_to_choose(method):
        # The clock counts the projector to the selector there.
        floors["selector"] = floors.pop("projector")
    return floors


def _measured(
    turns: Sequence[Turn], batch_size: int, new_tokens: int, floor_ms: Mapping[str, float], idle_bytes: int
) -> Document:
    """Return one cell's figures: spreads over the rounds, what is made of two times being made within a round."""
    last = turns[-1].answered
    values = {part: [turn.part_ms[part] for turn in turns] for part in turns[0].part_ms}
    values |= {
        "time_to_first_token": [turn.first_token_ms for turn in turns],
        "decode_per_token": [(turn.total_ms - turn.first_token_ms) / (new_tokens - 1) for turn in turns],
        "total": [turn.total_ms for turn in turns],
    }
    spreads = {name: spread_of(times) for name, times in values.items()}
    rates = spread_of([1000.0 * batch_size * new_tokens / turn.total_ms for turn in turns])
    peaks = [turn.peak_memory_bytes for turn in turns if turn.peak_memory_bytes is not None]
    return {
        "engine_ran": last.engine,
        "passed_over": last.passed_over,
        "tokens_kept": [(record.tokens_kept_by_layer or (record.tokens_kept,))[-1] for record in last.records] or None,
        "prompt_lengths": [record.prompt_length for record in last.records] or None,
        "repeats": len(turns),
        "ms": {name: spread.model_dump() for name, spread in spreads.items()},
        "tokens_per_s": rates.model_dump(),
        "peak_memory_bytes": max(peaks) - idle_bytes if peaks else None,
        "floor_ms": dict(floor_ms),
        "over_floor": {
            name: spreads[name].median / least
            for name, least in floor_ms.items()
            if name in spreads and least > 0.0 and spreads[name].median > 0.0
        },
    }


def _head(bench: Bench, machine: Hardware) -> Document:
    """Return how the figures are made."""
    request, full = bench.request, bench.full
    ran = collect_provenance(
        weights_sha256="",
        adapter_sha256={},
        scheduler_sha256={},
        weight_counts={},
        task_sha256=None,
        command=request.command,
    )
    dtype = dtype_name(full.dtype)
    return {
        "kind": KIND,
        "command": ran.command,
        "date": ran.started_at[:10],
        "versions": {"adallava": ran.adallava_version, **ran.versions},
        "git_commit": ran.git_commit,
        "git_dirty": ran.git_dirty,
        "hardware": ran.hardware,
        "model": request.model,
        "shapes": request.shapes,
        "dtype": dtype,
        "quantization": request.quantization,
        "device": str(full.device),
        "num_llm_layers": full.family.num_llm_layers,
        "text_tokens": request.text_tokens,
        "new_tokens": request.new_tokens,
        "image": None if request.image is None else request.image.name,
        "ceilings": {
            "flops_per_s": machine.flops_per_s[dtype],
            **({"fp8_flops_per_s": machine.flops_per_s[FP8]} if FP8 in machine.flops_per_s else {}),
            "bytes_per_s": machine.bytes_per_s,
            "source": machine.source,
        },
    }
