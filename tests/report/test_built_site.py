"""The docs site that `make site` built, opened from disk in a real browser with the network cut."""

from pathlib import Path

import pytest
from browsing import needs_browser

SITE = Path(__file__).parents[2] / "build" / "site"

pytestmark = [
    *needs_browser,
    pytest.mark.skipif(not (SITE / "index.html").exists(), reason="`make site` builds it"),
]


@pytest.fixture
def page(browser):
    page = browser.new_page(viewport={"width": 390, "height": 844}, offline=True)
    page.asked = []
    page.on("request", lambda request: page.asked.append(request.url))
    yield page
    assert page.asked
    assert [url for url in page.asked if not url.startswith(("file:", "data:", "blob:"))] == []
    page.close()


@pytest.mark.parametrize("path", ["index.html", "reference/commands.html", "reference/run_folders.html"])
def test_it_asks_for_nothing_and_fits_a_phone(page, path):
    page.goto((SITE / path).as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_search_finds_a_page(page):
    page.goto((SITE / "index.html").as_uri())
    page.locator("label[for=__search]").first.click()
    page.keyboard.type("pyramiddrop", delay=20)
    page.wait_for_selector(".md-search-result__link", timeout=60_000)
    found = page.eval_on_selector_all(".md-search-result__link", "all => all.map((link) => link.href)")
    assert any("methods" in link for link in found)


def test_the_report_is_embedded(page):
    page.goto((SITE / "findings/a_report.html").as_uri())
    page.locator("iframe.report").scroll_into_view_if_needed()
    report = page.frame_locator("iframe.report")
    report.locator("body[data-plot=ready]").wait_for(timeout=120_000)
