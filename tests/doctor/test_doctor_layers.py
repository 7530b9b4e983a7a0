"""The doctor on runs that leave layers out: kept patches and layers are checked there too."""

from functools import cache

import pytest
from doctor_plants import change, every_third, healthy_records, number_of, write_run
from run_records import changed

from adallava.doctor.checks.budgets import check_budget_applied, check_selection_reads_input
from adallava.doctor.checks.completeness import check_samples_complete
from adallava.doctor.sources.run_folder import load_run_folder
from adallava.records import Results

NUM_LAYERS = 8


def scheduled(record, scheduler, draw=0):
    """The same answer with two of eight layers left out: `spaced` always the same, `random` by sample and draw."""
    out = (
        {5, 6}
        if scheduler == "spaced"
        else {4 + (number_of(record) + draw) % 4, 4 + (number_of(record) + draw + 1) % 4}
    )
    return changed(
        record,
        cell=f"{record.cell}/{scheduler}@0.75",
        scheduler=scheduler,
        latency_asked="0.75",
        groups_run=[[] if layer in out else [0] for layer in range(NUM_LAYERS)],
        draw=draw,
    )


def healthy():
    return list(_healthy())


@cache
def _healthy():
    plain = [record for record in healthy_records() if record.ran.budget_asked in ("1.0", "16", "4")]
    spaced = [scheduled(record, "spaced") for record in plain]
    # Under a scheduler that draws, `question` keeps the same patches in all three draws, rightly.
    drawn = [scheduled(r, "random", draw) for r in plain if r.ran.method in ("full", "question") for draw in range(3)]
    return (*plain, *spaced, *drawn)


def checked(folder, records, check):
    write_run(folder, records, Results(cells=[]))
    return check(load_run_folder(folder))


@pytest.mark.parametrize("check", [check_budget_applied, check_selection_reads_input])
def test_a_healthy_run_of_both_dials_passes(tmp_path, check):
    assert checked(tmp_path, healthy(), check).status == "passed"


def test_cells_with_layers_left_out_are_judged_too(tmp_path):
    seen = checked(tmp_path, healthy(), check_selection_reads_input)
    # question and random at 16 and 4 tokens, with all layers and spaced ones; question with random ones.
    assert seen.evidence[0].startswith("10 cells of methods that choose per sample")


@pytest.mark.parametrize(
    ("update", "evidence"),
    [
        (lambda r: {"kept_indices": [[0, *r.ran.kept_indices[0][:-1]]]}, "list patches other than 16 different ones"),
        (lambda r: {"tokens_kept": 64, "kept_indices": None}, "asked for K = 16 and kept 64"),
        (lambda r: {"groups_run": [[0]] * NUM_LAYERS}, "asked for latency 0.75 and ran 8 of 8 layers"),
        (lambda r: {"groups_run": [[0]] * 5 + [[]] * 3}, "asked for latency 0.75 and ran 5 of 8 layers"),
    ],
)  # fmt: skip
def test_a_record_that_contradicts_itself_is_found(tmp_path, update, evidence):
    broken = change(healthy(), lambda r: r.cell == "question@16/spaced@0.75" and every_third(r), update)
    seen = checked(tmp_path, broken, check_budget_applied)
    assert (seen.status, seen.severity) == ("found", "harness-bug")
    assert any(line.startswith("question@16/spaced@0.75") and evidence in line for line in seen.evidence)


def test_layers_that_change_the_choice_of_patches_are_found(tmp_path):
    others = {number_of(r): r.ran.kept_indices for r in healthy() if r.cell == "random@16"}
    moved = change(
        healthy(), lambda r: r.cell == "question@16/spaced@0.75", lambda r: {"kept_indices": others[number_of(r)]}
    )
    seen = checked(tmp_path, moved, check_budget_applied)
    assert seen.status == "found"
    (line,) = (line for line in seen.evidence if "in common" in line)
    assert line.startswith("question@16 and question@16/spaced@0.75 have only")
    # With them, two methods have the same choice under one schedule.
    assert any("random@16/spaced@0.75" in line and "same patches" in line for line in seen.evidence)


def test_one_patch_that_changes_places_is_no_finding(tmp_path):
    def nudged(record):
        kept = record.ran.kept_indices[0]
        spare = next(index for index in range(64) if index not in kept)
        return {"kept_indices": [sorted([spare, *kept[1:]])]}

    moved = change(healthy(), lambda r: r.cell == "question@16/spaced@0.75", nudged)
    assert checked(tmp_path, moved, check_budget_applied).status == "passed"


def test_one_choice_for_all_samples_is_found_where_layers_are_left_out(tmp_path):
    stuck = change(
        healthy(), lambda r: r.cell == "question@16/spaced@0.75", lambda r: {"kept_indices": [list(range(16))]}
    )
    seen = checked(tmp_path, stuck, check_selection_reads_input)
    assert seen.status == "found"
    assert seen.evidence == ("question@16/spaced@0.75: all 30 samples kept the same 16 patches",)


def test_groups_of_heads_are_counted_as_parts_of_a_layer(tmp_path):
    # 0.8 of 8 layers in halves: 12.8 of 16 halves, rounded down to 12.
    in_halves = change(
        healthy(),
        lambda r: r.ran.scheduler == "spaced",
        lambda r: {"groups_per_layer": 2, "groups_run": [[0, 1]] * 4 + [[0]] * 4},
    )
    assert checked(tmp_path, in_halves, check_budget_applied).status == "passed"
    one_short = change(
        in_halves, lambda r: r.ran.scheduler == "spaced", lambda r: {"groups_run": [[0, 1]] * 4 + [[0]] * 3 + [[]]}
    )
    assert "ran 5.5 of 8 layers" in " ".join(checked(tmp_path, one_short, check_budget_applied).evidence)


def test_a_method_whose_cells_all_leave_layers_out_has_cells(tmp_path):
    records = [record for record in healthy() if record.ran.method == "full" or record.ran.scheduler == "spaced"]
    seen = checked(tmp_path, records, check_samples_complete)
    # `none` is in the configuration, and really has none here.
    assert [line for line in seen.evidence if "has no cell" in line] == ["method none was asked for and has no cell"]
