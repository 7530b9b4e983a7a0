"""Both dials on the page, in a real browser, and in the tables of a paper."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from browsing import Visit, needs_browser, visit
from dial_records import BUDGETS, LATENCIES, SCHEDULERS, dial_plans, dial_results, write_dial_run
from PIL import Image
from run_folders import FakeRun, fake_results

from adallava.records import Cell, Results
from adallava.report import formats
from adallava.report.dial_grid import heat_maps
from adallava.report.dial_tables import dial_tables, plans_table
from adallava.report.layer_strip import draw_strip, strip_text, strip_words
from adallava.report.page import write_report
from adallava.report.paper_dials import write_dial_figures
from adallava.report.plain_table import PaperTable


@pytest.fixture(scope="module")
def results() -> Results:
    return dial_results()


@pytest.fixture(scope="module")
def cells(results: Results) -> dict[str, Cell]:
    return {cell.cell: cell for cell in results.cells}


@pytest.fixture(scope="module")
def visited(browser: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visit]:
    folder = write_dial_run(tmp_path_factory.mktemp("run"))
    visited = visit(browser, write_report(folder, lambda _: ()))
    yield visited
    visited.page.close()


@pytest.fixture
def opened(visited: Visit) -> Iterator[Visit]:
    yield visited
    assert visited.complaints == []
    assert [url for url in visited.requests if not url.startswith(("file:", "data:", "blob:"))] == []


# ---- in the browser ----


@pytest.mark.browser
class TestBrowser:
    pytestmark = needs_browser

    @pytest.mark.long
    def test_there_is_a_map_for_each_method_and_scheduler_with_every_cell(self, opened: Visit, cells) -> None:
        maps = opened.page.locator(".map")
        captions = [caption.strip() for caption in opened.page.locator(".map caption").all_inner_texts()]
        assert captions == [f"uniform with {scheduler}" for scheduler in SCHEDULERS]
        first = maps.nth(0)
        assert first.locator("thead th").all_inner_texts()[1:] == ["all", "8", "4"]
        assert first.locator("tbody th").all_inner_texts() == ["1.0", "0.75", "0.5"]
        shown = [text.split("◖")[0].strip() for text in first.locator("td .value").all_inner_texts()]
        expected = [
            cells[f"{tokens}{schedule}"].accuracy.mean
            for schedule in ("", "/layers@0.75", "/layers@0.5")
            for tokens in ("full@1.0", "uniform@8", "uniform@4")
        ]
        assert shown == [formats.percent(mean) for mean in expected]

    def test_pointing_at_a_cell_or_stepping_to_it_shows_interval_and_count(self, opened: Visit, cells) -> None:
        cell = cells["uniform@8/layers@0.75"]
        place = opened.page.locator(".map").nth(0).locator("td").nth(4)
        tip = place.locator(".tip")
        assert not tip.is_visible()
        place.hover()
        assert tip.is_visible()
        words = tip.inner_text()
        assert cell.cell in words
        assert f"({formats.interval(cell.accuracy)}), n = 60" in words
        assert "75.0 % of the LLM's layers" in words
        opened.page.mouse.move(0, 0)
        assert not tip.is_visible()
        place.focus()
        assert tip.is_visible()
        box, width = tip.bounding_box(), opened.page.viewport_size["width"]
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        opened.page.evaluate("document.activeElement.blur()")

    def test_darker_is_higher(self, opened: Visit, cells) -> None:
        shades = opened.page.eval_on_selector_all(
            ".map td", "all => all.map((td) => [td.querySelector('.tip b').textContent, td.style.background])"
        )
        opacity = {name: float(style.split(",")[-1].rstrip(") ")) for name, style in shades}
        ranked = sorted(opacity, key=lambda name: cells[name].accuracy.mean)
        assert [opacity[name] for name in ranked] == sorted(opacity.values())
        assert opacity[ranked[0]] < 0.01 < 0.5 < opacity[ranked[-1]]

    @pytest.mark.parametrize(
        ("label", "axis", "batch_size"), [("FLOPs", "flops", None), ("ms at batch 8", "ms", 8)]
    )  # fmt: skip
    def test_the_fronts_are_drawn_over_the_cost_that_is_chosen(
        self, opened: Visit, results: Results, cells, label: str, axis: str, batch_size: int | None
    ) -> None:
        opened.page.get_by_role("button", name=label, exact=True).click()
        drawn = opened.page.evaluate(
            "document.querySelector('#front-plot').data.map((one) => [one.name, Array.from(one.y), Array.from(one.x)])"
        )
        fronts = {
            front.alone: front for front in results.dials.fronts if (front.axis, front.batch_size) == (axis, batch_size)
        }
        expected = {
            "both dials": fronts["tokens"].front,
            "tokens alone": fronts["tokens"].front_alone,
            "layers alone": fronts["layers"].front_alone,
        }
        assert [name for name, _, _ in drawn] == [*expected, "a cell"]
        for name, y, x in drawn[:3]:
            assert y == pytest.approx([100 * cells[cell].accuracy.mean for cell in expected[name]], abs=0.01)
            assert x == sorted(x)
        assert len(drawn[3][1]) == len(cells)

    def test_curves_with_layers_left_out_wait_to_be_asked_for(self, opened: Visit) -> None:
        boxes = {
            label.inner_text().split()[-1]: label.locator("input").is_checked()
            for label in opened.page.locator("#methods label").all()
        }
        assert {name for name, checked in boxes.items() if checked} == {"full", "uniform"}
        assert "uniform/layers@0.75" not in opened.plot_names()
        opened.page.locator("#methods-all").click()
        assert "uniform/layers@0.75" in opened.plot_names()

    def test_the_tables_stand_on_the_page_as_they_are_exported(self, opened: Visit, results: Results) -> None:
        for table in dial_tables(results):
            if table.name == "grid":
                continue  # the maps are it
            opened.page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
            rows = opened.page.locator(f"#{table.name} tbody tr")
            assert rows.count() == len(table.rows), table.name
            texts = [" ".join(text.split()) for text in rows.nth(0).locator("th, td").all_inner_texts()]
            assert texts == [f"{entry.text} {entry.note}".strip() for entry in table.rows[0]]

    def test_plans_are_drawn_as_strips_with_their_layers_in_words(self, opened: Visit) -> None:
        labels = opened.page.eval_on_selector_all(
            ".strips li", "all => all.map((li) => li.querySelector('.strip').getAttribute('aria-label'))"
        )
        # `layers` and `random` have several equally common plans: the one without the earliest layers is named.
        of_75 = ["layers 0-3, 5, 7", "layers 0-4, 6", "layers 0-3, 6-7", "layers 0-3, 5, 7"]
        assert labels == [*of_75, *["layers 0-3"] * len(SCHEDULERS)]


# ---- without one ----


def test_a_run_without_the_second_dial_has_nothing_of_it(tmp_path: Path) -> None:
    spec = FakeRun(methods=("random",), budgets=("8",), num_samples=20)
    assert dial_tables(fake_results(spec)) == []
    assert heat_maps(fake_results(spec)) == []


def test_a_method_that_chooses_its_own_number_of_tokens_has_its_column() -> None:
    plans = dial_plans(("spaced",))
    results = dial_results(plans)
    own = [
        cell.model_copy(update={"budget_asked": "none", "cell": cell.cell.replace("@8", "@none")})
        for cell in results.cells
        if cell.budget_asked != "4"
    ]
    (only,) = heat_maps(results.model_copy(update={"cells": own}))
    assert only.budgets == ("all", "none")
    assert all(cell is not None for row in only.cells for cell in row)


def test_each_scheduler_has_its_row_and_each_pair_its_difference(results: Results, cells) -> None:
    tables = {table.name: table for table in dial_tables(results)}
    assert [row[0].text for row in tables["layers"].rows] == list(SCHEDULERS)
    assert tables["layers"].head == ("scheduler", "75.0 % of layers", "50.0 % of layers")
    assert tables["layers"].rows[0][1].text == formats.percent(cells["full@1.0/layers@0.75"].accuracy.mean)
    pairs = {row[0].text: row for row in tables["layer-pairs"].rows}
    assert len(pairs) == 6
    found = pairs["layers − spaced"][1]
    names = ("full@1.0/layers@0.75", "full@1.0/spaced@0.75")
    (pair,) = (pair for pair in results.comparisons if (pair.cell_a, pair.cell_b) == names)
    assert (found.text, found.bold) == (formats.points(pair.difference.mean), pair.significant)
    grid = tables["grid"]
    assert grid.head == ("method", "scheduler", "layers, %", "all", "8", "4")
    # All layers once, then two latencies for each scheduler.
    assert len(grid.rows) == 1 + len(SCHEDULERS) * (len(LATENCIES) - 1)
    assert len(grid.head) == 4 + len(BUDGETS)


def failed(cell: Cell) -> Cell:
    """Return a cell as it is summed up when every sample failed."""
    nothing = dict.fromkeys(("layer_share", "num_vision_tokens", "tokens_kept", "tokens_kept_layer_average"), 0.0)
    return cell.model_copy(update={**nothing, "accuracy": None})


def without(results: Results, *names: str) -> Results:
    cells = [failed(cell) if cell.cell in names else cell for cell in results.cells]
    return results.model_copy(update={"cells": cells})


def tables_of(results: Results) -> dict[str, PaperTable]:
    return {table.name: table for table in dial_tables(results)}


def test_a_cell_that_answered_nothing_says_nothing_of_layers_and_tokens(results: Results) -> None:
    stock = tables_of(results)
    broken = tables_of(without(results, "full@1.0/spaced@0.75", "uniform@8/spaced@0.5"))
    assert [broken[name].head for name in ("layers", "layer-pairs", "grid")] == [
        stock[name].head for name in ("layers", "layer-pairs", "grid")
    ]
    rows = {(row[1].text, row[2].text): row for row in broken["grid"].rows}
    assert rows.keys() == {(row[1].text, row[2].text) for row in stock["grid"].rows}
    assert rows["spaced", "75.0"][3].text == formats.DASH
    assert rows["spaced", "75.0"][4].text != formats.DASH


def test_a_latency_that_nothing_answered_or_that_ran_unlike_shares_is_named_as_it_was_asked_for(
    results: Results,
) -> None:
    none = tables_of(without(results, *(f"full@1.0/{scheduler}@0.75" for scheduler in SCHEDULERS)))
    assert set(none["layers"].head) == {"scheduler", "latency 0.75", "50.0 % of layers"}
    cells = [
        cell.model_copy(update={"layer_share": 0.72}) if cell.cell == "full@1.0/spaced@0.75" else cell
        for cell in results.cells
    ]
    unlike = tables_of(results.model_copy(update={"cells": cells}))
    assert unlike["layers"].head == ("scheduler", "latency 0.75", "50.0 % of layers")


def test_a_scheduler_with_cells_at_full_latency_hides_no_stock_cell(results: Results, cells: dict[str, Cell]) -> None:
    own = [
        cells[name].model_copy(
            update={"cell": f"{name}/layers@1.0", "method": f"{cells[name].method}/layers@1.0", "scheduler": "layers"}
        )
        for name in ("full@1.0", "uniform@8", "uniform@4")
    ]
    more = results.model_copy(update={"cells": [*results.cells, *own]})
    maps = {map_.scheduler: map_ for map_ in heat_maps(more)}
    assert maps["layers"].latencies == ("stock", "1.0", "0.75", "0.5")
    assert maps["spaced"].latencies == ("1.0", "0.75", "0.5")
    names = [[cell.cell for cell in row if cell] for row in maps["layers"].cells]
    assert names[0] == ["full@1.0", "uniform@8", "uniform@4"]
    assert names[1] == [f"{name}/layers@1.0" for name in names[0]]
    rows = [(row[1].text, row[2].text) for row in tables_of(more)["grid"].rows]
    assert rows.count(("–", "100.0")) == 1
    assert rows.count(("layers", "100.0")) == 1


def test_plans_of_heads_and_slices_are_said_to_be_of_heads_alone(results: Results) -> None:
    said = "name only heads"
    assert said not in tables_of(results)["plans"].caption
    plans = [
        one.model_copy(update={"cell": one.cell.replace("/layers@", "/adallava-heads@")}) for one in results.dials.plans
    ]
    dials = results.dials.model_copy(update={"plans": plans})
    assert said in plans_table(dials).caption


def test_cells_with_the_same_plans_share_a_row_and_single_plans_are_named_in_the_caption(results: Results) -> None:
    plans = next(table for table in dial_tables(results) if table.name == "plans")
    assert [(row[0].text, row[0].note, row[2].text) for row in plans.rows] == [
        ("layers@0.75", "(3 cells)", "2"),
        ("random@0.75", "(3 cells)", "4"),
    ]
    assert plans.head == ("cell", "n", "plans", "most common", "counting", "reading")
    assert "fixed@0.75" in plans.caption


@pytest.mark.long
def test_maps_and_fronts_are_figures_too_and_the_same_every_time(tmp_path: Path, results: Results) -> None:
    paths = write_dial_figures(results, tmp_path)
    assert sorted(path.name for path in paths if path.suffix == ".pdf") == [
        "front-gflops.pdf", "front-timed-1.pdf", "front-timed-8.pdf", "grid.pdf",
    ]  # fmt: skip
    with Image.open(tmp_path / "grid.png") as image:
        assert image.width == round(6.3 * 300)
        assert len(image.convert("RGB").getcolors(10**6) or []) > 50, "something is drawn"
    before = {path.name: path.read_bytes() for path in paths}
    assert {path.name: path.read_bytes() for path in write_dial_figures(results, tmp_path)} == before
    assert (
        write_dial_figures(fake_results(FakeRun(methods=("random",), budgets=("8",), num_samples=20)), tmp_path) == []
    )


def test_a_strip_says_which_layers_ran() -> None:
    shares = [1.0, 1.0, 1.0, 0.5, 0.0, 1.0, 0.0]
    assert strip_text(shares) == "███▄·█·"
    assert strip_words(shares) == "0-2, 3 (50 %), 5"
    assert strip_words([0.0, 0.0]) == "none"
    strip = draw_strip(shares, 70, 11)
    middle = [strip.getpixel((10 * layer + 5, 8)) for layer in range(7)]
    ran, left_out = middle[0], middle[4]
    assert ran != left_out
    assert [colour == ran for colour in middle] == [True, True, True, True, False, True, False]
    # Of the half layer only the lower half is filled.
    assert strip.getpixel((35, 8)) == ran
    assert strip.getpixel((35, 2)) == left_out
