"""Runs with little to show, in a real browser: nothing right, nothing but the full model, nothing answered."""

from pathlib import Path

import pytest
from browsing import needs_browser, visit
from run_folders import FakeRun, picture_of, write_fake_run

from adallava.records import Interval, Results
from adallava.report.page import write_report

pytestmark = needs_browser
TITLE = "</script><script>window.taken = 1</script><img src=x onerror='window.taken = 1'>"


def test_where_nothing_is_right_the_page_says_so_and_names_no_highest_mean(browser: object, tmp_path: Path) -> None:
    folder = write_fake_run(tmp_path, FakeRun(num_samples=30))
    results = Results.model_validate_json((folder / "results.json").read_text())
    nothing = Interval(mean=0.0, low=0.0, high=0.11, n=30)
    changes = {"accuracy": nothing, "accuracy_by_kind": {}}
    cells = [cell.model_copy(update=changes) for cell in results.cells]
    (folder / "results.json").write_text(results.model_copy(update={"cells": cells}).model_dump_json())
    opened = visit(browser, write_report(folder, picture_of, num_pictures=0, title=TITLE), width=390)

    assert "accuracy is 0 in all" in opened.page.locator("#alarms").inner_text()
    answer = opened.page.locator("#ranking-answer").inner_text()
    assert answer == "Accuracy is 0 for every cell within the budget: no cell is the highest."
    assert opened.page.locator("h1").inner_text() == TITLE
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= 390
    assert opened.complaints == []
    opened.page.close()


@pytest.mark.long
def test_a_run_with_only_the_full_model_is_a_star_on_a_line(browser: object, tmp_path: Path) -> None:
    only_full = write_fake_run(tmp_path, FakeRun(methods=(), num_samples=5))
    opened = visit(browser, write_report(only_full, lambda _: None))

    assert set(opened.plot_names()) == {"full line", "Pareto front", "full-token model", "majority answer"}
    assert "not found" in opened.page.locator("#sample .note").inner_text()
    assert "0 of them with an image" in opened.page.locator("#sample-count").inner_text()
    assert opened.complaints == []
    opened.page.close()


def test_a_run_where_all_failed_says_so(browser: object, tmp_path: Path) -> None:
    spec = FakeRun(methods=("random",), budgets=("8",), num_samples=5, failing=frozenset({"full@1.0", "random@8"}))
    opened = visit(browser, write_report(write_fake_run(tmp_path, spec), picture_of))

    assert "every sample failed" in opened.page.locator("#plot-missing").inner_text()
    assert "failed" in opened.page.locator("#sample .verdict").first.inner_text()
    tables = opened.page.locator("#cells-title ~ *").all_inner_texts()
    assert not any("not counted for this kind of model" in text for text in tables)
    assert opened.complaints == []
    opened.page.close()
