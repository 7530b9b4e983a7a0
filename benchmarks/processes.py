"""Answers a second of a sweep by several processes of this host, against one:

    python benchmarks/processes.py --processes 1 2 4 -- --model FOLDER --task questions.jsonl --limit 200 --batch-size 1

What stands behind `--` goes to `adallava sweep`. Each number of processes runs the same sweep into a folder of its own.
Answering is clocked from the moment when the processes may begin to the last answer; loading, summing up and the report
are in the wall time alone. The answers are compared with those of the first run: they should not depend on the number.

Prints a table, then JSON as the last line.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BEGUN = ".begun"
PERIOD_S = 0.002


def command(num_processes: int, arguments: list[str], output: Path) -> list[str]:
    """Return the sweep's command line; without a report, which is no part of what is compared."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(num_processes)]
    sweep = ["-m", "adallava", "sweep", *arguments, "--no-report", "--output", str(output)]
    return [sys.executable, *(launcher if num_processes > 1 else []), *sweep]


def measure(num_processes: int, arguments: list[str], output: Path) -> dict[str, float]:
    """Run the sweep; return seconds from start to end, and those in which it answered."""
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
    return {"wall_s": time.perf_counter() - start, "answering_s": ended - begun}


def read_answers(output: Path) -> dict[str, str]:
    """Return the responses by cell, sample and draw."""
    records = map(json.loads, (output / "samples.jsonl").read_text().splitlines())
    return {f"{record['cell']} {record['sample_id']} {record['draw']}": record["response"] for record in records}


def main() -> None:
    """Run the sweep by each number of processes, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("sweep", nargs="*", help="arguments of `adallava sweep`, behind --")
    args = parser.parse_args()
    rows, first = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for number in args.processes:
            output = Path(folder) / str(number)
            seconds = measure(number, args.sweep, output)
            answers = read_answers(output)
            first = first or answers
            differing = sum(first.get(key) != response for key, response in answers.items())
            differing += len(first.keys() - answers.keys())
            rate = len(answers) / seconds["answering_s"]
            rows.append({"processes": number, "answers": len(answers), "differing": differing, **seconds, "rate": rate})
        hardware = json.loads((Path(folder) / str(args.processes[0]) / "run.json").read_text())["provenance"][
            "hardware"
        ]
    print("| processes | answers | answers/s | against the first | answering, s | wall, s | other answers |")
    print("|" + " ---: |" * 7)
    for row in rows:
        print(
            f"| {row['processes']} | {row['answers']} | {row['rate']:.1f} | {row['rate'] / rows[0]['rate']:.2f} | "
            f"{row['answering_s']:.1f} | {row['wall_s']:.1f} | {row['differing']} |"
        )
    print(json.dumps({"sweep": args.sweep, "hardware": hardware, "rows": rows}))


if __name__ == "__main__":
    main()
