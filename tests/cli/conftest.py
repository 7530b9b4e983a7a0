"""The model that commands are run on, and the server of processes of their own."""

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from rank_server import RankServer


@pytest.fixture(scope="session")
def model(tiny_folder: Path) -> str:
    """The tiny random checkpoint, as `--model` names it."""
    return str(tiny_folder)


@pytest.fixture(scope="session")
def server(tiny_folder: Path) -> Iterator[RankServer]:
    """It imports torch and transformers once for every process that is forked from it."""
    server = RankServer(tiny_folder)
    yield server
    server.close()


@pytest.fixture
def ray_environment() -> Iterator[dict[str, str]]:
    """Of a shell in which `ray` and `adallava` are found, and a cluster that is nobody else's; all of it is ended."""
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # short: Ray puts sockets below it
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    mine = {"PATH": path, "RAY_TMPDIR": folder, "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    yield {**os.environ, **mine}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"RAY_TMPDIR={folder}".encode() in (process / "environ").read_bytes().split(b"\0"):
                os.kill(int(process.name), signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)
