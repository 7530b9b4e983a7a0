"""What is said of both dials: gains of the front, plans, and the share of a fixed one."""

import numpy as np
import pytest
from dial_records import (
    BEST_PLAN,
    KINDS,
    NUM_SAMPLES,
    PREFIXES,
    SCHEDULERS,
    dial_plans,
    dial_records,
    dial_results,
    sample_ids,
)
from run_records import changed, reader, run, sample_record

from adallava.analysis.compare_runs import compare_runs, gather_answers
from adallava.analysis.comparisons import cell_pairs
from adallava.analysis.front import axis_costs
from adallava.analysis.measured_ms import cell_ms
from adallava.analysis.summary import summarise
from adallava.budget import Latency, TokenBudget
from adallava.errors import InputError
from adallava.model import AdaLlava
from adallava.records.cells import CellPlan, plan_cells
from adallava.records.dials import Dials
from adallava.report.dial_tables import fixed_table
from adallava.runs.loading import prefix_lengths

EIGHT, WHOLE = TokenBudget(count=8), TokenBudget(ratio=1.0)


def cell(budget, scheduler=None, latency=None, method="uniform"):
    return CellPlan(method, budget, scheduler=scheduler, latency=None if latency is None else Latency.parse(latency))


def answers(plan, scores, flops):
    """Records of one cell: one a score, each at the same cost."""
    kept = 16 if plan.method == "full" else 8
    return [
        sample_record(
            plan.cell, f"s{number}", score=float(score), method=plan.method, budget_asked=plan.budget_asked,
            tokens_asked=kept, tokens_kept=kept, scheduler=plan.scheduler, latency_asked=plan.latency_asked,
            groups_run=None if plan.scheduler is None else [[0], []], flops={"prefill": flops},
        )
        for number, score in enumerate(scores)
    ]  # fmt: skip


def fronts_of(cells):
    """Sum up {plan: (scores, FLOPs)} and return its comparisons of fronts over FLOPs, by the dial alone."""
    records = [record for plan, (scores, flops) in cells.items() for record in answers(plan, scores, flops)]
    num_samples = len(next(iter(cells.values()))[0])
    results = summarise(list(cells), [f"s{number}" for number in range(num_samples)], reader(records), seed=0)
    return {front.alone: front for front in results.dials.fronts if front.axis == "flops"}


FULL = cell(WHOLE, method="full")
FULL_HALF = cell(WHOLE, "first", "0.5", method="full")
FEW, FEW_HALF = cell(EIGHT), cell(EIGHT, "first", "0.5")


def test_a_gain_and_a_saving_in_an_example_that_no_choice_of_halves_changes():
    right, wrong = [1.0] * 20, [0.0] * 20
    fronts = fronts_of({FULL: (right, 100), FEW: (wrong, 50), FULL_HALF: (wrong, 60), FEW_HALF: (right, 40)})
    tokens = fronts["tokens"]
    assert tokens.front == [FEW_HALF.cell]
    assert tokens.front_alone == [FEW.cell, FULL.cell]
    cheap, dear = tokens.gains
    assert (cheap.cost, cheap.cell_alone, cheap.cell_both) == (50, FEW.cell, FEW_HALF.cell)
    assert (cheap.gain.mean, cheap.gain.n, cheap.accuracy_alone.mean, cheap.accuracy_both.mean) == (1.0, 20, 0.0, 1.0)
    assert (cheap.cheaper_cell, cheap.saving.ratio, cheap.cheaper_difference.mean) == (FEW_HALF.cell, 0.8, 1.0)
    # At the full model's cost nothing is gained but the cost.
    assert (dear.gain.mean, dear.cheaper_cell, dear.saving.ratio, dear.saving.high) == (0.0, FEW_HALF.cell, 0.4, 0.4)
    assert dear.cheaper_difference.mean == 0.0
    assert tokens.mean_gain.mean == 0.5
    layers = fronts["layers"]
    assert [gain.cell_alone for gain in layers.gains] == [FULL_HALF.cell, FULL.cell]
    assert [gain.saving.ratio for gain in layers.gains] == [pytest.approx(40 / 60), 0.4]


@pytest.mark.long
def test_luck_among_many_cells_is_no_gain():
    # Forty cells of coin flips as dear as one of coin flips: their best is far above it on the samples that chose.
    coins = np.random.default_rng(1).integers(0, 2, (41, 80))
    cells = {FULL: ([1.0] * 80, 100), FEW: (coins[0], 50)}
    for number in range(1, 41):
        cells[cell(EIGHT, f"s{number}", "0.5")] = (coins[number], 50)
    on_those_that_chose = coins[1:].mean(axis=1).max() - coins[0].mean()
    assert on_those_that_chose > 0.15
    gain = fronts_of(cells)["tokens"].gains[0].gain
    assert gain.low < 0.0 < gain.high
    assert gain.mean < 0.5 * on_those_that_chose


def test_a_real_gain_is_found_among_the_luck():
    coins = np.random.default_rng(2).random((22, 200))
    cells = {FULL: ([1.0] * 200, 100), FEW: (coins[0] < 0.5, 50)}
    for number in range(1, 21):
        cells[cell(EIGHT, f"s{number}", "0.5")] = (coins[number] < 0.5, 50)
    cells[cell(EIGHT, "better", "0.5")] = (coins[21] < 0.8, 50)
    found = fronts_of(cells)["tokens"].gains[0]
    assert found.cell_both.endswith("/better@0.5")
    assert found.gain.low > 0.15
    assert found.gain.mean == pytest.approx(float(np.mean(coins[21] < 0.8)) - float(np.mean(coins[0] < 0.5)), abs=0.02)


def test_a_dial_with_one_cost_or_with_every_cell_is_not_compared():
    right = [1.0, 0.0] * 10
    assert fronts_of({FULL: (right, 100), FULL_HALF: (right, 60)}) == {}
    only_layers = fronts_of({FULL: (right, 100), FEW_HALF: (right, 40)})
    assert only_layers == {}
    assert summarise([FULL], ["s0"], reader(answers(FULL, [1.0], 100)), seed=0).dials is None


def test_a_schedulers_own_cell_at_full_latency_belongs_to_tokens_alone():
    right, wrong = [1.0] * 20, [0.0] * 20
    few_whole = cell(EIGHT, "adallava-layers", "1.0")
    cells = {FULL: (right, 100), FEW: (wrong, 50), few_whole: (right, 51), FULL_HALF: (wrong, 60)}
    assert fronts_of(cells)["tokens"].front_alone == [FEW.cell, few_whole.cell]


def test_a_number_of_layers_that_is_all_of_them_is_full_latency_too():
    counted = next(one for one in dial_results().cells if one.cell == "uniform@8/layers@0.75")
    assert not counted.runs_all_layers
    assert counted.model_copy(update={"latency_asked": "8", "layer_share": 1.0}).runs_all_layers


def test_milliseconds_that_a_clock_may_confuse_are_one_cost_and_flops_as_near_are_not():
    # Layers alone: better schedulers were read a little slower. 93 and 100 are one place, as are 150 and 160.
    accuracy = {"a": (93, 0.2), "b": (100, 0.4), "c": (150, 0.6), "d": (160, 0.8)}
    cells = {FULL: 1.0, FEW: 0.1, FEW_HALF: 0.1}
    cost = {FULL: 300, FEW: 40, FEW_HALF: 20}
    for name, (price, right) in accuracy.items():
        plan = cell(WHOLE, name, "0.5", method="full")
        cells[plan], cost[plan] = right, price
    records = [
        record.model_copy(update={"part_ms": {"prefill": float(cost[plan])}})
        for plan, right in cells.items()
        for record in answers(plan, np.arange(20) < 20 * right, cost[plan])
    ]
    fronts = summarise(list(cells), [f"s{number}" for number in range(20)], reader(records), seed=0).dials.fronts
    costs = {front.axis: [gain.cost for gain in front.gains] for front in fronts if front.alone == "layers"}
    assert costs == {"flops": [93, 100, 150, 160, 300], "ms": [100, 160, 300]}


def test_fronts_are_compared_at_every_batch_size_that_was_timed_and_else_over_the_answers_own_times():
    timed = [(front.alone, front.axis, front.batch_size) for front in dial_results().dials.fronts]
    assert timed == [
        ("tokens", "flops", None), ("layers", "flops", None), ("tokens", "ms", 1), ("layers", "ms", 1),
        ("tokens", "ms", 8), ("layers", "ms", 8),
    ]  # fmt: skip
    untimed = [(front.alone, front.axis, front.batch_size) for front in dial_results(batch_sizes=()).dials.fronts]
    assert untimed[2:] == [("tokens", "ms", None), ("layers", "ms", None)]


def test_the_clock_of_the_axes_is_that_of_the_tables():
    cells = dial_results(batch_sizes=(8, 4)).cells
    assert axis_costs(cells, "ms") == {one.cell: cell_ms(one, "time_to_first_token", 4) for one in cells}
    untimed = dial_results(batch_sizes=()).cells
    assert axis_costs(untimed, "ms") == {one.cell: one.part_ms["time_to_first_token"] for one in untimed}


# ---- plans ----


def test_plans_are_counted_in_all_and_by_question_type():
    plans = {plans.cell: plans for plans in dial_results().dials.plans}
    assert set(plans) == {plan.cell for plan in dial_plans() if plan.scheduler is not None}
    learned = plans["uniform@8/layers@0.75"]
    assert (learned.of_all.num_plans, learned.of_all.num_samples, learned.of_all.most_common_share) == (2, 60, 0.5)
    for kind in KINDS:
        count = learned.by_kind[kind]
        assert (count.num_plans, count.num_samples, count.most_common_share) == (1, 30, 1.0)
        assert count.most_common == [[0] if layer < 4 or layer in BEST_PLAN[kind] else [] for layer in range(8)]
    fixed, drawn = plans["uniform@8/fixed@0.75"], plans["uniform@8/random@0.75"]
    assert (fixed.of_all.num_plans, fixed.of_all.most_common_share) == (1, 1.0)
    # Of the two draws only the first: every sample counts once.
    assert (drawn.of_all.num_plans, drawn.of_all.num_samples, drawn.of_all.most_common_share) == (4, 60, 0.25)


def test_of_equally_common_plans_the_named_one_does_not_depend_on_the_order_of_the_answers():
    plans = dial_plans()
    turned = summarise(plans, sample_ids(), reader(dial_records(plans)[::-1]), seed=0, prefixes=PREFIXES)
    assert turned.dials.plans == dial_results(plans).dials.plans


# ---- the share of a fixed plan ----


def shares_of(learned, fixed, drawn, prefixes=PREFIXES):
    ids = [f"s{number}" for number in range(len(learned))]
    made = {"layers": learned, "fixed": fixed, "random": drawn}
    plans = {name: cell(WHOLE, name, "0.75", method="full") for name in made}
    records = answers(FULL, [1.0] * len(ids), 100)
    for name, scores in made.items():
        own = answers(plans[name], scores, 75)
        records += [changed(record, latency_tokens=int(name == "layers")) for record in own]
    return summarise([FULL, *plans.values()], ids, reader(records), seed=0, prefixes=prefixes).dials.fixed_shares


def test_the_share_of_a_fixed_plan_is_what_it_gains_over_random_of_what_the_learned_one_does():
    (share,) = shares_of(learned=[1.0] * 80 + [0.0] * 20, fixed=[1.0] * 50 + [0.0] * 50, drawn=[1.0] * 20 + [0.0] * 80)
    assert (share.scheduler, share.latency_asked, share.cells) == ("layers", "0.75", ["full@1.0/layers@0.75"])
    assert share.learned_over_random.mean == pytest.approx(0.6)
    assert share.fixed_over_random.mean == pytest.approx(0.3)
    assert share.learned_over_fixed.mean == pytest.approx(0.3)
    assert share.share.mean == pytest.approx(0.5)
    # 30 of 60 gains: about twice the standard error of a share of one half.
    assert (share.share.low, share.share.high) == (pytest.approx(0.37, abs=0.03), pytest.approx(0.63, abs=0.03))
    assert share.share.n == 100


def test_there_is_no_share_of_a_gain_that_is_not_there():
    (share,) = shares_of(learned=[1.0, 0.0] * 20, fixed=[0.0, 1.0] * 20, drawn=[1.0, 0.0] * 20)
    assert share.learned_over_random.mean == 0.0
    assert share.share is None


def test_there_is_no_share_where_the_three_choose_among_other_plans():
    scores = {"learned": [1.0] * 40, "fixed": [1.0] * 30 + [0.0] * 10, "drawn": [1.0] * 20 + [0.0] * 20}
    (share,) = shares_of(**scores)
    assert share.share.mean == 0.5
    apart = {"layers": 2, "fixed": 2, "random": 4}
    (share,) = shares_of(**scores, prefixes={**apart, "spaced": 3})
    assert (share.share, share.prefix_layers) == (None, apart)
    assert share.learned_over_random.mean == 0.5, "the differences are what they are"
    table = fixed_table(Dials(plans=[], fixed_shares=[share]))
    assert (table.rows[0][5].text, table.rows[0][5].note) == ("–", "(P: layers 2, fixed 2, random 4)")


def test_a_sweep_asks_the_schedulers_themselves_what_always_runs():
    # Of 8 layers `tiny`'s learned and searched plans always run 2; whoever is not told otherwise has half of them.
    full = AdaLlava.from_pretrained("tiny", method="full", device="cpu")
    models = {name: full.with_scheduler(name) for name in ("layers", "fixed", "random")}
    models["spaced"] = full.with_scheduler("spaced", prefix_layers=2)
    assert prefix_lengths(models) == {"layers": 2, "fixed": 2, "random": 4, "spaced": 2}


def test_the_share_is_over_all_cells_and_for_each_and_takes_all_three_schedulers():
    shares = dial_results().dials.fixed_shares
    at_most = [share for share in shares if share.latency_asked == "0.75"]
    assert [len(share.cells) for share in at_most] == [3, 1, 1, 1]
    pooled = at_most[0]
    assert pooled.learned_over_random.mean == pytest.approx(
        np.mean([share.learned_over_random.mean for share in at_most[1:]])
    )
    # At 0.5 only the prefix runs, whoever chooses.
    assert all(share.share is None for share in shares if share.latency_asked == "0.5")
    assert dial_results(dial_plans(("layers", "random", "spaced"))).dials.fixed_shares == []


# ---- what is compared ----


def test_cells_are_tested_against_those_that_differ_in_one_thing_alone():
    plans = plan_cells(
        ["uniform", "pool"],
        [EIGHT],
        schedulers=["first", "spaced"],
        latencies=[Latency.parse("1.0"), Latency.parse("0.75"), Latency.parse("0.5")],
    )
    records = [record for plan in plans for record in answers(plan, [1.0, 0.0], 10)]
    pairs = {frozenset(pair) for pair in cell_pairs(summarise(plans, ["s0", "s1"], reader(records), seed=0).cells)}
    assert frozenset(("uniform@8/first@0.75", "uniform@8/spaced@0.75")) in pairs
    assert frozenset(("uniform@8/first@0.75", "pool@8/first@0.75")) in pairs
    assert frozenset(("full@1.0/first@0.5", "full@1.0/spaced@0.5")) in pairs
    assert frozenset(("uniform@8/first@0.75", "full@1.0")) in pairs
    for unlike in (
        ("uniform@8/first@0.75", "uniform@8/first@0.5"),
        ("uniform@8/first@0.75", "pool@8/spaced@0.75"),
        ("uniform@8/first@0.75", "pool@8"),
    ):
        assert frozenset(unlike) not in pairs


def test_every_sample_of_the_made_up_run_is_counted():
    assert all(one.accuracy.n == NUM_SAMPLES for one in dial_results().cells)


def test_two_runs_of_both_dials_are_compared_in_every_cell():
    plans, results = dial_plans(), dial_results()
    config = {"methods": ["uniform"], "token_budgets": ["8", "4"], "draws": 2, "schedulers": [*SCHEDULERS]}
    asked = run({**config, "latencies": ["1.0", "0.75", "0.5"]})
    records = dial_records(plans)
    first = gather_answers("a", asked, results, records)
    assert first.cells == tuple(plan.cell for plan in plans)
    worse = [
        record.model_copy(update={"score": 0.0}) if record.cell == "uniform@8/fixed@0.75" else record
        for record in records
    ]
    changes = {change.cell: change for change in compare_runs(first, gather_answers("b", asked, results, worse)).cells}
    assert len(changes) == len(plans)
    assert [cell for cell, change in changes.items() if change.difference.mean > 0] == ["uniform@8/fixed@0.75"]
    unfinished = [record for record in records if not (record.cell == "full@1.0/random@0.75" and record.draw == 1)]
    with pytest.raises(InputError, match=r"60 of .* answers are missing, such as sample 's0' in full@1.0/random@0.75"):
        gather_answers("c", asked, results, unfinished)
