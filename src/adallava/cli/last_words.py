"""How a process of a launch ends when a signal says so: at once, and with one line of one of them."""

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

BY_LAUNCHER = "ended by its launcher, as after another process ended"

ANY_NUMBER, ANY_EXECUTOR = "any number of processes", "any executor"
"""What may be another when a sweep goes on."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def end_at_signals(last_words: Callable[[str], object], *, terminated: str = BY_LAUNCHER) -> None:
    """End at Ctrl-C, or at SIGTERM, as a launcher sends when another process is gone; the run folder can take it.

    No exception is raised for it: one that meets a destructor is swallowed, and the process would stay. And Ctrl-C
    comes twice, from the terminal and from the launcher: the second would meet the ending of the first.

    Args:
        last_words: called with the reason.
        terminated: the reason of SIGTERM.
    """

    def end(number: int, frame: FrameType | None) -> None:
        """Say the last words, and end at once, without cleaning up."""
        ignore_signals()
        with suppress(OSError):
            last_words("interrupted" if number == signal.SIGINT else terminated)
        os._exit(128 + number)

    for one in _SIGNALS:
        signal.signal(one, end)


def ignore_signals() -> None:
    """From here on what ends this process is already reported: a second signal does not report it again."""
    for one in _SIGNALS:
        signal.signal(one, signal.SIG_IGN)


def say(message: str) -> None:
    """Write a line of `adallava sweep` to stderr."""
    # Not by print, whose buffer a signal may find in use. A bar hides the cursor of a terminal.
    shown = "\x1b[?25h" if sys.stderr.isatty() else ""
    os.write(sys.stderr.fileno(), f"{shown}adallava sweep: {message}\n".encode())


def how_to_go_on(command: str, free: str = ANY_NUMBER) -> str:
    """Say that nothing is lost, and what goes on; `free` is what may be another by then."""
    return f"every answer so far is kept; to continue, with {free}: {command}"
