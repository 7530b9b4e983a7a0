"""Open a page in a real browser, and note what it asks for and complains of."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]

needs_browser = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not CHROMIUM.exists() and not os.environ.get("CI"),
        reason=f"{CHROMIUM} is missing: apt-get install chromium",
    ),
]


@dataclass
class Visit:
    """A page that was opened, and what went on while it was."""

    page: object
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def plot_names(self) -> list[str]:
        """Return the names of what is drawn, without the line of the full-token model."""
        return self.page.evaluate("document.querySelector('#plot').data.map((trace) => trace.name)")

    def rows(self) -> list[int]:
        """Return the sample rows on the page of the list that is shown."""
        return self.page.eval_on_selector_all("#sample-list li", "all => all.map((row) => Number(row.dataset.row))")

    def sample_count(self) -> int:
        """Return how many samples pass the filter, by the page's own words."""
        return int(self.page.locator("#sample-count").inner_text().split(" of ")[0].replace(",", ""))


def visit(browser: object, report: Path, width: int = 1280) -> Visit:
    """Open a page with the network cut, and wait until it is awake."""
    page = browser.new_page(viewport={"width": width, "height": 900}, offline=True)  # type: ignore[attr-defined]
    # Generous: the page holds all of plotly.js, and the machine may be busy.
    page.set_default_timeout(120_000)
    opened = Visit(page)
    page.on("console", lambda message: opened.complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: opened.complaints.append(str(error)))
    page.on("request", lambda request: opened.requests.append(request.url))
    page.goto(report.as_uri())
    page.wait_for_selector("body[data-samples=ready][data-plot=ready]")
    return opened
