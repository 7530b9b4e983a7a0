"""Prefill of LLaVA-1.5-7B's shapes with random weights: stock, K before the LLM, and K inside it.

    python benchmarks/inside.py            # on CUDA: bfloat16, SDPA, events; medians of 10 after 3 warm-ups
    python benchmarks/inside.py --small    # tiny shapes on a CPU: that it runs, not how fast

Milliseconds from the shortened prompt's embeddings to the first token's logits, a plan on the host included. The last
line is JSON.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import transformers
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from adallava import AdaLlava
from adallava.generation.inside import LayerDrops
from adallava.generation.prepare_inside import PreparedInside
from adallava.generation.prepare_request import prepare_request
from adallava.generation.request import Request

METHODS = ("full", "uniform", "fastv", "sparsevlm", "pyramiddrop")
IMAGE_TOKEN = 3


def make_base(small: bool, device: str) -> Any:
    """Return a stock Llava made on the device, in inference's format."""
    vision = CLIPVisionConfig(
        hidden_size=64 if small else 1024,
        intermediate_size=128 if small else 4096,
        num_hidden_layers=2 if small else 24,
        num_attention_heads=4 if small else 16,
        image_size=56 if small else 336,
        patch_size=14,
    )
    text = LlamaConfig(
        vocab_size=256 if small else 32064,
        hidden_size=64 if small else 4096,
        intermediate_size=128 if small else 11008,
        num_hidden_layers=6 if small else 32,
        num_attention_heads=4 if small else 32,
        max_position_embeddings=4096,
    )
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_id=IMAGE_TOKEN, vision_feature_layer=-2)
    config._attn_implementation = "sdpa"
    kept = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32 if small else torch.bfloat16)
    try:
        with torch.device(device):
            base = LlavaForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(kept)
    return base.eval()


def measure(run: Callable[[], object], device: str, warm: int, repeats: int) -> list[float]:
    """Return the milliseconds of each repeat after the warm-ups."""
    for _ in range(warm):
        run()
    times = []
    for _ in range(repeats):
        if device == "cpu":
            start = time.perf_counter()
            run()
            times.append((time.perf_counter() - start) * 1000.0)
            continue
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        begin.record()
        run()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return times


def prefill(model: AdaLlava, ids: torch.Tensor, pixels: torch.Tensor, keep_count: int) -> Callable[[], object]:
    """Return a call that runs the LLM over a prepared prompt: what follows tower, selector and projector."""
    budget = 1.0 if model.method == "full" else keep_count
    request = Request.parse(ids, None, pixels, side="left", token_budget=budget)
    made = prepare_request(model.family, model.selector, request)
    batch = made.prepared.batch if isinstance(made, PreparedInside) else made.batch

    def once() -> object:
        llm = model.base
        if isinstance(made, PreparedInside):
            # The state of a call is made anew each time, as in `generate`; the tower's work is kept out of the clock.
            llm = LayerDrops(model.family.decoder(), made.selector, made.plan, batch.inputs_embeds, "original").view()
        return llm(
            inputs_embeds=batch.inputs_embeds,
            attention_mask=batch.attention_mask,
            position_ids=batch.position_ids,
            use_cache=True,
            logits_to_keep=1,
        ).logits

    return once


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="tiny shapes on a CPU")
    parser.add_argument("--text-tokens", type=int, default=64)
    parser.add_argument("--keep", type=int, nargs="+", help="K; default 288 192 128 64, or 4 with --small")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--repeats", type=int, default=10)
    args = parser.parse_args()
    device = "cpu" if args.small else "cuda"
    torch.manual_seed(0)
    full = AdaLlava(make_base(args.small, device), None)
    num_tokens = full.shape.num_vision_tokens
    rows = []
    print("| batch | K | method | prefill ms | 10 % … 90 % | tokens by layer |")
    print("| --- | --- | --- | --- | --- | --- |")
    for batch in args.batch:
        text = torch.randint(4, 200, (batch, args.text_tokens))
        image = torch.full((batch, num_tokens), IMAGE_TOKEN)
        ids = torch.cat([text[:, :5], image, text[:, 5:]], dim=1).to(device)
        size = full.base.config.vision_config.image_size
        pixels = torch.randn(batch, 3, size, size, device=device, dtype=full.dtype)
        for keep_count in args.keep or ([4] if args.small else [288, 192, 128, 64]):
            for method in METHODS:
                model = full.with_method(method)
                times = measure(prefill(model, ids, pixels, keep_count), device, 3, args.repeats)
                low, high = statistics.quantiles(times, n=10)[0], statistics.quantiles(times, n=10)[-1]
                (selection,) = model.select(
                    input_ids=ids[:1], pixel_values=pixels[:1], token_budget=1.0 if method == "full" else keep_count
                )
                by_layer = selection.tokens_kept_by_layer or (selection.tokens_kept,)
                way = " → ".join(map(str, dict.fromkeys(by_layer)))
                row = {
                    "batch": batch,
                    "keep_count": num_tokens if method == "full" else keep_count,
                    "method": method,
                    "prefill_ms": statistics.median(times),
                    "low_ms": low,
                    "high_ms": high,
                    "tokens": list(dict.fromkeys(by_layer)),
                }
                rows.append(row)
                print(
                    f"| {batch} | {row['keep_count']} | `{method}` | {row['prefill_ms']:.2f} | {low:.2f} … {high:.2f} "
                    f"| {way} |"
                )
    hardware = "cpu" if args.small else torch.cuda.get_device_name()
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    print(json.dumps({"hardware": hardware, "versions": versions, "text_tokens": args.text_tokens, "rows": rows}))


if __name__ == "__main__":
    main()
