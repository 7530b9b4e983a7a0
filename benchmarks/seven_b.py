"""A sweep of a model of LLaVA-1.5-7B's shapes, by the command that a user types, on real pictures.

    python benchmarks/random_llava.py /tmp/7b --shapes 7b --device cuda
    python benchmarks/seven_b.py --model /tmp/7b --nlvr data/nlvr/test.parquet --output docs/results/seven_b.json

The answers of random weights are noise; the machinery is not. Looked at: every cell ends, no sample fails, memory does
not grow, and where the time goes. The pictures are 200 of NLVR (a parquet file with the columns id, image and
sentence) and the two photographs of scikit-learn, which must be installed.

- Memory of the device: two batches of a cell that are equal in all lengths should take the same. What the last one
  took more than the first is the growth.
- Memory of the host: this process looks at the sweep's from outside, and tells cells apart by what is in the journal.

Prints a table, then JSON. Exits with 1 if something is not as it should be.
"""

import argparse
import json
import shlex
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet
from measured import figures, finish, spread
from publish import publish

from adallava.processors.stock_processor import AdaLlavaProcessor
from adallava.records import SampleRecord
from adallava.runs.batches import prepare_batch
from adallava.tasks import load_task

PHOTOGRAPHS = {"china.jpg": ("Is there a temple in the picture?", "yes"), "flower.jpg": ("Is this a flower?", "yes")}
CELL_FIELDS = (
    *("cell", "method", "budget_asked", "latency_asked", "layer_share", "num_samples", "num_failed", "empty_share"),
    *("flag_reason", "tokens_kept", "tokens_kept_layer_average", "prompt_length", "answer_length", "part_ms", "flops"),
    *("kv_bytes", "peak_memory_bytes"),
)
"""Of a sweep's results. Scores are left out: they are those of noise."""

LENGTH_PARTS = ("prefill_seen", "prefill_new", "decode_seen", "decode_new")
"""Of a cell's time, by whether its lengths were new to the process."""

MIB = 1 << 20
PERIOD_S = 0.5
MAX_HOST_GROWTH_SHARE = 0.02
"""Over the second half of the cells: pictures are kept from the first cell on, and allocators settle in the next."""


def write_task(nlvr: Path, folder: Path, num_pictures: int) -> Path:
    """Write pictures and a JSONL file of questions about them: the photographs, then rows from all over NLVR's file."""
    import sklearn.datasets

    folder.mkdir(parents=True, exist_ok=True)
    shipped = Path(sklearn.datasets.__file__).parent / "images"
    lines = []
    for name, (question, answer) in PHOTOGRAPHS.items():
        (folder / name).write_bytes((shipped / name).read_bytes())
        lines.append({"id": name, "image": name, "question": question, "answer": answer, "kind": "photograph"})
    table = pyarrow.parquet.read_table(nlvr)
    rows = table.take([number * len(table) // num_pictures for number in range(num_pictures)]).to_pylist()
    for row in rows:
        name = f"{row['id']}.png"
        (folder / name).write_bytes(row["image"]["bytes"])
        question = f"{row['sentence']} True or false?"
        lines.append({"id": row["id"], "image": name, "question": question, "answer": row["label"], "kind": "nlvr"})
    path = folder / "questions.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@dataclass
class Watched:
    """A process that ended, and what it held on the way: (bytes of the journal, anonymous bytes, all bytes)."""

    exit_code: int | None
    seconds: float
    looks: list[tuple[int, int, int]] = field(default_factory=list)


def watch(command: Sequence[str], journal: Path, seconds: float) -> Watched:
    """Run a command, look at its memory again and again, and stop it when the seconds are over."""
    start = time.monotonic()
    looks = []
    process = subprocess.Popen(command)
    while process.poll() is None:
        held = _held_bytes(process.pid)
        if held is not None:
            looks.append((journal.stat().st_size if journal.exists() else 0, *held))
        if time.monotonic() - start > seconds:
            process.terminate()
            process.wait()
            return Watched(None, time.monotonic() - start, looks)
        time.sleep(PERIOD_S)
    return Watched(process.returncode, time.monotonic() - start, looks)


def _held_bytes(pid: int) -> tuple[int, int] | None:
    try:
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        anonymous, everything = (int(status[name].split()[0]) * 1024 for name in ("RssAnon", "VmRSS"))
    except (OSError, KeyError, ValueError):
        return None  # it has just ended
    return anonymous, everything


def cell_memory(journal: Path, looks: Sequence[tuple[int, int, int]]) -> dict[str, dict[str, int]]:
    """Return what each cell took: of the device by the records, of the host by the last look while it ran."""
    records: dict[str, list[SampleRecord]] = defaultdict(list)
    ends: dict[str, int] = {}
    for record, end in _records(journal):
        records[record.cell].append(record)
        ends[record.cell] = end
    memory = {}
    begins = [0, *ends.values()]
    for (cell, own), (begin, end) in zip(records.items(), pairwise(begins), strict=True):
        during = [look for look in looks if begin < look[0] <= end]
        memory[cell] = {
            "num_samples": len({record.sample_id for record in own}),
            "num_failed": len({record.sample_id for record in own if record.score is None}),
            "device_growth_bytes": device_growth_bytes(own),
        }
        if during:
            memory[cell] |= {"host_anonymous_bytes": during[-1][1], "host_bytes": during[-1][2]}
    return memory


def _records(journal: Path) -> Iterator[tuple[SampleRecord, int]]:
    """Return each record with the place behind its line."""
    end = 0
    for line in journal.read_bytes().splitlines(keepends=True) if journal.exists() else []:
        end += len(line)
        if line.endswith(b"\n"):
            yield SampleRecord.model_validate_json(line), end


def device_growth_bytes(records: Sequence[SampleRecord]) -> int:
    """Return how much more the last batch took than the first, of those that are alike in lengths: the most."""
    batches: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    place = 0
    while place < len(records):
        size = max(1, records[place].batch_size)
        batch = records[place : place + size]
        place += size
        if all(record.peak_memory_bytes is not None for record in batch):
            alike = tuple((record.ran.prompt_length, record.ran.answer_length, record.draw) for record in batch)
            key = (len(batch), max(alike), min(alike))
            batches[key].append(batch[0].peak_memory_bytes or 0)
    return max((peaks[-1] - peaks[0] for peaks in batches.values()), default=0)


def new_length_ms(records: Sequence[SampleRecord]) -> dict[str, dict[str, float]]:
    """Return each cell's prefill and decoding, ms a batch: where no length was new to the process, and where all were.

    A kernel that is planned for each length anew makes the first batch of a length pay for those after it. Medians;
    cells that have both, in whole batches.
    """
    seen: set[tuple[int, int]] = set()
    spent: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    place = 0
    while place < len(records):
        size = max(1, records[place].batch_size)
        batch = records[place : place + size]
        place += size
        if len(batch) < size or batch[0].part_ms is None:
            continue
        longest = max(record.ran.prompt_length for record in batch)
        steps = [(size, longest + step) for step in range(max(record.ran.answer_length for record in batch))]
        for part, own in (("prefill", steps[:1]), ("decode", steps[1:])):
            new = sum(step not in seen for step in own)
            if own and new in (0, len(own)):
                spent[batch[0].cell][f"{part}_{'new' if new else 'seen'}"].append(batch[0].part_ms[part] * size)
        seen.update(steps)
    return {
        cell: {f"{name}_ms": spread(ms)["median"] for name, ms in of.items()}
        | {f"{name}_batches": len(ms) for name, ms in of.items()}
        for cell, of in spent.items()
        if of.keys() == set(LENGTH_PARTS)
    }


def run(args: argparse.Namespace, task: Path, batch_size: int, methods: str, seconds: float) -> dict[str, Any]:
    """Sweep at one batch size; return what its files say, and what it held."""
    folder = args.work / f"batch-{batch_size}"
    options = ["--model", args.model, "--task", str(task), "--method", methods, "--latency", args.latency]
    options += ["--token-budget", args.token_budget, "--scheduler", args.scheduler, "--draws", "1"]
    options += ["--batch-size", str(batch_size), "--max-new-tokens", str(args.max_new_tokens), "--limit", "all"]
    options += ["--dtype", args.dtype, "--device", args.device, "--output", str(folder)]
    print(shlex.join(["adallava", "sweep", *options]), flush=True)
    journal = folder / "samples.jsonl"
    watched = watch([sys.executable, "-m", "adallava", "sweep", *options], journal, seconds)
    made: dict[str, Any] = {
        "batch_size": batch_size,
        "exit_code": watched.exit_code,
        "seconds": round(watched.seconds, 1),
        "seconds_answering": _seconds_answering(journal),
        "host_peak_bytes": max((look[2] for look in watched.looks), default=0),
    }
    memory = cell_memory(journal, watched.looks)
    made["new_length_ms"] = new_length_ms([record for record, _ in _records(journal)])
    if not (folder / "results.json").exists():
        return made | {"cells": [{"cell": cell, **found} for cell, found in memory.items()]}
    published = publish(folder)
    names = ("command", "weights_sha256", "config")
    cells = [
        {name: cell[name] for name in CELL_FIELDS} | memory[cell["cell"]]
        for cell in published["cells"]  # type: ignore[attr-defined]
    ]
    return made | {name: published[name] for name in names} | {"cells": cells}


def preparing_ms(model: str, task: Path, num_pictures: int = 40) -> dict[str, float]:
    """Return what reading, resizing and tokenising one picture and its question takes; the sweep does it one by one."""
    processor = AdaLlavaProcessor.from_pretrained(model)
    spent = []
    for sample in load_task(str(task), limit=num_pictures).samples:
        start = time.perf_counter()
        prepare_batch(processor, [sample])
        spent.append((time.perf_counter() - start) * 1000.0)
    return spread(spent)


def _seconds_answering(journal: Path) -> float:
    """Return the time inside `generate`, over all batches."""
    return round(
        sum(record.batch_ms / record.batch_size for record, _ in _records(journal) if record.batch_size) / 1e3, 1
    )


def check(made: dict[str, Any], num_samples: int, on_cpu: bool) -> dict[str, bool]:
    """Return what should be so of one sweep, each with whether it is."""
    cells = made["cells"]
    host = [cell["host_anonymous_bytes"] for cell in cells if "host_anonymous_bytes" in cell]
    late = host[len(host) // 2 :]
    return {
        "every cell ends": made["exit_code"] is not None and all(c.get("num_samples") == num_samples for c in cells),
        "no sample fails": all(cell.get("num_failed") == 0 for cell in cells),
        "no response is empty": all(cell.get("empty_share") == 0 for cell in cells),
        "exit code 0": made["exit_code"] == 0,
        # On a CPU a record's peak is the process's own, which the pictures' store fills.
        "device memory flat": on_cpu or all(cell["device_growth_bytes"] < MIB for cell in cells),
        "host memory flat": bool(late) and max(late) - late[0] <= MAX_HOST_GROWTH_SHARE * late[0],
    }


def table(made: dict[str, Any]) -> Iterator[str]:
    """Return the rows of a table: milliseconds a sample by part, and memory."""
    parts = ("vision", "selector", "projector", "prefill", "decode", "total")
    yield "| cell | " + " | ".join(parts) + " | failed | device MiB | grew | host MiB |"
    yield "| --- |" + " ---: |" * (len(parts) + 4)
    for cell in made["cells"]:
        spent = [f"{cell['part_ms'].get(part, 0.0):.1f}" for part in parts] if "part_ms" in cell else [""] * len(parts)
        peak, host = cell.get("peak_memory_bytes") or 0, cell.get("host_anonymous_bytes", 0)
        spent += [str(cell.get("num_failed", "?")), f"{peak / MIB:.0f}", f"{cell['device_growth_bytes'] / MIB:.0f}"]
        yield f"| `{cell['cell']}` | " + " | ".join([*spent, f"{host / MIB:.0f}"]) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of a checkpoint")
    parser.add_argument("--nlvr", type=Path, required=True, help="parquet file")
    parser.add_argument("--pictures", type=int, default=200, help="of NLVR (default: %(default)s)")
    parser.add_argument("--work", type=Path, default=Path("runs/seven_b"), help="for the task and the run folders")
    parser.add_argument("--method", nargs="+", default=["visionzip,fastv"], help="for all batch sizes, or for each")
    parser.add_argument("--token-budget", default="0.5,0.25")
    parser.add_argument("--latency", default="1.0,0.75,0.5")
    parser.add_argument("--scheduler", default="spaced")
    parser.add_argument("--max-new-tokens", type=int, default=4)
    parser.add_argument("--batch-size", type=int, nargs="+", default=[8, 1])
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=3600.0, help="for all sweeps; they are stopped then")
    parser.add_argument("--output", type=Path, help="file for the figures")
    args = parser.parse_args()
    task = write_task(args.nlvr, args.work / "task", args.pictures)
    num_samples = args.pictures + len(PHOTOGRAPHS)
    made = figures(pictures={"nlvr": args.pictures, "photographs": len(PHOTOGRAPHS)}, runs=[], checks={})
    made["preparing_picture_ms"] = preparing_ms(args.model, task)
    methods = args.method * len(args.batch_size) if len(args.method) == 1 else args.method
    end = time.monotonic() + args.seconds
    for batch_size, of_batch in zip(args.batch_size, methods, strict=True):
        made["runs"].append(run(args, task, batch_size, of_batch, max(1.0, end - time.monotonic())))
        made["checks"][f"batch {batch_size}"] = checks = check(made["runs"][-1], num_samples, args.device == "cpu")
        print("\n".join(table(made["runs"][-1])))
        print(checks, flush=True)
        finish(made, args.output)
    if not all(all(checks.values()) for checks in made["checks"].values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
