"""10,000 samples by 15 methods: the page stays small and works. `benchmarks/report_page.py` measures how fast."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from browsing import Visit, needs_browser, visit
from plotly.offline import get_plotlyjs
from rich_runs import METHODS, RichRun, made_cells, rich_records, write_rich_run
from run_folders import picture_of

from adallava.records import SampleRecord
from adallava.report.page import write_report

pytestmark = [*needs_browser, pytest.mark.long]


@pytest.fixture(scope="module", params=[1_000, pytest.param(10_000, marks=pytest.mark.long)])
def spec(request: pytest.FixtureRequest) -> RichRun:
    return RichRun(num_samples=request.param, budgets=(32,), draws=1, compact=False)


@pytest.fixture(scope="module")
def report(spec: RichRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of a run whose answers never were on disk: writing and reading 180,000 lines takes a while."""
    folder = write_rich_run(tmp_path_factory.mktemp("large"), RichRun(num_samples=3, budgets=(32,), compact=False))
    cells = made_cells(spec)

    def records(*_: object, only: frozenset[str] | None = None, **__: object) -> Iterator[SampleRecord]:
        for record in rich_records(spec, cells):
            if only is None or record["sample_id"] in only:
                yield SampleRecord(**record)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("adallava.report.page.read_samples", records)
        return write_report(folder, picture_of)


@pytest.fixture(scope="module")
def opened(browser: object, report: Path) -> Iterator[Visit]:
    opened = visit(browser, report)
    yield opened
    assert opened.complaints == []
    opened.page.close()


def test_the_page_weighs_less_than_its_plotting_library(report: Path) -> None:
    assert report.stat().st_size < 2 * len(get_plotlyjs().encode())
    assert report.stat().st_size - len(get_plotlyjs().encode()) < 3_000_000


def test_all_samples_are_listed_but_few_are_in_the_document(opened: Visit, spec: RichRun) -> None:
    assert len(METHODS) == 15
    assert opened.sample_count() == spec.num_samples
    assert opened.page.locator("#sample-list li").count() == 20
    assert opened.page.locator("canvas").count() <= len(METHODS) + 3


def test_a_filter_counts_what_the_records_hold(opened: Visit, spec: RichRun) -> None:
    scores = {cell.name: cell.scores[0] for cell in made_cells(spec)}
    opened.page.select_option("#filter-right", "tome@32")
    opened.page.select_option("#filter-wrong", "random@32")
    expected = (scores["tome@32"] == 1) & (scores["random@32"] == 0)

    assert opened.sample_count() == expected.sum() > 0
    opened.page.fill("#filter-words", "thing 77")
    named = [n for n in range(spec.num_samples) if str(n).startswith("77") and expected[n]]
    assert opened.sample_count() == len(named)


def test_the_last_sample_is_one_key_away(opened: Visit, spec: RichRun) -> None:
    for control in ("filter-right", "filter-wrong"):
        opened.page.select_option(f"#{control}", "")
    opened.page.fill("#filter-words", "")
    opened.page.locator("#sample-list").press("End")

    assert opened.page.locator("#page-place").inner_text() == f"{spec.num_samples - 19:,} to {spec.num_samples:,}"
    assert opened.page.locator("#sample-question").is_visible()
