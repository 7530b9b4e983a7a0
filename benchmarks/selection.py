"""What choosing costs: every method's time at LLaVA-1.5's shapes, alone, on random inputs.

    python benchmarks/selection.py                 # I = 1, 8; N = 576; K = 192, 128, 64; CUDA in bf16 if there is one
    python benchmarks/selection.py --small         # tiny shapes, for a look at whether it runs

Timed: `select` and, for methods that merge, the product; not what the model makes for them (tower layers, projected
tokens, a text tower), which the sweep's parts show. Prints a table, then JSON as its last line: median and 10th and
90th percentile in ms, the ratio of the median to `uniform`'s, and the closed-form FLOPs.
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from adallava.registry import load_selector_class, selector_names, selects_inside_llm
from adallava.selection import build_selector
from adallava.selection.contract import RoundingMethod, SelectionInput, Selector, TowerLayer, TowerShape

LLAVA_1_5 = TowerShape(num_vision_tokens=576, vision_width=1024, llm_width=4096, grid=(24, 24), tower_heads=16)
SMALL = TowerShape(num_vision_tokens=36, vision_width=32, llm_width=48, grid=(6, 6), tower_heads=4)
QUESTION_TOKENS = 40
OPTIONS: dict[str, dict[str, Any]] = {"cdpruner": {"relevance": "text-tower", "text_tower": "timed without it"}}


def random_inputs(
    shape: TowerShape, keep_count: int, num_images: int, device: torch.device, dtype: torch.dtype
) -> SelectionInput:
    """Return inputs of every kind that a method may need."""
    generator = torch.Generator().manual_seed(0)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator).to(device, dtype)

    num_tokens, width = shape.num_vision_tokens, shape.vision_width
    layer = TowerLayer(normal(num_images, num_tokens + 1, width), normal(num_images, width), shape.tower_heads)
    mask = torch.ones(num_images, QUESTION_TOKENS, dtype=torch.bool, device=device)
    words = normal(num_images, QUESTION_TOKENS, shape.llm_width)
    return SelectionInput(
        features=normal(num_images, num_tokens, width),
        grid=shape.grid,
        keep_counts=(keep_count,) * num_images,
        budget_ratios=torch.full((num_images,), keep_count / num_tokens, device=device),
        seeds=torch.arange(num_images, device=device),
        question_embeds=words,
        question_mask=mask,
        budget_features=normal(num_images, width),
        feature_layer=layer,
        last_layer=layer,
        projected=normal(num_images, num_tokens, shape.llm_width),
        word_embeds=words,
        word_mask=mask,
        text_relevance=normal(num_images, num_tokens).float().tanh(),
    )


def run_once(selector: Selector, inputs: SelectionInput) -> None:
    selection = selector.select(inputs)
    if selection.merge_weights is not None:
        selection.apply(inputs.features)


def time_ms(call: Callable[[], None], device: torch.device, repeats: int, warm_ups: int) -> list[float]:
    """Return milliseconds of each repeat: between CUDA events, or by the clock."""
    for _ in range(warm_ups):
        call()
    if device.type != "cuda":
        spent = []
        for _ in range(repeats):
            start = time.perf_counter()
            call()
            spent.append((time.perf_counter() - start) * 1000.0)
        return spent
    pairs = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(repeats)]
    for start_event, end_event in pairs:
        # Each repeat starts on an idle device: queued repeats would hide the launches.
        torch.cuda.synchronize(device)
        start_event.record()
        call()
        end_event.record()
    torch.cuda.synchronize(device)
    return [start_event.elapsed_time(end_event) for start_event, end_event in pairs]


@torch.no_grad()
def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    device = torch.device(args.device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    shape = SMALL if args.small else LLAVA_1_5
    counts = [12, 6] if args.small else [192, 128, 64]
    # What choosing inside the LLM costs, `inside.py` shows.
    names = [name for name in selector_names() if not selects_inside_llm(load_selector_class(name))]
    methods = {name: build_selector(name, shape, **OPTIONS.get(name, {})) for name in names}
    rows = []
    for num_images in [1, 2] if args.small else [1, 8]:
        for keep_count in counts:
            medians: dict[str, float] = {}
            for name in sorted(methods, key=lambda name: (name != "uniform", name)):
                selector = methods[name]
                if isinstance(selector, torch.nn.Module):
                    selector.to(device, dtype)
                planned = keep_count
                if isinstance(selector, RoundingMethod):
                    planned = selector.keep_count(keep_count, shape.grid)
                inputs = random_inputs(shape, planned, num_images, device, dtype)
                spent = time_ms(lambda s=selector, i=inputs: run_once(s, i), device, args.repeats, args.warm_ups)
                low, median, high = (float(value) for value in np.percentile(spent, [10, 50, 90]))
                medians[name] = median
                rows.append(
                    {
                        "method": name,
                        "images": num_images,
                        "keep_count": planned,
                        "median_ms": median,
                        "p10_ms": low,
                        "p90_ms": high,
                        "times_uniform": median / medians["uniform"],
                        "flops": num_images * selector.flops(shape, QUESTION_TOKENS, planned),
                    }
                )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="tiny shapes")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--warm-ups", type=int, default=3)
    args = parser.parse_args()
    rows = measure(args)
    table = Table(caption=f"{args.device}; median of {args.repeats} after {args.warm_ups} warm-ups")
    for title in ("method", "images", "K", "ms", "10 to 90 %", "x uniform", "GFLOPs"):
        table.add_column(title, justify="left" if title == "method" else "right")
    for row in rows:
        table.add_row(
            row["method"],
            str(row["images"]),
            str(row["keep_count"]),
            f"{row['median_ms']:.3f}",
            f"{row['p10_ms']:.3f} … {row['p90_ms']:.3f}",
            f"{row['times_uniform']:.1f}",
            f"{row['flops'] / 1e9:.3g}",
        )
    Console(width=100).print(table)
    device_name = torch.cuda.get_device_name(args.device) if torch.device(args.device).type == "cuda" else "cpu"
    print(json.dumps({"device": device_name, "torch": torch.__version__, "repeats": args.repeats, "rows": rows}))


if __name__ == "__main__":
    main()
