"""How tables look on stdout, whatever the command."""

from collections.abc import Callable, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table

from adallava.records import PairedDifference

from .streams import harmless

_PLAIN_WIDTH = 120
"""Columns of text that goes into a file or a pipe; a table is as wide there as it is."""


def make_console(*, width: int | None = None, stderr: bool = False) -> Console:
    """Return the terminal, or a console of fixed width where stdout is none. What data holds is shown harmlessly.

    Args:
        width: in columns; None = the terminal's.
        stderr: rather than stdout.
    """
    console = Console(width=width, stderr=stderr)
    if width is None and not stderr and not console.is_terminal:
        console = Console(width=_PLAIN_WIDTH)
    console.push_render_hook(_HarmlessHook())
    return console


class _HarmlessHook(RenderHook):
    """Wraps all that is printed: rich's own control codes are not text, and stay."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Return them wrapped."""
        return [_Harmless(renderable) for renderable in renderables]


class _Harmless:
    """What another renderable shows, without what a terminal would obey."""

    def __init__(self, renderable: ConsoleRenderable) -> None:
        self._renderable = renderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield its segments."""
        for segment in console.render(self._renderable, options):
            yield segment if segment.control else Segment(harmless(segment.text), segment.style)


def natural_width(table: Table, console: Console) -> int:
    """Return how wide a table is where there is room."""
    # Within the console's own width rich would report that width.
    return Measurement.get(console, console.options.update(width=10_000), table).maximum


def print_fitting(
    make: Callable[[frozenset[str]], Table], console: Console, droppable: Sequence[str], *, elsewhere: str = ""
) -> None:
    """Print a table, and below it which columns the terminal has no room for, and where they are.

    A file or a pipe gets every column. What no column can be left out of any more is folded, and not cut.

    Args:
        make: a table without the columns of these names.
        console: to print it on.
        droppable: columns, that which is missed least first.
        elsewhere: what shows all of them, besides a wider terminal.
    """
    if not console.is_terminal:
        table = make(frozenset())
        width = max(console.width, natural_width(table, console))
        make_console(width=width).print(_unbounded(table))
        return
    table, left_out = fitting(make, console, *droppable)
    if natural_width(table, console) > console.width:
        for column in table.columns:
            column.no_wrap, column.overflow = False, "fold"
    console.print(_unbounded(table))
    if left_out:
        rest = f", {elsewhere}" if elsewhere else ""
        console.print(
            f"left out, {console.width} columns wide: {', '.join(left_out)} "
            f"(shown by a wider terminal, in a pipe such as | less -S{rest})",
            style="yellow", markup=False, highlight=False,
        )  # fmt: skip


def _unbounded(table: Table) -> Table:
    """Let columns that were measured at a part of their width take what room there is."""
    for column in table.columns:
        column.max_width = None
    return table


def fitting(
    make: Callable[[frozenset[str]], Table], console: Console, *droppable: str
) -> tuple[Table, tuple[str, ...]]:
    """Return a table that the console has room for, as far as columns may be left out of it, and the names of those.

    Args:
        make: a table without the columns of these names.
        console: to print it on.
        droppable: columns, that which is missed least first.
    """
    left_out: tuple[str, ...] = ()
    table = make(frozenset())
    for name in droppable:
        if natural_width(table, console) <= console.width:
            break
        left_out += (name,)
        table = make(frozenset(left_out))
    return table, left_out


def figures_table(caption: str | None) -> Table:
    """Return an empty table for many columns of figures: no frame, little room between them."""
    return Table(
        box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), caption=caption, caption_justify="left"
    )


def signed_interval(difference: PairedDifference) -> str:
    """Return a difference and its bounds in percentage points, such as `-1.2 [-3.4, +1.0]`."""
    return f"{100 * difference.mean:+.1f} [{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]"
