from adallava.budget import Latency, TokenBudget
from adallava.records.cells import plan_cells, sample_seed, split_cell

HALF, ALL, EIGHT = TokenBudget(ratio=0.5), TokenBudget(ratio=1.0), TokenBudget(count=8)


def cells(*arguments, **options):
    return [plan.cell for plan in plan_cells(*arguments, **options)]


def test_methods_cross_budgets_after_the_full_model():
    assert cells(["random", "pool"], [HALF, EIGHT], ()) == [
        "full@1.0", "random@0.5", "random@8", "pool@0.5", "pool@8",
    ]  # fmt: skip


def test_the_full_model_runs_first_and_once_even_if_asked_for():
    assert cells(["pool", "full"], [ALL], ()) == ["full@1.0", "pool@1.0"]
    assert cells([], [HALF], ()) == ["full@1.0"]


def test_a_method_that_ignores_budgets_has_one_cell():
    assert cells(["none", "pool"], [HALF, EIGHT], {"none"}) == ["full@1.0", "none@none", "pool@0.5", "pool@8"]


def test_what_is_asked_for_twice_runs_once():
    assert cells(["pool", "pool"], [HALF, TokenBudget.parse("50%")], ()) == ["full@1.0", "pool@0.5"]


def test_positions_are_an_axis_of_every_method_but_full_and_none():
    crossed = cells(["pool", "none"], [HALF, EIGHT], {"none"}, positions=["original", "compact"])
    assert crossed == [
        "full@1.0", "pool@0.5", "pool@8", "pool@0.5+compact", "pool@8+compact", "none@none",
    ]  # fmt: skip
    assert cells(["pool", "none"], [HALF], {"none"}, positions=["compact"]) == [
        "full@1.0", "pool@0.5+compact", "none@none",
    ]  # fmt: skip


def test_a_method_that_chooses_its_own_number_of_tokens_crosses_positions():
    crossed = cells(["own"], [HALF, EIGHT], {"own"}, positions=["original", "compact"])
    assert crossed == ["full@1.0", "own@none", "own@none+compact"]


def test_only_methods_that_draw_are_repeated():
    plans = plan_cells(["random", "pool"], [HALF], drawing={"random"}, draws=3)
    assert [(plan.cell, plan.draws) for plan in plans] == [("full@1.0", 1), ("random@0.5", 3), ("pool@0.5", 1)]


def test_a_scheduler_whose_token_always_stands_runs_at_latency_one_too():
    latencies = [Latency.parse(1.0), Latency.parse(0.5)]
    crossed = cells(["pool"], [HALF], schedulers=["first", "own"], latencies=latencies, with_token={"own"})
    assert crossed == [
        "full@1.0", "pool@0.5", "full@1.0/own@1.0", "pool@0.5/own@1.0",
        "full@1.0/first@0.5", "pool@0.5/first@0.5", "full@1.0/own@0.5", "pool@0.5/own@0.5",
    ]  # fmt: skip


def test_a_cells_id_can_be_taken_apart():
    for plan in plan_cells(["budget-token", "none"], [HALF, EIGHT], {"none"}, positions=["original", "compact"]):
        assert split_cell(plan.cell) == (plan.method, plan.budget_asked, plan.positions)


def test_seeds_belong_to_run_sample_and_draw():
    runs, samples, draws = (0, 1, 11), ("1", "a", "1:a"), (0, 1, 11)
    seeds = {(r, s, d): sample_seed(r, s, d) for r in runs for s in samples for d in draws}
    assert len(set(seeds.values())) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds.values())
    # The first eight bytes of `printf '0:test-000000' | sha256sum`, shifted by one bit: the same on every machine.
    assert sample_seed(0, "test-000000") == int("d26e0a38a5402e77", 16) >> 1
