"""What reaches the terminal or a pipe: shown harmlessly, in whatever encoding, also to a reader that has gone."""

import io
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

_HARMFUL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Controls of a terminal (ECMA-48, C0 and C1) but for tab and newline, and those that turn the direction of writing."""


def harmless(text: str) -> str:
    """Return text without what a terminal would obey: each control as a visible sign."""
    return _HARMFUL.sub(lambda match: _sign(match.group()), text)


def say(*lines: object, error: bool = False) -> None:
    """Print lines, harmless ones, to stdout or to stderr."""
    print(*(harmless(str(line)) for line in lines), sep="\n", file=sys.stderr if error else sys.stdout)


def say_json(document: str) -> None:
    """Print a JSON document; what a terminal would obey is escaped as JSON does it, so that it reads back the same."""
    print(_HARMFUL.sub(lambda match: f"\\u{ord(match.group()):04x}" if match.group() > "\x1f" else " ", document))


@contextmanager
def steady_streams() -> Iterator[None]:
    """Let no stream end a command: what its encoding lacks is escaped, and after its reader has gone nothing is said.

    A reader such as `head` goes when it has enough. The command still does its work, and its exit code says how.
    """
    before = sys.stdout, sys.stderr
    for stream in before:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    steady = tuple(_Steady(stream) for stream in before)
    make_record = logging.getLogRecordFactory()
    logging.setLogRecordFactory(_harmless_records(make_record))
    sys.stdout, sys.stderr = (cast(TextIO, stream) for stream in steady)
    try:
        yield
    finally:
        logging.setLogRecordFactory(make_record)
        for stream in steady:
            stream.flush()
        sys.stdout, sys.stderr = before


def _harmless_records(make: Callable[..., logging.LogRecord]) -> Callable[..., logging.LogRecord]:
    """Make log records, of any library, that show what a terminal would obey as signs: they name what is in files."""

    def make_harmless(*args: Any, **kwargs: Any) -> logging.LogRecord:
        """Return the record with signs in place of what a terminal would obey."""
        record = make(*args, **kwargs)
        with suppress(TypeError, ValueError):  # of a message that does not fit its arguments: logging tells of it
            record.msg, record.args = harmless(record.getMessage()), None
        return record

    return make_harmless


class _Steady:
    """A text stream that swallows what nobody reads any more."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write text; return its length."""
        try:
            self._stream.write(text)
        except BrokenPipeError:
            self._lead_nowhere()
        return len(text)

    def flush(self) -> None:
        """Write what is held back."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._lead_nowhere()

    def _lead_nowhere(self) -> None:
        """Lead the file descriptor nowhere: what is held back for it would raise again as Python ends."""
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


def _sign(control: str) -> str:
    code = ord(control)
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else "\ufffd"
