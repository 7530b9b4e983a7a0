"""What leaving layers out saves on the clock: prefill and one decoded token at 100, 75, 62.5 and 50 % of the LLM.

    python benchmarks/layers.py                # LLaVA-1.5-7B's shapes, random weights; on CUDA in bfloat16
    python benchmarks/layers.py --shapes toy   # tiny shapes: that it runs, not how fast
    python benchmarks/layers.py --model tiny --device cpu    # a real model on a CPU

Each sample of a batch has the plan of its scheduler: one for all (`first`, `spaced`), its own (`random`), or chosen by
a latency token with random weights (`layers`, `heads`); `spaced` is also run with the latencies 1.0 and 0.5 mixed in a
batch. Beside them:

- `transformers`: the stock model's own `generate`, its tower counted in `first_token_ms` alone;
- `full`: all layers, by ours;
- `cut`: the stock model with the layers of `first` taken out of it, its weights shared: `first` less `cut` is what the
  skipping itself costs.

All cells take turns. Prints a table, then JSON.
"""

import argparse
import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from measured import Cell, Parts, add_arguments, dtype_of, figures, finish, spread, spreads, synchronize
from random_llava import SHAPES, make_base
from torch import nn

from adallava import AdaLlava
from adallava.bench.made_up_prompts import make_prompts
from adallava.bench.shapes import NoText
from adallava.families.capabilities.of_llms import decoder_of
from adallava.measuring.turns import take_turns
from adallava.pipeline.clock import PrefillMark, StageClock
from adallava.scheduling import build_scheduler

SCHEDULERS = ("first", "spaced", "random", "layers", "heads")


def without_late_layers(model: AdaLlava, latency: float) -> AdaLlava:
    """Return the model with only its first layers; the weights of those are shared."""
    base = copy.copy(model.base)
    base.config = copy.deepcopy(model.base.config)
    base._modules = dict(base._modules)
    path = [base]
    for name in ("model", "language_model"):
        twin = copy.copy(getattr(path[-1], name))
        twin._modules = dict(twin._modules)
        path[-1]._modules[name] = twin
        path.append(twin)
    left = round(latency * len(path[-1].layers))
    path[-1].config = copy.deepcopy(path[-1].config)
    path[-1]._modules["layers"] = nn.ModuleList(list(path[-1].layers)[:left])
    path[-1].config.num_hidden_layers = base.config.text_config.num_hidden_layers = left
    return AdaLlava(base, NoText())


def with_random_weights(model: AdaLlava, name: str, **options: Any) -> AdaLlava:
    """Return the model with a scheduler; a learned one with random weights, so that samples differ."""
    scheduler: Any = build_scheduler(name, decoder_of(model.family).shape, **options)
    if isinstance(scheduler, nn.Module):
        for parameter in scheduler.parameters():
            nn.init.normal_(parameter, std=0.02)
    return model.with_scheduler(scheduler)


def timed(model: AdaLlava, inputs: dict[str, Any], latency: Any, keep_count: int, new_tokens: int) -> Parts:
    """Answer once; return milliseconds, bytes, and how many plans the batch had."""
    clock = StageClock(model.device)
    _begin(model.device)
    output = model.generate(
        **inputs,
        token_budget=keep_count,
        latency=latency,
        seed=list(range(len(inputs["input_ids"]))),
        clock=clock,
        **_exactly(new_tokens),
    )
    plans = {record.groups_run for record in output.records}
    return _parts(output.part_ms or {}, new_tokens, model.device) | {"plans": len(plans)}


def timed_stock(base: Any, inputs: dict[str, Any], new_tokens: int) -> Parts:
    """Answer once with transformers' own `generate`; what comes before the first token is one part."""
    clock = StageClock(base.device)
    _begin(base.device)
    clock.start()
    base.generate(**inputs, logits_processor=[PrefillMark(clock)], **_exactly(new_tokens))
    clock.mark("decode")
    parts = _parts(clock.part_ms(), new_tokens, base.device)
    return {name: value for name, value in parts.items() if name != "prefill_ms"} | {"plans": 1}


def over(cell: Cell, cut: Cell) -> dict[str, Any]:
    """Return what a cell took more than the truncated model in the same round, in ms."""
    pairs = list(zip(cell.results, cut.results, strict=False))
    names = ("prefill_ms", "decode_token_ms") if pairs else ()
    return {name: spread([own[name] - other[name] for own, other in pairs]) for name in names}


def _exactly(new_tokens: int) -> dict[str, Any]:
    return {"max_new_tokens": new_tokens, "min_new_tokens": new_tokens, "do_sample": False, "pad_token_id": 0}


def _begin(device: torch.device) -> None:
    synchronize(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _parts(part_ms: dict[str, float], new_tokens: int, device: torch.device) -> dict[str, float]:
    parts = {
        "first_token_ms": sum(ms for part, ms in part_ms.items() if part != "decode"),
        "prefill_ms": part_ms["prefill"],
        "decode_token_ms": part_ms["decode"] / (new_tokens - 1),
    }
    if device.type == "cuda":
        parts["peak_memory_bytes"] = torch.cuda.max_memory_allocated(device)
    return parts


Key = tuple[int, str, str]
"""Batch size, latency as it is shown, and who leaves layers out."""


def cells_of(full: AdaLlava, args: argparse.Namespace, batch: int) -> dict[Key, Callable[[], Parts]]:
    """Return what is timed at one batch size."""
    model = full.with_method("uniform")
    inputs = make_prompts(model, batch, args.text_tokens)
    keep_count = args.keep or model.shape.num_vision_tokens
    run = partial(timed, inputs=inputs, keep_count=keep_count, new_tokens=args.new_tokens)
    cells: dict[Key, Callable[[], Parts]] = {(batch, "1.0", "full"): partial(run, model, latency=1.0)}
    if keep_count == model.shape.num_vision_tokens:
        cells[batch, "1.0", "transformers"] = partial(timed_stock, full.base, inputs, args.new_tokens)
    schedulers = {name: with_random_weights(model, name) for name in SCHEDULERS}
    for latency in args.latency:
        cut = without_late_layers(full, latency).with_method("uniform")
        cells[batch, str(latency), "cut"] = partial(run, cut, latency=1.0)
        for name, scheduled in schedulers.items():
            cells[batch, str(latency), name] = partial(run, scheduled, latency=latency)
    if batch > 1:
        mixed = [1.0, 0.5] * (batch // 2) + [1.0] * (batch % 2)
        cells[batch, "1.0 and 0.5", "spaced"] = partial(run, schedulers["spaced"], latency=mixed)
    return cells


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", choices=SHAPES, default="7b")
    parser.add_argument("--model", help="a real model instead of random weights")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--latency", type=float, nargs="+", default=[0.75, 0.625, 0.5])
    parser.add_argument("--keep", type=int, help="K; default: all")
    parser.add_argument("--text-tokens", type=int, default=70)
    parser.add_argument("--new-tokens", type=int, default=9)
    add_arguments(parser, repeats=10)
    args = parser.parse_args()
    torch.manual_seed(0)
    if args.model:
        full = AdaLlava.from_pretrained(args.model, method="full", device=args.device, dtype=args.dtype or "auto")
    else:
        full = AdaLlava(make_base(args.shapes, args.device, dtype_of(args)), NoText())
    rows = []
    print("| batch | latency | scheduler | ms to the first token | prefill ms | ms a decoded token | plans |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for batch in args.batch:
        cells = cells_of(full, args, batch)
        share = args.seconds * batch**0.5 / sum(size**0.5 for size in args.batch)
        measured = take_turns(cells, warm_ups=args.warm_ups, repeats=args.repeats, seconds=share)
        for key, cell in measured.items():
            rows.append(dict(zip(("batch", "latency", "scheduler"), key, strict=True)) | spreads(cell))
            if key[2] in SCHEDULERS and (cut := measured.get((batch, key[1], "cut"))) is not None:
                rows[-1]["over_cut"] = over(cell, cut)
            shown = [_shown(rows[-1], part) for part in ("first_token_ms", "prefill_ms", "decode_token_ms", "plans")]
            print("| " + " | ".join([str(batch), key[1], f"`{key[2]}`", *shown]) + " |", flush=True)
    layers, dtype = full.family.num_llm_layers, str(full.dtype).removeprefix("torch.")
    keep = args.keep or full.shape.num_vision_tokens
    made = figures(
        shapes=args.model or args.shapes,
        layers=layers,
        dtype=dtype,
        vision_tokens=keep,
        text_tokens=args.text_tokens,
        new_tokens=args.new_tokens,
        rows=rows,
    )
    finish(made, args.output)


def _shown(row: dict[str, Any], part: str) -> str:
    if "error" in row:
        return row["error"][:60] if part == "first_token_ms" else ""
    return f"{row[part]['median']:.2f}" if part in row else ""


if __name__ == "__main__":
    main()
