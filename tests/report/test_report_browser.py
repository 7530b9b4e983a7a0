"""The page in a real browser: what is drawn, that it reacts, and that it asks the network for nothing."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from plotly.offline import get_plotlyjs
from run_folders import FakeRun, picture_of, write_fake_run

from adallava.report.page import write_report

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
BAD = "</script><script>window.taken = 1</script><img src=x onerror='window.taken = 1'>"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not CHROMIUM.exists() and not os.environ.get("CI"),
        reason=f"{CHROMIUM} is missing: apt-get install chromium",
    ),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = FakeRun(
        methods=("random", "uniform", "pool", "budget-token", "question", "none"),
        budgets=("8", "32", "128"),
        num_samples=60,
        first_token_eos={"random@8": 3},
    )
    return write_report(write_fake_run(tmp_path_factory.mktemp("run"), spec), picture_of)


@dataclass
class Visit:
    """A page that was opened, and what went on while it was."""

    page: object
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


def visit(browser: object, report: Path) -> Visit:
    page = browser.new_page(viewport={"width": 1280, "height": 900})  # type: ignore[attr-defined]
    # Generous: the page holds all of plotly.js, and the machine may be busy.
    page.set_default_timeout(120_000)
    opened = Visit(page)
    page.on("console", lambda message: opened.complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: opened.complaints.append(str(error)))
    page.on("request", lambda request: opened.requests.append(request.url))
    page.goto(report.as_uri())
    page.wait_for_selector("#plot .main-svg")
    return opened


@pytest.fixture(scope="module")
def opened(browser: object, report: Path) -> Iterator[Visit]:
    opened = visit(browser, report)
    yield opened
    opened.page.close()


def test_the_plot_is_drawn_with_a_trace_a_method(opened: Visit) -> None:
    legend = opened.page.locator("#plot .legendtext").all_text_contents()

    assert sorted(legend) == sorted(
        [
            "random",
            "uniform",
            "pool",
            "budget-token",
            "question",
            "none (no vision token)",
            "full-token model",
        ]
    )
    # Those seven and the line of the full-token model.
    assert opened.page.locator("#plot .scatterlayer .trace").count() == 8
    assert opened.page.locator("#plot .errorbar").count() == 5 * 3 + 1


@pytest.mark.parametrize(
    ("key", "title"),
    [
        ("tokens", "vision tokens kept"),
        ("first-token", "ms to the first token"),
        ("total-ms", "ms per answer"),
        ("gflops", "GFLOPs"),
    ],
)
def test_a_button_switches_the_axis_by_keyboard(opened: Visit, key: str, title: str) -> None:
    button = opened.page.locator(f"button[data-axis={key}]")
    button.focus()
    opened.page.keyboard.press("Enter")
    opened.page.wait_for_function(
        "text => document.querySelector('#plot .xtitle').textContent.startsWith(text)", arg=title
    )

    pressed = opened.page.locator("button[data-axis][aria-pressed=true]")
    assert pressed.count() == 1
    assert pressed.get_attribute("data-axis") == key
    assert opened.page.locator("#plot .scatterlayer .trace").count() == 8


def test_every_picture_of_the_examples_is_decoded(opened: Visit) -> None:
    widths = opened.page.evaluate(
        """async () => {
            const images = Array.from(document.querySelectorAll('.example img'));
            await Promise.all(images.map((image) => image.decode()));
            return images.map((image) => image.naturalWidth);
        }"""
    )

    assert len(widths) == 12 * 6
    assert min(widths) >= 112


def test_the_warning_comes_first_and_its_cell_links_to_it(opened: Visit) -> None:
    assert "random@8" in opened.page.locator("#warnings").inner_text()
    assert opened.page.locator("tr.flagged .flag").first.get_attribute("href") == "#warnings"
    tops = opened.page.evaluate(
        "['#warnings', '#plot'].map((s) => document.querySelector(s).getBoundingClientRect().top)"
    )
    assert tops[0] < tops[1]


def test_nothing_was_fetched_and_nothing_complained(opened: Visit) -> None:
    remote = [url for url in opened.requests if not url.startswith(("file:", "data:", "blob:"))]

    assert remote == []
    assert opened.complaints == []


@pytest.mark.parametrize("width", [800, 1280])
def test_the_page_does_not_scroll_sideways(opened: Visit, width: int) -> None:
    opened.page.set_viewport_size({"width": width, "height": 900})
    opened.page.wait_for_function("width => document.querySelector('#plot .main-svg').clientWidth <= width", arg=width)

    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width


def test_dangerous_texts_are_shown_and_not_run(browser: object, tmp_path: Path) -> None:
    spec = FakeRun(methods=("random",), budgets=("8",), num_samples=14, question=BAD, response=BAD)
    folder = write_fake_run(tmp_path, spec)
    for name in ("results.json", "samples.jsonl", "run.json"):
        text = (folder / name).read_text()
        (folder / name).write_text(text.replace("attribute", BAD).replace('"tiny"', f'"{BAD}"'))
    opened = visit(browser, write_report(folder, picture_of))

    assert opened.page.locator("h1").inner_text().startswith(BAD)
    assert BAD in opened.page.locator(".example h3").first.inner_text()
    assert BAD in opened.page.locator(".example .response").first.inner_text()
    assert opened.page.evaluate("window.taken") is None
    assert opened.complaints == []
    opened.page.close()


def test_a_run_with_only_the_full_model_is_a_star_on_a_line(browser: object, tmp_path: Path) -> None:
    only_full = write_fake_run(tmp_path, FakeRun(methods=(), num_samples=5))
    opened = visit(browser, write_report(only_full, lambda _: None))

    assert opened.page.locator("#plot .scatterlayer .trace").count() == 2
    assert "not found" in opened.page.locator(".no-picture").first.inner_text()
    assert opened.complaints == []
    opened.page.close()


def test_the_page_without_plotly_is_below_three_megabytes(report: Path) -> None:
    assert report.stat().st_size - len(get_plotlyjs().encode()) < 3_000_000
