"""What identifies weights: SHA-256 of gigabytes, in threads of their own, beside whatever else loads meanwhile."""

import hashlib
import mmap
import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from adallava.checkpoints.files import weight_files

_MAX_FILES_AT_ONCE = 8
_PIECE_BYTES = 64 * 2**20
"""Hashed at once: a thread waits for Python's lock behind each piece, and an import may hold that for milliseconds."""


@dataclass(frozen=True)
class _FileState:
    """A file as it stands: written anew, it is another one."""

    path: Path
    size: int
    changed_ns: tuple[int, int, int]


def begin_weights_sha256(folder: Path) -> Future[list[str]]:
    """Begin to hash the weights of a folder in the background, unless that is done or under way.

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
    digests = begin_weights_sha256(Path(folder)).result()
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
def _begin(files: tuple[_FileState, ...]) -> Future[list[str]]:
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sha256")
    future = pool.submit(_hash_all, [file.path for file in files])
    pool.shutdown(wait=False)
    return future


def _hash_all(paths: Sequence[Path]) -> list[str]:
    with ThreadPoolExecutor(max_workers=min(len(paths), _MAX_FILES_AT_ONCE)) as pool:
        return list(pool.map(sha256_of, paths))
