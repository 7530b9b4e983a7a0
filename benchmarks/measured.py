"""How the benchmarks time, and the file of figures they leave: command, date, versions, hardware, rows."""

import argparse
import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from adallava.measuring.provenance import collect_provenance
from adallava.measuring.turns import Turns, spread_of

Parts = Mapping[str, float]
"""Milliseconds, or bytes, by name."""


Cell = Turns[Parts]
"""What repeats of one cell gave, or why there are none."""


def spread(values: list[float]) -> dict[str, float]:
    """Return median, 10th and 90th percentile, as the sweep's files have them."""
    return spread_of(values).model_dump()


def spreads(cell: Cell) -> dict[str, Any]:
    """Return the spread of every part and how many repeats it is of, or the error."""
    if cell.error is not None or not cell.results:
        return {"error": cell.error or "not run"}
    names = cell.results[0]
    return {"repeats": len(cell.results)} | {name: spread([one[name] for one in cell.results]) for name in names}


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
