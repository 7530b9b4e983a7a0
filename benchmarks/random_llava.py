"""Llavas of random weights: in memory, and as a checkpoint in the layout that LLaVA-1.5-7B is published in.

    python benchmarks/random_llava.py FOLDER --shapes 7b --device cuda    # float16, in shards of 5 GB

The shapes: `7b` are the published ones; `thin` has their depth and tiny widths, so that what is left is what the host
does; `toy` is small in everything but the picture (336 px, N = 576).

Weights are normal, with the deviation that Llama is initialised with (0.02); norms are 1 and biases 0, so that
activations stay finite. The rows of the output layer for special and unused tokens are 0: an answer never begins with
the token that ends it.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from published_llava import IMAGE_TOKEN_ID, config_fields, old_names, shapes, write_processor

from adallava.bench.shapes import random_base

SHAPES = ("7b", "thin", "toy")
SHARD_BYTES = 5 * 10**9
STD = 0.02
FIRST_WORD = 3
"""Tokens before it are special, and so are those from `IMAGE_TOKEN_ID` on."""

_THIN_TEXT = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 4}
_THIN_VISION = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}


def config_of(name: str, layers: int | None = None) -> dict[str, Any]:
    """Return the published config.json, with the widths and depths of `name`, or that many layers in the LLM."""
    config = config_fields("7b", tiny=False)
    if name != "7b":
        config["text_config"] |= _THIN_TEXT
        config["vision_config"] |= _THIN_VISION
    if name == "toy":
        config["text_config"]["num_hidden_layers"] = 8
        config["vision_config"]["num_hidden_layers"] = 3
    if layers is not None:
        config["text_config"]["num_hidden_layers"] = layers
    return config


def make_base(name: str, device: str, dtype: torch.dtype) -> Any:
    """Return a stock Llava made on the device, with random weights in that type."""
    from transformers import LlavaConfig

    published = config_of(name)
    for fields in (published, published["text_config"]):
        # The stored type, which would win over the one asked for.
        del fields["torch_dtype"]
    config = LlavaConfig.from_dict(published)
    config._attn_implementation = "sdpa"
    return random_base(config, device, dtype)


def write_checkpoint(folder: Path, name: str, device: str, *, layers: int | None = None, seed: int = 0) -> int:
    """Write config, processor and float16 shards; return the bytes of the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    config = config_of(name, layers)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    write_processor(folder, "jinja")
    text_layers = config["text_config"].get("num_hidden_layers", 32)
    names = old_names(text_layers, config["vision_config"]["num_hidden_layers"])
    sizes = {name: 2 * torch.Size(_shape(config, name)).numel() for name in names}
    shards = list(_shards(sizes))
    files = [f"model-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)]

    def write(file: str, shard: list[str]) -> None:
        save_file(
            {name: _weight(config, name, seed + names.index(name), device) for name in shard},
            folder / file,
            metadata={"format": "pt"},
        )

    with ThreadPoolExecutor(len(shards)) as pool:
        list(pool.map(write, files, shards))
    weight_map = {name: file for file, shard in zip(files, shards, strict=True) for name in shard}
    total = sum(sizes.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    return total


def _shards(sizes: dict[str, int]) -> Iterator[list[str]]:
    """Cut the names into runs of at most `SHARD_BYTES`."""
    shard: list[str] = []
    for name in sizes:
        if shard and sum(sizes[one] for one in shard) + sizes[name] > SHARD_BYTES:
            yield shard
            shard = []
        shard.append(name)
    yield shard


def _shape(config: dict[str, Any], name: str) -> tuple[int, ...]:
    # The published config leaves out what Llama has by default.
    text = {"hidden_size": 4096, "intermediate_size": 11008, **config["text_config"]}
    return shapes({**config, "text_config": text}, name)


def _weight(config: dict[str, Any], name: str, seed: int, device: str) -> torch.Tensor:
    """Return one weight, float16, on the host."""
    shape = _shape(config, name)
    if name.endswith("bias"):
        return torch.zeros(shape, dtype=torch.float16)
    if "norm" in name or "layrnorm" in name:
        return torch.ones(shape, dtype=torch.float16)
    generator = torch.Generator(device).manual_seed(seed)
    weight = torch.randn(shape, generator=generator, device=device, dtype=torch.float16).mul_(STD)
    if name.endswith("lm_head.weight"):
        weight[:FIRST_WORD] = 0
        weight[IMAGE_TOKEN_ID:] = 0
    return weight.cpu()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shapes", choices=SHAPES, default="7b")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--layers", type=int, help="of the LLM (default: as the shapes have)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    start = time.perf_counter()
    total = write_checkpoint(args.folder, args.shapes, args.device, layers=args.layers, seed=args.seed)
    print(f"wrote {total / 1e9:.2f} GB to {args.folder} in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
