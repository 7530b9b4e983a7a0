import weakref

import pytest
from run_records import failed, reader, sample_record

from adallava.analysis.summary import flag_reason, summarise
from adallava.budget import TokenBudget
from adallava.records.cells import plan_cells

PLANS = plan_cells(["random"], [TokenBudget(ratio=0.5)], ())
FULL, HALF = "full@1.0", "random@0.5"


def summed(records, ids):
    return summarise(PLANS, ids, reader(records), seed=0).cells


def test_a_cell_sums_up_its_own_answers():
    ids = ["a", "b", "c", "d"]
    records = [sample_record(FULL, i, score=1.0, kind="count") for i in ids]
    kinds = {"a": "count", "b": "count", "c": "read", "d": "read"}
    scores = {"a": 1.0, "b": 0.0, "c": 0.0, "d": 0.0}
    records += [
        sample_record(
            HALF, i, score=scores[i], kind=kinds[i], tokens_kept=8, flops={"vision": 10 * n, "prefill": 30},
            part_ms={"vision": float(n), "prefill": 2.0, "decode": 10.0}, peak_memory_bytes=100 + n,
        )
        for n, i in enumerate(ids)
    ]  # fmt: skip
    full, half = summed(records, ids)
    assert (full.cell, half.cell) == (FULL, HALF)
    assert full.difference_to_full is None
    assert (half.accuracy.mean, half.accuracy.n) == (0.25, 4)
    assert {kind: (i.mean, i.n) for kind, i in half.accuracy_by_kind.items()} == {
        "count": (0.5, 2),
        "read": (0.0, 2),
    }
    assert half.difference_to_full.mean == -0.75
    assert half.tokens_kept == half.tokens_kept_layer_average == 8.0
    assert half.flops == {"vision": 15.0, "prefill": 30.0, "total": 45.0}
    assert half.part_ms == {
        "vision": 1.5, "prefill": 2.0, "decode": 10.0, "total": 13.5, "time_to_first_token": 3.5,
    }  # fmt: skip
    assert half.peak_memory_bytes == 103
    assert not half.flagged


def test_the_order_of_the_journal_does_not_matter():
    ids = [str(number) for number in range(9)]
    records = [sample_record(cell, i, score=float(int(i) % 2)) for cell in (FULL, HALF) for i in ids]
    assert summed(records, ids) == summed(records[::-1], ids)


def test_a_failed_sample_counts_as_failed_and_not_as_wrong():
    ids = ["a", "b", "c"]
    records = [failed(FULL, "a"), sample_record(FULL, "b"), sample_record(FULL, "c")]
    records += [sample_record(HALF, "a"), failed(HALF, "b", "InputError: no picture"), sample_record(HALF, "c")]
    full, half = summed(records, ids)
    assert (half.num_samples, half.num_failed) == (3, 1)
    assert (half.accuracy.mean, half.accuracy.n) == (1.0, 2)
    assert half.difference_to_full.n == 1, "only c was answered by both"
    assert half.flagged
    assert half.flag_reason == "1 of 3 samples failed, the first with InputError: no picture"
    assert half.empties == {"error": 1}
    assert full.flagged


def test_a_cell_that_failed_altogether_has_no_accuracy():
    full, half = summed([failed(FULL, "a"), failed(HALF, "a")], ["a"])
    for cell in (full, half):
        assert cell.accuracy is None
        assert cell.difference_to_full is None
        assert cell.flagged
        assert cell.flops == {}, "0 would be a figure"
        assert cell.part_ms == {}


@pytest.mark.parametrize(("empty", "flagged"), [(0, False), (1, False), (2, True), (100, True)])
def test_more_than_one_percent_of_empties_flags_the_cell_with_their_cause(empty, flagged):
    records = [sample_record(sample_id=str(number)) for number in range(100 - empty)]
    records += [
        sample_record(sample_id=f"e{number}", response="", score=0.0, empty_cause="first-token-eos")
        for number in range(empty)
    ]
    reason = flag_reason(records)
    assert (reason is not None) == flagged
    if flagged:
        assert reason == f"{empty} of 100 responses are empty: first-token-eos {empty}"
    (cell,) = summarise(PLANS[:1], [record.sample_id for record in records], reader(records), seed=0).cells
    assert cell.empty_share == empty / 100
    assert cell.flagged == flagged


def test_tokens_of_a_method_inside_the_llm_are_counted_at_its_door_and_over_its_layers():
    records = [sample_record(FULL, i, score=1.0) for i in "ab"]
    records += [sample_record(HALF, "a", tokens_kept_by_layer=[16, 16, 8, 4])]
    records += [sample_record(HALF, "b", tokens_kept_by_layer=[16, 8, 4, 4])]
    _, half = summed(records, ["a", "b"])
    assert half.tokens_kept == 16
    assert half.tokens_kept_layer_average == (11 + 8) / 2


def test_answers_of_a_cell_are_read_once_and_dropped_before_those_of_the_one_after_the_next():
    plans = plan_cells(["random"], [TokenBudget(count=count) for count in range(1, 6)], ())
    read: dict[str, list[weakref.ref]] = {}

    def read_cell(cell):
        assert cell not in read
        assert all(record() is None for before in list(read)[:-1] for record in read[before])
        records = [sample_record(cell, i) for i in "abc"]
        read[cell] = [weakref.ref(record) for record in records]
        return records

    assert len(summarise(plans, ["a", "b", "c"], read_cell, seed=0).cells) == len(plans) == len(read)


def test_each_picture_counts_once_with_the_least_that_is_seen():
    ids = ["a", "b", "c", "old"]
    frames = {"a": [(0.375, 0.0, 0.625, 1.0)], "b": [(0.01, 0.0, 0.99, 1.0)], "c": [(0.0, -1.5, 1.0, 2.5)], "old": None}
    records = [sample_record(cell, i, frames=frames[i]) for cell in (FULL, HALF) for i in ids]
    seen = summarise(PLANS, ids, reader(records), seed=0).seen
    assert (seen.num_pictures, seen.num_cut, seen.least_share) == (3, 1, 0.25)


def test_of_an_older_run_nothing_is_known_of_its_pictures():
    records = [sample_record(cell, "a") for cell in (FULL, HALF)]
    assert summarise(PLANS, ["a"], reader(records), seed=0).seen is None
