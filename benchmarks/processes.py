"""Answers a second of a sweep by several processes of this host, against one:

    python benchmarks/processes.py --processes 1 2 4 -- --model FOLDER --task questions.jsonl --limit 200

What stands behind `--` goes to `adallava sweep`. Each number of processes runs the same sweep into a folder of its own.
Answering is clocked from the moment when the processes may begin to the last answer. What is before it (libraries,
weights and their SHA-256) and behind it (intervals) is shown beside it. The answers are compared with those of the
first run: they should not depend on the number.

Prints each row when it is there, then JSON as the last line.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measured import figures, finish, keep

BEGUN = ".begun"
PERIOD_S = 0.002


def command(num_processes: int, arguments: list[str], output: Path) -> list[str]:
    """Return the sweep's command line; without a report, which is no part of what is compared."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(num_processes)]
    sweep = ["-m", "adallava", "sweep", *arguments, "--no-report", "--output", str(output)]
    return [sys.executable, *(launcher if num_processes > 1 else []), *sweep]


def measure(num_processes: int, arguments: list[str], output: Path) -> dict[str, float]:
    """Run the sweep; return its seconds before the first answer, of answering, and behind the last one."""
    start = time.perf_counter()
    begun = ended = 0.0
    # One thread a process, as torchrun has it: on a CPU, sums in another order may end in another answer.
    environment = os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    log = output.with_suffix(".log")
    with log.open("w") as file:
        running = subprocess.Popen(command(num_processes, arguments, output), stdout=file, stderr=file, env=environment)
        while running.poll() is None:
            there = (output / BEGUN).exists()
            begun = begun or (time.perf_counter() if there else 0.0)
            ended = ended or (time.perf_counter() if begun and not there else 0.0)
            time.sleep(PERIOD_S)
    if not (output / "results.json").exists():
        sys.exit(f"{num_processes} processes did not finish:\n{log.read_text()[-3000:]}")
    return {"starting_s": begun - start, "answering_s": ended - begun, "ending_s": time.perf_counter() - ended}


def read_answers(output: Path) -> dict[str, str]:
    """Return the responses by cell, sample and draw."""
    records = map(json.loads, (output / "samples.jsonl").read_text().splitlines())
    return {f"{record['cell']} {record['sample_id']} {record['draw']}": record["response"] for record in records}


def compare(number: int, first: dict[str, str], arguments: list[str], output: Path) -> dict[str, Any]:
    """Return one row: how fast so many processes were, and how many of their answers are not those of the first run."""
    seconds = measure(number, arguments, output)
    answers = read_answers(output)
    first = first or answers
    differing = sum(first.get(key) != answers.get(key) for key in first.keys() | answers.keys())
    rate = len(answers) / seconds["answering_s"]
    return {"processes": number, "answers": len(answers), "differing": differing, **seconds, "answers_per_s": rate}


def main() -> None:
    """Run the sweep by each number of processes, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batch-size", type=int, nargs="+", default=[1], help="of the sweep; one row for each")
    parser.add_argument("--output", type=Path, help="file for the figures, written after every row")
    parser.add_argument("sweep", nargs="*", help="arguments of `adallava sweep`, behind --")
    args = parser.parse_args()
    made = figures(sweep=args.sweep, rows=[])
    names = ("batch", "processes", "answers", "answers/s", "against the first", "starting, s", "answering, s")
    print("| " + " | ".join([*names, "ending, s", "other answers"]) + " |")
    print("|" + " ---: |" * 9, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for batch_size in args.batch_size:
            arguments = [*args.sweep, "--batch-size", str(batch_size)]
            own: list[dict[str, Any]] = []
            first: dict[str, str] = {}
            for number in args.processes:
                output = Path(folder) / f"{batch_size}-{number}"
                own.append({"batch_size": batch_size, **compare(number, first, arguments, output)})
                first = first or read_answers(output)
                made["rows"].append(own[-1])
                print(line(own[-1], own[0]), flush=True)
                keep(made, args.output)
    finish(made, args.output)


def line(row: dict[str, Any], first: dict[str, Any]) -> str:
    """Return one line of the table."""
    return (
        f"| {row['batch_size']} | {row['processes']} | {row['answers']} | {row['answers_per_s']:.1f} | "
        f"{row['answers_per_s'] / first['answers_per_s']:.2f} | {row['starting_s']:.1f} | "
        f"{row['answering_s']:.1f} | {row['ending_s']:.1f} | {row['differing']} |"
    )


if __name__ == "__main__":
    main()
