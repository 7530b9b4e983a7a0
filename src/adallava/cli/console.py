"""How tables look on stdout, whatever the command."""

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
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


def figures_table(caption: str | None) -> Table:
    """Return an empty table for many columns of figures: no frame, little room between them."""
    return Table(
        box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), caption=caption, caption_justify="left"
    )


def signed_interval(difference: PairedDifference) -> str:
    """Return a difference and its bounds in percentage points, such as `-1.2 [-3.4, +1.0]`."""
    return f"{100 * difference.mean:+.1f} [{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]"
