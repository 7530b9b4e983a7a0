"""Prefill of LLaVA-1.5-7B's shapes with random weights: stock, K before the LLM, and K inside it.

    python benchmarks/inside.py                # on CUDA in bfloat16, SDPA
    python benchmarks/inside.py --shapes toy   # tiny shapes: that it runs, not how fast

Milliseconds from the projected tokens to the first token's logits (`prefill_ms`: choosing inside the LLM, and what it
plans on the host while it runs, included) and from the pixels on (`first_token_ms`), by the answer's own clock. All
cells of a batch size take turns. Prints a table, then JSON.
"""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from measured import Parts, add_arguments, dtype_of, figures, finish, spreads, synchronize
from random_llava import SHAPES, make_base

from adallava import AdaLlava
from adallava.bench.made_up_prompts import make_prompts
from adallava.bench.shapes import NoText
from adallava.measuring.turns import take_turns
from adallava.pipeline.clock import StageClock

METHODS = ("uniform", "fastv", "dart", "sparsevlm", "pyramiddrop")


def prefill(model: AdaLlava, inputs: dict[str, Any], budget: int | float) -> Parts:
    """Answer with one token; return milliseconds."""
    clock = StageClock(model.device)
    synchronize(model.device)
    output = model.generate(
        **inputs, token_budget=budget, clock=clock, max_new_tokens=1, min_new_tokens=1, do_sample=False, pad_token_id=0
    )
    parts = output.part_ms or {}
    return {
        "prefill_ms": parts["prefill"],
        "first_token_ms": sum(ms for part, ms in parts.items() if part != "decode"),
    }


def tokens_by_layer(model: AdaLlava, inputs: dict[str, Any], budget: int | float) -> list[int]:
    """Return the numbers of vision tokens that the layers read, each once, in their order."""
    one = {name: tensor[:1] for name, tensor in inputs.items()}
    (selection,) = model.select(**one, token_budget=budget)
    return list(dict.fromkeys(selection.tokens_kept_by_layer or (selection.tokens_kept,)))


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", choices=SHAPES, default="7b")
    parser.add_argument("--text-tokens", type=int, default=70)
    parser.add_argument("--keep", type=int, nargs="+", help="K", default=[288, 192, 128, 64])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    add_arguments(parser, repeats=10)
    args = parser.parse_args()
    torch.manual_seed(0)
    full = AdaLlava(make_base(args.shapes, args.device, dtype_of(args)), NoText())
    num_tokens = full.shape.num_vision_tokens
    asked: list[tuple[str, int, int | float]] = [("full", num_tokens, 1.0)]
    asked += [(method, keep_count, keep_count) for keep_count in args.keep for method in METHODS]
    models = {method: full.with_method(method) for method in ("full", *METHODS)}
    rows = []
    print("| batch | K | method | prefill ms | 10 % … 90 % | ms to the first token | tokens by layer |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for batch in args.batch:
        inputs = make_prompts(full, batch, args.text_tokens)
        cells: dict[str, Callable[[], Parts]] = {
            f"{method}@{keep_count}": partial(prefill, models[method], inputs, budget)
            for method, keep_count, budget in asked
        }
        share = args.seconds / len(args.batch)
        measured = take_turns(cells, warm_ups=args.warm_ups, repeats=args.repeats, seconds=share)
        for (method, keep_count, budget), cell in zip(asked, measured.values(), strict=True):
            row = {"batch": batch, "keep_count": keep_count, "method": method, **spreads(cell)}
            row["tokens"] = tokens_by_layer(models[method], inputs, budget)
            rows.append(row)
            print(_line(row), flush=True)
    made = figures(
        shapes=args.shapes,
        dtype=str(full.dtype).removeprefix("torch."),
        vision_tokens=num_tokens,
        text_tokens=args.text_tokens,
        rows=rows,
    )
    finish(made, args.output)


def _line(row: dict[str, Any]) -> str:
    way = " → ".join(map(str, row["tokens"]))
    if "error" in row:
        return f"| {row['batch']} | {row['keep_count']} | `{row['method']}` | {row['error']} | | | {way} |"
    spent, first = row["prefill_ms"], row["first_token_ms"]
    return (
        f"| {row['batch']} | {row['keep_count']} | `{row['method']}` | {spent['median']:.2f} "
        f"| {spent['low']:.2f} … {spent['high']:.2f} | {first['median']:.2f} | {way} |"
    )


if __name__ == "__main__":
    main()
