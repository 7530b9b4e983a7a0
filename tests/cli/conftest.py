"""The model that commands are run on, and the server of processes of their own."""

from collections.abc import Iterator
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
