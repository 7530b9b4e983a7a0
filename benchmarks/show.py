"""Writes the tables of README and docs from `docs/results/*.json`: `python benchmarks/show.py [--check]`.

A page holds `<!-- figures: NAME -->` and `<!-- end figures -->`; what stands between them is replaced by the table
NAME of this file. With `--check` nothing is written, and the exit code is 1 if a page is out of date.
"""

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/report.md", "src/adallava/bundled/tiny/README.md")
STAGES = ("align", "look", "base", "relate", "question", "budget-token")
KINDS = ("attribute", "existence", "counting", "comparison", "relation", "reading", "locating")


def _cells() -> dict[str, dict]:
    published = json.loads((ROOT / "docs/results/tiny.json").read_text())
    return {cell["cell"]: cell for cell in published["cells"]}


def _percent(interval: dict | None) -> str:
    if interval is None:
        return "–"
    return f"{100 * interval['mean']:.1f} [{100 * interval['low']:.1f}, {100 * interval['high']:.1f}]"


def _accuracy() -> list[str]:
    cells = _cells()
    budgets = sorted({int(c["budget_asked"]) for c in cells.values() if c["budget_asked"].isdigit()}, reverse=True)
    methods = [m for m in dict.fromkeys(cell["method"] for cell in cells.values()) if m not in ("full", "none")]
    full = cells["full@1.0"]
    none = next(cell for cell in cells.values() if cell["method"] == "none")
    rows = [
        f"| method | {' | '.join(f'{budget} tokens' for budget in budgets)} |",
        "| --- |" + " --- |" * len(budgets),
    ]
    for method in methods:
        found = [cells.get(f"{method}@{budget}") for budget in budgets]
        rows.append(f"| `{method}` | " + " | ".join(_percent(c and c["accuracy"]) for c in found) + " |")
    return [
        f"All {full['num_vision_tokens']:.0f} tokens: {_percent(full['accuracy'])} %; no image token at all (`none`): "
        f"{_percent(none['accuracy'])} %; n = {full['num_samples']} questions on as many pictures.",
        "",
        *rows,
    ]


def _kinds() -> list[str]:
    cells = _cells()
    wanted = ["full@1.0", "question@32", "question@16", "question@8", "pool@32", "pool@8", "none@none"]
    shown = [cells[name] for name in wanted if name in cells]
    rows = [f"| question type | {' | '.join(cell['cell'] for cell in shown)} |", "| --- |" + " --- |" * len(shown)]
    for kind in KINDS:
        rows.append(f"| {kind} | " + " | ".join(_percent(c["accuracy_by_kind"].get(kind)) for c in shown) + " |")
    return rows


def _provenance() -> list[str]:
    published = json.loads((ROOT / "docs/results/tiny.json").read_text())
    hardware = published["hardware"]
    return [
        f"Measured by `{published['command']}` on {published['date']}: {hardware.get('cpu', 'CPU')}, "
        f"torch {published['versions'].get('torch')}, transformers {published['versions'].get('transformers')}. "
        "Accuracy in %, 95 % intervals. All figures: `docs/results/tiny.json`.",
    ]


def _training() -> list[str]:
    rows = ["| stage | device | minutes | steps |", "| --- | --- | --- | --- |"]
    for stage in STAGES:
        curve = json.loads((ROOT / f"docs/results/training/{stage}.json").read_text())
        steps = max(entry["step"] for entry in curve["log"])
        rows.append(f"| `tiny/{stage}` | {curve['device']} | {curve['seconds_since_resumed'] / 60:.0f} | {steps} |")
    return rows


def _report() -> list[str]:
    timed = json.loads((ROOT / "docs/results/report_page.json").read_text())
    names = ("ranking_ms", "samples_ms", "plot_ms", "axis_ms", "filter_ms", "search_ms", "next_ms")
    titles = ("ranking", "list of samples", "plot", "switch the axis", "filter", "search", "next sample")
    return [
        f"{timed['samples']:,} samples, {timed['methods']} methods, {timed['answers']:,} answers (made up); a page of "
        f"{timed['page_mib']:.1f} MiB, written in {timed['write_page_s']:.0f} s. Milliseconds, median of "
        f"{timed['repeats']}, Chromium {timed['chromium'].partition('.')[0]} without a GPU, {timed['cores']} cores, "
        f"{timed['date']}:",
        "",
        "| opens: " + " | ".join(titles[:3]) + " | then: " + " | ".join(titles[3:]) + " |",
        "|" + " ---: |" * len(names),
        "| " + " | ".join(f"{timed[name]:.0f}" for name in names) + " |",
    ]


TABLES = {"report": _report, "accuracy": _accuracy, "kinds": _kinds, "provenance": _provenance, "training": _training}
_MARKED = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end figures -->)", re.DOTALL)


def render(page: str) -> str:
    """Return a page with every marked table made anew."""
    return _MARKED.sub(lambda found: found[1] + "\n".join(TABLES[found[2]]()) + "\n" + found[3], page)


def main(check: bool) -> int:
    """Write the pages, or only tell whether they are up to date."""
    stale = [name for name in PAGES if (text := (ROOT / name).read_text()) != render(text)]
    for name in stale:
        print(f"{name} is out of date" if check else f"wrote {name}")
        if not check:
            (ROOT / name).write_text(render((ROOT / name).read_text()))
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv))
