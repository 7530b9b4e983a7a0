"""Whether every engine gives the tokens of the stock one, and what a thousand requests leave behind.

    python benchmarks/engines.py --output docs/results/engines.json                    # on CUDA
    python benchmarks/engines.py --device cpu --engines eager --requests 20

Small random models (N = 576). In float32 tokens are compared: methods, budgets, mixed batches, both kinds of positions,
plans of layers, sampling with a seed; each four times, so that it runs as it is, is captured, and is replayed. In
bfloat16 rounding decides between logits that are as good as equal: where tokens differ, the float32 model says how far
apart the two logits are, in deviations of the stock model's own rounding. Then requests of many sizes, and the memory.
"""

import argparse
import copy
import itertools
import random
from collections.abc import Iterator
from typing import Any

import torch
from layers import with_random_weights
from measured import add_arguments, figures, finish
from random_llava import make_base

from adallava import AdaLlava
from adallava.bench.made_up_prompts import make_prompts
from adallava.bench.shapes import NoText
from adallava.registry import load_selector_class, selector_names

NEW = {"max_new_tokens": 8, "eos_token_id": None, "pad_token_id": 0, "do_sample": False}
BUDGETS = (0.1, 0.5, 1.0)
PARTS = ("float32", "bfloat16", "many_requests")
SCHEDULERS: dict[str, dict[str, int]] = {
    **{name: {} for name in ("first", "random", "spaced", "layers", "heads")},
    "adallava-heads": {"rank": 2},
}


def methods(full: AdaLlava) -> Iterator[AdaLlava]:
    """Give the model with each method that it can run, and without."""
    yield full
    for name in selector_names():
        if load_selector_class(name).learned:
            continue
        try:
            yield full.with_method(name)
        except Exception as reason:  # what a model without a text side lacks
            print(f"left out: {name}: {reason}")


def calls(full: AdaLlava) -> Iterator[tuple[str, AdaLlava, dict[str, Any]]]:
    """Give a name, a model, and arguments, for everything that is compared."""
    for model in methods(full):
        for budget, positions in itertools.product([BUDGETS, 0.25, 1.0], ("original", "compact")):
            if model.method == "full" and budget != 1.0:
                continue
            name = f"{model.method}, {budget}, {positions}"
            asked = {"token_budget": budget if not isinstance(budget, tuple) else list(budget), "positions": positions}
            yield name, model, {**asked, "seed": [1, 2, 3]}
    kept = full.with_method("uniform")
    for (name, options), latency in itertools.product(SCHEDULERS.items(), (0.75, [0.75, 1.0, 0.625])):
        asked = {"token_budget": 0.25, "latency": latency, "seed": [1, 2, 3]}
        yield f"{name}, {latency}", with_random_weights(kept, name, **options), asked
        inside = with_random_weights(full.with_method("fastv"), name, **options)
        yield f"{name}, {latency}, fastv", inside, {**asked, "positions": "compact"}
    for shaping in ({}, {"top_p": 0.7}, {"temperature": 1.5, "top_k": 20}):
        yield f"sampled, {shaping}", kept, {"token_budget": 0.25, "do_sample": True, **shaping}


def answered(model: AdaLlava, inputs: dict[str, Any], asked: dict[str, Any]) -> Any:
    torch.manual_seed(7)
    return model.generate(**inputs, **{**NEW, **asked})


def _but_engines(output: Any) -> list[Any]:
    return [record.model_copy(update={"engine": None, "passed_over": ""}) for record in output.records]


def compare(engine: str, device: str) -> dict[str, Any]:
    """Return how many calls of one engine were compared with stock `generate`'s, and which differ."""
    full = AdaLlava(make_base("toy", device, torch.float32), NoText(), engine="stock")
    ours = full.with_engine(engine)
    inputs = make_prompts(full, 3, 23)
    inputs["attention_mask"][1, :4] = 0
    differ, elsewhere, compared = [], {}, 0
    for name, model, asked in calls(full):
        expected = answered(model, inputs, asked)
        driven = model._with(model.selector, None, model.scheduler, None)
        driven._engines = ours._engines
        for _ in range(4):
            got = answered(driven, inputs, asked)
            compared += 1
            if got.engine != engine:
                elsewhere[name] = got.passed_over
            if not torch.equal(got.sequences, expected.sequences) or _but_engines(got) != _but_engines(expected):
                differ.append(name)
    return {"engine": engine, "compared": compared, "differ": differ, "run_by_stock": elsewhere}


def near_ties(engine: str, device: str, prompts_of: int = 40) -> dict[str, Any]:
    """Return how often tokens differ in bfloat16, and how far apart the two logits are where they first do.

    The float32 model reads the prompt and the tokens that both gave before; the distance of its two logits is counted
    in deviations of what bfloat16 does to the stock model's logits there.
    """
    base = make_base("toy", device, torch.bfloat16)
    stock = AdaLlava(base, NoText(), engine="stock").with_method("uniform")
    ours = stock.with_engine(engine)
    exact = AdaLlava(copy.deepcopy(base).float(), NoText(), engine="stock").with_method("uniform")
    tokens, deviations = 0, []
    for number in range(prompts_of):
        inputs = make_prompts(stock, 1, 20 + number)
        pair = [answered(model, inputs, {"token_budget": 64}).answer_ids[0] for model in (stock, ours)]
        tokens += len(pair[0])
        where = next((place for place, (one, other) in enumerate(zip(*pair, strict=True)) if one != other), None)
        if where is None:
            continue
        given = torch.tensor([pair[0][:where]], dtype=torch.int64, device=device)
        ids = torch.cat([inputs["input_ids"], given], dim=1)
        read = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_budget": 64}
        seen = [
            model.forward(**read, pixel_values=inputs["pixel_values"].to(model.dtype)).logits[0, -1].float()
            for model in (exact, stock)
        ]
        apart = (seen[0][pair[0][where]] - seen[0][pair[1][where]]).abs() / (seen[1] - seen[0]).std()
        deviations.append(float(apart))
    most = max(deviations, default=0.0)
    return {
        "engine": engine,
        "prompts": prompts_of,
        "tokens": tokens,
        "differ": len(deviations),
        "most_deviations": most,
    }


def many_requests(engine: str, device: str, number: int) -> dict[str, Any]:
    """Return the bytes that are held after parts of many requests of mixed sizes, and the graphs."""
    full = AdaLlava(make_base("toy", device, torch.float32), NoText(), engine=engine)
    kept, chosen, held = full.with_method("visionzip"), random.Random(0), []
    for request in range(number):
        batch, text = chosen.choice((1, 1, 2, 3, 8)), chosen.randint(6, 60)
        budget, new_tokens = chosen.choice((16, 64, 192, 1.0)), chosen.choice((1, 4, 9))
        kept.generate(**make_prompts(full, batch, text), token_budget=budget, **{**NEW, "max_new_tokens": new_tokens})
        if (request + 1) % max(1, number // 10) == 0 and torch.cuda.is_available():
            torch.cuda.synchronize()
            held.append([request + 1, torch.cuda.memory_allocated(), torch.cuda.memory_reserved()])
    room = full._engines._room
    return {"engine": engine, "requests": number, "held_bytes": held, "graphs": 0 if room is None else len(room.store)}


def main() -> None:
    """Compare, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", nargs="+", default=["graphs", "compiled"])
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    add_arguments(parser, repeats=1)
    args = parser.parse_args()
    made: dict[str, Any] = {}
    if "float32" in args.parts:
        made["float32"] = [compare(engine, args.device) for engine in args.engines]
        for one in made["float32"]:
            print(f"{one['engine']}: {one['compared']} compared, {len(one['differ'])} differ: {one['differ'][:5]}")
    if "bfloat16" in args.parts:
        made["bfloat16"] = [near_ties(engine, args.device) for engine in args.engines]
        print(made["bfloat16"])
    if "many_requests" in args.parts:
        made["many_requests"] = many_requests(args.engines[0], args.device, args.requests)
    finish(figures(**made), args.output)


if __name__ == "__main__":
    main()
