"""What leaving layers out saves on the clock: prefill and one decoded token at 100, 75 and 50 % of the LLM.

    python benchmarks/layers.py            # LLaVA-1.5-7B's shapes, random weights, on CUDA: bfloat16, SDPA, events
    python benchmarks/layers.py --small    # tiny shapes on a CPU: that it runs, not how fast
    python benchmarks/layers.py --model tiny --device cpu    # a real model on a CPU

Each sample of a batch has the plan of its scheduler: one for all (`first`), its own (`random`), or chosen by a latency
token with random weights (`layers`, `heads`). `stock` is transformers' own model; `cut` is that model with the layers
of `first` taken out of it, so that `first` less `cut` is what the skipping itself costs. Prefill is a call with one new
token, decode the rest of a call with more, by token. The last line is JSON.
"""

import argparse
import copy
import json
import statistics
from typing import Any

import torch
import transformers
from inside import IMAGE_TOKEN, make_base, measure
from torch import nn

from adallava import AdaLlava
from adallava.scheduling import build_scheduler

SCHEDULERS = ("first", "spaced", "random", "layers", "heads")


def batch_of(model: AdaLlava, batch: int, keep_count: int, text_tokens: int) -> dict[str, Any]:
    """Return prompts whose picture is already short: what follows tower and selector is the same for all rows."""
    num_tokens = model.shape.num_vision_tokens
    image = getattr(model.base.config, "image_token_id", IMAGE_TOKEN)
    text = torch.randint(4, 200, (batch, text_tokens))
    ids = torch.cat([text[:, :5], torch.full((batch, num_tokens), image), text[:, 5:]], dim=1).to(model.device)
    size = model.base.config.vision_config.image_size
    pixels = torch.randn(batch, 3, size, size, device=model.device, dtype=model.dtype)
    return {"input_ids": ids, "pixel_values": pixels, "token_budget": keep_count, "seed": list(range(batch))}


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
    return AdaLlava(base, _NoText())


class _NoText:
    """Stands in for a processor: answers are not read here."""

    tokenizer = None

    def batch_decode(self, answers: list[list[int]], **_: Any) -> list[str]:
        return [""] * len(answers)


def with_random_weights(model: AdaLlava, name: str) -> AdaLlava:
    """Return the model with a scheduler; a learned one with random weights, so that samples differ."""
    scheduler: Any = build_scheduler(name, model.family.decoder().shape)
    if isinstance(scheduler, nn.Module):
        for parameter in scheduler.parameters():
            nn.init.normal_(parameter, std=0.02)
    return model.with_scheduler(scheduler)


def times(model: AdaLlava, inputs: dict[str, Any], latency: float, new_tokens: int, repeats: int) -> tuple[Any, Any]:
    """Return medians of the milliseconds of a prefill and of one decoded token."""
    device = "cpu" if model.device.type == "cpu" else "cuda"

    def run(count: int) -> Any:
        return lambda: model.generate(
            **inputs, latency=latency, max_new_tokens=count, min_new_tokens=count, do_sample=False, pad_token_id=0
        )

    one = statistics.median(measure(run(1), device, 2, repeats))
    many = statistics.median(measure(run(new_tokens), device, 2, repeats))
    return one, (many - one) / (new_tokens - 1)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="tiny shapes on a CPU")
    parser.add_argument("--model", help="a real model instead of random weights")
    parser.add_argument("--device", help="of a real model; default: CUDA if there is one")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--latency", type=float, nargs="+", default=[0.75, 0.5])
    parser.add_argument("--keep", type=int, help="K; default: all")
    parser.add_argument("--text-tokens", type=int, default=64)
    parser.add_argument("--new-tokens", type=int, default=17)
    parser.add_argument("--repeats", type=int, default=10)
    args = parser.parse_args()
    torch.manual_seed(0)
    if args.model:
        full = AdaLlava.from_pretrained(args.model, method="full", device=args.device)
    else:
        full = AdaLlava(make_base(args.small, "cpu" if args.small else "cuda"), _NoText())
    model = full.with_method("uniform")
    rows = []
    print("| batch | latency | scheduler | prefill ms | ms a decoded token |")
    print("| --- | --- | --- | --- | --- |")
    for batch in args.batch:
        inputs = batch_of(model, batch, args.keep or model.shape.num_vision_tokens, args.text_tokens)
        cells: list[tuple[float, str, AdaLlava]] = [(1.0, "stock", model)]
        for latency in args.latency:
            cells.append((latency, "cut", without_late_layers(full, latency).with_method("uniform")))
            cells += [(latency, name, with_random_weights(model, name)) for name in SCHEDULERS]
        for latency, name, scheduled in cells:
            asked = 1.0 if name in ("stock", "cut") else latency
            prefill_ms, decode_ms = times(scheduled, inputs, asked, args.new_tokens, args.repeats)
            rows.append(
                {
                    "batch": batch,
                    "latency": latency,
                    "scheduler": name,
                    "prefill_ms": prefill_ms,
                    "decode_ms": decode_ms,
                }
            )
            print(f"| {batch} | {latency} | `{name}` | {prefill_ms:.2f} | {decode_ms:.2f} |", flush=True)
    hardware = "cpu" if full.device.type == "cpu" else torch.cuda.get_device_name()
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    print(json.dumps({"hardware": hardware, "versions": versions, "text_tokens": args.text_tokens, "rows": rows}))


if __name__ == "__main__":
    main()
