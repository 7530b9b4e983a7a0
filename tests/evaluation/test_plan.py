from adallava.budget import TokenBudget
from adallava.evaluation.plan import plan_cells, sample_seed

HALF, ALL, EIGHT = TokenBudget(ratio=0.5), TokenBudget(ratio=1.0), TokenBudget(count=8)


def cells(*arguments):
    return [plan.cell for plan in plan_cells(*arguments)]


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


def test_seeds_belong_to_run_and_sample():
    seeds = {(run, sample): sample_seed(run, sample) for run in (0, 1, 11) for sample in ("1", "a", "1:a")}
    assert len(set(seeds.values())) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds.values())
    # The first eight bytes of `printf '0:test-000000' | sha256sum`, shifted by one bit: the same on every machine.
    assert sample_seed(0, "test-000000") == int("d26e0a38a5402e77", 16) >> 1
