"""A finished sweep as tables on stdout."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from adallava.analysis.measured_ms import NO_CHOOSING_MS, cell_ms, ms_source, table_batch_size
from adallava.records import Area, Cell, Interval, Results
from adallava.records.cells import COMPACT_SUFFIX
from adallava.report import formats
from adallava.report.alarm_lines import MAJORITY_NAME, alarm_lines, majority_words, without_leaders
from adallava.report.axes import has_flops
from adallava.report.clock_notes import table_clock_note
from adallava.report.dial_tables import dial_tables
from adallava.report.hard_samples import hard_words
from adallava.report.plain_table import PaperTable
from adallava.report.roofline_ms import Roofline, cell_roofline_ms, run_roofline
from adallava.report.seen import cut_words

from .console import figures_table, make_console, natural_width, print_fitting, signed_interval

if TYPE_CHECKING:
    from adallava.runs.run_sweep import SweepOutcome


@dataclass(frozen=True)
class Column:
    """One column of the table of cells, by a name that no other has.

    Where the terminal is narrow, the highest `dropped` goes first; 0 stays.
    """

    title: str
    value: Callable[[Cell], str]
    dropped: int = 0
    full_name: str = ""

    @property
    def name(self) -> str:
        """What it is called where it is left out."""
        return self.full_name or self.title


_COLUMNS = (
    Column("budget", lambda cell: cell.budget_asked),
    Column("tokens", lambda cell: f"{cell.tokens_kept:.0f}" if cell.accuracy else "-"),
    Column("/layer", lambda cell: f"{cell.tokens_kept_layer_average:.0f}" if cell.accuracy else "-", 1),
    Column("layers %", lambda cell: f"{100 * cell.layer_share:.0f}" if cell.accuracy else "-"),
    Column("accuracy %", lambda cell: _accuracy(cell.accuracy)),
    Column("hard %", lambda cell: _percent(cell.accuracy_hard), 4),
    Column("difference to full", lambda cell: _difference(cell), 5),
)

_FLOPS_COLUMNS = (
    Column("GFLOPs", lambda cell: _gflops(cell, "total", 3)),
    Column("select", lambda cell: _gflops(cell, "selector", 1), 3, "select GFLOPs"),
)

_CAPTION = (
    "tokens: that enter the LLM; /layer: averaged over its layers; 1st ms: to the first token; select: the method's "
    "own share of the column before ({choosing}); ms: {source}; 95 % intervals; !: do not trust, see below"
)


def _ms_columns(batch_size: int | None, roofline: Roofline | None) -> tuple[Column, ...]:
    bound = (
        ()
        if roofline is None
        else (Column("roofline", lambda cell: formats.figures3(cell_roofline_ms(cell, roofline)), 4),)
    )
    return (
        Column("1st ms", lambda cell: _ms(cell_ms(cell, "time_to_first_token", batch_size), 1)),
        *bound,
        Column("select", lambda cell: _ms(cell_ms(cell, "selector", batch_size), 2), 2, "select ms"),
        Column("all ms", lambda cell: _ms(cell_ms(cell, "total", batch_size), 1), 6),
    )


def print_outcome(outcome: "SweepOutcome", output: Path, page: Path | None, roofline: str | None = None) -> None:
    """Print the tables, why cells are flagged, and where the files are."""
    console = make_console()
    results = without_leaders(outcome.results)
    for severity, message in alarm_lines(results):
        console.print(f"{severity.upper()}: {message}", style="bold red", markup=False, highlight=False)
    if outcome.run.config.title:
        console.print(outcome.run.config.title, style="bold", markup=False, highlight=False)
    print_cells(results, console, run_roofline(outcome.run, results, roofline), page)
    print_cut(results, console)
    for cell in results.cells:
        if cell.flagged:
            console.print(f"! {cell.cell}: {cell.flag_reason}", style="red", markup=False, highlight=False)
    note = table_clock_note(results.cells)
    if note:
        console.print(f"{note}. No cell is called faster", style="yellow", markup=False, highlight=False)
    if results.majority is not None:
        console.print(majority_words(results.majority), markup=False, highlight=False)
    if results.areas:
        print_areas(results.areas, console)
    if results.hard_split is not None:
        console.print(hard_words(results.hard_split), markup=False, highlight=False)
    for table in dial_tables(results):
        print_plain(table, console)
    for path in (output / "results.json", page):
        if path is not None:
            console.print(str(path), markup=False, highlight=False, soft_wrap=True)


def print_cut(results: Results, console: Console) -> None:
    """Warn in one line if the model does not see all of its images."""
    words = cut_words(results.seen)
    if words is not None:
        console.print(f"! {words}", style="red", markup=False, highlight=False, soft_wrap=True)


def print_cells(results: Results, console: Console, roofline: Roofline | None = None, page: Path | None = None) -> None:
    """Print one row a cell, see `print_fitting`."""
    absent = {"hard %"} if results.hard_split is None else set()
    if all(cell.scheduler is None for cell in results.cells):
        absent.add("layers %")
    batch_size = table_batch_size(results.cells)
    counted = _FLOPS_COLUMNS if has_flops(results) else ()
    every = (*_COLUMNS, *counted, *_ms_columns(batch_size, roofline))
    columns = [column for column in every if column.title not in absent]
    caption = _CAPTION.format(choosing=NO_CHOOSING_MS, source=ms_source(batch_size))
    caption += "" if roofline is None else f"; roofline: {roofline.words}"
    droppable = sorted((column for column in columns if column.dropped), key=lambda column: -column.dropped)

    def make(left_out: frozenset[str]) -> Table:
        """Return the table without some of its columns."""
        return _table_of(results, [column for column in columns if column.name not in left_out], caption)

    elsewhere = "" if page is None else "and on the page below"
    print_fitting(make, console, [column.name for column in droppable], elsewhere=elsewhere)


def _table_of(results: Results, columns: Sequence[Column], caption: str) -> Table:
    table = figures_table(caption)
    table.add_column("method", no_wrap=True)
    for column in columns:
        table.add_column(column.title, justify="right", no_wrap=True)
    for cell in results.cells:
        values = [escape(column.value(cell)) for column in columns]
        table.add_row(_method(cell), *values, style="red" if cell.flagged else None)
    majority = results.majority
    if majority is not None:
        known = {"accuracy %": _accuracy(majority.line), "hard %": _percent(majority.accuracy_hard)}
        table.add_row(MAJORITY_NAME, *(escape(known.get(column.title, "-")) for column in columns), style="dim")
    return table


def print_areas(areas: Sequence[Area], console: Console) -> None:
    """Print `areas_table`, folded where the terminal is too narrow for it."""
    print_fitting(lambda _: areas_table(areas), console, ())


def areas_table(areas: Sequence[Area]) -> Table:
    """Return one row a method: its mean accuracy over the costs that the methods have in common, by axis."""
    axes = tuple(dict.fromkeys(area.axis for area in areas))
    titles = {"tokens": "tokens a layer", "flops": "FLOPs", "ms": "ms to 1st"}
    by_method: dict[str, dict[str, Area]] = {}
    for area in areas:
        name = area.method + (COMPACT_SUFFIX if area.positions == "compact" else "")
        by_method.setdefault(name, {})[area.axis] = area
    table = figures_table("area under the accuracy-cost curve: mean accuracy in %, over costs in common")
    table.add_column("method", no_wrap=True)
    for axis in axes:
        table.add_column(titles[axis], justify="right", no_wrap=True)
    for name, by_axis in by_method.items():
        values = [_accuracy(by_axis[axis].area) if axis in by_axis else "-" for axis in axes]
        table.add_row(name, *map(escape, values))
    return table


def print_plain(table: PaperTable, console: Console) -> None:
    """Print a table that is the same in a paper; a file or a pipe gets it as wide as it is."""
    shown = figures_table(None)
    for number, head in enumerate(table.head):
        shown.add_column(head, justify="left" if number == 0 else "right", no_wrap=not console.is_terminal)
    for row in table.rows:
        shown.add_row(*(escape(f"{entry.text} {entry.note}".strip() + "*" * entry.bold) for entry in row))
    if not console.is_terminal:
        console = make_console(width=max(console.width, natural_width(shown, console)))
    console.print(shown)
    # Not as the table's caption, which would be no wider than the table.
    console.print(table.caption.replace("Bold:", "*:"), style="table.caption", markup=False, highlight=False)


def _method(cell: Cell) -> str:
    mark = "! " if cell.flagged else ""
    return escape(mark + cell.method + (COMPACT_SUFFIX if cell.positions == "compact" else ""))


def _accuracy(accuracy: Interval | None) -> str:
    if accuracy is None:
        return "all failed"
    return f"{100 * accuracy.mean:.1f} [{100 * accuracy.low:.1f}, {100 * accuracy.high:.1f}]"


def _ms(value: float | None, decimals: int) -> str:
    return "-" if value is None else f"{value:.{decimals}f}"


def _gflops(cell: Cell, part: str, figures: int) -> str:
    return f"{cell.flops.get(part, 0.0) / 1e9:.{figures}g}" if cell.flops else "-"


def _percent(accuracy: Interval | None) -> str:
    return "-" if accuracy is None else f"{100 * accuracy.mean:.1f}"


def _difference(cell: Cell) -> str:
    if cell.difference_to_full is None:
        return "-"
    return signed_interval(cell.difference_to_full)
