"""The doctor on runs with several draws and both kinds of positions: healthy ones pass, planted failures are found."""

from functools import cache

import pytest
from doctor_plants import N, change, every_third, found, healthy_records, outcome_of, sum_up_cells, write_run
from run_records import changed

from adallava.budget import TokenBudget
from adallava.doctor import diagnose_run, load_answers
from adallava.records.cells import plan_cells

BUDGETS = ("1.0", "0.5", "4")


def healthy():
    return list(_healthy())


@cache
def _healthy():
    """`random` in three draws and `uniform` with both positions, of the plain run's records."""
    plain = [r for r in healthy_records() if r.cell == "full@1.0" or r.ran.budget_asked in BUDGETS]
    records = [r for r in plain if r.ran.method in ("full", "uniform", "random")]
    for draw in (1, 2):
        for record in plain:
            if record.ran.method == "random":
                records.append(changed(record, draw=draw, **drawn_again(record, plain, draw)))
    records += [changed(r, cell=f"{r.cell}+compact", positions="compact") for r in plain if r.ran.method != "full"]
    return tuple(r for r in records if r.ran.method in ("full", "uniform") or r.ran.positions == "original")


def drawn_again(record, plain, draw):
    """Another sample's patches: as good as a draw of one's own."""
    if record.ran.tokens_kept == N:
        return {}
    same_cell = [other for other in plain if other.cell == record.cell]
    place = (same_cell.index(record) + 7 * draw) % len(same_cell)
    return {"kept_indices": same_cell[place].ran.kept_indices}


def results_of(records):
    budgets = [TokenBudget.parse(budget) for budget in BUDGETS]
    random = plan_cells(["random"], budgets, drawing={"random"}, draws=3)
    uniform = plan_cells(["uniform"], budgets, positions=["original", "compact"])
    ids = sorted({record.sample_id for record in records})
    return sum_up_cells([*random, *uniform[1:]], ids, records)


def diagnose(folder, records, results=None, **config):
    write_run(folder, records, results or results_of(records), **{"methods": ["random", "uniform"], **config})
    return diagnose_run(folder)


def test_a_healthy_run_is_healthy(tmp_path):
    diagnosis = diagnose(tmp_path, healthy())
    assert found(diagnosis) == []
    assert "each sample once in each draw" in outcome_of(diagnosis, "samples-incomplete").evidence[0]


@pytest.mark.parametrize("draw", [0, 1, 2])
def test_answers_that_one_draw_lacks_are_missed(tmp_path, draw):
    results = results_of(healthy())
    cut = [r for r in healthy() if not (r.cell == "random@0.5" and r.draw == draw and every_third(r))]
    diagnosis = diagnose(tmp_path, cut, results)
    assert "samples-incomplete" in found(diagnosis)
    assert (
        "random@0.5 lacks 10 of 90 (11.1 %) answers in 3 draws" in outcome_of(diagnosis, "samples-incomplete").evidence
    )


def test_a_draw_that_is_not_there_is_missed(tmp_path):
    results = results_of(healthy())
    diagnosis = diagnose(tmp_path, [r for r in healthy() if r.draw < 2], results)
    assert "random@0.5 has 2 draws, and results.json says 3" in outcome_of(diagnosis, "samples-incomplete").evidence


def test_one_draw_twice_is_doubled(tmp_path):
    results = results_of(healthy())
    records = healthy() + [r for r in healthy() if r.cell == "random@4" and r.draw == 1]
    diagnosis = diagnose(tmp_path, records, results)
    assert (
        "random@4 holds 30 samples more than once, with the same answer"
        in outcome_of(diagnosis, "samples-incomplete").evidence
    )


def test_draws_that_do_not_differ_are_one_draw(tmp_path):
    records = healthy()
    first = {(r.cell, r.sample_id): r for r in records if r.draw == 0}
    records = change(
        records, lambda r: r.draw > 0, lambda r: {"kept_indices": first[r.cell, r.sample_id].ran.kept_indices}
    )
    diagnosis = diagnose(tmp_path, records)
    assert found(diagnosis) == ["selection-ignores-input"]
    assert outcome_of(diagnosis, "selection-ignores-input").severity == "harness-bug"


def test_draws_in_the_order_of_several_processes_are_the_same_run(tmp_path):
    """Rank after rank stands in the file, and a later draw of a sample may be an earlier rank's."""
    mixed = sorted(healthy(), key=lambda r: -r.draw)
    diagnosis = diagnose(tmp_path, mixed)
    assert found(diagnosis) == []
    (cell,) = (cell for cell in load_answers(tmp_path).cells if cell.label == "random@4")
    assert [answer.draw for answer in cell.answers][:2] == [2, 2]
    assert {answer.draw for answer in cell.by_sample.values()} == {0}


def test_an_answer_with_other_positions_than_its_cells_is_found(tmp_path):
    records = change(healthy(), lambda r: r.cell == "uniform@0.5+compact", lambda r: {"positions": "original"})
    diagnosis = diagnose(tmp_path, records)
    assert found(diagnosis) == ["budget-not-applied"]
    (line,) = outcome_of(diagnosis, "budget-not-applied").evidence
    assert "ran with original positions instead of compact ones" in line


def test_positions_that_were_asked_for_and_have_no_cell_are_missed(tmp_path):
    records = [r for r in healthy() if r.ran.positions == "original"]
    plans = plan_cells(["random", "uniform"], [TokenBudget.parse(b) for b in BUDGETS], drawing={"random"}, draws=3)
    results = sum_up_cells(plans, sorted({r.sample_id for r in records}), records)
    diagnosis = diagnose(tmp_path, records, results, positions=["original", "compact"])
    assert outcome_of(diagnosis, "samples-incomplete").evidence == (
        "method random has no cell with compact positions",
        "method uniform has no cell with compact positions",
    )


def test_equal_work_at_other_positions_may_answer_otherwise(tmp_path):
    otherwise = {"response": "other", "score": 0.0}
    records = change(healthy(), lambda r: r.cell == "uniform@4+compact" and every_third(r), lambda r: otherwise)
    assert found(diagnose(tmp_path, records)) == []


def test_a_summary_that_averages_answers_instead_of_samples_does_not_follow(tmp_path):
    results = results_of(healthy())
    records = change(healthy(), lambda r: r.cell == "random@4" and r.draw == 2, lambda r: {"score": 1.0})
    assert "summary-mismatch" in found(diagnose(tmp_path, records, results))
