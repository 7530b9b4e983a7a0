"""The folder that fuzzed task files are read in."""

from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With one picture, which files may name."""
    Image.new("RGB", (3, 3), "red").save(tmp_path / "red.png")
    return tmp_path
