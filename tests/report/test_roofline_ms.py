"""The bound beside the measured milliseconds: on the run's own hardware, or on another that is asked for."""

import pytest
from costs_by_hand import LLAVA_1_5_7B
from run_folders import FakeRun, fake_results, fake_run

from adallava.costs.roofline import HARDWARE, hardware_of_device, weight_counts
from adallava.errors import InputError
from adallava.records import Run, Spread, Timing
from adallava.report.paper_tables import paper_tables
from adallava.report.roofline_ms import cell_roofline_ms, run_roofline
from adallava.report.tables import cell_rows

SPEC = FakeRun(methods=("question", "none"), budgets=("8",), num_samples=20)
WEIGHTS = weight_counts(LLAVA_1_5_7B)


def made_on(
    device: str = "cuda", names: tuple[str, ...] = ("NVIDIA H200",), dtype: str = "bfloat16", weights=WEIGHTS
) -> Run:
    run = fake_run(SPEC)
    return run.model_copy(
        update={
            "config": run.config.model_copy(update={"device": device, "dtype": dtype}),
            "provenance": run.provenance.model_copy(
                update={"hardware": {"cuda_devices": list(names)}, "weight_counts": weights}
            ),
        }
    )


def test_llava_has_the_weights_that_its_checkpoint_has() -> None:
    # CLIP ViT-L/14: 24 layers of 4 * 1024^2 + 2 * 1024 * 4096 and the patches' 3 * 14^2 * 1024.
    assert WEIGHTS["vision"] == 24 * 12 * 1024**2 + 3 * 14**2 * 1024
    assert WEIGHTS["projector"] == 1024 * 4096 + 4096**2
    assert WEIGHTS["layers"] == 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    assert WEIGHTS["output"] == 4096 * 32064


def test_a_first_token_of_llava_on_an_h200_takes_what_its_flops_and_its_weights_take() -> None:
    roofline = run_roofline(made_on(), fake_results(SPEC))
    assert (roofline.name, roofline.dtype, roofline.batch_size) == ("h200-sxm", "bfloat16", 8)
    cell = fake_results(SPEC).cells[0].model_copy(
        update={
            "flops": {"vision": 0.382e12, "projector": 0.024e12, "prefill": 8.586e12, "decode": 1e12, "total": 9e12},
            "kv_bytes": 0.34e9,
        }
    )  # fmt: skip
    # At batch 8 every part is bound by its products: 8.99 TFLOP a sample at 989.4 TFLOP/s.
    assert cell_roofline_ms(cell, roofline) == pytest.approx(1000 * 8.992 / 989.4, rel=1e-6)
    # A tenth of the work, alone: reading 13 GB of weights at 4.8 TB/s is longer.
    short = cell.model_copy(update={"flops": {"prefill": 0.8586e12, "total": 0.8586e12}, "kv_bytes": 0.0})
    alone = run_roofline(made_on(), timed_at(1))
    assert alone.batch_size == 1
    whole = 2 * (WEIGHTS["layers"] + WEIGHTS["output"]) / 4.8e12
    assert cell_roofline_ms(short, alone) == pytest.approx(1000 * whole, rel=1e-6)
    half = short.model_copy(update={"layer_share": 0.5})
    assert cell_roofline_ms(half, alone) == pytest.approx(1000 * (whole - WEIGHTS["layers"] / 4.8e12), rel=1e-6)


def timed_at(batch_size: int):
    results = fake_results(SPEC)
    spread = Spread(median=5.0, low=4.0, high=6.0)
    timing = Timing(
        batch_size=batch_size, repeats=10, part_ms={"time_to_first_token": spread}, peak_memory_bytes=None
    )  # fmt: skip
    return results.model_copy(update={"cells": [c.model_copy(update={"timings": [timing]}) for c in results.cells]})


def test_the_machine_is_that_of_the_run_or_another_by_name() -> None:
    results = fake_results(SPEC)
    assert (
        run_roofline(made_on(names=("NVIDIA L40S", "NVIDIA H100 80GB HBM3"), device="cuda:1"), results).name
        == "h100-sxm"
    )
    assert run_roofline(made_on(), results, "a100-sxm-80gb").name == "a100-sxm-80gb"
    assert run_roofline(made_on(device="cpu"), results) is None
    assert run_roofline(made_on(names=("NVIDIA Something",)), results) is None
    assert run_roofline(made_on(device="cpu", dtype="float32"), results, "h100-sxm").machine.peak(
        "float32"
    ) == pytest.approx(66.9e12)
    # Nothing is guessed for a run of which too little is known; a machine that was asked for says why.
    assert run_roofline(made_on(weights={}), results) is None
    assert run_roofline(made_on(names=("Tesla V100-SXM2-16GB",)), results) is None


@pytest.mark.parametrize(
    ("asked", "run", "message"),
    [
        ("h300", made_on(), "the peak speed of hardware 'h300' is not known: known are h200-sxm"),
        ("v100-sxm2", made_on(), "no ceiling is known for dtype 'bfloat16' on this hardware: it has float16, float32"),
        ("h100-sxm", made_on(weights={}), "needs the sizes of the model's weights"),
    ],
)
def test_what_cannot_be_bounded_says_why(asked: str, run: Run, message: str) -> None:
    with pytest.raises(InputError, match=message):
        run_roofline(run, fake_results(SPEC), asked)


def test_it_stands_beside_the_measured_milliseconds_and_says_what_it_was_computed_for() -> None:
    results = fake_results(SPEC)
    roofline = run_roofline(made_on(), results)
    assert all(row.roofline_ms == "" for row in cell_rows(results))
    shown = [row.roofline_ms for row in cell_rows(results, roofline)]
    assert all(float(text.lstrip("<")) > 0 for text in shown)
    costs = paper_tables(made_on(), results)[-1]
    assert costs.head[-1] == "roofline, ms"
    assert [row[-1].text for row in costs.rows] == shown
    assert "h200-sxm, bfloat16, batch 8" in costs.caption
    assert "roofline, ms" not in paper_tables(made_on(device="cpu"), results)[-1].head


def test_every_machine_has_a_source_and_a_device_name_of_its_own() -> None:
    names = [name for machine in HARDWARE.values() for name in machine.device_names]
    assert len(set(names)) == len(names)
    for name, machine in HARDWARE.items():
        assert machine.source
        assert all(hardware_of_device(device) == name for device in machine.device_names)
        assert machine.peak("float16") > machine.peak("float32")
