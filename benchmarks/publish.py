"""Turns a run folder into a page's figures: `python benchmarks/publish.py runs/tiny docs/results/tiny.json`.

The file holds the results (cells, comparisons, areas, hard split, timings) and what they were measured with: command,
versions, hardware, date.
"""

import json
import sys
from pathlib import Path

from adallava.records import Results, Run


def publish(run_folder: Path) -> dict[str, object]:
    """Return a run's results with their provenance."""
    run = Run.model_validate_json((run_folder / "run.json").read_text())
    results = Results.model_validate_json((run_folder / "results.json").read_text())
    provenance = run.provenance
    return {
        "command": provenance.command,
        "date": provenance.started_at[:10],
        "versions": {"adallava": provenance.adallava_version, **provenance.versions},
        "git_commit": provenance.git_commit,
        "git_dirty": provenance.git_dirty,
        "weights_sha256": provenance.weights_sha256,
        "adapter_sha256": provenance.adapter_sha256,
        "hardware": provenance.hardware,
        "config": run.config.model_dump(),
        **results.model_dump(exclude={"schema_version"}),
    }


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:3])
    target.write_text(json.dumps(publish(source), indent=1) + "\n")
    print(f"wrote {target}")
