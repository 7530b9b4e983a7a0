"""The benchmarks run; what they say is not looked at here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from adallava.registry import load_selector_class, scheduler_names, selector_names, selects_inside_llm

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.parametrize(("script", "inside"), [("selection.py", False), ("inside.py", True)])
def test_a_benchmark_times_every_method_of_its_kind_and_ends_in_json(script, inside):
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / script), "--small", "--repeats", "2"],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout.splitlines()[-1])["rows"]
    expected = {name for name in selector_names() if selects_inside_llm(load_selector_class(name)) == inside}
    assert expected <= {row["method"] for row in rows}


def test_layers_are_timed_for_every_scheduler_that_needs_no_plan_and_end_in_json():
    done = subprocess.run(
        [
            sys.executable,
            str(BENCHMARKS / "layers.py"),
            "--small",
            "--repeats",
            "1",
            "--batch",
            "2",
            "--new-tokens",
            "2",
        ],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout.splitlines()[-1])["rows"]
    published = {"adallava-layers", "adallava-heads"}
    assert {row["scheduler"] for row in rows} == {*scheduler_names(), "stock", "cut"} - {"fixed"} - published
