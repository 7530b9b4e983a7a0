"""What `adallava convert` takes of time and memory, and whether every weight arrives:

    python benchmarks/random_llava.py /tmp/7b --shapes 7b --device cuda
    python benchmarks/converting.py --model /tmp/7b --work /tmp/converting

The random checkpoint is written anew in the layout of the original LLaVA code (two pickled files, as
liuhaotian/llava-v1.5-7b has), converted by the command that a user types, and compared weight by weight, bit by bit;
then one question is answered with it. `--work` takes twice the checkpoint's size.

Prints a table, then JSON as the last line. Exits with 1 if a weight differs.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from measured import figures, finish, keep
from safetensors import safe_open
from seven_b import watch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "conversion"))
from original_llava import CONFIG
from published_llava import write_tokenizer

MIB = 1 << 20
NUM_FILES = 2
TEXT_FIELDS = ("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers", "num_key_value_heads")
WORD_ROWS = ("lm_head.weight", "model.embed_tokens.weight")
ORIGINAL = (
    (re.compile(r"^language_model\.lm_head\."), "lm_head."),
    (re.compile(r"^language_model\.model\."), "model."),
    (
        re.compile(r"^multi_modal_projector\.linear_(\d)\."),
        lambda found: f"model.mm_projector.{2 * int(found[1]) - 2}.",
    ),
    (re.compile(r"^vision_tower\."), "model.vision_tower.vision_tower."),
)
"""Published names to those of the original code (`llava/model/llava_arch.py` of haotian-liu/LLaVA)."""


def original_name(published: str) -> str:
    """Return what the original code calls a weight."""
    for pattern, replacement in ORIGINAL:
        published, changed = pattern.subn(replacement, published)
        if changed:
            break
    return published


def weights(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Give every weight of a sharded folder under its published name, mapped."""
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as shard:
            for name in shard.keys():  # noqa: SIM118 - not a dictionary
                yield name, shard.get_tensor(name)


def write_original(source: Path, folder: Path) -> None:
    """Write the source's weights, config and tokenizer as the original code does."""
    folder.mkdir(parents=True)
    published = json.loads((source / "config.json").read_text())
    llama_7b = {"hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32, "num_hidden_layers": 32}
    text = {**llama_7b, "num_key_value_heads": 32, **published["text_config"]}
    config = {**CONFIG, **{field: text[field] for field in TEXT_FIELDS}}
    config["mm_hidden_size"] = published["vision_config"]["hidden_size"]
    (folder / "config.json").write_text(json.dumps(config))
    write_tokenizer(folder, added=False)
    held = {original_name(name): tensor for name, tensor in weights(source)}
    for name in WORD_ROWS:
        held[name] = held[name][: config["vocab_size"]].clone()
    half = -(-len(held) // NUM_FILES)
    weight_map: dict[str, str] = {}
    for number in range(NUM_FILES):
        file = f"pytorch_model-{number + 1:05d}-of-{NUM_FILES:05d}.bin"
        part = dict(list(held.items())[number * half : (number + 1) * half])
        torch.save(part, folder / file)
        weight_map |= dict.fromkeys(part, file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def write_tower_settings(source: Path, folder: Path) -> None:
    """Write what `mm_vision_tower` names, without weights: the source has its own."""
    folder.mkdir(parents=True)
    vision = json.loads((source / "config.json").read_text())["vision_config"]
    (folder / "config.json").write_text(json.dumps({"model_type": "clip", "vision_config": vision}))
    (folder / "preprocessor_config.json").write_text((source / "preprocessor_config.json").read_text())


def num_differing(source: Path, converted: Path) -> int:
    """Return how many weights are not the source's own to the bit; new rows for new words are not looked at."""
    now, differing = dict(weights(converted)), 0
    for name, before in weights(source):
        after = now.pop(name)
        if original_name(name) in WORD_ROWS:
            before, after = before[: CONFIG["vocab_size"]], after[: CONFIG["vocab_size"]]
        differing += not torch.equal(before, after)
    return differing + len(now)


def main() -> None:
    """Write, convert, compare, answer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder that random_llava.py wrote")
    parser.add_argument("--work", type=Path, required=True, help="new folder for both layouts")
    parser.add_argument("--image", type=Path, required=True, help="picture to ask one question about")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seconds", type=float, default=3600.0, help="for the conversion")
    parser.add_argument("--output", type=Path, help="file for the figures")
    args = parser.parse_args()
    original, clip, converted = (args.work.resolve() / name for name in ("original", "clip", "converted"))
    write_original(args.model, original)
    write_tower_settings(args.model, clip)
    adallava = [sys.executable, "-m", "adallava"]
    arguments = ["convert", str(original), "--vision-tower", str(clip), "--output", str(converted)]
    watched = watch([*adallava, *arguments], args.work / "none", args.seconds)
    if watched.exit_code != 0:
        sys.exit(f"adallava {' '.join(arguments)} ended with {watched.exit_code}")
    row: dict[str, Any] = {
        "stored_bytes": sum(file.stat().st_size for file in original.glob("*.bin")),
        "seconds": watched.seconds,
        "anonymous_peak_bytes": max(look[1] for look in watched.looks),
        "weights": sum(1 for _ in weights(converted)),
        "differing": num_differing(args.model, converted),
    }
    made = figures(rows=[row])
    keep(made, args.output)
    ask = ["generate", "--model", str(converted), "--image", str(args.image.resolve()), "--question", "What is this?"]
    ask += ["--method", "visionzip", "--token-budget", "0.25", "--max-new-tokens", "8", "--device", args.device]
    start = time.perf_counter()
    # It leaves a drawing of the patches where it runs.
    subprocess.run([*adallava, *ask], cwd=args.work, stdout=subprocess.DEVNULL, check=True)
    row["generate_s"] = time.perf_counter() - start
    print("| MiB | s | host at most, MiB | weights | other bits | `generate`, s |\n|" + " ---: |" * 6)
    print(
        f"| {row['stored_bytes'] / MIB:.0f} | {row['seconds']:.1f} | {row['anonymous_peak_bytes'] / MIB:.0f} | "
        f"{row['weights']} | {row['differing']} | {row['generate_s']:.1f} |"
    )
    finish(made, args.output)
    raise SystemExit(int(row["differing"] > 0))


if __name__ == "__main__":
    main()
