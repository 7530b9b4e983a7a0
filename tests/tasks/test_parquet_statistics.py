"""Statistics that Arrow ends a process over end no run."""

import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from adallava.tasks.parquet_statistics import SAYS, has_all


@pytest.fixture
def path(tmp_path: Path) -> Path:
    pictures = [{"bytes": b"x", "path": "p"}, {"bytes": b"y", "path": None}]
    pyarrow.parquet.write_table(pyarrow.table({"image": pictures}), tmp_path / "t.parquet")
    return tmp_path / "t.parquet"


def test_what_the_file_says(path: Path) -> None:
    assert has_all(path, "image.bytes")
    assert not has_all(path, "image.path")
    assert not has_all(path, "image.other")


def test_a_footer_that_ends_the_process_says_nothing(path: Path) -> None:
    data = bytearray(path.read_bytes())
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    # In the schema a column of bytes (type 6) becomes one of numbers (type 1), which its statistics are not of.
    place = data.index(b"\x15\x0c", footer)
    data[place + 1] = 2
    path.write_bytes(bytes(data))
    child = subprocess.run([sys.executable, "-c", SAYS, str(path), "image.bytes"], capture_output=True, check=False)
    assert child.returncode < 0, "Arrow ends the process no more: it can be asked in this one"
    assert not has_all(path, "image.bytes")
