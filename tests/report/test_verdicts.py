import itertools

import pytest
from rich_runs import RichRun, made_cells, rich_results
from run_folders import FakeRun, fake_results

from adallava.records import Comparison, Interval, PairedDifference, Results
from adallava.report import formats
from adallava.report.verdicts import area_table, budget_rows, pair_rows, timing_table

METHODS = ("random", "uniform", "pool", "question", "fastv")


@pytest.fixture(scope="module")
def results() -> Results:
    spec = RichRun(methods=METHODS, num_samples=300)
    return rich_results(spec, made_cells(spec))


def test_a_budgets_leader_has_the_highest_mean_and_is_ahead_only_where_a_test_says_so(results: Results) -> None:
    accuracy = {cell.cell: cell.accuracy.mean for cell in results.cells}
    for row in budget_rows(results):
        suffix = "+compact" if row.positions == "compact" else ""
        names = [f"{method}@{row.budget}{suffix}" for method in METHODS]
        present = {name: accuracy[name] for name in names if name in accuracy}
        if not present:
            continue  # the smaller image, at a budget of its own
        assert accuracy[row.leader.cell] == max(present.values())
        for name in set(present) - {row.leader.cell}:
            pair = next(p for p in results.comparisons if {p.cell_a, p.cell_b} == {name, row.leader.cell})
            assert (name.partition("@")[0] in row.ahead_of) == pair.significant
            assert (name.partition("@")[0] in row.not_told_from) == (not pair.significant)


def test_without_tests_nobody_is_ahead() -> None:
    rows = budget_rows(fake_results(FakeRun(num_samples=50)))

    assert len(rows) == 6
    assert all(not row.ahead_of and not row.not_told_from and len(row.untested) == 4 for row in rows)


def test_a_flagged_cell_cannot_lead() -> None:
    spec = FakeRun(methods=("random", "question"), budgets=("8",), first_token_eos={"question@8": 10})
    (row,) = budget_rows(fake_results(spec))
    assert (row.leader.cell, row.flagged) == ("random@8", ("question",))

    (row,) = budget_rows(fake_results(FakeRun(methods=("random",), budgets=("8",), first_token_eos={"random@8": 10})))
    assert row.leader is None


def test_a_pair_is_told_with_the_better_first_and_ahead_only_if_significant() -> None:
    def pair(mean: float, p: float) -> Comparison:
        difference = PairedDifference(mean=mean, low=mean - 0.02, high=mean + 0.02, n=90)
        return Comparison(
            cell_a="a@8", cell_b="b@8", difference=difference, p_value=p, p_adjusted=p, significant=p < 0.05
        )

    cells = fake_results(FakeRun(methods=(), num_samples=3)).cells
    tied, ahead = pair_rows(Results(cells=cells, comparisons=[pair(-0.1, 0.01), pair(0.01, 0.4)]))[::-1]

    assert (ahead.first, ahead.second, ahead.outcome) == ("b@8", "a@8", "ahead")
    assert (ahead.difference, ahead.interval, ahead.num_samples) == ("+10.0", "+8.0 to +12.0", 90)
    assert (tied.first, tied.outcome, tied.p_adjusted) == ("a@8", "open", "0.4")


def verdict(mean: float = 0.01, **fields: object) -> Comparison:
    difference = PairedDifference(mean=mean, low=mean - 0.02, high=mean + 0.02, n=90)
    base = {"p_value": 0.2, "p_adjusted": 0.4, "significant": False, "least_detectable": 0.046, "equivalent": False}
    return Comparison(cell_a="random@8", cell_b="question@8", difference=difference, **(base | fields))


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({}, "not_told_from"),
        ({"equivalent": True, "equivalence_margin": 0.02}, "same_as"),
        ({"significant": True, "family": "planned"}, "ahead_of"),
        ({"significant": True, "family": "exploratory"}, "above"),
    ],
)
def test_sameness_is_said_of_equivalence_alone_and_ahead_of_planned_tests_alone(
    fields: dict[str, object], named: str
) -> None:
    cells = [
        cell.model_copy(update={"accuracy": Interval(mean=0.5 - 0.01 * place, low=0.4, high=0.6, n=90)})
        for place, cell in enumerate(fake_results(FakeRun(methods=("random", "question"), budgets=("8",))).cells[1:])
    ]
    (row,) = budget_rows(Results(cells=cells, comparisons=[verdict(**fields)]))
    assert row.leader.cell == "random@8"
    assert {name: getattr(row, name) for name in ("ahead_of", "above", "same_as", "not_told_from")} == {
        name: ("question",) if name == named else () for name in ("ahead_of", "above", "same_as", "not_told_from")
    }
    assert row.least == (
        "four of five such runs would find true differences of 4.6 points" if named == "not_told_from" else ""
    )


def test_areas_are_sorted_by_the_first_axis_and_say_their_range(results: Results) -> None:
    table = area_table(results)
    first = [float(row.values[0][0]) for row in table.rows]

    assert [title for title, _ in table.heads] == ["tokens, layer average", "FLOPs", "ms to first token"]
    assert first == sorted(first, reverse=True)
    assert table.heads[0][1] == "8.00 to 160 tokens"
    assert all(value[1] and value[2] == "300" for row in table.rows for value in row.values)


def test_times_stand_by_batch_size_with_their_spread(results: Results) -> None:
    table = timing_table(results)
    cell = results.cells[0]

    assert (table.batch_sizes, table.repeats) == ((1, 8, 32), "20")
    assert table.rows[0].cell is cell
    spread = cell.timings[1].part_ms["time_to_first_token"]
    assert table.rows[0].values[1] == (
        formats.figures3(spread.median),
        f"{formats.figures3(spread.low)} to {formats.figures3(spread.high)}",
        "1.50",
        formats.mebibytes(672_000_000),
    )


def test_an_old_run_has_none_of_it() -> None:
    results = fake_results(FakeRun(num_samples=20))

    assert area_table(results) is None
    assert timing_table(results) is None
    assert pair_rows(results) == []


@pytest.mark.parametrize(("p", "text"), [(1e-9, "<0.001"), (0.0123, "0.012"), (1.0, "1"), (0.05, "0.05")])
def test_probabilities(p: float, text: str) -> None:
    assert formats.probability(p) == text


def test_every_pair_at_a_budget_was_made_up(results: Results) -> None:
    assert len(results.comparisons) == 3 * len(list(itertools.combinations(METHODS, 2))) + 6
