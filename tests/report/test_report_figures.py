import json
import math
from typing import Any

import pytest
from run_folders import FakeRun, fake_results

from adallava.records import Results
from adallava.report.figures import AXES, accuracy_figure, hover_text, log_ticks, not_drawn, token_ticks
from adallava.report.marks import OKABE_ITO, method_marks

SMALL = FakeRun(methods=("random", "question", "none"), budgets=("8", "32"), num_samples=40)
AXIS = {axis.key: axis for axis in AXES}


def traces(results: Results, key: str) -> dict[str, Any]:
    return {trace.name: trace for trace in accuracy_figure(results, AXIS[key]).data if trace.showlegend is not False}


def test_axes_are_what_a_reader_can_switch_between() -> None:
    assert sorted(AXIS) == ["first-token", "gflops", "tokens", "total-ms"]


def test_a_curve_holds_the_cells_of_its_method_in_ascending_cost() -> None:
    results = fake_results(SMALL)
    cells = {cell.cell: cell for cell in results.cells}
    curve = traces(results, "gflops")["question"]

    expected = [cells["question@8"], cells["question@32"]]
    assert list(curve.x) == pytest.approx([cell.flops["total"] / 1e9 for cell in expected])
    assert list(curve.y) == pytest.approx([100 * cell.accuracy.mean for cell in expected])
    assert list(curve.error_y.array) == pytest.approx(
        [100 * (cell.accuracy.high - cell.accuracy.mean) for cell in expected]
    )
    assert list(curve.error_y.arrayminus) == pytest.approx(
        [100 * (cell.accuracy.mean - cell.accuracy.low) for cell in expected]
    )


@pytest.mark.parametrize(("key", "part"), [("first-token", "time_to_first_token"), ("total-ms", "total")])
def test_time_axes_read_the_measured_milliseconds(key: str, part: str) -> None:
    results = fake_results(SMALL)
    full = next(cell for cell in results.cells if cell.method == "full")

    assert list(traces(results, key)["full-token model"].x) == [full.part_ms[part]]


@pytest.mark.parametrize("key", AXIS)
def test_every_axis_is_logarithmic_and_every_number_finite(key: str) -> None:
    figure = accuracy_figure(fake_results(SMALL), AXIS[key])

    assert figure.layout.xaxis.type == "log"
    json.dumps(json.loads(figure.to_json()), allow_nan=False)
    assert all(x > 0 and math.isfinite(x) for trace in figure.data for x in trace.x)


def test_methods_that_keep_the_same_tokens_are_set_slightly_apart() -> None:
    curves = traces(fake_results(SMALL), "tokens")
    at_8 = {name: curves[name].x[0] for name in ("random", "question")}

    assert at_8["random"] < 8 < at_8["question"]
    assert all(x == pytest.approx(8, rel=0.05) for x in at_8.values())


def test_a_method_that_keeps_no_token_is_a_line_across() -> None:
    results = fake_results(SMALL)
    none = next(cell for cell in results.cells if cell.method == "none")
    for key in AXIS:
        line = traces(results, key)["none (no vision token)"]
        assert line.mode == "lines"
        assert set(line.y) == {100 * none.accuracy.mean}


def test_a_flagged_cell_has_an_open_marker_and_says_why() -> None:
    results = fake_results(FakeRun(methods=("random",), budgets=("8", "32"), first_token_eos={"random@32": 30}))
    curve = traces(results, "tokens")["random"]

    assert [symbol.endswith("-open") for symbol in curve.marker.symbol] == [False, True]
    assert "15.0% of the answers are empty" in curve.customdata[1]


def test_a_cell_where_all_failed_is_left_out_and_named() -> None:
    results = fake_results(FakeRun(methods=("random",), budgets=("8", "32"), failing=frozenset({"random@8"})))

    assert len(traces(results, "gflops")["random"].x) == 1
    assert not_drawn(results, AXIS["gflops"]) == {"random@8": "every sample failed"}


def test_a_cell_without_the_measurement_is_left_out_and_named() -> None:
    results = fake_results(SMALL)
    cells = [cell.model_copy(update={"part_ms": {}}) if cell.cell == "random@8" else cell for cell in results.cells]

    assert not_drawn(Results(cells=cells), AXIS["total-ms"]) == {"random@8": "not measured"}


@pytest.mark.parametrize("key", AXIS)
@pytest.mark.parametrize("failing", [frozenset(), frozenset({"full@1.0"})])
def test_a_run_with_only_the_full_cell_has_a_figure(key: str, failing: frozenset[str]) -> None:
    results = fake_results(FakeRun(methods=(), num_samples=5, failing=failing))

    json.dumps(json.loads(accuracy_figure(results, AXIS[key]).to_json()), allow_nan=False)


def test_names_from_outside_are_escaped_for_plotly() -> None:
    cell = fake_results(SMALL).cells[1]
    cell = cell.model_copy(update={"method": "<a href='x'>m</a>", "flagged": True, "flag_reason": "<b>why"})

    text = hover_text(cell)

    assert "<a" not in text
    assert "&lt;a href=" in text
    assert "&lt;b&gt;why" in text


def test_marks_are_one_colour_and_shape_a_method_and_black_for_full() -> None:
    methods = ["full", *(f"m{number}" for number in range(20))]
    marks = method_marks(methods)

    assert marks["full"].colour == "#000000"
    assert len({(mark.colour, mark.symbol) for mark in marks.values()}) == 21
    assert len({marks[name].colour for name in methods[1:8]}) == len(OKABE_ITO)


@pytest.mark.parametrize(("low", "high"), [(0.3, 9.0), (2.2, 8.5), (40, 55), (99, 101), (1e-4, 1e4)])
def test_log_ticks_lie_inside_and_are_enough(low: float, high: float) -> None:
    ticks = log_ticks(low, high)

    assert ticks == sorted(set(ticks))
    assert all(low <= tick <= high for tick in ticks)
    assert 1 <= len(ticks) <= 30
    assert len(ticks) >= 4 or high / low < 1.2


def test_kept_counts_are_their_own_ticks_if_few_enough() -> None:
    assert token_ticks([8, 16, 16.2, 64]) == [8, 16, 64]
    assert token_ticks([100, 101, 102]) is None
    assert token_ticks([]) is None
