"""Files that a process holds: the kernel lets go of them when it ends, however it ends."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from adallava.errors import RunFolderError
from adallava.records.regular_files import check_regular, open_regular

_STRAGGLERS_S = 60.0
_POLL_S = 0.1


def lock_file(path: Path) -> IO[bytes]:
    """Open a file to append to, and hold it until it is closed. Waits: somebody may be looking whether it is held."""
    check_regular(path)
    file = path.open("ab")
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


def is_locked(path_or_file: Path | IO[bytes]) -> bool:
    """Return True if some process holds a file, False if it is not there or its holder is gone."""
    if not isinstance(path_or_file, Path):
        return _is_held(path_or_file)
    try:
        with open_regular(path_or_file) as file:
            return _is_held(file)
    except FileNotFoundError:
        return False


@contextmanager
def without_writer(path: Path) -> Iterator[None]:
    """Hold a file that somebody may still be writing for its last time.

    Raises:
        RunFolderError: if that takes longer than a minute.
    """
    deadline = time.monotonic() + _STRAGGLERS_S
    while is_locked(path):
        # A process whose leader is gone notices that after its batch.
        if time.monotonic() > deadline:
            raise RunFolderError(f"a process of an earlier launch is still writing {path}: end it first")
        time.sleep(_POLL_S)
    with lock_file(path):
        yield


def _is_held(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(file, fcntl.LOCK_UN)
    return False
