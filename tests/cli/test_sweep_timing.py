"""Timing every cell after the answers."""

import json

import pytest
from sweep_inputs import sweep

from adallava.records import PART_NAMES, Results

pytestmark = pytest.mark.long


TIMED = ["--limit", "3", "--method", "uniform", "--token-budget", "4", "--no-report", "--timing-batch-sizes"]


@pytest.fixture(scope="module")
def timed(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "timed"
    assert sweep(model, folder, *TIMED, "1,4") in (0, 1)
    return folder


@pytest.mark.long
def test_every_cell_is_timed_at_every_batch_size_also_above_the_number_of_samples(timed):
    results = Results.model_validate_json((timed / "results.json").read_text())
    for cell in results.cells:
        assert [timing.batch_size for timing in cell.timings] == [1, 4]
        for timing in cell.timings:
            assert timing.repeats == 10
            assert set(timing.part_ms) == {*PART_NAMES, "time_to_first_token", "total", "decode_per_token"}
            assert all(spread.low <= spread.median <= spread.high for spread in timing.part_ms.values())
            assert timing.part_ms["decode_per_token"].median > 0.0
            assert timing.peak_memory_bytes > 0


def test_what_was_timed_is_not_timed_again(timed, model, monkeypatch):
    from adallava.model import AdaLlava

    def forbidden(*_, **__):
        raise AssertionError("nothing is left to run")

    before = (timed / "timings.jsonl").read_bytes()
    monkeypatch.setattr(AdaLlava, "generate", forbidden)
    assert sweep(model, timed, *TIMED, "4", "1") in (0, 1)
    assert (timed / "timings.jsonl").read_bytes() == before


def test_a_finished_run_is_timed_later_and_keeps_its_answers(model, tmp_path):
    untimed = [argument for argument in TIMED if argument != "--timing-batch-sizes"]
    assert sweep(model, tmp_path, *untimed) in (0, 1)
    answers = (tmp_path / "samples.jsonl").read_bytes()
    for asked, timed_at in ((["1"], [1]), (["2"], [1, 2])):
        assert sweep(model, tmp_path, *TIMED, *asked) in (0, 1)
        assert (tmp_path / "samples.jsonl").read_bytes() == answers
        cells = Results.model_validate_json((tmp_path / "results.json").read_text()).cells
        assert [[timing.batch_size for timing in cell.timings] for cell in cells] == [timed_at] * len(cells)
        config = json.loads((tmp_path / "run.json").read_text())["config"]
        assert config["timing_batch_sizes"] == timed_at
