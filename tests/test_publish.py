"""What `benchmarks/publish.py` writes down of a run: everything that its results hold."""

import json
import subprocess
import sys
from pathlib import Path

from dial_records import write_dial_run
from run_records import reader, run, sample_record

from adallava.analysis.summary import summarise
from adallava.budget import TokenBudget
from adallava.records import Results, Spread, Timing, TimingRecord
from adallava.records.cells import plan_cells

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "publish.py"


def test_every_part_of_the_results_is_published(tmp_path):
    plans = plan_cells(["pool", "none"], [TokenBudget(count=4), TokenBudget(count=8)], {"none"})
    ids = [f"s{number}" for number in range(6)]
    records = [
        sample_record(plan.cell, sample_id, score=1.0, tokens_kept=plan.budget.count or 16 if plan.budget else 0)
        for plan in plans
        for sample_id in ids
    ]
    spread = Spread(median=2.0, low=1.0, high=3.0)
    timing = Timing(batch_size=8, repeats=10, part_ms={"time_to_first_token": spread}, peak_memory_bytes=1)
    timings = [TimingRecord(cell=plan.cell, batch_size=8, timing=timing) for plan in plans]
    results = summarise(plans, ids, reader(records), seed=0, timings=timings)
    (tmp_path / "run.json").write_text(run().model_dump_json())
    (tmp_path / "results.json").write_text(results.model_dump_json())
    target = tmp_path / "published.json"
    subprocess.run([sys.executable, str(SCRIPT), str(tmp_path), str(target)], check=True, capture_output=True)
    published = json.loads(target.read_text())
    parts = {name: value for name, value in published.items() if name in Results.model_fields}
    assert Results.model_validate(parts) == results
    assert all(parts[name] for name in ("cells", "comparisons", "areas", "hard_split"))
    assert published["cells"][0]["timings"][0]["batch_size"] == 8


def test_both_dials_are_published(tmp_path):
    folder = write_dial_run(tmp_path)
    target = tmp_path / "budget.json"
    subprocess.run([sys.executable, str(SCRIPT), str(folder), str(target)], check=True, capture_output=True)
    published = json.loads(target.read_text())
    assert {front["alone"] for front in published["dials"]["fronts"]} == {"tokens", "layers"}
    assert published["dials"]["plans"]
    assert published["dials"]["fixed_shares"]
