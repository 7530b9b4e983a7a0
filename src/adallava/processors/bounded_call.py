"""Runs what a stranger wrote (a chat template) with an end in time and memory."""

import ctypes
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

_ResultT = TypeVar("_ResultT")

_LOOK_EVERY_S = 0.05
_STATM = Path("/proc/self/statm")


class _StoppedError(BaseException):
    """Raised inside the call; no `except Exception` on the way keeps it."""


def call_within(function: Callable[[], _ResultT], *, limit_s: float, limit_bytes: int) -> _ResultT:
    """Return what a call of pure Python returns, or stop it.

    It runs in a thread of its own, because only there can it be stopped from outside, between two steps of Python; a
    single long step in C ends by itself or not at all.

    Args:
        function: to call.
        limit_s: after which it is stopped.
        limit_bytes: by which the process may grow meanwhile (where /proc tells).

    Raises:
        TimeoutError: if it was stopped for its time.
        MemoryError: if it was stopped for its memory.
        Exception: whatever the call raises.
    """
    results: list[_ResultT] = []
    errors: list[BaseException] = []

    def run() -> None:
        """Keep what the call returns or raises."""
        try:
            results.append(function())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    stopped = _watch(thread, limit_s, limit_bytes)
    if stopped is not None:
        raise stopped
    if errors:
        raise errors[0]
    return results[0]


def _watch(thread: threading.Thread, limit_s: float, limit_bytes: int) -> Exception | None:
    """Wait for a thread, and stop it at a limit; return which, or None if it ended by itself."""
    thread.join(_LOOK_EVERY_S)
    if not thread.is_alive():
        return None
    ends, first_bytes = time.monotonic() + limit_s, _resident_bytes()
    stopped: Exception | None = None
    while thread.is_alive() and stopped is None:
        thread.join(_LOOK_EVERY_S)
        if time.monotonic() > ends:
            stopped = TimeoutError(f"it did not end within {limit_s:g} s")
        elif _resident_bytes() - first_bytes > limit_bytes:
            stopped = MemoryError(f"it took more than {limit_bytes} bytes of memory")
    if not thread.is_alive():
        return None
    ends = time.monotonic() + limit_s
    while thread.is_alive() and time.monotonic() < ends:
        # Again and again: one that is raised inside a destructor or a weak reference's callback is lost.
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(_StoppedError))
        thread.join(_LOOK_EVERY_S)
    return stopped


def _resident_bytes() -> int:
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
