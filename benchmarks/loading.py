"""What loading takes of the host's memory: `python benchmarks/loading.py [--model FOLDER] [--device cuda]`.

Without a folder, a Llava of random weights is written first (`--size-mb`, one shard a quarter of it). Each way of
loading runs in a process of its own, which reports what it held when it was done, and the most it ever held:

- anonymous: memory that the process wrote itself, so a copy of the weights;
- file: pages of the memory-mapped file, which the system takes back when it needs them.

Prints a table, then JSON as the last line.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch

MIB = 1 << 20
WAYS = {
    "stock": "transformers' from_pretrained, then .to(device)",
    "adallava": "AdaLlava.from_pretrained(device=…)",
    "adallava-cast": "the same, to a type other than the stored one",
}
PERIOD_S = 0.002


def write_checkpoint(folder: Path, size_mb: int) -> None:
    """Write a random bfloat16 Llava of about `size_mb` MiB, with its tiny processor, in several shards."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from models import tiny_processor
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    processor = tiny_processor()
    width, vocabulary = 1024, len(processor.tokenizer)
    layer = 4 * width**2 + 3 * width * 4 * width
    text = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=max(1, size_mb * MIB // (2 * layer)),
        num_attention_heads=8,
    )
    vision = CLIPVisionConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=7
    )
    image_token_id = processor.tokenizer.convert_tokens_to_ids("<image>")
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_id=image_token_id)
    model = LlavaForConditionalGeneration(config).to(torch.bfloat16)
    model.save_pretrained(folder, max_shard_size=f"{max(1, size_mb // 4)}MB")
    processor.save_pretrained(folder)


def load(way: str, folder: str, device: str) -> object:
    """Load the checkpoint in one way."""
    if way == "stock":
        from transformers import LlavaForConditionalGeneration

        return LlavaForConditionalGeneration.from_pretrained(folder, dtype="auto").to(device)
    from adallava import AdaLlava

    dtype = "float16" if way == "adallava-cast" else "auto"
    return AdaLlava.from_pretrained(folder, method="full", device=device, dtype=dtype)


def memory_bytes() -> dict[str, int]:
    """Return what this process holds, as Linux tells it."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    fields = {"anonymous": "RssAnon", "file": "RssFile", "peak": "VmHWM"}
    return {name: int(status[field].split()[0]) * 1024 for name, field in fields.items()}


def measure(way: str, folder: str, device: str) -> dict[str, float]:
    """Load in this process; return seconds, and bytes held on top of what the libraries took before."""
    import transformers.models.clip.modeling_clip
    import transformers.models.llama.modeling_llama
    import transformers.models.llava.modeling_llava  # noqa: F401

    import adallava.model  # noqa: F401

    if device != "cpu":
        torch.zeros(1, device=device)
    before, most, done = memory_bytes(), 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(PERIOD_S):
            most = max(most, memory_bytes()["anonymous"])

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    model = load(way, folder, device)
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    after = memory_bytes()
    del model
    return {
        "seconds": seconds,
        "anonymous_bytes": after["anonymous"] - before["anonymous"],
        "anonymous_peak_bytes": max(most, after["anonymous"]) - before["anonymous"],
        "file_bytes": after["file"] - before["file"],
        "peak_bytes": after["peak"] - before["anonymous"] - before["file"],
    }


def main() -> None:
    """Write the checkpoint if there is none, measure each way in a process of its own, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder of a checkpoint; default: a random one")
    parser.add_argument("--size-mb", type=int, default=500)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--way", choices=sorted(WAYS), help="measure this one in this process, and print JSON alone")
    args = parser.parse_args()
    if args.way:
        print(json.dumps(measure(args.way, args.model, args.device)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(args.model or temporary)
        if args.model is None:
            write_checkpoint(folder, args.size_mb)
        stored = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        measured = {}
        for way in WAYS:
            command = [sys.executable, __file__, "--way", way, "--model", str(folder), "--device", args.device]
            measured[way] = json.loads(subprocess.check_output(command, text=True).splitlines()[-1])
    print(f"{stored / MIB:.0f} MiB of safetensors to {args.device}; MiB on top of the libraries' own\n")
    print("| way | seconds | anonymous | anonymous, at most | file | all, at most |")
    print("| --- |" + " --- |" * 5)
    for way, found in measured.items():
        mib = [found[f"{name}_bytes"] / MIB for name in ("anonymous", "anonymous_peak", "file", "peak")]
        print(f"| {WAYS[way]} | {found['seconds']:.2f} | " + " | ".join(f"{value:.0f}" for value in mib) + " |")
    print(json.dumps({"stored_bytes": stored, "device": args.device, "ways": measured}))


if __name__ == "__main__":
    main()
