"""Whether a call gives the same bits twice: `python benchmarks/repeats.py --shapes 7b --device cuda`.

The same prompts are answered again and again by one process. Compared are the vision tower's features, and the logits
of each new token, bit by bit, with those of the first time. What differs here differs between runs, and between one
process and several, too: it is no fault of theirs.

`--attention math` leaves PyTorch its plain attention alone, without the fused kernels that `sdpa` picks from.

Prints a table, then JSON as the last line.
"""

import argparse
import hashlib
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from measured import dtype_of, figures, finish
from random_llava import SHAPES, make_base
from torch.nn.attention import SDPBackend, sdpa_kernel

from adallava import AdaLlava
from adallava.bench.made_up_prompts import make_prompts
from adallava.bench.shapes import NoText

METHODS = {"full": 1.0, "visionzip": 0.5}


def digest(values: torch.Tensor) -> str:
    """Return what tells tensors of other bits apart."""
    return hashlib.sha256(values.detach().float().cpu().contiguous().numpy().tobytes()).hexdigest()


def steps(model: AdaLlava, inputs: dict[str, Any], budget: float, new_tokens: int) -> list[str]:
    """Answer once; return a digest of the logits of each new token."""
    made: list[str] = []

    def look(_: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        made.append(digest(logits))
        return logits

    count = {"max_new_tokens": new_tokens, "min_new_tokens": new_tokens}
    model.generate(**inputs, token_budget=budget, do_sample=False, pad_token_id=0, logits_processor=[look], **count)
    return made


@torch.no_grad()
def answer(models: dict[str, AdaLlava], inputs: dict[str, Any], new_tokens: int) -> dict[str, str]:
    """Return digests by what they are of."""
    tower = models["full"].base.model.vision_tower(inputs["pixel_values"], output_hidden_states=True)
    made = {"tower": digest(tower.hidden_states[-2])}
    for method, model in models.items():
        for number, found in enumerate(steps(model, inputs, METHODS[method], new_tokens)):
            made[f"{method}, token {number + 1}"] = found
    return made


def main() -> None:
    """Answer every prompt `--repeats` times more than once, and count what is not as it was the first time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", choices=SHAPES, default="7b")
    parser.add_argument("--prompts", type=int, default=24, help="of other lengths, one at a time")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--new-tokens", type=int, default=3)
    parser.add_argument("--attention", choices=("any", "math"), default="any")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--output", type=Path, help="file for the figures")
    args = parser.parse_args()
    torch.manual_seed(0)
    full = AdaLlava(make_base(args.shapes, args.device, dtype_of(args)), NoText())
    models = {"full": full, "visionzip": full.with_method("visionzip")}
    with nullcontext() if args.attention == "any" else sdpa_kernel(SDPBackend.MATH):
        made = [
            [answer(models, make_prompts(full, 1, 60 + number), args.new_tokens) for number in range(args.prompts)]
            for _ in range(1 + args.repeats)
        ]
    first, *later = made
    rows = [
        {
            "of": name,
            "differing": sum(
                one[name] != once[name] for again in later for one, once in zip(again, first, strict=True)
            ),
            "compared": len(later) * len(first),
        }
        for name in first[0]
    ]
    print("| of | other bits | compared |\n| --- | ---: | ---: |")
    for row in rows:
        print(f"| {row['of']} | {row['differing']} | {row['compared']} |")
    finish(figures(attention=args.attention, dtype=str(full.dtype), rows=rows), args.output)


if __name__ == "__main__":
    main()
