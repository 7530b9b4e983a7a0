"""What choosing costs: every method's time at LLaVA-1.5's shapes, alone, on random inputs.

    python benchmarks/selection.py                # I = 1, 8; N = 576; K = 192, 128, 64; on CUDA in bfloat16
    python benchmarks/selection.py --captured     # the same, replayed from CUDA graphs, as the engines run it
    python benchmarks/selection.py --shapes toy   # tiny shapes, for a look at whether it runs

Timed is what an answer pays: `choose`, which asks a method picture by picture, and, for methods that merge, the
product; not what the model makes for them (tower layers, projected tokens, a text tower), which the sweep's parts
show, nor the search for K of methods with one of their own. The methods take turns.
Prints a table, then JSON as its last line:
median and 10th and 90th percentile in ms, the ratio of the median to `uniform`'s, and the closed-form FLOPs.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import product
from threading import Lock
from typing import Any

import torch
from measured import Parts, add_arguments, dtype_of, figures, finish, spreads, synchronize
from rich.console import Console
from rich.table import Table
from torch import Tensor

from adallava.engines.captured_stages import CapturedStages
from adallava.engines.graph_store import GraphStore
from adallava.families.tower_kernels import TowerKernels
from adallava.measuring.turns import take_turns
from adallava.pipeline.checked import NEED_OF_FIELD
from adallava.pipeline.clock import StageClock
from adallava.pipeline.select import choose
from adallava.pipeline.stage_runner import PLAIN, Stages
from adallava.registry import load_selector_class, selector_names, selects_inside_llm
from adallava.selection import build_selector
from adallava.selection.selector_contract import (
    AttentionMethod,
    OwnCountMethod,
    RoundingMethod,
    SelectionInput,
    Selector,
    TowerLayer,
    TowerShape,
)

LLAVA_1_5 = TowerShape(num_vision_tokens=576, vision_width=1024, llm_width=4096, grid=(24, 24), tower_heads=16)
SMALL = TowerShape(num_vision_tokens=36, vision_width=32, llm_width=48, grid=(6, 6), tower_heads=4)
QUESTION_TOKENS = 40
MOST_ATTENTIONS = 4
"""Kinds of attention that a method asks for."""
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
        attention_received=normal(num_images, num_tokens, MOST_ATTENTIONS).float().softmax(dim=1),
    )


def read_by(selector: Selector, inputs: SelectionInput) -> SelectionInput:
    """Return the inputs with those alone that a model makes for the method: `choose` copies each picture's."""
    if isinstance(selector, AttentionMethod):
        assert inputs.attention_received is not None
        received = inputs.attention_received[..., : len(selector.asked_attention)]
        inputs = replace(inputs, attention_received=received)
    return replace(inputs, **{field: None for field, need in NEED_OF_FIELD.items() if need not in selector.needs})


def stages_on(device: torch.device, *, captured: bool) -> Stages:
    """Return what runs the methods: as it is, or replayed from graphs."""
    if not captured:
        return PLAIN
    owner = torch.nn.Linear(1, 1, device=device)
    return CapturedStages(GraphStore(captures=True), owner, Lock(), TowerKernels())


def run_once(selector: Selector, inputs: SelectionInput, stages: Stages) -> None:
    if not any(inputs.keep_counts):  # `none`: nobody is asked
        return
    selection = choose(selector, inputs, [inputs.grid] * inputs.features.shape[0], stages=stages)
    if selection.merge_weights is not None:
        selection.apply(inputs.features)


def timed(selector: Selector, inputs: SelectionInput, stages: Stages, device: torch.device) -> Parts:
    """Choose once, on an idle device; return milliseconds: between CUDA events, or by the clock."""
    clock = StageClock(device)
    synchronize(device)
    clock.start()
    run_once(selector, inputs, stages)
    clock.mark("select")
    return {"ms": clock.part_ms()["select"]}


@torch.no_grad()
def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    device, dtype = torch.device(args.device), dtype_of(args)
    shape = SMALL if args.shapes == "toy" else LLAVA_1_5
    counts = [12, 6] if args.shapes == "toy" else [192, 128, 64]
    # What choosing inside the LLM costs, `inside.py` shows.
    names = [name for name in selector_names() if not selects_inside_llm(load_selector_class(name))]
    methods = {name: build_selector(name, shape, **OPTIONS.get(name, {})) for name in names}
    for selector in methods.values():
        if isinstance(selector, torch.nn.Module):
            selector.to(device, dtype)
    rows = []
    sizes = list(product(args.images, counts))
    stages = stages_on(device, captured=args.captured)
    for num_images, keep_count in sizes:
        cells: dict[str, Callable[[], Parts]] = {}
        planned = dict.fromkeys(names, keep_count)
        for name, selector in methods.items():
            if isinstance(selector, RoundingMethod):
                planned[name] = selector.keep_count(keep_count, shape.grid)
            elif selector.ignores_budget and not isinstance(selector, OwnCountMethod):
                planned[name] = 0
            inputs = read_by(selector, random_inputs(shape, planned[name], num_images, device, dtype))
            cells[name] = partial(timed, selector, inputs, stages, device)
        measured = take_turns(cells, warm_ups=args.warm_ups, repeats=args.repeats, seconds=args.seconds / len(sizes))
        for name, cell in measured.items():
            row = {"method": name, "images": num_images, "keep_count": planned[name], **spreads(cell)}
            if "error" not in row:
                row["times_uniform"] = row["ms"]["median"] / spreads(measured["uniform"])["ms"]["median"]
            row["flops"] = num_images * methods[name].flops(shape, QUESTION_TOKENS, planned[name])
            rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", choices=("7b", "toy"), default="7b")
    parser.add_argument("--images", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--captured", action="store_true", help="replay from CUDA graphs")
    add_arguments(parser, repeats=20)
    args = parser.parse_args()
    rows = measure(args)
    table = Table(caption=f"{args.device}; median of {args.repeats} after {args.warm_ups} warm-ups")
    for title in ("method", "images", "K", "ms", "10 to 90 %", "x uniform", "GFLOPs"):
        table.add_column(title, justify="left" if title == "method" else "right")
    for row in rows:
        failed = "error" in row
        table.add_row(
            row["method"],
            str(row["images"]),
            str(row["keep_count"]),
            row["error"] if failed else f"{row['ms']['median']:.3f}",
            "" if failed else f"{row['ms']['low']:.3f} … {row['ms']['high']:.3f}",
            "" if failed else f"{row['times_uniform']:.1f}",
            f"{row['flops'] / 1e9:.3g}",
        )
    Console(width=100).print(table)
    dtype = str(dtype_of(args)).removeprefix("torch.")
    finish(
        figures(shapes=args.shapes, dtype=dtype, question_tokens=QUESTION_TOKENS, captured=args.captured, rows=rows),
        args.output,
    )


if __name__ == "__main__":
    main()
