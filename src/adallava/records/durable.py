"""Files that survive being killed at any byte, and a full disk: whole, or as they were."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from adallava.errors import RunFolderError

PARTIAL_SUFFIX = ".partial"
"""Of a file that is not whole yet, after its name."""


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, if it is not there.

    Raises:
        RunFolderError: if it cannot be made, as where a file has its name.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(f"folder {folder} cannot be made ({error.strerror}): name another") from error


def append_durably(file: IO[bytes], lines: Iterable[bytes]) -> None:
    """Add lines to a file, and return when they are on disk.

    Raises:
        RunFolderError: if they cannot be written, as on a full disk.
    """
    try:
        file.writelines(lines)
        file.flush()
        os.fsync(file.fileno())
    except OSError as error:
        raise RunFolderError(
            f"{file.name} cannot be written ({error.strerror}): what was written before is kept; once that is fixed, "
            "the same command continues"
        ) from error


@contextmanager
def writing(path: Path, mode: str) -> Iterator[IO[bytes]]:
    """Open a file for `append_durably`, whose error is not to be replaced by that of closing."""
    file: IO[bytes] = path.open(mode)
    try:
        yield file
    finally:
        close_file(file)


def close_file(file: IO[bytes]) -> None:
    """Close a file whose lines are on disk, or were reported not to be: closing would try those once more."""
    with suppress(OSError):
        file.close()


def write_atomically(path: Path, data: Iterable[bytes]) -> None:
    """Replace `path` by pieces of `data`: a reader, or a kill, meets the old file or the new one and never a part.

    Raises:
        RunFolderError: if they cannot be written; the old file stays, and nothing is left next to it.
    """
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
    # What a kill has left; or a stranger's link or pipe, which opening would follow or wait on.
    partial.unlink(missing_ok=True)
    try:
        with writing(partial, "wb") as file:
            append_durably(file, data)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    os.replace(partial, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
