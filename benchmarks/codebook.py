"""What it costs to hold the scheduler `layers` to a codebook of plans: `python benchmarks/codebook.py`.

Scenes of the test split are answered at each latency with any plan and with books of 1, 4 and 8: accuracy, the
difference to any plan sample by sample, and how many layers a batch runs, in the task's order and sorted by plan.

Prints a table, then JSON as the last line.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measured import figures, finish

from adallava import AdaLlava
from adallava.analysis.statistics import mean_interval, paired_difference
from adallava.runs.batches import prepare_batch
from adallava.tasks import load_task

Plan = tuple[bool, ...]


def answer(model: AdaLlava, args: argparse.Namespace, latency: float) -> tuple[list[float], list[Plan]]:
    """Return the score of each sample, and which layers ran for it."""
    task = load_task("scenes", limit=args.limit)
    score, scores, plans = task.scorer(), [], []
    for first in range(0, len(task.samples), args.at_once):
        batch = prepare_batch(model.processor, task.samples[first : first + args.at_once])
        inputs = {name: tensor.to(model.device) for name, tensor in batch.inputs.items()}
        output = model.generate(**inputs, token_budget=args.token_budget, latency=latency, max_new_tokens=4)
        scores += [float(score(one, text) or 0.0) for one, text in zip(batch.samples, output.text, strict=True)]
        plans += [tuple(bool(groups) for groups in ran.groups_run) for ran in output.records]
    return scores, plans


def layers_run(plans: Sequence[Plan], batch_size: int) -> float:
    """Return how many layers a batch runs: those that any of its samples runs, the mean over the batches."""
    batches = [plans[first : first + batch_size] for first in range(0, len(plans), batch_size)]
    return float(np.mean([sum(map(any, zip(*batch, strict=True))) for batch in batches]))


def measure(models: dict[int | None, AdaLlava], args: argparse.Namespace, latency: float) -> list[dict[str, Any]]:
    """Return a row a codebook."""
    answered = {size: answer(model, args, latency) for size, model in models.items()}
    free = answered[None][0]
    rows = []
    for size, (scores, plans) in answered.items():
        row = {
            "latency": latency,
            "codebook": size,
            "accuracy": mean_interval(scores).model_dump(),
            "against_any_plan": paired_difference(scores, free).model_dump(),
            "plans": len(set(plans)),
            "layers_of_a_sample": float(np.mean([sum(plan) for plan in plans])),
            "layers_of_a_batch": layers_run(plans, args.batch_size),
            "layers_of_a_batch_sorted": layers_run(sorted(plans), args.batch_size),
        }
        rows.append(row)
        print(*(f"{name} {value}" for name, value in row.items() if not isinstance(value, dict)), scores.count(1.0))
    return rows


def main() -> None:
    """Answer with every codebook at every latency."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--method", default="question")
    parser.add_argument("--token-budget", type=int, default=64)
    parser.add_argument("--latency", type=float, nargs="+", default=[0.875, 0.75, 0.625, 0.5])
    parser.add_argument("--codebook", type=int, nargs="+", default=[8, 4, 1])
    parser.add_argument("--limit", type=int, default=350)
    parser.add_argument("--batch-size", type=int, default=8, help="of the batches whose layers are counted")
    parser.add_argument("--at-once", type=int, default=50, help="samples that are answered together")
    parser.add_argument("--device")
    parser.add_argument("--output", type=Path, help="file for the figures")
    args = parser.parse_args()
    torch.manual_seed(0)
    base = AdaLlava.from_pretrained(args.model, method=args.method, device=args.device)
    models = {
        size: base.with_scheduler("layers", **({} if size is None else {"codebook": size}))
        for size in (None, *args.codebook)
    }
    rows = [row for latency in args.latency for row in measure(models, args, latency)]
    made = figures(samples=args.limit, batch_size=args.batch_size, token_budget=args.token_budget, rows=rows)
    finish(made, args.output)


if __name__ == "__main__":
    main()
