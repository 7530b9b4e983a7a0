"""Write the report of a run: one HTML page that opens from disk and asks the network for nothing."""

import base64
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image
from plotly.offline import get_plotlyjs

from adallava.records import Results, Run
from adallava.report import formats, tables
from adallava.report.examples import GROUP_TITLES, Examples, choose_examples
from adallava.report.figures import AXES, accuracy_figure, not_drawn
from adallava.report.marks import method_marks
from adallava.report.read import read_results, read_run, read_samples

REPORT_NAME = "report.html"


def write_report(run_folder: Path, image_of: Callable[[str], Image.Image | None]) -> Path:
    """Write `report.html` into a run folder, from the files that are in it, and return its path.

    The page is a function of the run's files and pictures alone: written twice, it is the same to the byte.
    An older report is replaced at once or not at all.

    Args:
        run_folder: holds `run.json`, `samples.jsonl` and `results.json`.
        image_of: the picture of a sample id, or None where there is none any more.

    Raises:
        RunFolderError: if one of the files is missing or not what a sweep writes.
    """
    run, results = read_run(run_folder), read_results(run_folder)
    examples = choose_examples(results, read_samples(run_folder), image_of)
    page = render_page(run, results, examples)
    target = run_folder / REPORT_NAME
    unfinished = run_folder / f".{REPORT_NAME}.{os.getpid()}"
    unfinished.write_text(page, encoding="utf-8", newline="\n")
    unfinished.replace(target)
    return target


def render_page(run: Run, results: Results, examples: Examples) -> str:
    """Return the page as HTML. What comes from the run is escaped; its policy lets only our scripts run."""
    environment = Environment(
        loader=PackageLoader("adallava.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=formats.percent, interval=formats.interval, count=formats.count)
    environment.filters.update(figures3=formats.figures3, gflops=formats.gflops, empties=tables.empties_text)
    plotly_js, page_js = get_plotlyjs(), _asset("page.js")
    return environment.get_template("page.html.jinja").render(
        run=run,
        title=f"{run.config.model} on {run.config.task}",
        facts=_facts(run, results),
        results=results,
        full=tables.full_cell(results),
        flagged=[cell for cell in results.cells if cell.flagged],
        marks=method_marks(cell.method for cell in results.cells),
        axes=AXES,
        plots=_json_for_html(_plots(results)),
        rows=tables.cell_rows(results),
        parts=tables.part_columns(results),
        kinds=tables.kind_table(results),
        examples=examples,
        group_titles=GROUP_TITLES,
        # Ours, not the run's: the only texts that go in unescaped.
        style=Markup(_asset("page.css")),
        plotly_js=Markup(plotly_js),
        page_js=Markup(page_js),
        script_hashes=" ".join(_csp_hash(script) for script in (plotly_js, page_js)),
    )


def _asset(name: str) -> str:
    return (resources.files("adallava.report") / "templates" / name).read_text(encoding="utf-8")


def _csp_hash(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def _plots(results: Results) -> list[dict[str, Any]]:
    return [
        {
            "key": axis.key,
            "figure": json.loads(accuracy_figure(results, axis).to_json()),
            "missing": [f"{cell}: {reason}" for cell, reason in not_drawn(results, axis).items()],
        }
        for axis in AXES
    ]


def _json_for_html(value: object) -> Markup:
    """Return JSON that may stand in a `<script>` element: nothing in it can end the element."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


@dataclass(frozen=True)
class _Fact:
    """One line of what was run. `width` is the share of the page it needs; narrow facts go first."""

    name: str
    value: str
    is_digest: bool = False

    @property
    def width(self) -> str:
        return "narrow" if len(self.value) <= 30 else "half" if len(self.value) <= 64 else "wide"


def _facts(run: Run, results: Results) -> list[_Fact]:
    """Return what was run and on what, in reading order within each width."""
    config, origin = run.config, run.provenance
    counts = [cell.num_samples for cell in results.cells]
    samples = formats.count(max(counts, default=0))
    if counts and min(counts) != max(counts):
        samples = f"{formats.count(min(counts))} to {samples}, by cell"
    if config.limit is not None:
        samples += f" (limit {config.limit})"
    commit = origin.git_commit or "not in a git checkout"
    if origin.git_dirty:
        commit += ", with uncommitted changes"
    facts = [
        ("Model", config.model),
        ("Task", config.task + (f", split {config.split}" if config.split else "")),
        ("Samples", samples),
        ("Methods", ", ".join(config.methods)),
        ("Token budgets", ", ".join(config.token_budgets)),
        ("Batch size", str(config.batch_size)),
        ("Seed", str(config.seed)),
        ("New tokens at most", str(config.max_new_tokens)),
        ("Precision, device", f"{config.dtype}, {config.device}, {config.attn_implementation} attention"),
        ("Positions", ", ".join(config.positions)),
        ("Columns", _pairs(config.columns)),
        ("Hardware", _pairs(origin.hardware)),
        ("Versions", _pairs({"adallava": origin.adallava_version, **origin.versions})),
        ("Commit", commit),
        ("Started", origin.started_at),
    ]
    digests = [
        ("SHA-256 of the weights", origin.weights_sha256),
        *((f"SHA-256 of the adapter “{method}”", digest) for method, digest in origin.adapter_sha256.items()),
        ("SHA-256 of the task's file", origin.task_sha256),
    ]
    shown = [_Fact(name, value) for name, value in facts if value]
    shown += [_Fact(name, digest, is_digest=True) for name, digest in digests if digest]
    return sorted(shown, key=lambda fact: ("narrow", "half", "wide").index(fact.width))


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
