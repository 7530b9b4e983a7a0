"""Two promises, crossed over methods and types: K = N is the stock model's bits, and a choice never depends on a batch.

    python benchmarks/contracts.py                      # CUDA: the bundled model, and 7B's widths with random weights
    python benchmarks/contracts.py --models tiny toy    # tiny shapes: that it runs

For each model, type and method, with eight pictures (drawn scenes and noise by turns; of LLaVA-NeXT of several sizes):
*K = N*: stock logits and answers of three pictures in one batch, padded. *Choice*: of pictures 1 to 8, how many keep
other tokens in a batch of 2, 3 and 8 than alone. *Doctor*: what its live checks find. And for each model and type what
lies below: whether tower and projector give a picture the same bits in a batch as alone, and at which distance.
Prints a table, then JSON as its last line; exits with 1 if anything raised.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import torch
from measured import add_arguments, figures, finish
from PIL import Image
from random_llava import config_of
from rich.console import Console
from rich.table import Table
from torch import Tensor

from adallava import AdaLlava, AdaLlavaProcessor
from adallava.budget import TokenBudget
from adallava.doctor.live.checks import diagnose_model
from adallava.families.capabilities.of_pictures import take_pictures
from adallava.model import build_prompt
from adallava.registry import load_selector_class, selector_names
from adallava.tasks.scenes import scene_sample

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from models import tiny_image
from published_llava import write_processor

MODELS = ("tiny", "7b", "7b-next", "toy", "toy-next")
DTYPES = ("float32", "float16", "bfloat16")
BATCHES = (2, 3, 8)
NUM_PICTURES = max(BATCHES)
PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
SIZES = [(336, 336), (672, 336), (300, 900)]
"""(width, height) of LLaVA-NeXT's pictures in turn, as in its processor: whole, and in 2, 2 and 3 tiles."""

NEW_TOKENS = 4
OPTIONS: dict[str, dict[str, Any]] = {"cdpruner": {"relevance": "llm-embeddings"}}
"""Of methods that cannot run by their defaults without a text tower."""

Inputs = dict[str, Tensor]


def make_full(name: str, device: str, dtype: torch.dtype) -> AdaLlava:
    """Return the full-token model: the bundled one, or random weights: LLM of four layers, tower of three."""
    if name == "tiny":
        return AdaLlava.from_pretrained("tiny", method="full", dtype=dtype, device=device)
    import transformers

    shapes, _, is_next = name.partition("-")
    config = config_of(shapes, 4)
    config["vision_config"]["num_hidden_layers"] = 3
    for fields in (config, config["text_config"]):
        del fields["torch_dtype"]
    if is_next:
        config |= {"model_type": "llava_next", "image_grid_pinpoints": PINPOINTS}
    kind = "LlavaNext" if is_next else "Llava"
    made = getattr(transformers, f"{kind}Config").from_dict(config)
    made._attn_implementation = "sdpa"
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            base = getattr(transformers, f"{kind}ForConditionalGeneration")(made).eval()
    finally:
        torch.set_default_dtype(torch.float32)
    base.generation_config.eos_token_id = None
    with tempfile.TemporaryDirectory() as folder:
        pictures = {"image_grid_pinpoints": PINPOINTS, "image_processor_type": "LlavaNextImageProcessor"}
        write_processor(Path(folder), "jinja", family=kind, pictures=pictures if is_next else None)
        (Path(folder) / "config.json").write_text(json.dumps(config))
        processor = AdaLlavaProcessor.from_pretrained(folder)
    return AdaLlava(base, processor)


def questions(model: AdaLlava, *, padding_side: str = "left") -> list[Inputs]:
    """Return picture and question 1 to 8, each alone, and then batches of the first 2, 3 and 8."""
    processor = model.processor
    processor.tokenizer.padding_side = padding_side
    pictures: list[Image.Image] = []
    for index in range(NUM_PICTURES):
        scene, _ = scene_sample("validation", index)
        picture = Image.fromarray(scene.image) if index % 2 else tiny_image(index, (336, 336))
        sizes = SIZES if model.family.transformers_class.startswith("LlavaNext") else [(336, 336)]
        pictures.append(picture.resize(sizes[index % len(sizes)]))
    prompts = [build_prompt(processor, "what " * (1 + index % 3) + "is it?") for index in range(NUM_PICTURES)]

    def prepared(first: int, last: int) -> Inputs:
        made = processor(images=pictures[first:last], text=prompts[first:last], return_tensors="pt", padding=True)
        return {name: tensor.to(model.device) for name, tensor in made.items()}

    alone = [prepared(index, index + 1) for index in range(NUM_PICTURES)]
    return [*alone, *(prepared(0, size) for size in BATCHES)]


def in_type(batches: list[Inputs], dtype: torch.dtype) -> list[Inputs]:
    """Return the batches with their pixels in a type."""
    return [batch | {"pixel_values": batch["pixel_values"].to(dtype)} for batch in batches]


def check_stock(model: AdaLlava, left: list[Inputs], right: list[Inputs]) -> dict[str, Any]:
    """Compare three pictures in a batch, and one alone, at K = N with the stock model."""
    gaps = []
    for inputs in (right[NUM_PICTURES + 1], right[2]):
        real = inputs["attention_mask"].bool()
        ours = model.forward(**inputs, token_budget=1.0).logits
        gaps.append(float((ours - model.base(**inputs, use_cache=False).logits)[real].abs().max()))
    together = left[NUM_PICTURES + 1]
    stock = model.base.generate(**together, do_sample=False, max_new_tokens=NEW_TOKENS)
    ours = model.generate(**together, token_budget=1.0, do_sample=False, max_new_tokens=NEW_TOKENS).answer_ids
    answers = stock[:, together["input_ids"].shape[1] :].tolist()
    same = all(theirs[: len(ids)] == ids for theirs, ids in zip(answers, ours, strict=True))
    return {"stock_bits": max(gaps) == 0.0 and same, "stock_logit_gap": max(gaps), "stock_answers": same}


def check_choice(model: AdaLlava, prepared: list[Inputs], budget: float) -> dict[str, Any]:
    """Count the pictures that keep other tokens in a batch than alone, and how many tokens are others."""
    alone = [_kept(model, prepared[index], budget, [index])[0] for index in range(NUM_PICTURES)]
    others, tokens = {}, {}
    for size, inputs in zip(BATCHES, prepared[NUM_PICTURES:], strict=True):
        kept = _kept(model, inputs, budget, list(range(size)))
        others[str(size)] = sum(one != other for one, other in zip(kept, alone[:size], strict=True))
        tokens[str(size)] = sum(len(one - other) for one, other in zip(kept, alone[:size], strict=True))
    return {"choice_same": not any(others.values()), "others_in_batch_of": others, "other_tokens": tokens}


def _kept(model: AdaLlava, inputs: Inputs, budget: float, seeds: list[int]) -> list[set[tuple[int, int]]]:
    """Return each sample's kept tokens as (image, token)."""
    return [
        {(image, token) for image, tokens in enumerate(selection.kept_indices) for token in tokens}
        for selection in model.select(**inputs, token_budget=budget, seed=seeds)
    ]


def check_doctor(model: AdaLlava, num_samples: int) -> dict[str, Any]:
    """Return what the live checks find."""
    diagnosis = diagnose_model(model, [TokenBudget(ratio=0.25)], num_samples=num_samples)
    found = {outcome.check: outcome.severity for outcome in diagnosis.findings if outcome.severity != "model-finding"}
    return {"doctor_healthy": not found, "doctor_found": found}


@torch.no_grad()
def below(model: AdaLlava, prepared: list[Inputs]) -> dict[str, Any]:
    """Say how far the tower's features and the projected tokens of a picture differ in a batch from alone."""
    gaps: dict[str, dict[str, float]] = {"tower": {}, "projector": {}, "projector_on_its_own": {}}
    for size, inputs in zip(BATCHES, prepared[NUM_PICTURES:], strict=True):
        together, worst = _seen(model, inputs), dict.fromkeys(gaps, 0.0)
        for index in range(size):
            one = _seen(model, prepared[index])
            images = len(one)
            for number, features in enumerate(one):
                other = together[index * images + number][: len(features)]
                worst["tower"] = max(worst["tower"], _gap(features, other))
                own, theirs = (model.family.project(rows[None].contiguous())[0] for rows in (features, other))
                worst["projector"] = max(worst["projector"], _gap(own, theirs))
        rows = torch.stack([features.contiguous() for features in together])
        for number, features in enumerate(rows):
            both = model.family.project(rows)[number], model.family.project(features[None].contiguous())[0]
            worst["projector_on_its_own"] = max(worst["projector_on_its_own"], _gap(*both))
        for name, gap in worst.items():
            gaps[name][str(size)] = gap
    return {"largest_gap_in_batch_of": gaps, "tower_bits": not any(gaps["tower"].values())}


def _seen(model: AdaLlava, inputs: Inputs) -> Tensor:
    """Return the tower's features of each image, [I, N, C]."""
    pictures, _ = take_pictures(model.family, inputs)
    assert pictures is not None
    return model.family.encode(pictures).features


def _gap(one: Tensor, other: Tensor) -> float:
    return float((one.float() - other.float()).abs().max())


def with_method(full: AdaLlava, name: str) -> AdaLlava | None:
    """Return the model with a method; None where the model cannot give what the method needs."""
    from adallava.errors import AdallavaError

    cls = load_selector_class(name)
    if cls.learned and full.name_or_path != "tiny":
        return None
    try:
        return full.with_method(name, **OPTIONS.get(name, {}))
    except AdallavaError:
        return None


def measure(args: argparse.Namespace, deadline: float) -> Iterator[dict[str, Any]]:
    """Give a row for each model, type and method, the doctor last, as long as there is time."""
    prepared: dict[str, tuple[list[Inputs], list[Inputs]]] = {}
    for name, dtype in product(args.models, args.dtypes):
        full = make_full(name, args.device, getattr(torch, dtype))
        # Processed once for all types: on the host, this takes longer than the models.
        if name not in prepared:
            prepared[name] = questions(full, padding_side="right"), questions(full)
        right, left = (in_type(batches, full.dtype) for batches in prepared[name])
        about = {"model": name, "dtype": dtype}
        yield about | {"method": "", **below(full, left)}
        for method in ("full", *(args.methods or selector_names())):
            start = time.monotonic()
            model = full if method == "full" else with_method(full, method)
            if model is None:
                continue
            row: dict[str, Any] = about | {"method": method}
            try:
                ignores = model.selector is not None and model.selector.ignores_budget
                row |= {} if ignores else check_stock(model, left, right)
                row |= {} if method == "full" else check_choice(model, left, args.token_budget)
                if name in args.doctor and time.monotonic() < deadline:
                    row |= check_doctor(model, args.num_samples)
            except Exception as error:  # the others may still run
                row["error"] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            yield row | {"seconds": round(time.monotonic() - start, 2)}
        del full


def show(rows: list[dict[str, Any]], args: argparse.Namespace) -> None:
    """Print a line for each row."""
    table = Table(caption=f"{args.device}; budget {args.token_budget}; others: of 2, 3 and 8 in a batch")
    for title in ("model", "type", "method", "K = N", "others", "doctor"):
        table.add_column(title)
    for row in rows:
        if not row["method"]:
            gaps = row["largest_gap_in_batch_of"]
            line = "; ".join(f"{part} {max(gap.values()):.2g}" for part, gap in gaps.items())
            table.add_row(row["model"], row["dtype"], "gaps", "", line, "")
            continue
        stock = row.get("stock_bits")
        bits = "" if stock is None else "stock" if stock else f"off by {row['stock_logit_gap']:.2g}"
        others = " ".join(str(count) for count in row.get("others_in_batch_of", {}).values())
        doctor = ", ".join(row["doctor_found"]) or "healthy" if "doctor_found" in row else ""
        table.add_row(row["model"], row["dtype"], row["method"], bits, others, row.get("error", doctor))
    Console(width=140).print(table)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["tiny", "7b", "7b-next"])
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--methods", nargs="+", help="default: all that need no adapter; of `tiny`, all")
    parser.add_argument("--token-budget", type=float, default=0.25)
    parser.add_argument("--doctor", nargs="*", choices=MODELS, default=["tiny"], help="models that it looks at")
    parser.add_argument("--num-samples", type=int, default=3, help="pictures that the doctor asks about")
    add_arguments(parser, repeats=1)
    parser.set_defaults(seconds=100.0)
    args = parser.parse_args()
    rows = list(measure(args, time.monotonic() + args.seconds))
    show(rows, args)
    settings = {"token_budget": args.token_budget, "batches": BATCHES, "num_pictures": NUM_PICTURES}
    finish(figures(**settings, rows=rows), args.output)


if __name__ == "__main__":
    main()
