"""The timing pass: who runs when, on what, and what a failure costs."""

from types import SimpleNamespace

import pytest

from adallava.budget import TokenBudget
from adallava.records.cells import plan_cells
from adallava.runs import timing
from adallava.runs.batches import PreparedBatch
from adallava.runs.observer import SweepObserver
from adallava.runs.timing import Measurement, sum_up, time_batch, time_cells, time_size, timing_batch

PLANS = plan_cells(["a", "b"], [TokenBudget(ratio=0.5)])
CELLS = ["full@1.0", "a@0.5", "b@0.5"]
SAMPLES = [SimpleNamespace(id=name) for name in ("s0", "broken", "s2", "s3")]


def prepare(samples):
    readable = tuple(sample for sample in samples if sample.id != "broken")
    return PreparedBatch(readable, tuple((s, "no picture") for s in samples if s.id == "broken"), {})


def timing_with(answerers):
    return lambda size: time_size(answerers, PLANS, size, SAMPLES, prepare)


@pytest.fixture
def ran(monkeypatch):
    """Cells in the order in which they were measured; each pass takes as many ms as there were passes before it."""
    order = []

    def measure(answerer, plan, batch):
        order.append(plan.cell)
        if answerer == "fails" and len(batch.samples) > 1:
            raise RuntimeError("out of memory")
        return Measurement({"vision": float(len(order)), "prefill": 1.0, "decode": 16.0}, 100 + len(order))

    monkeypatch.setattr(timing, "measure", measure)
    return order


class Notes(SweepObserver):
    def __init__(self):
        self.lines = []

    def note(self, message):
        self.lines.append(message)


def test_cells_take_turns_and_the_first_rounds_are_not_recorded(ran):
    records = time_batch({"full": "", "a": "", "b": ""}, PLANS, prepare(SAMPLES[:1]))
    rounds = timing.WARM_UPS + timing.REPEATS
    assert ran == CELLS * rounds
    assert [record.timing.repeats for record in records] == [timing.REPEATS] * 3
    # The full model's passes are numbers 1, 4, 7, …; without the first two rounds 7, 10, …, 34. Their median is 20.5.
    assert records[0].timing.part_ms["vision"].median == 20.5
    assert records[0].timing.peak_memory_bytes == 134


def test_parts_are_summed_within_a_repeat_and_decoding_is_per_step():
    measured = [Measurement({"vision": v, "prefill": p, "decode": 16.0}, 1) for v, p in ((1, 9), (2, 2), (9, 1))]
    parts = sum_up(4, measured).part_ms
    # Sums 10, 4 and 10: their median is 10, that of the parts 2 + 2.
    assert parts["time_to_first_token"].median == 10.0
    assert parts["total"].median == 26.0
    assert parts["decode_per_token"].median == 2.0, "nine tokens take eight steps"
    # numpy's linear percentiles of 1, 2, 9: 1 + 0.2 and 2 + 0.8 * 7.
    assert (parts["vision"].low, parts["vision"].high) == (pytest.approx(1.2), pytest.approx(7.6))


def test_a_batch_is_of_the_first_readable_samples_repeated_if_they_are_too_few():
    assert [s.id for s in timing_batch(SAMPLES, 1, prepare).samples] == ["s0"]
    assert [s.id for s in timing_batch(SAMPLES, 8, prepare).samples] == ["s0", "s2", "s3", "s0", "s2", "s3", "s0", "s2"]
    assert timing_batch(SAMPLES[1:2], 4, prepare) is None


def test_a_cell_that_does_not_fit_is_left_out_with_its_reason_and_the_others_are_timed(ran, tmp_path):
    notes = Notes()
    answerers = {"full": "", "a": "fails", "b": ""}
    records = time_cells(tmp_path, PLANS, [1, 2], timing_with(answerers), notes)
    by_key = {(record.cell, record.batch_size): record for record in records}
    assert by_key["a@0.5", 1].timing is not None
    assert by_key["a@0.5", 2].timing is None
    assert by_key["a@0.5", 2].error == "RuntimeError: out of memory"
    assert by_key["b@0.5", 2].timing is not None
    assert notes.lines == ["a@0.5 is not timed at batch size 2: RuntimeError: out of memory"]
    assert ran.count("a@0.5") == timing.WARM_UPS + timing.REPEATS + 1


def test_a_batch_size_that_lacks_a_cell_is_timed_again_as_a_whole(ran, tmp_path):
    answerers = {"full": "", "a": "", "b": ""}
    whole = time_cells(tmp_path, PLANS, [1, 2], timing_with(answerers), Notes())
    path = tmp_path / "timings.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]) + lines[-1][:30])
    ran.clear()
    again = time_cells(tmp_path, PLANS, [1, 2], timing_with(answerers), Notes())
    assert ran == CELLS * (timing.WARM_UPS + timing.REPEATS)
    assert again[:3] == whole[:3]
    assert [(record.cell, record.batch_size) for record in again] == [(c, size) for size in (1, 2) for c in CELLS]
