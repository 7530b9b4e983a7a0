"""How busy the machine was: read from the kernel's counters, recorded, and said where times are not to be compared."""

from dataclasses import replace

import pytest
import torch
from dial_records import dial_results

from adallava.measuring import machine_load
from adallava.measuring.machine_load import LoadReading, cpu_by_others, load_between, read_load
from adallava.records import MachineLoad, Results, Timing
from adallava.report.axes import cost_axes
from adallava.report.clock_notes import clock_note, table_clock_note
from adallava.runs.timing import Measurement, sum_up

IDLE = MachineLoad(num_cores=2, load_before=0.9, load_after=1.0, cpu_by_others=0.01)


def test_what_others_used_is_what_was_busy_less_what_this_process_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_load, "num_cores", lambda: 4)
    before = LoadReading(busy_s=100.0, own_s=10.0, clock_s=0.0, load_average=2.0)
    after = LoadReading(busy_s=125.0, own_s=20.0, clock_s=10.0, load_average=6.0)
    # Four cores for ten seconds: 25 busy, 10 of them here.
    assert cpu_by_others(before, after) == pytest.approx(15 / 40)
    assert cpu_by_others(before, replace(after, busy_s=None)) is None
    load = load_between(before, after, torch.device("cpu"))
    assert (load.load_before, load.load_after, load.gpu_bytes_by_others) == (0.5, 1.5, None)


def test_a_real_reading_is_a_share() -> None:
    before = read_load()
    sum(range(200_000))
    share = cpu_by_others(before, read_load())
    assert share is None or 0.0 <= share <= 1.0


def test_drift_is_the_last_third_over_the_first() -> None:
    readings = [Measurement({"prefill": float(ms), "decode": 5.0}, 1) for ms in (10, 10, 99, 11, 12, 12)]
    assert sum_up(1, readings).drift == pytest.approx(12 / 10)
    assert sum_up(1, readings[:2]).drift is None


def timed(machine: MachineLoad | None, drift: float | None = 1.0) -> Results:
    """The made-up run of both dials, whose spreads are what its records say, on such a machine."""
    results = dial_results()

    def calm(timing: Timing) -> Timing:
        parts = {
            part: spread.model_copy(update={"low": 0.95 * spread.median, "high": 1.05 * spread.median})
            for part, spread in timing.part_ms.items()
        }
        return timing.model_copy(update={"machine": machine, "drift": drift, "part_ms": parts})

    cells = [cell.model_copy(update={"timings": list(map(calm, cell.timings))}) for cell in results.cells]
    return results.model_copy(update={"cells": cells})


def test_a_calm_machine_and_older_files_carry_no_note() -> None:
    assert table_clock_note(timed(IDLE).cells) == ""
    assert table_clock_note(timed(None, None).cells) == ""


@pytest.mark.parametrize(
    ("machine", "drift", "words"),
    [
        ({"cpu_by_others": 0.45}, 1.0, "other processes used 45 % of its cores"),
        ({"load_after": 3.2}, 1.0, "3.2 processes for each of 2 cores"),
        ({"gpu_processes_by_others": 2}, 1.0, "2 other processes were on the GPU"),
        ({"gpu_bytes_by_others": 6 * 2**30}, 1.0, "others held 6.0 GiB of the GPU"),
        ({}, 1.3, "cells drifted by more than 10 % over the repeats"),
    ],
)
def test_a_busy_machine_is_said_with_its_figure(machine: dict[str, float], drift: float, words: str) -> None:
    results = timed(IDLE.model_copy(update=machine), drift)
    note = table_clock_note(results.cells)
    assert note.startswith("ms cannot be compared: ")
    assert words in note
    by_key = {axis.key: axis.note for axis in cost_axes(results)}
    assert by_key["timed-1"] == note
    assert by_key["gflops"] == ""


def test_times_that_spread_too_wide_are_said_and_one_odd_cell_is_not() -> None:
    results = timed(IDLE)

    def spread_out(places: set[int]) -> str:
        cells = []
        for place, cell in enumerate(results.cells):
            timings = [
                timing.model_copy(
                    update={
                        "part_ms": {
                            part: spread.model_copy(update={"high": 1.5 * spread.median})
                            for part, spread in timing.part_ms.items()
                        }
                    }
                )
                for timing in cell.timings
            ]
            cells.append(cell.model_copy(update={"timings": timings}) if place in places else cell)
        return clock_note(cells, 1)

    assert spread_out({0}) == ""
    number = len(results.cells)
    assert f"times of {number} of {number} cells spread over more than 20 %" in spread_out(set(range(number)))
