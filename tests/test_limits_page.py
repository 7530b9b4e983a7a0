"""The page of limits names those that the code has."""

import re
from importlib import import_module
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[1] / "docs" / "reference" / "limits.md").read_text()
LIMITS = re.findall(r"^\| [^|]+ \| ([0-9,]+)( [A-Za-z]+)? \| `([\w.]+)\.(\w+)` \|$", PAGE, re.MULTILINE)
UNITS = {"": 1, "s": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def test_the_page_has_its_limits() -> None:
    assert len(LIMITS) == len(re.findall(r"^\| .+ \| `[\w.]+` \|$", PAGE, re.MULTILINE)) > 25


@pytest.mark.parametrize(("value", "unit", "module", "name"), LIMITS, ids=lambda part: str(part).strip())
def test_a_limit_of_the_page_is_the_codes(value: str, unit: str, module: str, name: str) -> None:
    stated = int(value.replace(",", "")) * UNITS[unit.strip()]
    assert getattr(import_module(f"adallava.{module}"), name) == stated
