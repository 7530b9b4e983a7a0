"""What quantized weights cost in accuracy: the bundled model on its own task, beside full precision.

    python benchmarks/quantization.py --output docs/results/quantization.json           # CPU: int8 and fp8-weights
    python benchmarks/quantization.py --device cuda --dtype bfloat16 --output …         # fp8 products too, on Hopper

Differences are paired, sample by sample. The bytes are those of the LLM's layers.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from measured import figures, finish, keep

from adallava.analysis.clusters import Clusters
from adallava.analysis.statistics import mean_interval, paired_difference
from adallava.families.layer_stack import llm_of
from adallava.families.quantization import stored_bytes
from adallava.records import RunConfig
from adallava.records.read import read_samples
from adallava.runs.loading import load_base
from adallava.runs.request import SweepRequest
from adallava.runs.run_sweep import run_sweep

ON_CPU, ON_CUDA = ("none", "int8", "fp8-weights"), ("none", "int8", "fp8-weights", "fp8")
BUDGETS = ("32",)


def answers(config: RunConfig) -> dict[str, dict[str, Any]]:
    """Return the records of a sweep, by cell and sample."""
    cells: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        with run_sweep(SweepRequest(config, Path(folder) / "run", report=False)):
            pass
        for record in read_samples(Path(folder) / "run"):
            cells.setdefault(record.cell, {})[record.sample_id] = record
    return cells


def layer_bytes(config: RunConfig) -> int:
    return sum(stored_bytes(llm_of(load_base(config).base).layers).values())


def rows_of(name: str, num_bytes: int, cells: dict[str, Any], exact: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a row a cell: accuracy, the difference from full precision, and how many texts are other ones."""
    rows = []
    for cell, records in cells.items():
        ids = sorted(records)
        pictures = {sample: records[sample].picture_sha256 for sample in ids}
        clusters = Clusters.by_picture(ids, pictures)
        scores, before = ([made[cell][sample].score for sample in ids] for made in (cells, exact))
        rows.append(
            {
                "quantization": name,
                "cell": cell,
                "layer_bytes": num_bytes,
                "accuracy": mean_interval(scores, clusters).model_dump(),
                "difference": None
                if name == "none"
                else paired_difference(scores, before, clusters=clusters).model_dump(),
                "other_answers": sum(records[sample].response != exact[cell][sample].response for sample in ids),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--output", type=Path, help="file for the figures")
    args = parser.parse_args()
    made = figures(model="tiny", task="scenes", samples=args.samples, device=args.device, dtype=args.dtype, rows=[])
    exact: dict[str, Any] = {}
    for name in ON_CPU if args.device == "cpu" else ON_CUDA:
        config = RunConfig.asked(
            model="tiny",
            task="scenes",
            methods=("question",),
            token_budgets=BUDGETS,
            limit=args.samples,
            device=args.device,
            dtype=args.dtype,
            quantization=name,
        )
        cells = answers(config)
        exact = exact or cells
        made["rows"] += rows_of(name, layer_bytes(config), cells, exact)
        keep(made, args.output)
    finish(made, args.output)


if __name__ == "__main__":
    main()
