"""Inputs for the sweep's tests: a tiny model is `tests/models.py`; here is the rest."""

import json
from pathlib import Path
from typing import Any

from PIL import Image

from adallava.cli.main import main
from adallava.records import SampleRecord


def sweep(model: str, output: Path, *options: str) -> int:
    """Run `adallava sweep` over five samples, three new tokens each, and return its exit code."""
    defaults = ["--limit", "5", "--batch-size", "2", "--max-new-tokens", "3"]
    return main(["sweep", "--model", model, "--output", str(output), *defaults, *options])


def samples(folder: Path) -> list[SampleRecord]:
    """Return a run's answers, in file order."""
    return [SampleRecord.model_validate_json(line) for line in (folder / "samples.jsonl").read_text().splitlines()]


def local_questions(folder: Path) -> Path:
    """Write a JSONL task of six rows: four readable pictures of odd forms, a corrupt file, a missing one."""
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGBA", (400, 100), (200, 30, 30, 128)).save(folder / "wide.png")
    Image.new("L", (9, 1), 80).save(folder / "strip.png")
    Image.new("P", (60, 60), 3).save(folder / "palette.gif")
    Image.new("RGB", (31, 57), (1, 2, 3)).save(folder / "good.jpg")
    (folder / "corrupt.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    names = ["wide.png", "corrupt.png", "strip.png", "missing.png", "palette.gif", "good.jpg"]
    rows = [
        {"id": name.split(".")[0], "image": name, "question": "What colour is it?", "answers": ["red", "a"]}
        for name in names
    ]
    file = folder / "questions.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


_MEASURED = (
    "batch_ms", "part_ms", "peak_memory_bytes", "timings", "on_front", "cpu_by_others", "first_token_spread",
)  # fmt: skip


def deterministic_samples(run_folder: Path) -> list[dict[str, Any]]:
    """Return the run's samples without what was measured."""
    lines = (run_folder / "samples.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in _MEASURED} for line in lines]


def deterministic_results(run_folder: Path) -> dict[str, Any]:
    """Return the run's results without what was measured, and what follows from it."""
    results = json.loads((run_folder / "results.json").read_text())
    cells = [{key: value for key, value in cell.items() if key not in _MEASURED} for cell in results["cells"]]
    # The milliseconds decide which curves there are on their axis, and so the number of tests corrected for.
    areas = [area for area in results["areas"] if area["axis"] != "ms"]
    tested = [{**one, "p_adjusted": None, "significant": None, "num_tests": None} for one in results["comparisons"]]
    return {"cells": cells, "areas": areas, "comparisons": tested, "hard_split": results["hard_split"]}


def assert_same_answers(folder: Path, other: Path) -> None:
    """Hold two run folders to the same configuration, answers and results, whoever wrote which answer when."""

    def in_order(run_folder: Path) -> list[dict[str, Any]]:
        return sorted(deterministic_samples(run_folder), key=lambda s: (s["cell"], s["sample_id"], s["draw"]))

    assert in_order(folder) == in_order(other)
    assert deterministic_results(folder) == deterministic_results(other)
    configs = [json.loads((one / "run.json").read_text())["config"] for one in (folder, other)]
    assert configs[0] == configs[1]
