"""How long a report of many answers takes to write and to open: `python benchmarks/report_page.py [--output FILE]`.

Makes a run folder of 15 methods (answers are made up), writes its page, opens it in headless Chromium with the network
cut, and works with it. Prints a table, then JSON as its last line. Times are the median of `--repeats`.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "report"))

from rich_runs import METHODS, RichRun, write_rich_run
from run_folders import picture_of

from adallava.report.page import write_report

FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
LABELS = {
    "write_run_s": "make the run folder, s",
    "write_page_s": "write the page, s",
    "page_mib": "the page, MiB",
    "ranking_ms": "open until the ranking shows, ms",
    "samples_ms": "open until the samples are listed, ms",
    "plot_ms": "open until the plot is drawn, ms",
    "axis_ms": "switch the axis, ms",
    "filter_ms": "filter A right, B wrong, ms",
    "search_ms": "search a word, ms",
    "next_ms": "next sample with its pictures, ms",
}

# Each runs in the page and resolves once the browser has drawn what it did: two frames later.
_DRAWN = "await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));"
ACTIONS = {
    "axis_ms": "document.querySelector('button[data-axis=gflops]').click();",
    "filter_ms": """for (const [id, cell] of [["filter-right", "random@32"], ["filter-wrong", "pool@8"]]) {
        const select = document.getElementById(id);
        select.value = cell;
        select.dispatchEvent(new Event("change"));
    }""",
    "search_ms": """const field = document.getElementById("filter-words");
    field.value = "thing 9";
    field.dispatchEvent(new Event("input"));""",
    "next_ms": """document.getElementById("sample-list").dispatchEvent(
        new KeyboardEvent("keydown", { key: "ArrowDown", cancelable: true }));""",
}


def measure(browser: Browser, page_file: Path) -> dict[str, float]:
    """Open the page once and time it; milliseconds since the navigation began."""
    page = browser.new_page(viewport={"width": 1280, "height": 900}, offline=True)
    page.set_default_timeout(120_000)
    # Marks set by the page's own clock, so that talking to the browser costs nothing.
    page.add_init_script("""new MutationObserver(() => {
        for (const name of ["ranking", "samples", "plot"]) {
            const body = document.body;
            if (body && body.dataset[name] && !performance.getEntriesByName(name).length) performance.mark(name);
        }
    }).observe(document, {
        attributes: true, subtree: true, attributeFilter: ["data-ranking", "data-samples", "data-plot"],
    });""")
    page.goto(page_file.as_uri())
    page.wait_for_selector("body[data-plot=ready]")
    times = page.evaluate(
        "() => ['ranking', 'samples', 'plot'].map((name) => performance.getEntriesByName(name)[0].startTime)"
    )
    found = dict(zip(("ranking_ms", "samples_ms", "plot_ms"), times, strict=True))
    for name, action in ACTIONS.items():
        found[name] = page.evaluate(
            f"async () => {{ const start = performance.now(); {action} {_DRAWN} return performance.now() - start; }}"
        )
    page.close()
    return found


def main() -> None:
    """Make, write, open, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, help="also write the JSON into this file")
    args = parser.parse_args()
    spec = RichRun(num_samples=args.samples)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        start = time.perf_counter()
        run_folder = write_rich_run(Path(folder), spec)
        written = time.perf_counter()
        page_file = write_report(run_folder, picture_of)
        result: dict[str, Any] = {
            "write_run_s": written - start,
            "write_page_s": time.perf_counter() - written,
            "page_mib": page_file.stat().st_size / 2**20,
        }
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        visits = [measure(browser, page_file) for _ in range(args.repeats)]
        result |= {name: statistics.median(visit[name] for visit in visits) for name in visits[0]}
        result["slowest_plot_ms"] = max(visit["plot_ms"] for visit in visits)
        answers = sum(1 for _ in (run_folder / "samples.jsonl").open())
        chromium = browser.version
        browser.close()
    for name, label in LABELS.items():
        print(f"{label:42}{result[name]:10.1f}")
    result |= {
        "command": " ".join(["python", *sys.argv]),
        "date": time.strftime("%Y-%m-%d"),
        "samples": args.samples, "methods": len(METHODS), "answers": answers, "repeats": args.repeats,
        "chromium": chromium, "machine": platform.processor() or platform.machine(), "cores": os.cpu_count(),
    }  # fmt: skip
    result = {name: round(value, 2) if isinstance(value, float) else value for name, value in result.items()}
    if args.output:
        args.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
