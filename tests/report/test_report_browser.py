"""The plot and the ranking in a real browser: what is drawn, that it reacts, and that it asks for nothing."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from browsing import Visit, needs_browser, visit
from plotly.offline import get_plotlyjs
from rich_runs import RichRun, write_rich_run
from run_folders import FakeRun, picture_of, write_fake_run

from adallava.records import Cell, Results
from adallava.report.marks import mark_of
from adallava.report.page import write_report

pytestmark = needs_browser
BAD = "</script><script>window.taken = 1</script><img src=x onerror='window.taken = 1'>"
SPEC = RichRun(methods=("random", "uniform", "pool", "question", "fastv"), budgets=(8, 32, 128), num_samples=150)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rich_run(tmp_path_factory.mktemp("run"), SPEC)


@pytest.fixture(scope="module")
def cells(folder: Path) -> dict[str, Cell]:
    results = Results.model_validate_json((folder / "results.json").read_text())
    return {cell.cell: cell for cell in results.cells}


@pytest.fixture(scope="module")
def report(folder: Path) -> Path:
    return write_report(folder, picture_of, num_pictures=4)


@pytest.fixture(scope="module")
def visited(browser: object, report: Path) -> Iterator[Visit]:
    visited = visit(browser, report)
    yield visited
    visited.page.close()


@pytest.fixture
def opened(visited: Visit) -> Iterator[Visit]:
    """The page as it was opened; opening it anew for every test would take a second each."""
    visited.page.evaluate("document.activeElement.blur()")
    visited.page.locator("button[data-axis=layer-tokens]").click()
    visited.page.locator("#methods-all").click()
    for control, value in (("view-kind", ""), ("view-split", "all"), ("view-positions", "original")):
        visited.page.select_option(f"#{control}", value)
    yield visited
    assert visited.complaints == []
    assert [url for url in visited.requests if not url.startswith(("file:", "data:", "blob:"))] == []


def curve(opened: Visit, name: str) -> tuple[list[float], list[float]]:
    """Return x and y of the curve with this name."""
    found = opened.page.evaluate(
        """(name) => {
            const trace = document.querySelector('#plot').data.find((trace) => trace.name === name && trace.error_y);
            return [Array.from(trace.x), Array.from(trace.y)];
        }""",
        name,
    )
    return found[0], found[1]


def press_axis(opened: Visit, key: str) -> None:
    opened.page.locator(f"button[data-axis={key}]").focus()
    opened.page.keyboard.press("Enter")


def test_every_method_has_its_curve_and_its_box(opened: Visit) -> None:
    methods = ["full", *SPEC.methods, "downsample", "none"]

    names = [text.split()[-1] for text in opened.page.locator("#methods label").all_inner_texts()]
    assert sorted(names) == sorted(methods)
    assert set(opened.plot_names()) == {
        "full line", "none (no vision token)", "Pareto front", "full-token model", "majority answer", "downsample",
        *SPEC.methods,
    }  # fmt: skip
    assert opened.page.locator("#plot .main-svg").count() > 0


@pytest.mark.parametrize(
    ("key", "title"),
    [
        ("tokens", "vision tokens that enter the LLM"),
        ("gflops", "GFLOPs"),
        ("first-token", "ms to the first token, per sample"),
        ("timed-8", "ms to the first token, a whole batch of 8"),
        ("total-ms", "ms per answer"),
    ],
)
def test_the_axis_switches_by_keyboard_to_the_cells_own_figures(
    opened: Visit, cells: dict[str, Cell], key: str, title: str
) -> None:
    press_axis(opened, key)
    read = {
        "tokens": lambda cell: cell.tokens_kept,
        "gflops": lambda cell: cell.flops["total"] / 1e9,
        "first-token": lambda cell: cell.part_ms["time_to_first_token"],
        "timed-8": lambda cell: cell.timings[1].part_ms["time_to_first_token"].median,
        "total-ms": lambda cell: cell.part_ms["total"],
    }[key]
    xs, ys = curve(opened, "question")
    expected = sorted((cells[f"question@{budget}"] for budget in SPEC.budgets), key=read)

    assert xs == pytest.approx([read(cell) for cell in expected], rel=0.05)
    assert ys == pytest.approx([100 * cell.accuracy.mean for cell in expected], abs=0.01)
    assert opened.page.locator("#plot .xtitle").text_content().startswith(title)
    assert opened.page.locator("button[data-axis][aria-pressed=true]").get_attribute("data-axis") == key


def test_methods_go_and_come_back(opened: Visit) -> None:
    opened.page.locator("#methods label", has_text="question").locator("input").press("Space")
    assert "question" not in opened.plot_names()

    opened.page.locator("#methods-none").click()
    assert set(opened.plot_names()) == {"Pareto front", "majority answer"}
    assert "No cell in view" in opened.page.locator("#ranking-answer").inner_text()

    opened.page.locator("#methods-all").click()
    assert "question" in opened.plot_names()


def test_pointing_at_a_method_leaves_its_curve_alone_in_full_colour(opened: Visit) -> None:
    read = "document.querySelector('#plot').data.filter((trace) => trace.error_y).map((t) => [t.name, t.opacity])"
    opened.page.locator("#methods label", has_text="pool").hover()
    faded = dict(opened.page.evaluate(read))
    opened.page.locator("h1").hover()
    restored = dict(opened.page.evaluate(read))

    assert faded.pop("pool") == 1
    assert set(faded.values()) == {0.12}
    assert set(restored.values()) == {1}


def test_a_question_type_and_the_hard_split_show_their_own_accuracy(opened: Visit, cells: dict[str, Cell]) -> None:
    opened.page.select_option("#view-kind", "reading")
    by_kind = [100 * cells[f"pool@{budget}"].accuracy_by_kind["reading"].mean for budget in SPEC.budgets]
    assert curve(opened, "pool")[1] == pytest.approx(by_kind, abs=0.01)
    assert "all samples only" in opened.page.locator("#ranking-answer").inner_text()

    opened.page.select_option("#view-split", "hard")
    hard = [100 * cells[f"pool@{budget}"].accuracy_hard_by_kind["reading"].mean for budget in SPEC.budgets]
    assert curve(opened, "pool")[1] == pytest.approx(hard, abs=0.01)

    opened.page.select_option("#view-kind", "")
    whole = [100 * cells[f"pool@{budget}"].accuracy_hard.mean for budget in SPEC.budgets]
    assert curve(opened, "pool")[1] == pytest.approx(whole, abs=0.01)


def test_positions_can_be_laid_side_by_side(opened: Visit, cells: dict[str, Cell]) -> None:
    opened.page.select_option("#view-positions", "compact")
    assert curve(opened, "pool+compact")[1] == pytest.approx([100 * cells["pool@32+compact"].accuracy.mean], abs=0.01)
    assert "pool" not in opened.plot_names()

    opened.page.select_option("#view-positions", "both")
    assert {"pool", "pool+compact"} <= set(opened.plot_names())


def best_within(cells: dict[str, Cell], budget: float) -> Cell:
    """Return the cell with the highest mean that costs no more tokens, by the records."""
    allowed = [
        cell
        for cell in cells.values()
        if cell.tokens_kept_layer_average <= budget and cell.positions == "original" and cell.method != "none"
    ]
    return max(allowed, key=lambda cell: cell.accuracy.mean)


@pytest.mark.parametrize("budget", [8, 50, 160, 300])
def test_the_best_cell_within_the_budget_is_named_with_its_interval_and_count(
    opened: Visit, cells: dict[str, Cell], budget: int
) -> None:
    opened.page.fill("#budget-number", str(budget))
    opened.page.keyboard.press("Tab")
    best = best_within(cells, budget)
    answer = opened.page.locator("#ranking-answer").inner_text()

    interval = f"{100 * best.accuracy.low:.1f} to {100 * best.accuracy.high:.1f}"
    assert answer.startswith(
        f"{best.cell} has the highest mean: {100 * best.accuracy.mean:.1f} % ({interval}), n = 150."
    )
    first = opened.page.locator("#ranking li").first.inner_text()
    assert best.cell in first
    assert interval in first


def test_behind_is_said_only_where_a_test_is_significant(opened: Visit, folder: Path, cells: dict[str, Cell]) -> None:
    opened.page.fill("#budget-number", "32")
    opened.page.keyboard.press("Tab")
    results = json.loads((folder / "results.json").read_text())
    best = best_within(cells, 32)
    significant = {
        pair["cell_a"] if pair["cell_b"] == best.cell else pair["cell_b"]
        for pair in results["comparisons"]
        if best.cell in (pair["cell_a"], pair["cell_b"]) and pair["significant"]
    }
    behind = opened.page.locator("#ranking li.behind .rank-name").all_inner_texts()

    shown = {text.split()[-1] for text in opened.page.locator("#ranking .rank-name").all_inner_texts()}
    assert {text.split()[-1] for text in behind} == significant & shown
    assert len(behind) > 0


def test_the_slider_moves_by_arrow_keys_and_says_its_budget(opened: Visit) -> None:
    slider = opened.page.locator("#budget-slider")
    before = float(opened.page.input_value("#budget-number"))
    slider.focus()
    for _ in range(40):
        opened.page.keyboard.press("ArrowRight")

    after = float(opened.page.input_value("#budget-number"))
    assert after > before
    assert slider.get_attribute("aria-valuetext") == f"{after:g} tokens"
    line = opened.page.evaluate("document.querySelector('#plot').layout.shapes[0].x0")
    assert line == after


def test_a_cell_tells_its_details_under_the_pointer(opened: Visit, cells: dict[str, Cell]) -> None:
    press_axis(opened, "gflops")
    opened.page.evaluate("""() => {
        const plot = document.querySelector('#plot');
        const number = plot.data.findIndex((trace) => trace.name === 'pool');
        Plotly.Fx.hover(plot, [{curveNumber: number, pointNumber: 0}]);
    }""")
    told = opened.page.locator("#plot .hoverlayer").text_content()

    cell = cells["pool@8"]
    assert "pool@8" in told
    assert "n = 150" in told
    assert f"{cell.flops['total'] / 1e9:.2f} GFLOPs" in told
    assert "8 of 256 vision tokens" in told


FITS = """() => new Promise((done) => {
    const look = (left) => {
        const wide = Math.max(innerWidth, document.documentElement.scrollWidth);
        if (wide <= innerWidth || left === 0) done([innerWidth, wide]);
        else requestAnimationFrame(() => look(left - 1));
    };
    look(300);
})"""  # The plot follows a moment after the window.


@pytest.mark.parametrize("width", [390, 800, 1280])
def test_the_page_does_not_scroll_sideways(opened: Visit, width: int) -> None:
    opened.page.set_viewport_size({"width": width, "height": 900})
    try:
        assert opened.page.evaluate(FITS) == [width, width]
    finally:
        opened.page.set_viewport_size({"width": 1280, "height": 900})


def test_the_keyboard_reaches_every_control_shows_where_it_is_and_gets_out_again(opened: Visit) -> None:
    # As on a page just opened: back from the first control to before it.
    opened.page.locator("a, button").first.focus()
    opened.page.keyboard.press("Shift+Tab")
    assert opened.page.evaluate("document.activeElement === document.body")
    seen: list[str] = []
    for _ in range(400):
        opened.page.keyboard.press("Tab")
        active = opened.page.evaluate(
            """() => {
                const one = document.activeElement;
                if (one === document.body) return null;
                const style = getComputedStyle(one);
                const shown = style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0;
                return [one.id || one.dataset.axis || one.value || one.className || one.tagName, shown];
            }"""
        )
        if active is None:
            break
        seen.append(active[0])
        assert active[1], f"{active[0]} has the focus and does not show it"
    else:
        pytest.fail("the focus never left the page")

    wanted = ["skip", "layer-tokens", "gflops", "view-kind", "view-split", "budget-number", "budget-slider"]
    wanted += ["filter-right", "filter-words", "sample-list", "page-after", "sample-budget"]
    assert [one for one in wanted if one not in seen] == []
    assert seen.index("layer-tokens") < seen.index("budget-number") < seen.index("filter-right")


def test_a_warning_comes_first_and_dangerous_texts_are_shown_and_not_run(browser: object, tmp_path: Path) -> None:
    spec = FakeRun(
        methods=("random",),
        budgets=("8", "32"),
        num_samples=60,
        first_token_eos={"random@8": 3},
        question=BAD,
        response=BAD,
    )
    folder = write_fake_run(tmp_path, spec)
    for name in ("results.json", "samples.jsonl", "run.json"):
        text = (folder / name).read_text()
        for plain in ("attribute", "tiny", "random"):
            text = text.replace(f'"{plain}"', f'"{BAD}"')
        (folder / name).write_text(text)
    opened = visit(browser, write_report(folder, picture_of))

    assert opened.page.locator("h1").inner_text().startswith(BAD)
    assert opened.page.locator("#sample-question").inner_text() == BAD
    assert BAD in opened.page.locator("#sample .response").first.inner_text()
    assert any(BAD in text for text in opened.page.locator("#methods label").all_inner_texts())
    opened.page.select_option("#view-kind", BAD)
    opened.page.evaluate("""() => {
        const plot = document.querySelector('#plot');
        const number = plot.data.findIndex((trace) => trace.error_y && trace.name.includes('script'));
        Plotly.Fx.hover(plot, [{curveNumber: number, pointNumber: 0}]);
    }""")
    assert opened.page.evaluate("window.taken") is None
    assert opened.page.locator("img").count() == 0

    assert "random@8" in opened.page.locator("#warnings").inner_text()
    assert opened.page.locator("tr.flagged .flag").first.get_attribute("href") == "#warnings"
    tops = opened.page.evaluate(
        "['#warnings', '#plot'].map((s) => document.querySelector(s).getBoundingClientRect().top)"
    )
    assert tops[0] < tops[1]
    symbols = opened.page.evaluate(
        "document.querySelector('#plot').data.find((trace) => trace.name.includes('script')).marker.symbol"
    )
    assert symbols == [f"{mark_of(BAD).symbol}-open", mark_of(BAD).symbol]
    assert opened.complaints == []
    opened.page.close()


LINE_COLOR = """(wanted) => new Promise((done) => {
    const look = (left) => {
        const traces = document.querySelector('#plot').data;
        const line = traces.find((trace) => trace.name === 'question' && trace.error_y).line;
        if (line.color === wanted || left === 0) done(line.color);
        else requestAnimationFrame(() => look(left - 1));
    };
    look(300);
})"""
LISTED_COLOR = """() => getComputedStyle(
    [...document.querySelectorAll('.method')].find((box) => box.textContent.includes('question'))
        .querySelector('.mark'),
).color"""


def test_in_the_dark_a_method_has_its_color_for_it(visited: Visit) -> None:
    page, mark = visited.page, mark_of("question")
    try:
        page.emulate_media(color_scheme="dark")
        assert page.evaluate(LINE_COLOR, mark.dark_colour) == mark.dark_colour
        assert page.evaluate(LISTED_COLOR) == "rgb({}, {}, {})".format(*bytes.fromhex(mark.dark_colour[1:]))
        assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(23, 24, 27)"
    finally:
        page.emulate_media(color_scheme="light")
    assert page.evaluate(LINE_COLOR, mark.colour) == mark.colour


def test_the_page_without_plotly_is_below_three_megabytes(report: Path) -> None:
    assert report.stat().st_size - len(get_plotlyjs().encode()) < 3_000_000
