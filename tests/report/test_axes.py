import pytest
from rich_runs import RichRun, made_cells, rich_results
from run_folders import FakeRun, fake_results

from adallava.records import Results
from adallava.report.axes import cost_axes, not_drawn, place_on

SMALL = FakeRun(methods=("random", "question", "none"), budgets=("8", "32"), num_samples=40)
FIXED = ["layer-tokens", "tokens", "gflops", "first-token", "total-ms"]


def rich(**options: object) -> Results:
    spec = RichRun(**{"num_samples": 60, "methods": ("random", "fastv"), **options})  # type: ignore[arg-type]
    return rich_results(spec, made_cells(spec))


def test_a_run_without_timings_has_the_fixed_axes_and_a_timed_one_an_axis_a_batch_size() -> None:
    assert [axis.key for axis in cost_axes(fake_results(SMALL))] == FIXED
    assert [axis.key for axis in cost_axes(rich(batch_sizes=(8, 1)))] == [*FIXED, "timed-1", "timed-8"]


def test_each_axis_reads_its_own_figure_of_a_cell() -> None:
    results = rich(batch_sizes=(8,))
    axes = {axis.key: axis for axis in cost_axes(results)}
    inside = next(cell for cell in results.cells if cell.cell == "fastv@32")

    assert place_on(axes["tokens"], inside) == 256
    # Two of eight layers read all 256 tokens, six read 32.
    assert place_on(axes["layer-tokens"], inside) == (2 * 256 + 6 * 32) / 8
    assert place_on(axes["gflops"], inside) == inside.flops["total"] / 1e9
    assert place_on(axes["first-token"], inside) == inside.part_ms["time_to_first_token"]
    assert place_on(axes["timed-8"], inside) == inside.timings[0].part_ms["time_to_first_token"].median


def test_a_cell_where_all_failed_is_not_drawn_and_neither_is_one_without_the_measurement() -> None:
    results = fake_results(FakeRun(methods=("random",), budgets=("8", "32"), failing=frozenset({"random@8"})))
    axes = {axis.key: axis for axis in cost_axes(results)}
    assert not_drawn(results, axes["gflops"]) == {"random@8": "every sample failed"}

    unmeasured = [cell.model_copy(update={"part_ms": {}}) for cell in fake_results(SMALL).cells[1:2]]
    assert not_drawn(Results(cells=unmeasured), axes["total-ms"]) == {"random@8": "not measured"}


@pytest.mark.parametrize("cost", [0.0, float("nan"), float("inf"), -1.0])
def test_a_cost_that_has_no_place_on_a_logarithmic_axis_is_none(cost: float) -> None:
    cell = fake_results(SMALL).cells[1]
    axis = cost_axes(fake_results(SMALL))[-1]

    assert place_on(axis, cell.model_copy(update={"part_ms": {"total": cost}})) is None
