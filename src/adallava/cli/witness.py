"""Who speaks for a process that is killed: a child of it, forked early, that outlives it."""

import os
import signal
from contextlib import suppress
from types import TracebackType
from typing import NoReturn

from adallava.errors import AdallavaError

from .last_words import say

_TOLD_BY_THE_COMMAND_LINE = (AdallavaError, OSError, KeyboardInterrupt)


class Witness:
    """A child that says one line if this process ends without having said why.

    A killed process says nothing, and its launcher only that it was killed. The child waits in a read of a pipe whose
    other end falls with this process: it takes no time, and, forked before torch is imported, some megabytes. Nobody's
    signals reach it, so it also speaks when the whole launch is ended.

    As a context: what leaves it is told by whoever is outside, but for an error that nobody foresaw.
    """

    def __init__(self, message: str) -> None:
        """Start the child."""
        gone, self._here = os.pipe()
        if os.fork() == 0:
            os.close(self._here)
            _watch(gone, message)
        os.close(gone)

    def dismiss(self) -> None:
        """Let the child go: this process speaks for itself. A signal's handler may call this, and at any moment."""
        with suppress(OSError):
            os.write(self._here, b".")

    def __enter__(self) -> "Witness":
        """Return the witness itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let the child go, unless the error is one that ends with a traceback."""
        if error is None or isinstance(error, _TOLD_BY_THE_COMMAND_LINE):
            self.dismiss()


def _watch(pipe: int, message: str) -> NoReturn:
    try:
        os.setsid()  # out of the group that a launcher ends
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        if not os.read(pipe, 1):
            say(message)
    finally:
        os._exit(0)
