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
    for process in _started_with(f"RAY_TMPDIR={folder}"):
        with suppress(OSError):
            os.kill(process, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


def _started_with(variable: str) -> set[int]:
    """Return processes that have an environment variable, and their children: Ray's agents write over their own."""
    started, parents = set(), {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parents[int(process.name)] = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            if variable.encode() in (process / "environ").read_bytes().split(b"\0"):
                started.add(int(process.name))
    return started | {process for process, parent in parents.items() if parent in started}
