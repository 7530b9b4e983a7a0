"""A small part of the audit of the statistics: intervals hold the truth as often as they say."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from adallava.analysis import statistics

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def audit():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        spec = importlib.util.spec_from_file_location("statistics_audit", BENCHMARKS / "statistics_audit.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(BENCHMARKS))
    return module


def _check_claims(rows, count):
    held = [row for row in rows if row["claimed"] == "0.95"]
    assert len(held) == count
    # Given the choice intervals held .84 to .87 of the gains: of sixty runs here at least .865 must hold.
    assert all(row["found"] >= 0.95 - 3 * (0.05 * 0.95 / row["runs"]) ** 0.5 for row in held)
    unbiased = [row for row in rows if row["claimed"] == "0"]
    assert all(abs(row["found"]) < 4 * row["error"] + 0.02 for row in unbiased)


def test_a_small_part_of_the_audit_of_gains_holds_its_claims(audit, monkeypatch):
    monkeypatch.setattr(statistics, "RESAMPLES", 1000)  # Quicker, and an interval's ends a little less sure.
    _check_claims([*audit.front_gains(np.random.default_rng(3), 60, {"n = 100": audit.ALONE["n = 100"]})], 2)


@pytest.mark.parametrize("runs", [3, pytest.param(10, marks=pytest.mark.long)])
def test_a_small_part_of_the_audit_of_areas_holds_its_claims(audit, runs):
    _check_claims([*audit.areas(np.random.default_rng(4), runs)], 4)


def test_cells_near_one_and_on_shared_pictures_hold_their_claims(audit):
    designs = {name: audit.SHARING[name] for name in audit.SHARING if name.startswith("35") and "0.5" in name}
    rows = [*audit.single_cells(np.random.default_rng(5), 250, {**designs, "n = 20": audit.ALONE["n = 20"]})]
    rows += audit.paired(np.random.default_rng(6), 150, designs)
    for row in rows:
        least = 0.95 - 3 * (0.05 * 0.95 / row["runs"]) ** 0.5
        if "called apart" in row["what"]:
            assert row["found"] <= 1.0 - least, row
        else:
            assert row["found"] >= least, row
