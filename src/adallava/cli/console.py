"""How tables look on stdout, whatever the command."""

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from adallava.records import PairedDifference

_PLAIN_WIDTH = 120
"""Columns of a table that goes into a file or a pipe."""


def make_console() -> Console:
    """Return the terminal, or a console of fixed width where stdout is none."""
    console = Console()
    return console if console.is_terminal else Console(width=_PLAIN_WIDTH)


def figures_table(caption: str) -> Table:
    """Return an empty table for many columns of figures: no frame, little room between them."""
    return Table(
        box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), caption=caption, caption_justify="left"
    )


def signed_interval(difference: PairedDifference) -> str:
    """Return a difference and its bounds in percentage points, such as `-1.2 [-3.4, +1.0]`."""
    return f"{100 * difference.mean:+.1f} [{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]"
