import pytest
from run_folders import KINDS, FakeRun, fake_results

from adallava.records import PairedDifference, Results
from adallava.report import formats
from adallava.report.tables import cell_rows, empties_text, kind_table

SMALL = FakeRun(methods=("random", "question", "none"), budgets=("8", "0.25"), num_samples=30)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (float("nan"), "–"),
        (float("inf"), "–"),
        (0, "0"),
        (0.00004, "<0.001"),
        (0.0123, "0.012"),
        (0.5, "0.500"),
        (4.567, "4.57"),
        (45.67, "45.7"),
        (8567.2, "8,567"),
        (-1.5, "−1.50"),
    ],
)
def test_figures3(value: float | None, text: str) -> None:
    assert formats.figures3(value) == text


@pytest.mark.parametrize(("share", "text"), [(0.015, "+1.5"), (-0.005, "−0.5"), (0.0, "0.0"), (-0.0001, "0.0")])
def test_points_are_signed(share: float, text: str) -> None:
    assert formats.points(share) == text


def test_a_difference_shows_its_interval() -> None:
    assert formats.difference(PairedDifference(mean=-0.01, low=-0.03, high=0.01, n=9)) == (
        "−1.0",
        "−3.0 to +1.0",
    )


def test_rows_are_the_cells_in_order_with_their_figures() -> None:
    results = fake_results(SMALL)
    rows = cell_rows(results)

    assert [row.cell.cell for row in rows] == [cell.cell for cell in results.cells]
    assert [row.first_of_method for row in rows] == [True, True, False, True, False, True]
    quarter = next(row for row in rows if row.cell.cell == "question@0.25")
    assert (quarter.tokens_kept, quarter.num_scored, quarter.budget) == ("64", 30, "0.25")
    assert quarter.accuracy == f"{100 * quarter.cell.accuracy.mean:.1f}"
    # total, then vision, selector, projector, prefill, decode
    assert len(quarter.gflops) == 6
    assert quarter.gflops[2] == "0.034"
    assert len(quarter.part_ms) == 7
    assert quarter.peak_memory_mib == "583"
    assert rows[-1].budget == "–"


def test_empties_name_their_causes() -> None:
    cell = fake_results(SMALL).cells[0]
    two = cell.model_copy(update={"empties": {"first-token-eos": 2, "error": 1, "whitespace-only": 0}})
    one = cell.model_copy(update={"empties": {"error": 4}})

    assert empties_text(cell) == "0"
    assert empties_text(one) == "4 (error)"
    assert empties_text(two) == "3 (first-token-eos 2, error 1)"


def test_kinds_have_a_column_each_with_their_counts() -> None:
    table = kind_table(fake_results(SMALL))

    assert table is not None
    assert sorted(table.kinds) == sorted(KINDS)
    assert dict(zip(table.kinds, table.counts, strict=True))["attribute"] == "5"  # 30 samples, 7 kinds
    assert dict(zip(table.kinds, table.counts, strict=True))["locate"] == "4"
    assert all(len(row.values) == 7 for row in table.rows)
    assert all(value.shade is not None and 0 <= value.shade <= 1 for row in table.rows for value in row.values)


def test_a_kind_that_a_cell_lacks_is_a_dash_and_differing_counts_are_said() -> None:
    results = fake_results(SMALL)
    first = results.cells[0]
    by_kind = dict(first.accuracy_by_kind)
    del by_kind["locate"]
    by_kind["attribute"] = by_kind["attribute"].model_copy(update={"n": 3})
    changed = Results(cells=[first.model_copy(update={"accuracy_by_kind": by_kind}), *results.cells[1:]])
    table = kind_table(changed)

    assert table is not None
    column = {kind: number for number, kind in enumerate(table.kinds)}
    assert table.counts[column["attribute"]] == "3 to 5"
    assert table.rows[0].values[column["attribute"]].num_scored == "3"
    assert table.rows[0].values[column["locate"]].accuracy == "–"
    assert table.rows[1].values[column["relation"]].num_scored == "", "the head of the column says it"


def test_no_kinds_no_table() -> None:
    assert kind_table(fake_results(FakeRun(methods=("random",), kinds=(), num_samples=5))) is None
