"""Ratios of times within one run, on tiny shapes: `python benchmarks/ratios.py`. Some seconds, for every change.

Our own passes without graphs (`eager`, the logic of the captured engines) against stock `generate`, and a pruned answer
against a full one. What is counted is the process's own CPU time, and cells take turns, so that other work on the
machine hardly shows. Fails on a gross loss alone: what a GPU gains is measured by `adallava bench`.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from measured import figures, finish, spread
from random_llava import make_base

from adallava import AdaLlava
from adallava.bench.made_up_prompts import make_prompts
from adallava.bench.shapes import NoText
from adallava.measuring.turns import take_turns

NEW = {"max_new_tokens": 4, "eos_token_id": None, "pad_token_id": 0, "do_sample": False}
MOST = {
    "eager / stock, full": 1.6,
    "eager / stock, pruned": 1.6,
    "pruned / full, stock": 0.9,
    "pruned / full, eager": 0.9,
}
"""A ratio above this is a gross loss."""


def cpu_seconds(model: AdaLlava, inputs: dict[str, Any], budget: float) -> float:
    """Answer once, and return the CPU time that it took."""
    start = time.process_time()
    model.generate(**inputs, token_budget=budget, **NEW)
    return time.process_time() - start


def main() -> None:
    """Measure, print, and fail if a ratio is a gross loss."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, help="file for the figures")
    args = parser.parse_args()
    torch.set_num_threads(1)
    stock = AdaLlava(make_base("toy", "cpu", torch.float32), NoText(), engine="stock").with_method("uniform")
    inputs = make_prompts(stock, 1, 24)
    engines = {"stock": stock, "eager": stock.with_engine("eager")}
    cells: dict[tuple[str, str], Callable[[], float]] = {
        (engine, kept): partial(cpu_seconds, model, inputs, budget)
        for engine, model in engines.items()
        for kept, budget in (("full", 1.0), ("pruned", 0.1))
    }
    turns = take_turns(cells, warm_ups=1, repeats=args.repeats)
    median = {cell: spread(one.results)["median"] for cell, one in turns.items()}
    ratios = {f"eager / stock, {kept}": median["eager", kept] / median["stock", kept] for kept in ("full", "pruned")}
    ratios |= {f"pruned / full, {name}": median[name, "pruned"] / median[name, "full"] for name in engines}
    for name, ratio in ratios.items():
        print(f"{name}: {ratio:.2f} (a gross loss above {MOST[name]})")
    lost = [name for name, ratio in ratios.items() if ratio > MOST[name]]
    finish(figures(rows=[{"ratio": name, "value": value} for name, value in ratios.items()]), args.output)
    if lost:
        raise SystemExit(f"a gross loss: {', '.join(lost)}")


if __name__ == "__main__":
    main()
