"""Write the report of a run: one HTML page that opens from disk and asks the network for nothing."""

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image
from plotly.offline import get_plotlyjs

from adallava.analysis.measured_ms import timed_batch_sizes
from adallava.records import FULL_METHOD, Axis, Cell, Results, Run
from adallava.records.durable import write_atomically
from adallava.records.picture_frames import is_cut
from adallava.records.read import read_results, read_run, read_samples
from adallava.report import formats, tables, verdicts
from adallava.report.alarm_lines import (
    alarm_lines,
    has_leaders,
    majority_count,
    majority_words,
    nothing_right,
    without_leaders,
)
from adallava.report.axes import axes_of, is_blind
from adallava.report.clock_notes import clock_note, table_clock_note
from adallava.report.facts import run_facts, subject
from adallava.report.hard_samples import hard_samples, hard_words
from adallava.report.marks import method_marks
from adallava.report.old_majority import with_majority
from adallava.report.overlay import OtherRun, Overlay, compare_runs
from adallava.report.page_cells import NamedResults, cells_json, column_name, detail_lines
from adallava.report.page_dials import dials_part, fronts_json
from adallava.report.page_samples import samples_json
from adallava.report.pair_words import least_range
from adallava.report.pick_pictures import Pictures, choose_pictures, kinds_of
from adallava.report.roofline_ms import Roofline, run_roofline
from adallava.report.sample_table import SampleTable, read_table
from adallava.report.seen import cut_words

REPORT_NAME = "report.html"

_SCRIPTS = (
    "unpack", "words", "view", "plot", "ranking", "controls",
    "dials", "samples", "patches", "sample_view", "sample_list", "main",
)  # fmt: skip
"""Files of `templates/js`, in an order in which each needs only those before it."""


def write_report(
    run_folder: Path,
    images_of: Callable[[str], Sequence[Image.Image]],
    *,
    target: Path | None = None,
    num_pictures: int | None = None,
    laid_over: Path | None = None,
    roofline: str | None = None,
    title: str = "",
    tell: Callable[[str], None] = lambda _: None,
) -> Path:
    """Write the page of a run folder, from the files that are in it, and return its path.

    The page is a function of the run's files and images alone: written twice, it is the same to the byte.
    An older report is replaced at once or not at all.

    Args:
        run_folder: holds `run.json`, `samples.jsonl` and `results.json`.
        images_of: the images of a sample id; none where there are none any more.
        target: where to write; None is `report.html` in the run folder.
        num_pictures: how many samples get their images, see `choose_pictures`.
        laid_over: the folder of a second run, on the same samples.
        roofline: hardware whose bound is shown next to the milliseconds, see `run_roofline`.
        title: instead of the run's own.
        tell: see `read_samples`.

    Raises:
        RunFolderError: if one of the files is missing or not what a sweep writes.
        InputError: if the two runs have nothing in common, or the hardware's ceilings are not known.
    """
    run, results, table = _read(run_folder, tell)
    other = None
    if laid_over is not None:
        folder = laid_over.resolve()
        same_name = folder.name == run_folder.resolve().name
        other = OtherRun(f"{folder.parent.name}/{folder.name}" if same_name else folder.name, *_read(folder, tell))
    overlay = None if other is None else compare_runs(run, results, table, other)
    if overlay is not None and overlay.asked_differently:
        tell(
            f"note: {overlay.asked_differently} of the {overlay.num_common} samples in both runs have another question "
            "or other answers in the other run: do not compare the two, they are not runs of the same task"
        )
    columns = _both(table, other, None if other is None else other.table)
    pictures = choose_pictures(columns, images_of, num_pictures)
    with_patches = _read_patches(run_folder, results, pictures)
    there = None if other is None or laid_over is None else _read_patches(laid_over, other.results, pictures)
    drawn = _both(with_patches, other, there)
    bound = run_roofline(run, results, roofline)
    page = _render(_Page(run, results, table, columns, drawn, pictures, other, overlay, bound, title))
    target = target or run_folder / REPORT_NAME
    write_atomically(target, [page.encode("utf-8", errors="replace")])
    return target


@dataclass(frozen=True)
class _Page:
    """What a page is made from.

    `columns` are the table's and, under their page names, those of the other run; `drawn` the same of the samples with
    images alone, with the patches that were kept of them.
    """

    run: Run
    results: Results
    table: SampleTable
    columns: SampleTable
    drawn: SampleTable
    pictures: Pictures
    other: OtherRun | None
    overlay: Overlay | None
    roofline: Roofline | None
    title: str


def _read(folder: Path, tell: Callable[[str], None]) -> tuple[Run, Results, SampleTable]:
    run, results = read_run(folder), read_results(folder)
    # Patches would take more memory than all the rest: they are read of the few samples whose images are shown.
    table = read_table(read_samples(folder, tell, patches=False), [cell.cell for cell in results.cells])
    return run, with_majority(run, results, table), table


def _read_patches(folder: Path, results: Results, pictures: Pictures) -> SampleTable:
    records = read_samples(folder, only=frozenset(pictures.ids)) if pictures.ids else ()
    return read_table(records, [cell.cell for cell in results.cells])


def _both(table: SampleTable, other: OtherRun | None, there: SampleTable | None) -> SampleTable:
    """Return a table with the columns of the other run next to its own."""
    if other is None or there is None:
        return table
    named = NamedResults(other.name, other.results)
    added = {column_name(named, cell): answers for cell, answers in there.columns.items()}
    return SampleTable(table.rows, {**table.columns, **added})


def _render(page: _Page) -> str:
    """Return the page as HTML. What comes from the run is escaped; its policy lets only our scripts run."""
    results = without_leaders(page.results)
    runs = [NamedResults("", results, page.table.merging)]
    if page.other is not None:
        runs.append(NamedResults(page.other.name, page.other.results, page.other.table.merging))
    judged = _verdicts(page)
    values = {
        **_head(page, results),
        **_cells(runs),
        **_clock_notes(results),
        **judged,
        "dials": dials_part(results),
        "rows": tables.cell_rows(results, page.roofline),
        "roofline": page.roofline,
        "parts": tables.part_columns(results),
        "kinds": tables.kind_table(results),
        **_samples(page, results),
        "cells_json": _json_for_html(
            {**cells_json(runs), "fronts": fronts_json(results), "leaders": judged["leaders"]}
        ),
        **_scripts(),
    }
    return _environment().get_template("page.html.jinja").render(values)


def _head(page: _Page, results: Results) -> dict[str, Any]:
    """Return what the page says first, of the run as a whole, by the template's names."""
    title = page.title or page.run.config.title
    return {
        "run": page.run,
        "title": title or subject(page.run),
        "subject": subject(page.run) if title else "",
        "facts": run_facts(page.run, results),
        "results": results,
        "overlay": page.overlay,
        "full": tables.full_cell(results),
        "alarms": alarm_lines(results),
        "nothing_right": nothing_right(results) is not None,
        "majority": None if results.majority is None else majority_words(results.majority),
        "majority_count": "" if results.majority is None else majority_count(results.majority),
        "cut": cut_words(results.seen),
        "hard_words": "" if results.hard_split is None else hard_words(results.hard_split),
    }


def _cells(runs: Sequence[NamedResults]) -> dict[str, Any]:
    """Return what there is to choose among the cells, by the template's names.

    Args:
        runs: the page's, and the one that is laid over it.
    """
    own, every = runs[0].results.cells, [cell for run in runs for cell in run.results.cells]
    flagged = [cell for cell in own if cell.flagged]
    return {
        "flagged": flagged,
        "flagged_alike": _alike(flagged),
        "marks": method_marks(cell.method for cell in every),
        "axes": axes_of(every),
        "position_names": list(dict.fromkeys(cell.positions for cell in own)),
        "has_hard": any(cell.accuracy_hard for cell in own),
        "has_draws": any(cell.draws > 1 for cell in own),
    }


def _alike(flagged: Sequence[Cell]) -> list[list[Cell]]:
    """Return flagged cells by what is said of them: where no image can be read, every cell has the same to say."""
    groups: dict[object, list[Cell]] = {}
    for cell in flagged:
        said = (cell.flag_reason, cell.num_failed, cell.num_samples, tables.empties_text(cell))
        groups.setdefault(said, []).append(cell)
    return list(groups.values())


def _samples(page: _Page, results: Results) -> dict[str, Any]:
    """Return the samples, and what there is to choose among them, by the template's names."""
    hard = hard_samples(results, page.table)
    packed = samples_json(page.columns, page.pictures, hard, page.drawn)
    budgets = _sample_budgets(results)
    return {
        "kind_names": kinds_of(page.table.rows),
        "hard_known": hard is not None,
        "num_samples": len(page.table.rows),
        "tiled": page.table.tiled,
        "framed": any(is_cut(frame) for row in page.table.rows for frame in row.frames or ()),
        "num_pictures": sum(map(bool, page.pictures.uris)),
        "groups": page.pictures.group_counts,
        "responses_complete": packed["responses_complete"],
        "sample_budgets": budgets,
        "first_budget": _first_budget(results, budgets),
        "samples_json": _json_for_html(packed),
    }


def _scripts() -> dict[str, Any]:
    """Return style and scripts, by the template's names: ours, not the run's, and the only texts put in unescaped."""
    plotly_js, page_js = get_plotlyjs(), _page_script()
    return {
        "style": Markup(_asset("page.css")),
        "plotly_js": Markup(plotly_js),
        "page_js": Markup(page_js),
        "script_hashes": " ".join(_csp_hash(script) for script in (plotly_js, page_js)),
    }


def _verdicts(page: _Page) -> dict[str, Any]:
    """Return what is said of who is ahead of whom, by the template's names."""
    results, leaders = without_leaders(page.results), has_leaders(page.results)
    return {
        "leaders": leaders,
        "budgets": verdicts.budget_rows(results) if leaders else [],
        "front": _front(results),
        "pairs": verdicts.pair_rows(results),
        "least": least_range(results.comparisons),
        "area_least": least_range(results.area_comparisons),
        "area_pairs": verdicts.area_pair_rows(results),
        "areas": verdicts.area_table(results),
        "timings": verdicts.timing_table(results),
    }


def _clock_notes(results: Results) -> dict[str, Any]:
    """Return what is said of the milliseconds of answers, timed batches and areas, by the template's names."""
    by_size = {size: clock_note(results.cells, size) for size in timed_batch_sizes(results.cells)}
    return {
        "answers_note": clock_note(results.cells, None),
        "timing_notes": [f"batch {size}: {note}" for size, note in by_size.items() if note],
        "areas_note": table_clock_note(results.cells) if any(area.axis == "ms" for area in results.areas) else "",
    }


@cache
def _environment() -> Environment:
    """Return the templates' environment; it keeps what it has compiled, which takes longer than filling it in."""
    environment = Environment(
        loader=PackageLoader("adallava.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=formats.percent, interval=formats.interval, count=formats.count)
    environment.filters.update(figures3=formats.figures3, gflops=formats.gflops, empties=tables.empties_text)
    environment.filters["probability"] = formats.probability
    environment.filters["details"] = detail_lines
    environment.filters["difference"] = lambda estimate: formats.difference(estimate)[0]
    environment.filters["difference_interval"] = lambda estimate: formats.difference(estimate)[1]
    return environment


def _page_script() -> str:
    files = "\n".join(_asset(f"js/{name}.js") for name in _SCRIPTS)
    return f'"use strict";\n(() => {{\n{files}}})();\n'


def _asset(name: str) -> str:
    return (resources.files("adallava.report") / "templates" / name).read_text(encoding="utf-8")


def _csp_hash(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def _json_for_html(value: object) -> Markup:
    """Return JSON that is safe in a `<script>` element: nothing in it can end the element."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def _front(results: Results) -> list[tuple[str, list[str], str]]:
    """Return, by axis that has one, the cells on the Pareto front, and why not to believe in it."""
    axes: tuple[Axis, ...] = tuple(verdicts.AXIS_TITLES)
    named = [
        (verdicts.AXIS_TITLES[axis], [cell.cell for cell in results.cells if axis in cell.on_front]) for axis in axes
    ]
    notes = {verdicts.AXIS_TITLES["ms"]: table_clock_note(results.cells)}
    return [(title, cells, notes.get(title, "")) for title, cells in named if cells]


def _sample_budgets(results: Results) -> list[tuple[str, int]]:
    """Return the budgets to look at samples at, each with its number of cells."""
    counts = Counter(map(_budget_key, _budgeted(results)))
    return list(counts.items())


def _first_budget(results: Results, budgets: list[tuple[str, int]]) -> str | None:
    """Return the budget that most cells ran at, of these the middle one by tokens; with original positions if any."""
    cells = _budgeted(results)
    cells = [cell for cell in cells if cell.positions == "original"] or cells
    tokens: dict[str, float] = {}
    for cell in cells:
        key = _budget_key(cell)
        tokens[key] = max(tokens.get(key, 0.0), cell.tokens_kept_layer_average)
    most = max((number for budget, number in budgets if budget in tokens), default=0)
    widest = sorted((tokens[budget], budget) for budget, number in budgets if budget in tokens and number == most)
    return widest[(len(widest) - 1) // 2][1] if widest else None


def _budget_key(cell: Cell) -> str:
    return cell.budget_asked + ("+compact" if cell.positions == "compact" else "")


def _budgeted(results: Results) -> list[Cell]:
    return [cell for cell in results.cells if cell.method != FULL_METHOD and not is_blind(cell)]
