"""Answers a second of a sweep by several processes of this host, against one:

    python benchmarks/processes.py --processes 1 2 4 -- --model FOLDER --task questions.jsonl --limit 200
    python benchmarks/processes.py --executor processes ray --engine stock graphs --processes 1 2 -- --model FOLDER …

What follows `--` goes to `adallava sweep`. Each number of processes runs the same sweep into a folder of its own:
one alone, several under torchrun (`processes`), or so many workers on a Ray cluster of this host that is up before
(`ray`), spread over the GPUs. Answering is clocked from `run.json`, there when the first process has loaded, to
the last answer on disk. What is before it (libraries, weights and their SHA-256) and behind it (intervals) is shown
beside it. The answers are compared with those of the engine's first run: they should not depend on the number.

Prints each row when it is there, then JSON as the last line.
"""

import argparse
import importlib.util
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from measured import figures, finish, keep

EXECUTORS = ("processes", "ray")


def command(executor: str, number: int, arguments: list[str], output: Path, address: str) -> list[str]:
    """Return the sweep's command line; without a report, which is no part of what is compared."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(number)]
    sweep = ["-m", "adallava", "sweep", *arguments, "--no-report", "--output", str(output)]
    if executor == "ray":
        gpus = max(1, torch.cuda.device_count())
        share = ["--gpus-per-worker", str(min(1.0, gpus / number))]
        return [sys.executable, *sweep, "--executor", "ray", "--address", address, "--workers", str(number), *share]
    return [sys.executable, *(launcher if number > 1 else []), *sweep]


def measure(executor: str, number: int, arguments: list[str], output: Path, address: str) -> dict[str, float]:
    """Run the sweep; return its seconds before the first answer, of answering, and behind the last one."""
    # One thread a process, as torchrun has it: on a CPU, sums in another order may end in another answer.
    environment = os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    log = output.with_suffix(".log")
    start = time.time()
    with log.open("w") as file:
        subprocess.run(
            command(executor, number, arguments, output, address),
            stdout=file, stderr=file, env=environment, check=False,
        )  # fmt: skip
    end = time.time()
    if not (output / "results.json").exists():
        sys.exit(f"{number} processes ({executor}) did not finish:\n{log.read_text()[-3000:]}")
    begun, ended = ((output / name).stat().st_mtime for name in ("run.json", "samples.jsonl"))
    return {"starting_s": begun - start, "answering_s": ended - begun, "ending_s": end - ended}


def read_answers(output: Path) -> dict[str, str]:
    """Return the responses by cell, sample and draw."""
    records = map(json.loads, (output / "samples.jsonl").read_text().splitlines())
    return {f"{record['cell']} {record['sample_id']} {record['draw']}": record["response"] for record in records}


@contextmanager
def cluster(asked: list[str]) -> Iterator[str]:
    """Give the address of a Ray cluster of this host, that is up as long as this process; nothing where none is asked.

    Its processes inherit this one's environment, so that the same code runs in them.
    """
    if "ray" not in asked:
        yield ""
        return
    if importlib.util.find_spec("ray") is None:
        sys.exit("--executor ray needs Ray, which is not installed: pip install 'adallava[ray]'")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    context = ray.init(include_dashboard=False, log_to_driver=False)
    yield context.address_info["gcs_address"]
    ray.shutdown()


def compare(
    executor: str, number: int, first: dict[str, str], arguments: list[str], output: Path, address: str
) -> dict[str, Any]:
    """Return one row: how fast so many processes were, and how many of their answers are not those of the first run."""
    seconds = measure(executor, number, arguments, output, address)
    answers = read_answers(output)
    first = first or answers
    differing = sum(first.get(key) != answers.get(key) for key in first.keys() | answers.keys())
    rate = len(answers) / seconds["answering_s"]
    row = {"executor": executor, "processes": number, "answers": len(answers), "differing": differing}
    return {**row, **seconds, "answers_per_s": rate}


def main() -> None:
    """Run the sweep by each number of processes, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--executor", choices=EXECUTORS, nargs="+", default=["processes"])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batch-size", type=int, nargs="+", default=[1], help="of the sweep; one row for each")
    parser.add_argument("--engine", nargs="+", default=["auto"], help="of the sweep; one row for each")
    parser.add_argument("--output", type=Path, help="file for the figures, written after every row")
    parser.add_argument("sweep", nargs="*", help="arguments of `adallava sweep`, behind --")
    args = parser.parse_args()
    with cluster(args.executor) as address, tempfile.TemporaryDirectory() as folder:
        made = figures(sweep=args.sweep, rows=[])
        names = ("batch", "engine", "executor", "processes", "answers", "answers/s", "against the first", "starting, s")
        print("| " + " | ".join([*names, "answering, s", "ending, s", "other answers"]) + " |")
        print("|" + " ---: |" * 11, flush=True)
        for batch_size, engine in itertools.product(args.batch_size, args.engine):
            arguments = [*args.sweep, "--batch-size", str(batch_size), "--engine", engine]
            own: list[dict[str, Any]] = []
            first: dict[str, str] = {}
            for executor, number in itertools.product(args.executor, args.processes):
                output = Path(folder) / f"{batch_size}-{engine}-{executor}-{number}"
                row = compare(executor, number, first, arguments, output, address)
                own.append({"batch_size": batch_size, "engine": engine, **row})
                first = first or read_answers(output)
                made["rows"].append(own[-1])
                print(line(own[-1], own[0]), flush=True)
                keep(made, args.output)
        finish(made, args.output)


def line(row: dict[str, Any], first: dict[str, Any]) -> str:
    """Return one line of the table."""
    return (
        f"| {row['batch_size']} | {row['engine']} | {row['executor']} | {row['processes']} | {row['answers']} | "
        f"{row['answers_per_s']:.1f} | {row['answers_per_s'] / first['answers_per_s']:.2f} | {row['starting_s']:.1f} | "
        f"{row['answering_s']:.1f} | {row['ending_s']:.1f} | {row['differing']} |"
    )


if __name__ == "__main__":
    main()
