"""Opening only what is a file: a pipe would be waited on, and a device may never end."""

from pathlib import Path
from typing import IO

from adallava.errors import RunFolderError


def check_regular(path: Path) -> None:
    """Refuse what is there and is neither a file nor a folder. What is not there is up to whoever opens it.

    Raises:
        RunFolderError: naming it.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise RunFolderError(f"{path} is a pipe, a socket or a device: only files are read, take it away")


def open_regular(path: Path) -> IO[bytes]:
    """Open a file to read its bytes.

    Raises:
        RunFolderError: if it is not a file.
        OSError: if it cannot be opened.
    """
    check_regular(path)
    return path.open("rb")


def read_regular(path: Path) -> bytes:
    """Return a file's bytes; raises as `open_regular`."""
    with open_regular(path) as file:
        return file.read()
