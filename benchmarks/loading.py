"""What loading takes of memory and time: `python benchmarks/loading.py --model FOLDER --device cuda`.

Without a folder, a Llava of the 7B's widths and few layers is written first (see random_llava.py). Each way of loading
runs in a process of its own, which reports what it held when it was done, and the most it ever held:

- anonymous: memory of the host that the process wrote itself, so a copy of the weights;
- file: pages of the memory-mapped file, which the system takes back when it needs them;
- on the device: what torch allocated there, and the most it ever had from the driver.

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
from measured import figures, finish
from random_llava import write_checkpoint

MIB = 1 << 20
WAYS = {
    "stock": "transformers' from_pretrained, then .to(device)",
    "adallava": "AdaLlava.from_pretrained(device=…)",
    "adallava-cast": "the same, to a type other than the stored one",
}
PERIOD_S = 0.005


def load(way: str, folder: str, device: str) -> object:
    """Load the checkpoint in one way."""
    if way == "stock":
        from transformers import LlavaForConditionalGeneration

        return LlavaForConditionalGeneration.from_pretrained(folder, dtype="auto").to(device)
    from adallava import AdaLlava

    # Stored is float16.
    dtype = "bfloat16" if way == "adallava-cast" else "auto"
    return AdaLlava.from_pretrained(folder, method="full", device=device, dtype=dtype)


def memory_bytes() -> dict[str, int]:
    """Return what this process holds, as Linux tells it."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    fields = {"anonymous": "RssAnon", "file": "RssFile", "shared": "RssShmem", "peak": "VmHWM"}
    held = {name: int(status[field].split()[0]) * 1024 for name, field in fields.items()}
    # A file in a folder that is memory itself (/dev/shm) counts as shared.
    return {**held, "file": held["file"] + held["shared"]}


def measure(way: str, folder: str, device: str) -> dict[str, float]:
    """Load in this process; return seconds, and bytes held on top of what the libraries took before."""
    import transformers.models.clip.modeling_clip
    import transformers.models.llama.modeling_llama
    import transformers.models.llava.modeling_llava  # noqa: F401

    import adallava.model  # noqa: F401

    on_cuda = torch.device(device).type == "cuda"
    if on_cuda:
        torch.zeros(1, device=device)
    before, most, done = memory_bytes(), 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(PERIOD_S):
            most = max(most, memory_bytes()["anonymous"])

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    try:
        model = load(way, folder, device)
        if on_cuda:
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - start
    finally:
        done.set()
        watcher.join()
    after = memory_bytes()
    on_device = {}
    if on_cuda:
        on_device = {
            "device_bytes": torch.cuda.memory_allocated(device),
            "device_peak_bytes": torch.cuda.max_memory_allocated(device),
            "device_reserved_peak_bytes": torch.cuda.max_memory_reserved(device),
        }
    del model
    return {
        "seconds": seconds,
        "anonymous_bytes": after["anonymous"] - before["anonymous"],
        "anonymous_peak_bytes": max(most, after["anonymous"]) - before["anonymous"],
        "file_bytes": after["file"] - before["file"],
        "peak_bytes": after["peak"] - before["anonymous"] - before["file"],
        **on_device,
    }


def main() -> None:
    """Write the checkpoint if there is none, measure each way in a process of its own, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder of a checkpoint; default: a random one")
    parser.add_argument("--layers", type=int, default=2, help="of the LLM of a random one, in the widths of the 7B")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--ways", nargs="+", choices=sorted(WAYS), default=list(WAYS))
    parser.add_argument("--in-this-process", action="store_true", help="measure one way, and print JSON alone")
    parser.add_argument("--seconds", type=float, default=600.0, help="for one way")
    parser.add_argument("--output", type=Path, help="file for the figures")
    args = parser.parse_args()
    if args.in_this_process:
        print(json.dumps(measure(args.ways[0], args.model, args.device)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(args.model or temporary)
        if args.model is None:
            write_checkpoint(folder, "7b", args.device, layers=args.layers)
        stored = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        rows = []
        for way in args.ways:
            command = [sys.executable, __file__, "--in-this-process", "--ways", way, "--model", str(folder)]
            command += ["--device", args.device]
            try:
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=args.seconds, check=True)
                rows.append({"way": way, **json.loads(done.stdout.splitlines()[-1])})
            except subprocess.SubprocessError as error:
                rows.append({"way": way, "error": type(error).__name__})
    print(f"{stored / MIB:.0f} MiB of safetensors to {args.device}; MiB on top of the libraries' own\n")
    names = ("anonymous", "anonymous_peak", "file", "peak", "device", "device_peak", "device_reserved_peak")
    print("| way | seconds | " + " | ".join(name.replace("_", " ") for name in names) + " |")
    print("| --- |" + " --- |" * (1 + len(names)))
    for row in rows:
        shown = [f"{row[f'{name}_bytes'] / MIB:.0f}" if f"{name}_bytes" in row else "" for name in names]
        print(
            f"| {WAYS[row['way']]} | {row.get('error') or format(row['seconds'], '.2f')} | " + " | ".join(shown) + " |"
        )
    finish(figures(stored_bytes=stored, device=args.device, rows=rows), args.output)


if __name__ == "__main__":
    main()
