"""Writes the tables of README and docs from `docs/results/*.json`: `python benchmarks/show.py [--check]`.

A page holds `<!-- figures: NAME -->` and `<!-- end figures -->`; what is between them is replaced by the table
NAME of this file. With `--check` nothing is written, and the exit code is 1 if a page is out of date.
"""

import json
import math
import re
import sys
from functools import partial
from pathlib import Path

import clock_tables
import scale_tables
import speed_tables
import trust_tables
from provenance_line import link_from, provenance_line

from adallava.records import Results
from adallava.report.dial_tables import dial_tables
from adallava.report.plain_table import to_markdown

ROOT = Path(__file__).parents[1]
PAGES = (
    "README.md",
    "docs/how_to/report.md",
    "docs/findings/methods_compared.md",
    "docs/findings/measured.md",
    "docs/how_to/processes.md",
    "docs/how_to/ray.md",
    "docs/findings/statistics.md",
    "docs/findings/layers.md",
    "docs/how_to/training.md",
    "docs/concepts/trust.md",
    "docs/concepts/engines.md",
    "docs/findings/speed.md",
    "docs/how_to/serving.md",
    "src/adallava/bundled/tiny/README.md",
)
_SHAPES = ("speed_qwen2.5-vl-7b", "speed_qwen3-vl-8b")
_REAL = tuple(f"{shapes}_{image}" for shapes in _SHAPES for image in ("china", "nlvr"))
STAGES = (
    "align",
    "base",
    "question",
    "joint",
    "layers-joint",
    "budget-token",
    "layers-again",
    "joint-again",
)
DIAL_TABLES = ("layers", "layer-pairs", "grid", "front-gains", "gains", "plans", "fixed-share")
KINDS = ("attribute", "existence", "counting", "comparison", "relation", "reading", "locating")


def _published(name: str) -> dict:
    return json.loads((ROOT / f"docs/results/{name}.json").read_text())


def _cells(name: str = "tiny") -> dict[str, dict]:
    return {cell["cell"]: cell for cell in _published(name)["cells"]}


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
        f"{_percent(none['accuracy'])} %; n = {full['num_samples']} questions on as many images.",
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


def _compared() -> list[str]:
    """Every method of the run of all methods: mean accuracy by budget, and what the budget costs at 32 tokens."""
    cells, budgets = _cells("methods"), ("128", "64", "32", "16", "8")
    methods = [m for m in dict.fromkeys(cell["method"] for cell in cells.values()) if f"{m}@32" in cells]
    methods.sort(key=lambda method: -cells[f"{method}@32"]["accuracy"]["mean"])
    heads = [*budgets[:2], "32 [95 %]", *budgets[3:], "32: tokens a layer", "GFLOPs", "selector's"]
    rows = ["| method | " + " | ".join(heads) + " |", "| --- |" + " ---: |" * len(heads)]
    for method in methods:
        at = {budget: cells[f"{method}@{budget}"] for budget in budgets}
        values = [
            f"{100 * at[b]['accuracy']['mean']:.1f}" if b != "32" else _percent(at[b]["accuracy"]) for b in budgets
        ]
        flops = at["32"]["flops"]
        values += [f"{at['32']['tokens_kept_layer_average']:.0f}"]
        values += [f"{flops['total'] / 1e9:.2f}", f"{flops.get('selector', 0) / 1e9:.3f}"]
        rows.append(f"| `{method}` | " + " | ".join(values) + " |")
    own = [cells[name] for name in ("full@1.0", "prumerge-plus@none", "prumerge@none", "none@none")]
    rows += ["", "At a number of tokens of their own: "]
    rows[-1] += "; ".join(f"`{c['method']}` ({c['tokens_kept']:.0f} tokens) {_percent(c['accuracy'])}" for c in own)
    rows[-1] += f". n = {own[0]['num_samples']}."
    return rows


def _compared_kinds() -> list[str]:
    """By question type at 32 tokens, and on the hard split."""
    cells = _cells("methods")
    wanted = ["full@1.0", "question@32", "mmtok@32", "pyramiddrop@32", "cls-attention@32", "pool@32", "visionzip@32"]
    wanted += ["fastv@32", "divprune@32", "cdpruner@32", "random@32", "none@none"]
    rows = ["| cell | hard split | " + " | ".join(KINDS) + " |", "| --- |" + " ---: |" * (len(KINDS) + 1)]
    for name in wanted:
        cell = cells[name]
        kinds = [f"{100 * cell['accuracy_by_kind'][kind]['mean']:.0f}" for kind in KINDS]
        rows.append(f"| `{name}` | {_percent(cell['accuracy_hard'])} | " + " | ".join(kinds) + " |")
    split, count = _published("methods")["hard_split"], cells["full@1.0"]["accuracy_by_kind"][KINDS[0]]["n"]
    rows += ["", f"n = {count} a type and {split['num_hard']} in the hard split, of {split['num_samples']}: "]
    known = f"{split['answered_without_image']} are answered without the image"
    if split.get("right_without_image") is not None:
        known = f"`none` is right on {split['right_without_image']}, on {split['answered_without_image']} beyond luck"
    rows[-1] += f"{known}, {split['answered_downsampled']} more "
    rows[-1] += f"by `{split['downsample_cell']}`."
    return rows


def _positions() -> list[str]:
    """Original against compact positions, and the time to the first token as a share of the full model's."""
    published = _published("positions")
    cells = {cell["cell"]: cell for cell in published["cells"]}
    full = {t["batch_size"]: t["part_ms"] for t in cells["full@1.0"]["timings"] if t["batch_size"] > 1}
    tested = {frozenset((pair["cell_a"], pair["cell_b"])): pair for pair in published["comparisons"]}
    heads = ["original", "compact", "told apart", *(f"time to 1st token, batch {size} [10 %, 90 %]" for size in full)]
    rows = ["| cell | " + " | ".join(heads) + " |", "| --- |" + " ---: |" * len(heads)]
    for name, cell in cells.items():
        if cell["method"] == "full" or cell["positions"] == "compact":
            continue
        other = cells[f"{name}+compact"]
        times = {timing["batch_size"]: timing["part_ms"] for timing in cell["timings"]}
        shares = [_share(times[size], full[size]) for size in full]
        apart = "yes" if tested[frozenset((name, other["cell"]))]["significant"] else "no"
        rows.append(
            f"| `{name}` | " + " | ".join([*map(_percent, (cell["accuracy"], other["accuracy"])), apart, *shares])
        )
        rows[-1] += " |"
    return [
        *rows,
        "",
        f"n = {cells['full@1.0']['num_samples']}; `full@1.0` has {_percent(cells['full@1.0']['accuracy'])}.",
    ]


def _dials(name: str) -> list[str]:
    """One table of both dials, as `adallava report --figures` writes it."""
    published = _published("budget")
    results = Results.model_validate({field: published[field] for field in Results.model_fields if field in published})
    for table in dial_tables(results):
        if table.name == name:
            return to_markdown(table).rstrip().split("\n")
    return ["The run does not have what this takes."]


def _share(parts: dict, whole: dict) -> str:
    """A time to the first token over the full model's median."""
    first, median = parts["time_to_first_token"], whole["time_to_first_token"]["median"]
    return f"{first['median'] / median:.2f} [{first['low'] / median:.2f}, {first['high'] / median:.2f}]"


def _size() -> list[str]:
    """What the bundled model weighs, read from its file."""
    path = ROOT / "src/adallava/bundled/tiny/model.safetensors"
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    shapes = [entry["shape"] for name, entry in header.items() if name != "__metadata__"]
    return [f"{sum(map(math.prod, shapes)) / 1e6:.1f} M parameters, {path.stat().st_size / 1e6:.1f} MB, float32."]


def _training() -> list[str]:
    rows = ["| stage | device | minutes | steps |", "| --- | --- | --- | --- |"]
    for stage in STAGES:
        curve = json.loads((ROOT / f"docs/results/training/{stage}.json").read_text())
        steps = max(entry["step"] for entry in curve["log"])
        seconds = curve.get("seconds_in_all", curve["seconds_since_resumed"])
        rows.append(f"| `tiny/{stage}` | {curve['device']} | {seconds / 60:.1f} | {steps} |")
    return rows


def _report() -> list[str]:
    timed = json.loads((ROOT / "docs/results/report_page.json").read_text())
    names = ("ranking_ms", "samples_ms", "plot_ms", "axis_ms", "filter_ms", "search_ms", "next_ms")
    titles = ("ranking", "list of samples", "plot", "switch the axis", "filter", "search", "next sample")
    return [
        f"{timed['samples']:,} samples, {timed['methods']} methods, {timed['answers']:,} answers (made up); a page of "
        f"{timed['page_mib']:.1f} MiB, written in {timed['write_page_s']:.0f} s. Milliseconds, median of "
        f"{timed['repeats']} (the slowest plot {timed['slowest_plot_ms']:.0f}), Chromium "
        f"{timed['chromium'].partition('.')[0]} without a GPU, {timed['cores']} cores, "
        f"{timed['date']}:",
        "",
        "| opens: " + " | ".join(titles[:3]) + " | then: " + " | ".join(titles[3:]) + " |",
        "|" + " ---: |" * len(names),
        "| " + " | ".join(f"{timed[name]:.0f}" for name in names) + " |",
    ]


def _codebook() -> list[str]:
    """Accuracy and layers run under books of several sizes, by latency."""
    published = _published("codebook")
    rows = [
        "| latency | plans to choose from | accuracy, % | against any plan, points | plans chosen | "
        "layers a sample | a batch | a batch, sorted |",
        "| ---: | ---: | --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for row in published["rows"]:
        against = row["against_any_plan"]
        mean, low, high = (100 * against[name] for name in ("mean", "low", "high"))
        change = "–" if row["codebook"] is None else f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]"
        layers = [f"{row[f'layers_of_a_{name}']:.2f}" for name in ("sample", "batch", "batch_sorted")]
        cells = [
            f"{row['latency']:g}",
            row["codebook"] or "any",
            _percent(row["accuracy"]),
            change,
            row["plans"],
            *layers,
        ]
        rows.append(f"| {' | '.join(map(str, cells))} |")
    samples, kept, size = (published[name] for name in ("samples", "token_budget", "batch_size"))
    return [*rows, "", f"{samples} scenes, {kept} vision tokens, batches of {size}; 95 % intervals."]


def _trained_family(name: str) -> list[str]:
    """Return the accuracy of a small model of another family, by method and budget, and how long it was trained."""
    row = next(row for row in _published("families")["families"] if row["family"] == name)
    cells = {cell["cell"]: cell for cell in row["cells"]}
    budgets = sorted({int(c["budget_asked"]) for c in cells.values() if c["budget_asked"].isdigit()}, reverse=True)
    methods = [m for m in dict.fromkeys(cell["method"] for cell in cells.values()) if m not in ("full", "none")]
    stages = ", ".join(
        f"`{stage}` {made['recipe']['optimisation']['steps']} steps, {made['seconds']:.0f} s"
        for stage, made in row["stages"].items()
    )
    full, none = cells["full@1.0"], cells["none@none"]
    rows = [f"| method | {' | '.join(f'{k} tokens' for k in budgets)} |", "| --- |" + " --- |" * len(budgets)]
    for method in methods:
        found = (_percent(cells[f"{method}@{budget}"]["accuracy"]) for budget in budgets)
        rows.append(f"| `{method}` | {' | '.join(found)} |")
    return [
        *rows,
        "",
        f"All 256 tokens: {_percent(full['accuracy'])} %; no image token (`none`): {_percent(none['accuracy'])} %; "
        f"n = {full['num_samples']}. Trained: {stages}.",
    ]


TABLES = {
    "trained_qwen": partial(_trained_family, "tiny-qwen2.5-vl"),
    "trained_siglip": partial(_trained_family, "tiny-siglip-qwen2"),
    "codebook": _codebook,
    "fuzzing": lambda: trust_tables.fuzzing(_published("fuzzing")),
    "statistics": lambda: trust_tables.statistics(_published("statistics")),
    "report": _report,
    "accuracy": _accuracy,
    "kinds": _kinds,
    "training": _training,
    "size": _size,
    "compared": _compared,
    "compared_kinds": _compared_kinds,
    "positions": _positions,
    **{f"budget_{name.replace('-', '_')}": partial(_dials, name) for name in DIAL_TABLES},
    "sweep_7b_batch_8": lambda: clock_tables.sweep(_published("seven_b"), 8),
    "sweep_7b_batch_1": lambda: clock_tables.sweep(_published("seven_b"), 1),
    "new_lengths": lambda: clock_tables.new_lengths(_published("seven_b")),
    "layers_7b": lambda: clock_tables.layers(_published("layers")),
    "skipping_7b": lambda: clock_tables.skipping(_published("layers")),
    "layers_tiny": lambda: clock_tables.layers(_published("layers_tiny")),
    "skipping_tiny": lambda: clock_tables.skipping(_published("layers_tiny")),
    "loading": lambda: clock_tables.loading(_published("loading")),
    "loading_cpu": lambda: clock_tables.loading(_published("loading_cpu")),
    "converting": lambda: clock_tables.converting(_published("converting")),
    "processes": lambda: clock_tables.processes(_published("processes")),
    "two_gpus": lambda: clock_tables.processes(_published("two_gpus")),
    "scale": lambda: scale_tables.scale(_published("scale")),
    "two_gpus_engines": lambda: clock_tables.processes(_published("two_gpus_engines"), _published("two_gpus_compiled")),
    "gpu_hours": lambda: scale_tables.gpu_hours(_published("speed"), _published("two_gpus_engines")),
    "kills": lambda: trust_tables.kills(_published("kills")),
    "inside": lambda: clock_tables.inside(_published("inside")),
    "engines": lambda: clock_tables.engines(_published("engines"), _published("many_requests")),
    "quantization": lambda: clock_tables.quantization(_published("quantization")),
    "served": lambda: speed_tables.served(_published("serving")),
    "served_target": lambda: speed_tables.served_target(_published("serving")),
    "served_on_paper": lambda: speed_tables.served_on_paper(_published("serving")),
    "speed": lambda: speed_tables.speed(_published("speed")),
    "speed_in_short": lambda: speed_tables.speed_in_short(_published("speed")),
    "speed_fp8": lambda: speed_tables.speed(_published("speed_fp8")),
    "speed_parts": lambda: speed_tables.speed(_published("speed_parts")),
    "speed_families": lambda: speed_tables.speed_of_shapes(map(_published, _SHAPES)),
    "speed_images": lambda: speed_tables.speed_of_shapes(map(_published, _REAL)),
    "families": clock_tables.families,
    "speed_line": lambda: speed_tables.speed_line(_published("speed"), _published(_SHAPES[0])),
    "selection": lambda: clock_tables.selection(_published("selection")),
    "selection_captured": lambda: clock_tables.selection(_published("selection_captured")),
}
_MEASURED = {
    "": "tiny",
    "compared": "methods",
    "layers_7b": "layers",
    "served": "serving",
    "speed_families": _SHAPES[0],
    "speed_images": _REAL[0],
    "sweep_7b": "seven_b",
    "trained": "families",
}
"""The file of `docs/results` that a `…_provenance` table names, where it is not the table's own name."""

_MARKED = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end figures -->)", re.DOTALL)


def render(name: str) -> str:
    """Return the text of a page with every marked table made anew."""
    text = (ROOT / name).read_text()
    return _MARKED.sub(lambda found: found[1] + "\n".join(_lines(found[2], name)) + "\n" + found[3], text)


def _lines(table: str, page: str) -> list[str]:
    if table in TABLES:
        return TABLES[table]()
    of = table.removesuffix("provenance").rstrip("_")
    file = _MEASURED.get(of, of)
    return [provenance_line(_published(file), link_from(page, f"docs/results/{file}.json"))]


def main(check: bool) -> int:
    """Write the pages, or only tell whether they are up to date."""
    stale = [name for name in PAGES if (ROOT / name).read_text() != render(name)]
    for name in stale:
        print(f"{name} is out of date" if check else f"wrote {name}")
        if not check:
            (ROOT / name).write_text(render(name))
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv))
