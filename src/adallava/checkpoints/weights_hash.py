"""What identifies weights: SHA-256 of gigabytes, in threads of their own, while other things load."""

import hashlib
import mmap
import os
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Semaphore, Thread

from adallava.checkpoints.files import weight_files

_MAX_FILES_AT_ONCE = 8
_PIECE_BYTES = 64 * 2**20
"""Hashed at once: a thread waits for Python's lock after each piece, and an import may hold that for milliseconds."""


@dataclass(frozen=True)
class _FileState:
    """A file as it is now: written again, it is another one."""

    path: Path
    size: int
    changed_ns: tuple[int, int, int]


def begin_weights_sha256(folder: Path) -> tuple[Future[str], ...]:
    """Begin to hash the weights of a folder in the background, file by file, unless that is done or under way.

    Raises:
        CheckpointError: if there are none.
    """
    return _begin(tuple(_state(path) for path in weight_files(folder)))


def weights_sha256(folder: str | Path) -> str:
    """Return what identifies the weights of a model folder: the SHA-256 of its safetensors file.

    Of several files, it is the SHA-256 of their digests (the digits, in order of the names), so that they can be read
    side by side: one after the other takes longer than loading the model.

    Raises:
        CheckpointError: if there are none.
    """
    digests = [begun.result() for begun in begin_weights_sha256(Path(folder))]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as pages, memoryview(pages) as view:
                for start in range(0, len(view), _PIECE_BYTES):
                    with view[start : start + _PIECE_BYTES] as piece:
                        digest.update(piece)
    return digest.hexdigest()


def _state(path: Path) -> _FileState:
    found = path.stat()
    return _FileState(path.absolute(), found.st_size, (found.st_mtime_ns, found.st_ctime_ns, found.st_ino))


@cache
def _begin(files: tuple[_FileState, ...]) -> tuple[Future[str], ...]:
    turns = Semaphore(_MAX_FILES_AT_ONCE)
    begun = tuple(Future[str]() for _ in files)
    for file, future in zip(files, begun, strict=True):
        # A daemon: a command that ends with a mistake does not wait for gigabytes that nobody asks for any more.
        Thread(target=_hash, args=(file.path, future, turns), name="sha256", daemon=True).start()
    return begun


def _hash(path: Path, future: Future[str], turns: Semaphore) -> None:
    with turns:
        try:
            future.set_result(sha256_of(path))
        except BaseException as error:  # whatever it is, whoever asks for the hash is told
            future.set_exception(error)
