import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_records import reader, sample_record

from adallava.analysis.areas import (
    Curve,
    SharedScores,
    area_between,
    common_costs,
    common_grid,
    curve_weights,
    find_curves,
    same_grid,
)
from adallava.analysis.clusters import Clusters
from adallava.analysis.front import pareto_front
from adallava.analysis.summary import summarise
from adallava.budget import TokenBudget
from adallava.records import Results
from adallava.records.cells import plan_cells

BENT = {8.0: 0.4, 16.0: 0.6, 32.0: 0.7, 64.0: 0.75, 128.0: 0.78, 256.0: 0.8}


def bent_curve(method, costs):
    return Curve(method, "original", "tokens", tuple(map(str, (*costs, 256))), (*costs, 256.0))


@pytest.mark.parametrize("few", [(8.0, 128.0), (8.0, 64.0), (8.0,)])
def test_a_method_with_fewer_cells_loses_nothing_by_it(few):
    # One curve, once with a cell at every halving and once with few: straight lines between far cells run below it.
    names = tuple(f"{cost:.1f}" for cost in BENT)
    values = np.array(list(BENT.values()))[:, None]
    scores = SharedScores(names, values, values.T, Clusters.distinct(1))
    curves = [
        Curve(str(len(own)), "original", "tokens", tuple(map(str, own)), own) for own in (tuple(BENT), (*few, 256.0))
    ]
    grid = common_grid(curves, 8.0, 256.0)
    first, second = (area_between(curve, 8.0, 256.0, grid, scores).of_samples for curve in curves)
    assert first == pytest.approx(second)
    own = [area_between(curve, 8.0, 256.0, [c for c in curve.costs if 8 < c < 256], scores) for curve in curves]
    assert own[0].of_samples > own[1].of_samples + 0.01
    assert not same_grid(curves, 8.0, 256.0)


def test_grids_that_differ_a_little_are_drawn_through_their_own_cells():
    # Selectors cost FLOPs: the same budgets at a tenth more.
    curves = [bent_curve("a", (8.0, 16.0, 64.0)), bent_curve("b", (8.8, 17.6, 70.4))]
    assert same_grid(curves, 8.8, 256.0)
    assert common_grid(curves, 8.8, 256.0) == (16.0, 64.0)
    weights = curve_weights(np.array(curves[1].costs), 8.8, 256.0)
    scores = SharedScores(curves[1].cells, np.eye(4), np.eye(4), Clusters.distinct(4))
    drawn = area_between(curves[1], 8.8, 256.0, (16.0, 64.0), scores)
    assert drawn.of_samples == pytest.approx(weights)


COSTS = st.lists(st.floats(1.0, 1e12), min_size=2, max_size=8, unique=True)


def test_a_straight_line_over_the_logarithm_has_the_mean_of_its_ends():
    # 8, 16, 32 tokens: three equal steps, accuracies 0.2, 0.4, 0.6. By the trapezoid rule (0.3 + 0.5) / 2.
    weights = curve_weights(np.array([8.0, 16.0, 32.0]), 8.0, 32.0)
    assert weights.tolist() == pytest.approx([0.25, 0.5, 0.25])
    assert weights @ [0.2, 0.4, 0.6] == pytest.approx(0.4)


def test_a_part_of_a_curve_is_interpolated():
    # From 16 to 32 only, of points at 8 and 32: half-way up at 16, so from 0.5 to 1.0, with a mean of 0.75.
    weights = curve_weights(np.array([32.0, 8.0]), 16.0, 32.0)
    assert weights @ [1.0, 0.0] == pytest.approx(0.75)


def test_points_of_equal_cost_share_their_place():
    weights = curve_weights(np.array([8.0, 8.0, 32.0]), 8.0, 32.0)
    assert weights.tolist() == pytest.approx([0.25, 0.25, 0.5])


@given(COSTS, st.data())
def test_the_area_of_a_constant_curve_is_the_constant(costs, data):
    ordered = sorted(costs)
    low = data.draw(st.floats(ordered[0], ordered[-2]))
    high = data.draw(st.floats(ordered[-2], ordered[-1]).filter(lambda high: high > low * 1.001))
    weights = curve_weights(np.array(costs), low, high)
    assert weights.min() >= -1e-9
    assert weights @ np.full(len(costs), 0.7) == pytest.approx(0.7)


POINTS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=30)


def dominates(a, b):
    return a[0] <= b[0] and a[1] >= b[1] and a != b


@given(POINTS)
def test_no_point_of_the_front_is_dominated_and_every_other_one_is_by_one_of_the_front(points):
    on_front = pareto_front(*zip(*points, strict=True))
    front = [point for point, on in zip(points, on_front, strict=True) if on]
    assert front
    for point, on in zip(points, on_front, strict=True):
        assert on != any(dominates(other, point) for other in points)
        assert on or any(dominates(other, point) for other in front)


def test_the_front_of_four_cells():
    # (tokens, accuracy): 64 tokens at 0.6 lose to 32 at 0.7; equal points stay together.
    assert pareto_front([16, 32, 64, 32], [0.5, 0.7, 0.6, 0.7]).tolist() == [True, True, False, True]


# ---- in a run ----

IDS = [f"s{number:02d}" for number in range(40)]
BUDGETS = (4, 8)
FLOPS = {"good": 1.0, "dear": 3.0, "full": 1.0, "none": 0.1}
N = 16


def answers(method, budget, num_right, positions="original"):
    kept = N if budget == "1.0" else 0 if budget == "none" else int(budget)
    suffix = "+compact" if positions == "compact" else ""
    return [
        sample_record(
            f"{method}@{budget}{suffix}", sample_id, method=method, budget_asked=budget, positions=positions,
            score=float(number < num_right), tokens_kept=kept, tokens_asked=kept,
            flops={"prefill": int(1000 * FLOPS[method] * max(kept, 1))}, part_ms={"prefill": float(kept + 1)},
        )
        for number, sample_id in enumerate(IDS)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def results() -> Results:
    plans = plan_cells(["good", "dear", "none"], [TokenBudget(count=k) for k in BUDGETS], {"none"})
    records = [*answers("full", "1.0", 40), *answers("none", "none", 10)]
    records += [*answers("good", "4", 20), *answers("good", "8", 30)]
    records += [*answers("dear", "4", 20), *answers("dear", "8", 30)]
    return summarise(plans, IDS, reader(records), seed=0)


def test_a_methods_area_runs_from_its_cheapest_cell_to_the_full_model(results):
    area = next(area for area in results.areas if (area.method, area.axis) == ("good", "tokens"))
    # Accuracies 0.5, 0.75 and 1.0 at 4, 8 and 16 tokens: a straight line.
    assert (area.from_cost, area.to_cost) == (4.0, 16.0)
    assert area.area.mean == pytest.approx(0.75)
    assert area.area.n == 40
    assert area.area.low < 0.75 < area.area.high


def test_equal_tokens_are_a_tie_and_equal_flops_are_not(results):
    by_axis = {one.axis: one for one in results.area_comparisons}
    assert by_axis["tokens"].difference.mean == 0.0
    assert by_axis["tokens"].p_value == 1.0
    # `dear` costs three times as much a token: 12,000 and 24,000 FLOPs against the full model's 16,000. From 12,000 to
    # 16,000 `good` goes from 0.75 + 0.25 * log2(1.5) to 1, and `dear` from 0.5 to 1 (the full model, cheaper than its
    # own next cell). Means of the ends: 0.5 * (0.896 + 1) - 0.5 * (0.5 + 1) = 0.198.
    flops = by_axis["flops"]
    assert (flops.from_cost, flops.to_cost) == (12_000.0, 16_000.0)
    assert flops.difference.mean == pytest.approx(0.198, abs=5e-4)
    sign = {("good", "dear"): 1, ("dear", "good"): -1}[flops.method_a, flops.method_b]
    assert sign == 1
    assert flops.significant


def test_methods_without_a_curve_have_no_area(results):
    assert {area.method for area in results.areas} == {"good", "dear"}


def test_a_method_that_is_nowhere_cheaper_than_the_full_model_has_no_area(monkeypatch):
    monkeypatch.setitem(FLOPS, "dear", 5.0)
    plans = plan_cells(["good", "dear"], [TokenBudget(count=k) for k in BUDGETS])
    records = [*answers("full", "1.0", 40), *answers("good", "4", 20), *answers("good", "8", 30)]
    records += [*answers("dear", "4", 20), *answers("dear", "8", 30)]
    cells = summarise(plans, IDS, reader(records), seed=0).cells
    flops = [curve for curve in find_curves(cells) if curve.axis == "flops"]
    assert [curve.method for curve in flops] == ["good"]
    assert common_costs(flops) == (4_000.0, 16_000.0)


def test_cells_of_the_front_are_marked_by_axis(results):
    fronts = {cell.cell: cell.on_front for cell in results.cells}
    assert fronts["good@4"] == ["tokens", "flops", "ms"]
    assert fronts["dear@4"] == ["tokens", "ms"], "as good at the same tokens, dearer in FLOPs"
    assert fronts["full@1.0"] == ["tokens", "flops", "ms"]
    assert fronts["none@none"] == ["tokens", "flops", "ms"], "nothing is cheaper"
