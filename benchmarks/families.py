"""Trains a small model of each of two further families on the scenes, then a controller on it, and sweeps both.

    python benchmarks/families.py --output out            # on one GPU, both families at once, within 9 minutes
    python benchmarks/families.py --output out --seconds 900 --only tiny-qwen2.5-vl
    python benchmarks/families.py --output out --steps 2 --batch-size 2 --limit 7 --device cpu    # that it runs

Per family: stages `align`, `base` and `question` by the bundled recipes of its name, then a sweep. Each stage is timed
for some steps first, and takes as many as its share of the time allows, at most the recipe's. What was trained, every
curve and every sweep's results lie in the output folder as soon as they are made; `families.json` holds both families.
"""

import argparse
import gzip
import itertools
import json
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from measured import figures, keep

from adallava.cli.main import main as adallava
from adallava.records import Results, Run
from adallava.training.recipe import Recipe, load_recipe, with_steps
from adallava.training.stages import train_stage

FAMILIES = ("tiny-qwen2.5-vl", "tiny-siglip-qwen2")
SHARES = {"align": 0.15, "base": 0.43, "question": 0.20}
"""Of the time, for each stage; what is left is the sweep's."""
TIMED_STEPS = 30
SWEEP_SHARE_FIRST = 70
"""Samples that the sweep answers first, to tell how many there is time for."""
MOST_SAMPLES = 1400
METHODS = ("question", "uniform", "random", "pool", "none")
BUDGETS = ("64", "32", "16", "8")
RESERVE_S = 12.0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=520.0, help="for everything, from the start of the script")
    parser.add_argument("--only", choices=FAMILIES, help="one family, in this process")
    parser.add_argument("--steps", type=int, help="of each stage, instead of what the time allows")
    parser.add_argument("--batch-size", type=int, help="of each stage, instead of the recipe's")
    parser.add_argument("--limit", type=int, help="samples of the sweep, instead of what the time allows")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--began", type=float, default=time.time(), help=argparse.SUPPRESS)
    return parser.parse_args()


def run_family(name: str, args: argparse.Namespace) -> None:
    """Train and sweep one family; `args.output/NAME` has what there is, whenever it ends."""
    output, device = args.output / name, torch.device(args.device)
    output.mkdir(parents=True, exist_ok=True)
    made: dict[str, Any] = {"family": name, "stages": {}}
    with tempfile.TemporaryDirectory(prefix="families-") as scratch:
        start: str | None = None
        for stage, share in SHARES.items():
            folder = Path(scratch) / stage
            recipe = chosen(
                load_recipe(f"{name}/{stage}"), args, share, start, Path(scratch) / f"{stage}-timed", device
            )
            began = time.time()
            trained = train_stage(recipe, folder, start_from=start, device=device)
            curve = json.loads((folder / "curve.json").read_text())
            made["stages"][stage] = {
                "seconds": round(time.time() - began, 1),
                "recipe": recipe.model_dump(mode="json", exclude_defaults=True),
                "last": ends_of(curve["log"]),
            }
            keep(curve, output / f"curve-{stage}.json")
            keep(made, output / "family.json")
            if stage == "question":
                shutil.copytree(trained, Path(start or "") / "adapters" / "question")
            else:
                start = str(trained)
            if stage != "align":
                shutil.copytree(start or "", output / "model", dirs_exist_ok=True)
        assert start is not None
        sweep(Path(start), output, made, args)


def chosen(
    recipe: Recipe, args: argparse.Namespace, share: float, start: str | None, scratch: Path, device: torch.device
) -> Recipe:
    """Return the recipe with as many steps as its share of the time allows, seen on a few."""
    assert recipe.optimisation is not None
    if args.batch_size is not None:
        smaller = recipe.optimisation.model_copy(update={"batch_size": args.batch_size})
        recipe = recipe.model_copy(update={"optimisation": smaller})
    if args.steps is not None:
        return with_steps(recipe, args.steps)
    assert recipe.optimisation is not None
    began = time.time()
    train_stage(with_steps(recipe, TIMED_STEPS), scratch, start_from=start, device=device)
    log = [line["seconds"] for line in json.loads((scratch / "curve.json").read_text())["log"] if "loss" in line]
    gaps = [after - before for before, after in itertools.pairwise(log)]
    # What is left of the share, less the beginning of the stage itself.
    left = share * args.seconds - 2 * (time.time() - began) + sum(gaps)
    # The median, since a short run saves often; steps differ, and a tenth is left for the slow ones.
    steps = int(left / max(1e-3, 1.1 * statistics.median(gaps[len(gaps) // 3 :])))
    shutil.rmtree(scratch)
    return with_steps(recipe, max(TIMED_STEPS, min(recipe.optimisation.steps, steps)))


def ends_of(log: list[dict[str, float]]) -> dict[str, float]:
    """Return the mean of each part of the loss over the last fifth of a stage's log."""
    last = [line for line in log if "loss" in line][-max(1, len(log) // 5) :]
    names = sorted({name for line in last for name in line} - {"epoch", "step", "learning_rate", "seconds"})
    return {name: round(statistics.fmean(line[name] for line in last if name in line), 4) for name in names}


def sweep(model: Path, output: Path, made: dict[str, Any], args: argparse.Namespace) -> None:
    """Sweep a few samples, then as many as there is time for; add to the figures what was found."""
    run = model.parent.parent / "run"
    limits = [SWEEP_SHARE_FIRST] if args.limit is None else [args.limit]
    began = time.time()
    for limit in limits:
        # An exit code of alarms, as of an untrained model's empty answers, has results, too.
        adallava(sweep_command(str(model), str(run), limit, args.device))
        if not (run / "results.json").is_file():
            keep(made | {"error": "the sweep failed"}, output / "family.json")
            return
        keep(made | published(run, args.device), output / "family.json")
        each = (time.time() - began) / limit
        left = args.began + args.seconds - RESERVE_S - time.time()
        more = min(MOST_SAMPLES, limit + int(left / each) // 70 * 70)
        if args.limit is None and len(limits) == 1 and more > limit:
            limits.append(more)
    with (run / "samples.jsonl").open("rb") as samples, gzip.open(output / "samples.jsonl.gz", "wb") as packed:
        shutil.copyfileobj(samples, packed)


def sweep_command(model: str, run: str, limit: int, device: str) -> list[str]:
    """Return the words of a sweep's command."""
    command = ["sweep", "--model", model, "--output", run, "--limit", str(limit), "--no-report"]
    command += ["--method", *METHODS, "--token-budget", *BUDGETS, "--max-new-tokens", "8", "--draws", "2"]
    return [*command, "--batch-size", "70", "--engine", "stock", "--device", device]


def published(run_folder: Path, device: str) -> dict[str, Any]:
    """Return what a sweep found: of each cell count, mean and interval, and the comparisons with `question`."""
    run = Run.model_validate_json((run_folder / "run.json").read_text())
    results = Results.model_validate_json((run_folder / "results.json").read_text()).model_dump()
    names = ("cell", "method", "budget_asked", "draws", "num_samples", "num_failed", "accuracy", "accuracy_by_kind")
    words = sweep_command("MODEL", "RUN", results["cells"][0]["num_samples"], device)
    of_question = [one for one in results["comparisons"] if "question@" in one["cell_a"] + one["cell_b"]]
    return {
        "sweep_command": shlex.join(["adallava", *words]),
        "weights_sha256": run.provenance.weights_sha256,
        "adapter_sha256": run.provenance.adapter_sha256,
        "cells": [{name: cell[name] for name in names} for cell in results["cells"]],
        "comparisons": of_question,
    }


def run_all(args: argparse.Namespace) -> None:
    """Run each family in a process of its own, at once; write `families.json` of what they leave."""
    args.output.mkdir(parents=True, exist_ok=True)
    logs = {name: (args.output / f"{name}.log").open("w") for name in FAMILIES}
    options = [sys.argv[0], *sys.argv[1:], "--began", str(args.began)]
    running = {
        name: subprocess.Popen([sys.executable, *options, "--only", name], stdout=log, stderr=log)
        for name, log in logs.items()
    }
    for name, process in running.items():
        try:
            process.wait(timeout=max(1.0, args.began + args.seconds + 20 - time.time()))
        except subprocess.TimeoutExpired:
            process.kill()
        print(f"{name}: ended with {process.poll()} after {time.time() - args.began:.0f} s", flush=True)
    found = [args.output / name / "family.json" for name in FAMILIES]
    rows = [json.loads(path.read_text()) for path in found if path.is_file()]
    rows = [row if "cells" in row else row | {"error": "ended before its sweep"} for row in rows]
    keep(figures(seconds=args.seconds, families=rows), args.output / "families.json")
    for row in rows:
        for cell in row.get("cells", []):
            mean, low, high = (cell["accuracy"][name] for name in ("mean", "low", "high"))
            print(row["family"], cell["cell"], f"{mean:.3f} [{low:.3f}, {high:.3f}]")


if __name__ == "__main__":
    given = arguments()
    if given.only is None:
        run_all(given)
    else:
        run_family(given.only, given)
