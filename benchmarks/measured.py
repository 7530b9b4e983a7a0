"""How the benchmarks time, and the file of figures they leave: command, date, versions, hardware, rows."""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adallava.runs.provenance import collect_provenance

Parts = Mapping[str, float]
"""Milliseconds, or bytes, by name."""


@dataclass
class Cell:
    """What repeats of one cell gave, or why there are none."""

    parts: list[Parts] = field(default_factory=list)
    error: str | None = None


def in_turns(
    cells: Mapping[str, Callable[[], Parts]], *, warm_ups: int, repeats: int, seconds: float
) -> dict[str, Cell]:
    """Run every cell once a round, so that a machine that drifts favours none.

    Stops after the round in which the seconds are over, but not before one round is recorded. A cell that raises, for
    want of memory for instance, is left out from then on.
    """
    measured = {name: Cell() for name in cells}
    end = time.monotonic() + seconds
    for number in range(warm_ups + repeats):
        for name, run in cells.items():
            cell = measured[name]
            if cell.error is not None:
                continue
            try:
                parts = run()
            except Exception as error:  # the other cells may still run
                cell.error = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
                continue
            if number >= warm_ups:
                cell.parts.append(parts)
        if number >= warm_ups and time.monotonic() > end:
            break
    return measured


def spread(values: list[float]) -> dict[str, float]:
    """Return median, 10th and 90th percentile, as the sweep's files have them."""
    low, median, high = np.percentile(values, (10, 50, 90))
    return {"median": float(median), "low": float(low), "high": float(high)}


def spreads(cell: Cell) -> dict[str, Any]:
    """Return the spread of every part and how many repeats it is of, or the error."""
    if cell.error is not None or not cell.parts:
        return {"error": cell.error or "not run"}
    return {"repeats": len(cell.parts)} | {name: spread([one[name] for one in cell.parts]) for name in cell.parts[0]}


def add_arguments(parser: argparse.ArgumentParser, *, repeats: int) -> None:
    """Add what all timed benchmarks take."""
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), help="default: bfloat16, float32 on a CPU"
    )
    parser.add_argument("--warm-ups", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument("--seconds", type=float, default=3600.0, help="no new round begins after so many")
    parser.add_argument("--output", type=Path, help="file for the figures")


def dtype_of(args: argparse.Namespace) -> torch.dtype:
    """Return the type asked for, or the device's own."""
    on_cpu = torch.device(args.device).type == "cpu"
    name = args.dtype or ("float32" if on_cpu else "bfloat16")
    found: torch.dtype = getattr(torch, name)
    return found


def synchronize(device: str | torch.device) -> None:
    """Wait for the device."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def figures(**measured: Any) -> dict[str, Any]:
    """Return the content of a file of figures: how they were made, then `measured`."""
    ran = collect_provenance(
        weights_sha256="",
        adapter_sha256={},
        scheduler_sha256={},
        weight_counts={},
        task_sha256=None,
        command=_command(),
    )
    return {
        "command": ran.command,
        "date": ran.started_at[:10],
        "versions": {"adallava": ran.adallava_version, **ran.versions},
        "git_commit": ran.git_commit,
        "git_dirty": ran.git_dirty,
        "hardware": ran.hardware,
        **measured,
    }


def keep(made: Mapping[str, Any], output: Path | None) -> None:
    """Write what there is so far, if a file was named: a benchmark that is ended has lost nothing of it."""
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(made, indent=1) + "\n")


def finish(made: Mapping[str, Any], output: Path | None) -> None:
    """Write the file, and print the same as the last line; exit with 1 if a row holds an error."""
    keep(made, output)
    print(json.dumps(made))
    if any("error" in row for row in made.get("rows", [])):
        raise SystemExit(1)


def _command() -> str:
    return shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
