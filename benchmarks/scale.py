"""What a long journal weighs, and what it costs to open, to sum up, to diagnose and to show:

    python benchmarks/scale.py --answers 100000 --output scale.json

A sweep of the bundled model gives the lines; their samples are multiplied under new names, with other patches: of
N = 576, as LLaVA-1.5 has them, half are kept, and all by the full-token model. `--form lists` writes the sets as older
versions did. Seconds are of the processor, each phase in a process of its own with its peak of memory.

Prints each phase when it is there, then JSON as the last line.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from measured import figures, finish, keep

PHASES = ("open", "sum up", "doctor", "report", "write")
WRITTEN = 4_000
"""Answers that the leader of workers puts on disk, a batch of 8 at a time."""

PATCHES = 576
METHODS, BUDGETS = "uniform,random,question", "0.5,0.25,0.125"
SAMPLES = 20
"""Of the sweep that is multiplied."""


def template(folder: Path) -> list[dict[str, Any]]:
    """Sweep a few samples into a folder, and return its lines; a draw each."""
    from adallava.cli.main import main

    words = ["--method", METHODS, "--token-budget", BUDGETS, "--limit", str(SAMPLES), "--draws", "1", "--no-report"]
    main(["sweep", "--output", str(folder), *words])
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]


def multiplied(lines: list[dict[str, Any]], copies: int, form: str) -> Iterator[bytes]:
    """Yield the lines of so many times as many samples, cell by cell."""
    pack = packing(form)
    draw = np.random.default_rng(0)
    for cell in dict.fromkeys(line["cell"] for line in lines):
        own = [line for line in lines if line["cell"] == cell]
        for copy in range(copies):
            for line in own:
                full = cell == "full@1.0"
                kept = np.arange(PATCHES) if full else np.sort(draw.permutation(PATCHES)[: PATCHES // 2])
                name = f"{line['sample_id']}-{copy}"
                new = {"sample_id": name, "grids": [[24, 24]], "kept_indices": [pack(kept.tolist())]}
                yield json.dumps({**line, **new}, separators=(",", ":")).encode() + b"\n"


def packing(form: str) -> Any:
    """Return how a set of patches is written."""
    if form == "lists":
        return lambda indices: indices
    from adallava.records.index_sets import pack

    return pack


def run_phase(name: str, folder: Path) -> None:
    """Do one phase in this process, and print what it took."""
    import adallava.report.page  # noqa: F401  # what is imported first is no part of a phase
    from adallava.analysis.summary import summarise
    from adallava.cli.main import main
    from adallava.records.cells import plan_cells
    from adallava.records.journal import Journal, locked_folder, read_done
    from adallava.records.read import read_run

    run = read_run(folder)
    assert run is not None
    start = time.process_time()
    if name == "open":
        read_done(folder)
    elif name == "sum up":
        ids = list(dict.fromkeys(_ids(folder)))
        plans = plan_cells(run.config.methods, run.config.token_budgets)
        with locked_folder(folder), Journal(folder, run) as journal:
            start = time.process_time()
            summarise(plans, ids, journal.read_cell, 0)
    elif name == "write":
        start = time.perf_counter()
        write_batches(folder)
        print("\n" + json.dumps({"phase": name, "answers_per_s": WRITTEN / (time.perf_counter() - start)}))
        return
    elif name == "doctor":
        main(["doctor", str(folder), "--json"])
    else:
        from adallava.report.page import write_report

        write_report(folder, lambda _: None, num_pictures=0)
    seconds = time.process_time() - start
    print("\n" + json.dumps({"phase": name, "seconds": seconds, "peak_bytes": peak_bytes()}))


def write_batches(folder: Path) -> None:
    """Append answers as a leader does that is given them batch by batch: each batch is on disk before the next."""
    from adallava.records.journal import AnswerLine, Journal, locked_folder
    from adallava.records.read import read_run

    run, other = read_run(folder), folder.with_name("written")
    assert run is not None
    with locked_folder(other), Journal(other, run) as journal, (folder / "samples.jsonl").open("rb") as file:
        for first in range(0, WRITTEN, 8):
            keys = [("cell", str(number), 0) for number in range(first, first + 8)]
            journal.append_new([AnswerLine(key, False, line) for key, line in zip(keys, file, strict=False)])


def peak_bytes() -> int:
    """Return the most memory that this program has had; getrusage tells of the one before it in the same process."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def _ids(folder: Path) -> Iterator[str]:
    with (folder / "samples.jsonl").open() as file:
        for line in file:
            yield json.loads(line)["sample_id"]


def main() -> None:
    """Write the journal, and run the phases over it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=100_000)
    parser.add_argument("--form", choices=("bitmaps", "lists"), default="bitmaps", help="of sets of patches")
    parser.add_argument("--phases", nargs="+", choices=PHASES, default=list(PHASES))
    parser.add_argument("--output", type=Path, help="file for the figures")
    parser.add_argument("--phase", choices=PHASES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.phase is not None:
        run_phase(args.phase, args.folder)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "run"
        lines = template(folder)
        with (folder / "samples.jsonl").open("wb") as file:
            file.writelines(multiplied(lines, max(1, args.answers // len(lines)), args.form))
        answers = max(1, args.answers // len(lines)) * len(lines)
        size = (folder / "samples.jsonl").stat().st_size
        made = figures(rows=[{"form": args.form, "answers": answers, "bytes": size}])
        print(made["rows"][0], flush=True)
        for phase in args.phases:
            command = [sys.executable, __file__, "--phase", phase, "--folder", str(folder)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
            row = {"form": args.form, "answers": answers, **json.loads(done.stdout.splitlines()[-1])}
            made["rows"].append(row)
            print(row, flush=True)
            keep(made, args.output)
        finish(made, args.output)


if __name__ == "__main__":
    main()
