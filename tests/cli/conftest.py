"""The model that commands are run on."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def model(tiny_folder: Path) -> str:
    """The tiny random checkpoint, as `--model` names it."""
    return str(tiny_folder)
