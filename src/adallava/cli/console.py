"""How tables look on stdout, whatever the command."""

from collections.abc import Callable

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table

from adallava.records import PairedDifference

from .streams import harmless

_PLAIN_WIDTH = 120
"""Columns of a table that goes into a file or a pipe."""


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
    """Wraps all that is printed: rich's own control codes are no text, and stay."""

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


def fitting(make: Callable[[frozenset[str]], Table], console: Console, *droppable: str) -> Table:
    """Return a table that the console has room for, as far as columns may be left out of it.

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
    return table


def figures_table(caption: str | None) -> Table:
    """Return an empty table for many columns of figures: no frame, little room between them."""
    return Table(
        box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), caption=caption, caption_justify="left"
    )


def signed_interval(difference: PairedDifference) -> str:
    """Return a difference and its bounds in percentage points, such as `-1.2 [-3.4, +1.0]`."""
    return f"{100 * difference.mean:+.1f} [{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]"
