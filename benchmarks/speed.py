"""What an answer costs on the clock: stock transformers, and every engine, budget and batch size, in turns.

    python benchmarks/speed.py --output docs/results/speed.json    # LLaVA-1.5-7B's shapes, random weights, on CUDA
    python benchmarks/speed.py --shapes toy --device cpu --engines eager --repeats 2

One picture and 70 tokens of text a prompt; answers of exactly 1 and 33 tokens. Wall clock around whole calls, with one
wait at the end: pixels on the device to token ids on the host. Also measured in the same run: the rate of a large
matrix product and of a large copy, and from them floors: the LLM's products at the first, its weights at the second.
Prints a table, then JSON as its last line.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from layers import with_random_weights
from measured import Parts, add_arguments, dtype_of, figures, finish, spreads, synchronize
from random_llava import SHAPES, NoText, make_base, prompts
from rich.console import Console
from rich.table import Table

from adallava import AdaLlava
from adallava.measuring.turns import take_turns

TEXT_TOKENS = 70
ANSWERS = (1, 33)
KEEP = 64
METHODS = ("uniform", "visionzip", "divprune", "cls-attention", "tome")


def exactly(new_tokens: int) -> dict[str, Any]:
    """Return arguments for an answer of so many tokens."""
    return {"max_new_tokens": new_tokens, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}


def timed(answer: Callable[[], Any], device: str) -> Parts:
    """Answer once; return the wall clock in milliseconds."""
    synchronize(device)
    begin = time.perf_counter()
    answer()
    synchronize(device)
    return {"wall_ms": (time.perf_counter() - begin) * 1e3}


def ceilings(device: str, dtype: torch.dtype) -> dict[str, float]:
    """Return what the machine does at most: operations a second of a matrix product, bytes a second of a copy."""
    side, repeats = (8192, 20) if torch.device(device).type == "cuda" else (512, 3)
    one = torch.randn(side, side, device=device, dtype=dtype)
    other, target = torch.randn_like(one), torch.empty(side * side * 8, dtype=torch.uint8, device=device)
    source = torch.randint(0, 255, target.shape, dtype=torch.uint8, device=device)

    def rate(work: Callable[[], Any], amount: float) -> float:
        work()
        synchronize(device)
        begin = time.perf_counter()
        for _ in range(repeats):
            work()
        synchronize(device)
        return repeats * amount / (time.perf_counter() - begin)

    return {
        "product_flops_per_s": rate(lambda: one @ other, 2.0 * side**3),
        "copy_bytes_per_s": rate(lambda: target.copy_(source), 2.0 * source.numel()),
    }


def floors(base: Any, batch: int, keep: int, most: dict[str, float]) -> dict[str, float]:
    """Return the least milliseconds of the LLM's prefill and of one token: its products, or reading its weights."""
    llm = base.model.language_model
    weights = sum(weight.numel() for weight in llm.layers.parameters())
    held = weights * next(llm.parameters()).element_size()
    read_ms = held / most["copy_bytes_per_s"] * 1e3
    products_ms = 2.0 * weights * batch * (keep + TEXT_TOKENS) / most["product_flops_per_s"] * 1e3
    return {"prefill_floor_ms": max(read_ms, products_ms), "token_floor_ms": read_ms}


def cells_of(base: Any, args: argparse.Namespace, batch: int) -> dict[str, Callable[[], Parts]]:
    """Return every cell by name: `engine | what | tokens`."""
    full = AdaLlava(base, NoText(), engine="stock")
    inputs = prompts(full, batch, TEXT_TOKENS)
    cells: dict[str, Callable[[], Parts]] = {}

    def add(engine: str, what: str, answer: Callable[..., Any]) -> None:
        for new_tokens in ANSWERS:
            cells[f"{engine} | {what} | {new_tokens}"] = partial(
                timed, partial(answer, **inputs, **exactly(new_tokens)), args.device
            )

    add("transformers", "full", base.generate)
    for engine in args.engines:
        driven = full.with_engine(engine)
        add(engine, "full", driven.generate)
        for method in METHODS if engine != "stock" else METHODS[:1]:
            add(engine, method, partial(driven.with_method(method).generate, token_budget=KEEP))
        kept = driven.with_method("uniform")
        half = kept.with_scheduler("spaced", prefix_layers=2)
        add(engine, "uniform, half of the layers", partial(half.generate, token_budget=KEEP, latency=0.5))
        each = with_random_weights(kept, "layers")
        asked = {"token_budget": KEEP, "latency": 0.75, "seed": list(range(batch))}
        add(engine, "uniform, a plan each, 75 % of the layers", partial(each.generate, **asked))
    return cells


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", choices=SHAPES, default="7b")
    parser.add_argument("--engines", nargs="+", default=["stock", "graphs", "compiled"])
    parser.add_argument("--batch-size", nargs="+", type=int, default=[1, 8])
    add_arguments(parser, repeats=10)
    args = parser.parse_args()
    base = make_base(args.shapes, args.device, dtype_of(args))
    most = ceilings(args.device, dtype_of(args))
    rows: list[dict[str, Any]] = []
    table = Table("batch", "engine", "what", "tokens", "ms, median", "10th to 90th percentile")
    for batch in args.batch_size:
        cells = take_turns(
            cells_of(base, args, batch),
            warm_ups=6,
            repeats=args.repeats,
            seconds=args.seconds / len(args.batch_size),
        )
        for name, cell in cells.items():
            engine, what, tokens = name.split(" | ")
            row = {"batch_size": batch, "engine": engine, "what": what, "new_tokens": int(tokens), **spreads(cell)}
            rows.append(row)
            if cell.error is None:
                wall = row["wall_ms"]
                spread = f"{wall['low']:.2f} to {wall['high']:.2f}"
                table.add_row(str(batch), engine, what, tokens, f"{wall['median']:.2f}", spread)
    Console(width=140).print(table)
    memory = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
    keeps = {"full": base.config.image_seq_length, "kept": KEEP}
    least = {
        f"{batch} | {name}": floors(base, batch, keep, most)
        for batch in args.batch_size
        for name, keep in keeps.items()
    }
    made = figures(ceilings=most, floors=least, text_tokens=TEXT_TOKENS, keep=KEEP, peak_bytes=memory, rows=rows)
    finish(made, args.output)


if __name__ == "__main__":
    main()
