"""Tables in LaTeX (booktabs) and Markdown, fit for a paper: accuracy by method and budget, and what cells cost."""

from dataclasses import replace
from pathlib import Path

from adallava.analysis.measured_ms import NO_CHOOSING_MS, cell_ms, cell_peak_bytes, ms_source, table_batch_size
from adallava.records import FULL_METHOD, Cell, Interval, Results, Run
from adallava.records.durable import make_folder, write_atomically
from adallava.report import formats
from adallava.report.alarm_lines import MAJORITY_NAME, alarm_lines, has_leaders, majority_of, without_leaders
from adallava.report.axes import has_flops, is_blind
from adallava.report.clock_notes import table_clock_note
from adallava.report.dial_tables import dial_tables
from adallava.report.paper_figures import Split, accuracy_of
from adallava.report.plain_table import Entry, PaperTable, to_latex, to_markdown
from adallava.report.roofline_ms import Roofline, cell_roofline_ms, run_roofline
from adallava.report.verdicts import budget_rows

_COST_PARTS = ("time_to_first_token", "selector", "decode_per_token", "total")


def write_tables(run: Run, results: Results, folder: Path, roofline: str | None = None, title: str = "") -> list[Path]:
    """Write every table of `paper_tables` as `NAME.tex` and `NAME.md`, and return the paths.

    A title, or else the run's own if it has one, begins each caption.
    """
    make_folder(folder)
    paths = []
    begin = title or run.config.title
    for told in paper_tables(run, results, roofline):
        table = replace(told, caption=f"{begin.rstrip('.')}. {told.caption}") if begin else told
        for suffix, text in (("tex", to_latex(table)), ("md", to_markdown(table))):
            path = folder / f"{table.name}.{suffix}"
            write_atomically(path, [text.encode("utf-8", errors="replace")])
            paths.append(path)
    return paths


def paper_tables(run: Run, results: Results, roofline: str | None = None) -> list[PaperTable]:
    """Return accuracy by method and budget, on the hard split if there is one, over both dials, and the costs."""
    results = without_leaders(results)
    tables = [_accuracy_table(run, results, "all")]
    if any(cell.accuracy_hard for cell in results.cells):
        tables.append(_accuracy_table(run, results, "hard"))
    return [*tables, *dial_tables(results), _cost_table(run, results, run_roofline(run, results, roofline))]


def _accuracy_table(run: Run, results: Results, split: Split) -> PaperTable:
    cells = [cell for cell in results.cells if cell.method != FULL_METHOD and not is_blind(cell)]
    budgets = list(dict.fromkeys(cell.budget_asked for cell in cells))
    groups = list(dict.fromkeys((cell.method, cell.positions) for cell in cells))
    found = {(cell.method, cell.positions, cell.budget_asked): cell for cell in cells}
    clear = _clear_leaders(results) if split == "all" else frozenset()
    rows = [
        (Entry(_label(method, positions)), *(_score(found.get((method, positions, b)), split, clear) for b in budgets))
        for method, positions in groups
    ]
    whole = [cell for cell in results.cells if cell not in cells]
    counts = sorted({accuracy.n for cell in results.cells if (accuracy := accuracy_of(cell, split))})
    n = "0" if not counts else "" if counts[0] != counts[-1] else formats.count(counts[0])
    n = n or f"{formats.count(counts[0])} to {formats.count(counts[-1])}"
    lines = [(cell.method, accuracy_of(cell, split)) for cell in whole] + [(MAJORITY_NAME, majority_of(results, split))]
    ends = "; ".join(f"{name}: {_accuracy_words(accuracy)}" for name, accuracy in lines if accuracy is not None)
    where = "the hard split" if split == "hard" else "all samples"
    caption = (
        f"Accuracy in % with 95 % intervals, by method and token budget: {run.config.model} on "
        f"{run.config.task}, {where}, n = {n}." + (f" {ends}." if ends else "")
    )
    if clear:
        caption += " Bold: told apart from every other method at its budget (paired tests, corrected)."
    caption += "".join(f" {severity.upper()}: {message}." for severity, message in alarm_lines(results))
    if any(cell.flagged for cell in cells):
        caption += " ⚑: failed or empty answers; do not trust."
    name = "accuracy" if split == "all" else "accuracy-hard"
    heads = ("own K" if budget == "none" else budget for budget in budgets)  # of methods that set K themselves
    return PaperTable(name, caption, ("method", *heads), tuple(rows))


def _clear_leaders(results: Results) -> frozenset[str]:
    """Return the cells that are significantly ahead of all others at their budget; the highest mean is not enough."""
    rows = budget_rows(results) if has_leaders(results) else []
    return frozenset(
        row.leader.cell for row in rows if row.leader and 0 < row.num_cells - 1 == len(row.ahead_of) + len(row.above)
    )


def _score(cell: Cell | None, split: Split, clear: frozenset[str]) -> Entry:
    accuracy = accuracy_of(cell, split) if cell else None
    if cell is None or accuracy is None:
        return Entry(formats.DASH)
    flag = " ⚑" if cell.flagged else ""
    bounds = f"[{formats.percent(accuracy.low)}, {formats.percent(accuracy.high)}]"
    return Entry(formats.percent(accuracy.mean) + flag, bounds, cell.cell in clear)


def _accuracy_words(accuracy: Interval) -> str:
    return f"{formats.percent(accuracy.mean)} [{formats.percent(accuracy.low)}, {formats.percent(accuracy.high)}]"


def _cost_table(run: Run, results: Results, roofline: Roofline | None) -> PaperTable:
    batch_size, counted = table_batch_size(results.cells), has_flops(results)
    head = (
        "method", "budget", "tokens", "layer average", *(["GFLOPs", "selector GFLOPs"] if counted else []),
        "first token, ms", "selector, ms",
        "decode per token, ms", "total, ms", "peak memory, MiB", *(["roofline, ms"] if roofline else []),
    )  # fmt: skip
    rows = [
        tuple(
            Entry(text)
            for text in (
                _label(cell.method, cell.positions),
                cell.budget_asked if cell.budget_asked != "none" else formats.DASH,
                formats.count(cell.tokens_kept if cell.accuracy else None),
                formats.count(cell.tokens_kept_layer_average if cell.accuracy else None),
                *([formats.gflops(cell.flops.get(part)) for part in ("total", "selector")] if counted else []),
                *(formats.figures3(cell_ms(cell, part, batch_size)) for part in _COST_PARTS),
                formats.mebibytes(cell_peak_bytes(cell, batch_size)),
                *([formats.figures3(cell_roofline_ms(cell, roofline))] if roofline else []),
            )
        )
        for cell in results.cells
    ]
    caption = (
        "Cost of an answer: vision tokens before the LLM and averaged over its layers, "
        f"{'GFLOPs from shapes, ' if counted else ''}"
        f"peak memory of the whole batch of {batch_size or run.config.batch_size}. ms: {ms_source(batch_size)}"
        + ("" if batch_size else f" (batch {run.config.batch_size})")
        + f"; {NO_CHOOSING_MS}; only the timing pass has decoding's ms per token. {run.config.model} on "
        f"{run.config.task}." + (f" roofline: {roofline.words}." if roofline else "")
    )
    note = table_clock_note(results.cells)
    caption += f" {note[0].upper()}{note[1:]}." if note else ""
    return PaperTable("costs", caption, head, tuple(rows))


def _label(method: str, positions: str) -> str:
    return method + ("+compact" if positions == "compact" else "")
