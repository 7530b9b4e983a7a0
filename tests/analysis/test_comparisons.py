"""Draws and pairs of cells: what `summarise` makes of the records of a run."""

import pytest
from run_records import failed, reader, sample_record

from adallava.analysis.comparisons import cell_pairs, count_planned, planned_pairs
from adallava.analysis.summary import summarise
from adallava.budget import TokenBudget
from adallava.records.cells import plan_cells

HALF, EIGHT = TokenBudget(ratio=0.5), TokenBudget(count=8)


def row(cell, scores, **changes):
    """One record a score, the samples being s0, s1, …"""
    method, _, budget = cell.removesuffix("+compact").partition("@")
    positions = "compact" if cell.endswith("+compact") else "original"
    return [
        sample_record(
            cell, f"s{number}", score=score, method=method, budget_asked=budget, positions=positions,
            kind="even" if number % 2 == 0 else "odd", **changes,
        )
        for number, score in enumerate(scores)
    ]  # fmt: skip


def ids(number):
    return [f"s{place}" for place in range(number)]


# ---- draws ----


def drawn():
    records = row("full@1.0", [1.0, 1.0, 1.0, 0.0])
    draws = ([1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 1.0])
    return records + [record for draw, scores in enumerate(draws) for record in row("random@0.5", scores, draw=draw)]


PLANS = plan_cells(["random"], [HALF], drawing={"random"}, draws=3)


def test_a_samples_score_is_its_mean_over_the_draws():
    full, half = summarise(PLANS, ids(4), reader(drawn()), seed=0).cells
    assert (full.draws, half.draws) == (1, 3)
    # Sample means 1, 1/3, 0, 1/3: five of twelve answers are right, from four samples.
    assert half.accuracy.mean == pytest.approx(5 / 12)
    assert (half.num_samples, half.accuracy.n, half.difference_to_full.n) == (4, 4, 4)
    assert half.difference_to_full.mean == pytest.approx(5 / 12 - 3 / 4)
    kinds = {kind: (interval.mean, interval.n) for kind, interval in half.accuracy_by_kind.items()}
    assert kinds == {"even": (pytest.approx(0.5), 2), "odd": (pytest.approx(1 / 3), 2)}


def test_the_bootstrap_resamples_samples_and_not_answers():
    # Three equal draws say no more than one: the interval must not shrink with them.
    scores = [1.0] * 30 + [0.0] * 30
    one = row("full@1.0", scores) + row("random@0.5", scores)
    three = one + [record for draw in (1, 2) for record in row("random@0.5", scores, draw=draw)]
    once = summarise(plan_cells(["random"], [HALF]), ids(60), reader(one), seed=0).cells[1]
    thrice = summarise(PLANS, ids(60), reader(three), seed=0).cells[1]
    assert thrice.accuracy == once.accuracy


def test_a_sample_that_failed_in_one_draw_is_in_no_mean():
    records = [record for record in drawn() if (record.sample_id, record.draw) != ("s0", 2)]
    records.append(failed("random@0.5", "s0").model_copy(update={"draw": 2}))
    half = summarise(PLANS, ids(4), reader(records), seed=0).cells[1]
    assert (half.num_samples, half.num_failed, half.accuracy.n) == (4, 1, 3)
    assert half.accuracy.mean == pytest.approx(2 / 9)
    assert half.flag_reason == "1 of 4 samples failed, the first with InputError: broken"


def test_empties_are_a_share_of_all_answers():
    records = drawn()
    empty = {"response": "", "empty_cause": "first-token-eos", "score": 0.0}
    records[-1] = records[-1].model_copy(update=empty)
    half = summarise(PLANS, ids(4), reader(records), seed=0).cells[1]
    assert half.empties == {"first-token-eos": 1}
    assert half.empty_share == pytest.approx(1 / 12)
    assert half.flagged


def test_tokens_by_layer_are_averaged():
    records = row("full@1.0", [1.0, 0.0]) + row("random@0.5", [1.0, 0.0], tokens_kept_by_layer=[16, 16, 4, 4])
    full, half = summarise(plan_cells(["random"], [HALF]), ids(2), reader(records), seed=0).cells
    assert (full.tokens_kept, full.tokens_kept_layer_average) == (16.0, 16.0)
    assert (half.tokens_kept, half.tokens_kept_layer_average) == (16.0, 10.0)


# ---- pairs ----


def pairs_of(*arguments, **options):
    plans = plan_cells(*arguments, **options)
    records = [record for plan in plans for record in row(plan.cell, [1.0, 0.0])]
    return list(cell_pairs(summarise(plans, ids(2), reader(records), seed=0).cells))


def test_methods_are_compared_at_one_budget_and_every_cell_with_the_full_model():
    assert pairs_of(["a", "b", "none"], [HALF, EIGHT], {"none"}) == [
        ("a@0.5", "full@1.0"), ("a@8", "full@1.0"), ("b@0.5", "full@1.0"), ("b@8", "full@1.0"),
        ("none@none", "full@1.0"), ("a@0.5", "b@0.5"), ("a@8", "b@8"),
    ]  # fmt: skip


def test_positions_are_compared_within_a_method_and_methods_within_positions():
    compared = pairs_of(["a", "b"], [HALF], positions=["original", "compact"])
    assert [pair for pair in compared if "full@1.0" not in pair] == [
        ("a@0.5", "a@0.5+compact"), ("a@0.5", "b@0.5"), ("a@0.5+compact", "b@0.5+compact"), ("b@0.5", "b@0.5+compact"),
    ]  # fmt: skip


def test_better_is_said_only_where_it_survives_the_correction():
    # Of 20 samples a has 16 right; b 10 of these, and no other. McNemar: 6 to 0, p = 2 * 2^-6 = 0.03125.
    plans = plan_cells(["a", "b"], [HALF])
    records = row("full@1.0", [1.0] * 20) + row("a@0.5", [1.0] * 16 + [0.0] * 4)
    records += row("b@0.5", [1.0] * 10 + [0.0] * 10)
    comparisons = {(c.cell_a, c.cell_b): c for c in summarise(plans, ids(20), reader(records), seed=0).comparisons}
    against = comparisons["a@0.5", "b@0.5"]
    assert against.difference.mean == pytest.approx(0.3)
    assert against.p_value == pytest.approx(0.03125)
    # Three comparisons; their p-values are 2 * 2^-10, 0.03125 and 2 * 2^-4. That of two methods was not planned, so it
    # is corrected for all three; those with the full model are two.
    assert (against.family, against.num_tests) == ("exploratory", 3)
    assert against.p_adjusted == pytest.approx(0.0625)
    assert not against.significant
    assert (comparisons["b@0.5", "full@1.0"].family, comparisons["b@0.5", "full@1.0"].num_tests) == ("planned", 2)
    assert comparisons["b@0.5", "full@1.0"].p_adjusted == pytest.approx(2 * 2 * 2**-10)
    assert comparisons["b@0.5", "full@1.0"].significant


def test_only_samples_that_both_cells_answered_are_compared():
    plans = plan_cells(["a"], [HALF])
    records = row("full@1.0", [1.0, 1.0, 1.0]) + row("a@0.5", [0.0, 1.0])
    records.append(failed("a@0.5", "s2"))
    (comparison,) = summarise(plans, ids(3), reader(records), seed=0).comparisons
    assert comparison.difference.n == 2
    assert comparison.difference.mean == -0.5


def test_planned_is_what_a_reader_asks_before_seeing_anything():
    plans = plan_cells(["a", "b", "random", "none"], [HALF], {"none"}, positions=["original", "compact"])
    planned = planned_pairs(plans)
    assert {pair for pair in planned if "full@1.0" not in pair} == {
        ("a@0.5", "random@0.5"), ("b@0.5", "random@0.5"),
        ("a@0.5+compact", "random@0.5+compact"), ("b@0.5+compact", "random@0.5+compact"),
        ("a@0.5", "a@0.5+compact"), ("b@0.5", "b@0.5+compact"), ("random@0.5", "random@0.5+compact"),
    }  # fmt: skip
    assert {a for a, b in planned if b == "full@1.0"} == {plan.cell for plan in plans} - {"full@1.0"}
    assert set(cell_pairs(plans)) - planned == {("a@0.5", "b@0.5"), ("a@0.5+compact", "b@0.5+compact")}
    assert count_planned(plans) == len(planned), "one budget makes no curve"


def test_before_and_after_a_run_the_same_comparisons_are_planned():
    plans = plan_cells(["a", "b", "random"], [HALF, EIGHT])
    records = [
        record
        for plan in plans
        for record in row(
            plan.cell, [1.0, 0.0] * 3, tokens_kept={"full@1.0": 16}.get(plan.cell, 8 if "0.5" in plan.cell else 4)
        )
    ]
    results = summarise(plans, ids(6), reader(records), seed=0)
    verdicts = [*results.comparisons, *results.area_comparisons]
    planned = [one for one in verdicts if one.family == "planned"]
    # FLOPs and milliseconds are made up alike for all cells, so only tokens have areas: two of three axes are missing.
    assert count_planned(plans) == len(planned) + 2 * 2
    assert {one.num_tests for one in planned} == {len(planned)}
    assert {one.num_tests for one in verdicts if one.family == "exploratory"} == {len(verdicts)}


def by_picture(records, size):
    return [record.model_copy(update={"picture_sha256": str(int(record.sample_id[1:]) // size)}) for record in records]


def test_questions_about_one_picture_are_flipped_together():
    # 50 pictures, two questions each; on 8 pictures both are gained. By picture 2 * 2^-8, by question 2 * 2^-16.
    plans = plan_cells(["a"], [HALF])
    records = row("full@1.0", [0.0] * 100) + row("a@0.5", [1.0] * 16 + [0.0] * 84)
    alone = summarise(plans, ids(100), reader(records), seed=0)
    shared = summarise(plans, ids(100), reader(by_picture(records, 2)), seed=0)
    assert (alone.num_pictures, shared.num_pictures) == (None, 50)
    assert (alone.comparisons[0].test, shared.comparisons[0].test) == ("sign-flip", "sign-flip-by-picture")
    assert alone.comparisons[0].p_value == pytest.approx(2 * 2**-16)
    assert shared.comparisons[0].p_value == pytest.approx(2 * 2**-8)
    assert shared.comparisons[0].difference.num_pictures == 50
    assert shared.cells[1].accuracy.low < alone.cells[1].accuracy.low


def test_pictures_of_their_own_change_no_figure():
    plans = plan_cells(["a"], [HALF])
    records = row("full@1.0", [1.0, 0.0] * 30) + row("a@0.5", [1.0] * 20 + [0.0] * 40)
    unknown = summarise(plans, ids(60), reader(records), seed=0)
    known = summarise(plans, ids(60), reader(by_picture(records, 1)), seed=0)
    assert known.model_copy(update={"num_pictures": None}) == unknown


def test_without_none_there_is_no_split():
    results = summarise(PLANS, ids(4), reader(drawn()), seed=0)
    assert results.hard_split is None
    assert all(cell.accuracy_hard is None for cell in results.cells)
