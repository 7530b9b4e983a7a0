"""The samples in a real browser: filters counted against the records, pictures, keyboard, a second run laid over."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browsing import Visit, needs_browser, visit
from PIL import Image
from rich_runs import KINDS, MadeCell, RichRun, made_cells, write_rich_run
from run_folders import picture_of

from adallava.report.page import write_report

pytestmark = [*needs_browser, pytest.mark.long]
SPEC = RichRun(methods=("random", "uniform", "pool", "fastv"), budgets=(8, 32), num_samples=150)
OTHER = RichRun(methods=("random", "uniform", "pool"), budgets=(8, 32), num_samples=150, shift=0.1)
NUM_PICTURES = 40


def scores_of(spec: RichRun) -> dict[str, np.ndarray]:
    """Return each cell's scores by sample, the mean over its draws."""
    return {cell.name: cell.scores.mean(axis=0) for cell in made_cells(spec)}


@pytest.fixture(scope="module")
def visited(browser: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visit]:
    folder = write_rich_run(tmp_path_factory.mktemp("run"), SPEC)
    other = write_rich_run(tmp_path_factory.mktemp("other") / "before", OTHER)
    page = write_report(folder, picture_of, num_pictures=NUM_PICTURES, laid_over=other)
    visited = visit(browser, page)
    yield visited
    visited.page.close()


@pytest.fixture
def opened(visited: Visit) -> Iterator[Visit]:
    """The page as it was opened."""
    for control in ("filter-right", "filter-wrong", "filter-kind"):
        visited.page.select_option(f"#{control}", "")
    for control in ("filter-hard", "filter-pictured"):
        visited.page.uncheck(f"#{control}")
    visited.page.fill("#filter-words", "")
    visited.page.select_option("#sample-budget", "32")
    yield visited
    assert visited.complaints == []
    assert [url for url in visited.requests if not url.startswith(("file:", "data:", "blob:"))] == []


def choose(opened: Visit, right: str, wrong: str) -> None:
    opened.page.select_option("#filter-right", right)
    opened.page.select_option("#filter-wrong", wrong)


@pytest.mark.parametrize(
    ("right", "wrong"), [("pool@32", "uniform@8"), ("random@32", "full@1.0"), ("full@1.0", "none@none"), ("pool@8", "")]
)
def test_a_right_b_wrong_leaves_as_many_as_the_records_say(opened: Visit, right: str, wrong: str) -> None:
    scores = scores_of(SPEC)
    choose(opened, right, wrong)
    expected = (scores[right] >= 0.5) & ((scores[wrong] < 0.5) if wrong else True)

    assert opened.sample_count() == expected.sum()
    assert all(expected[row] for row in opened.rows())
    assert expected.sum() > 0


def test_the_pair_is_told_both_ways_and_swaps(opened: Visit) -> None:
    scores = scores_of(SPEC)
    choose(opened, "pool@32", "uniform@32")
    one = int(((scores["pool@32"] >= 0.5) & (scores["uniform@32"] < 0.5)).sum())
    reverse = int(((scores["pool@32"] < 0.5) & (scores["uniform@32"] >= 0.5)).sum())
    told = opened.page.locator("#pair").inner_text()
    assert told.startswith(f"pool@32 right and uniform@32 wrong: {one}; the reverse: {reverse}.")
    assert "ahead of" in told or "not told apart" in told
    assert "n = 150" in told

    opened.page.locator("#filter-swap").click()
    assert opened.sample_count() == reverse
    assert opened.page.input_value("#filter-right") == "uniform@32"


def test_filters_add_up(opened: Visit) -> None:
    scores = scores_of(SPEC)
    kinds = np.arange(150) % len(KINDS) == KINDS.index("reading")
    hard = (scores["none@none"] < 0.5) & (scores["downsample@16"] < 0.5)
    opened.page.select_option("#filter-kind", "reading")
    assert opened.sample_count() == kinds.sum()

    opened.page.check("#filter-hard")
    assert opened.sample_count() == (kinds & hard).sum()

    opened.page.select_option("#filter-wrong", "full@1.0")
    assert opened.sample_count() == (kinds & hard & (scores["full@1.0"] < 0.5)).sum()


def test_search_finds_questions_answers_and_ids_whatever_the_case(opened: Visit) -> None:
    opened.page.fill("#filter-words", "THING 14?")
    assert opened.rows() == [14]
    opened.page.fill("#filter-words", "rich-0-00149")
    assert opened.rows() == [149]
    opened.page.fill("#filter-words", "no such words")
    assert opened.sample_count() == 0
    assert "No sample passes" in opened.page.locator("#sample").inner_text()


def wait_until_painted(opened: Visit, number: int) -> None:
    opened.page.wait_for_function(
        "number => document.querySelectorAll('#sample canvas[data-painted]').length === number", arg=number
    )


def test_every_cell_at_the_budget_has_its_picture_with_its_own_patches(opened: Visit) -> None:
    wait_until_painted(opened, 5)
    names = [name.split()[-1] for name in opened.page.locator("#sample .method-name").all_inner_texts()]
    urls = opened.page.eval_on_selector_all("#sample canvas", "all => all.map((canvas) => canvas.toDataURL())")

    assert names == ["full@1.0", "random@32", "uniform@32", "pool@32", "fastv@32"]
    assert len(set(urls)) == 5
    kept = opened.page.locator("#sample .kept").all_inner_texts()
    assert kept == [
        "all tokens",
        "kept 32 of 256, first draw",
        "kept 32 of 256",
        "merged into 32 of 256",
        "kept 32 of 256 by the last layer",
    ]


def test_kept_patches_stay_in_colour_and_dropped_ones_fade(opened: Visit, tmp_path: Path) -> None:
    wait_until_painted(opened, 5)
    urls = opened.page.eval_on_selector_all("#sample canvas", "all => all.map((canvas) => canvas.toDataURL())")
    whole, kept = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB")).astype(int)
        for url in (urls[0], urls[2])
    )
    patch = whole.shape[0] // 16
    middles = np.arange(16) * patch + patch // 2
    same = (np.abs(whole - kept).max(axis=2) <= 2)[np.ix_(middles, middles)]
    lighter = (kept.sum(axis=2) > whole.sum(axis=2))[np.ix_(middles, middles)]

    assert same.sum() == 32
    assert lighter[~same].all()


def test_another_budget_shows_its_cells(opened: Visit) -> None:
    opened.page.select_option("#sample-budget", "8")
    names = [name.split()[-1] for name in opened.page.locator("#sample .method-name").all_inner_texts()]

    assert names == ["full@1.0", "random@8", "uniform@8", "pool@8", "fastv@8"]
    opened.page.select_option("#sample-budget", "32+compact")
    names = [name.split()[-1] for name in opened.page.locator("#sample .method-name").all_inner_texts()]
    assert names == ["full@1.0", "random@32+compact", "uniform@32+compact", "pool@32+compact"]


def test_a_sample_without_a_picture_says_so_and_still_tells_its_answers(opened: Visit) -> None:
    assert f"{NUM_PICTURES} of them with an image" in opened.page.locator("#sample-count").inner_text()
    opened.page.locator("#sample-list").press("End")

    assert f"{NUM_PICTURES} of 150 samples; this is not one of them" in opened.page.locator("#sample").inner_text()
    assert opened.page.locator("#sample canvas").count() == 0
    assert opened.page.locator("#sample .response q").count() >= 5
    opened.page.check("#filter-pictured")
    assert opened.sample_count() == NUM_PICTURES


def selected(opened: Visit) -> tuple[int, str]:
    """Return the place of the selected row, and the id that the list says is active."""
    row = opened.page.locator("#sample-list [aria-selected=true]")
    assert row.count() == 1
    return int(row.get_attribute("data-at")), opened.page.locator("#sample-list").get_attribute("aria-activedescendant")


def test_arrow_keys_walk_the_list_over_its_pages_and_enter_goes_to_the_sample(opened: Visit) -> None:
    sample_list = opened.page.locator("#sample-list")
    sample_list.focus()
    for key, place in (("ArrowDown", 1), ("ArrowUp", 0), ("ArrowUp", 0), ("PageDown", 20), ("ArrowUp", 19)):
        opened.page.keyboard.press(key)
        assert selected(opened) == (place, f"sample-{place}")
    opened.page.keyboard.press("End")
    assert selected(opened) == (149, "sample-149")
    opened.page.keyboard.press("Home")
    question = opened.page.locator("#sample-list [aria-selected=true] .row-question").inner_text()
    opened.page.keyboard.press("Enter")

    assert opened.page.evaluate("document.activeElement.id") == "sample"
    assert opened.page.locator("#sample-question").inner_text() == question


def test_pages_turn_by_their_buttons_and_only_one_page_is_in_the_document(opened: Visit) -> None:
    assert opened.page.locator("#sample-list li").count() == 20
    assert opened.page.locator("#page-before").is_disabled()
    opened.page.locator("#page-after").press("Enter")

    assert opened.page.locator("#page-place").inner_text() == "21 to 40"
    assert opened.page.locator("#sample-list li").count() == 20
    opened.page.locator("#sample-list").press("End")
    assert opened.page.locator("#page-place").inner_text() == "141 to 150"
    assert opened.page.locator("#page-after").is_disabled()


def test_a_picture_opens_by_keyboard_and_escape_closes_it_and_gives_the_focus_back(opened: Visit) -> None:
    button = opened.page.locator("#sample button.picture").nth(1)
    button.focus()
    opened.page.keyboard.press("Enter")
    assert opened.page.locator("#picture").is_visible()
    opened.page.wait_for_selector("#picture canvas[data-painted]")
    assert "random@32, kept 32 of 256" in opened.page.locator("#picture-words").inner_text()

    opened.page.keyboard.press("Escape")
    assert not opened.page.locator("#picture").is_visible()
    assert "random@32" in opened.page.evaluate("document.activeElement.getAttribute('aria-label')")

    opened.page.keyboard.press("Space")
    assert opened.page.locator("#picture").is_visible()
    opened.page.locator("#picture-close").press("Enter")
    assert not opened.page.locator("#picture").is_visible()


@pytest.mark.parametrize("direction", ["gained", "lost"])
def test_the_samples_that_flipped_between_two_runs_are_shown(opened: Visit, direction: str) -> None:
    here, there = scores_of(SPEC)["uniform@8"], scores_of(OTHER)["uniform@8"]
    gained, lost = (here >= 0.5) & (there < 0.5), (here < 0.5) & (there >= 0.5)
    expected = gained if direction == "gained" else lost
    button = opened.page.locator(f'button[aria-label*="uniform@8 {direction}"]')
    if expected.sum() == 0:
        assert button.count() == 0
        return
    assert button.inner_text() == str(expected.sum())
    button.press("Enter")

    assert opened.sample_count() == expected.sum()
    assert sorted(opened.rows()) == np.flatnonzero(expected).tolist()[:20]
    first = opened.page.locator("#sample .method-name").all_inner_texts()[:2]
    assert {text.split(" ", 1)[1] for text in first} == {"uniform@8", "before: uniform@8"}
    assert "The table above shows what changed between the two runs" in opened.page.locator("#pair").inner_text()


def test_the_second_run_is_laid_over_the_plot_and_taken_off(opened: Visit) -> None:
    assert {"pool", "before: pool"} <= set(opened.plot_names())
    opened.page.uncheck("#view-other")
    assert "before: pool" not in opened.plot_names()
    opened.page.check("#view-other")
    assert "before: pool" in opened.plot_names()


def test_it_prints_without_controls_and_with_the_tables(opened: Visit, tmp_path: Path) -> None:
    opened.page.emulate_media(media="print")
    assert not opened.page.locator(".filters").is_visible()
    assert opened.page.locator("#overlay-caption").is_visible()
    assert opened.page.evaluate(
        "document.querySelector('.scroll').scrollHeight <= document.querySelector('.scroll').clientHeight + 1"
    )
    opened.page.emulate_media(media="screen")


def test_made_up_cells_are_what_the_tests_take_them_for() -> None:
    names = [cell.name for cell in made_cells(SPEC) if isinstance(cell, MadeCell)]

    assert "downsample@16" in names
    assert len(names) == 1 + 4 * 2 + 3 + 2
