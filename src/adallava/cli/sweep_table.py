"""A finished sweep as a table on stdout."""

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from adallava.records import Cell

if TYPE_CHECKING:
    from adallava.evaluation.sweep import SweepOutcome

_PLAIN_WIDTH = 120


def print_outcome(outcome: "SweepOutcome", output: Path) -> None:
    """Print the table, why cells are flagged, and where the files are."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_PLAIN_WIDTH)
    console.print(cells_table(outcome.results.cells))
    for cell in outcome.results.cells:
        if cell.flagged:
            console.print(f"! {cell.cell}: {cell.flag_reason}", style="red", markup=False, highlight=False)
    for path in (output / "results.json", outcome.report):
        if path is not None:
            console.print(str(path), markup=False, highlight=False, soft_wrap=True)


def cells_table(cells: list[Cell]) -> Table:
    """Return one row a cell: accuracy and difference in percent with 95 % intervals, median times."""
    table = Table(
        caption="kept: mean over layers; 95 % intervals; ms: median per sample; !: not to be trusted, see below"
    )
    table.add_column("method")
    for title in ("budget", "kept", "accuracy %", "difference to full", "GFLOPs", "ms to 1st", "ms", ""):
        table.add_column(title, justify="right", no_wrap=True)
    for cell in cells:
        table.add_row(
            cell.method,
            cell.budget_asked,
            f"{cell.tokens_kept_layer_average:.0f} of {cell.num_vision_tokens:.0f}",
            _accuracy(cell),
            _difference(cell),
            f"{cell.flops['total'] / 1e9:.3g}",
            f"{cell.part_ms['time_to_first_token']:.1f}",
            f"{cell.part_ms['total']:.1f}",
            "!" if cell.flagged else "",
            style="red" if cell.flagged else None,
        )
    return table


def _accuracy(cell: Cell) -> str:
    if cell.accuracy is None:
        return "all failed"
    accuracy = cell.accuracy
    return f"{100 * accuracy.mean:.1f} [{100 * accuracy.low:.1f}, {100 * accuracy.high:.1f}]".replace("[", "\\[")


def _difference(cell: Cell) -> str:
    if cell.difference_to_full is None:
        return "-"
    difference = cell.difference_to_full
    return f"{100 * difference.mean:+.1f} [{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]"
