"""Which engine runs a call, and what is said where none can."""

from typing import Any

import pytest

from adallava.engines import ENGINES, pick_engine
from adallava.errors import UnsupportedModeError


class Picky:
    def __init__(self, name: str, reason: str | None) -> None:
        self.name, self.reason = name, reason

    def refusal(self, run: Any, plan: Any) -> str | None:
        return self.reason


def test_the_first_that_can_is_picked() -> None:
    first, second, third = Picky("a", "no beams"), Picky("b", None), Picky("c", None)
    assert pick_engine(None, None, [first, second, third]) is second


def test_where_none_can_each_says_why() -> None:
    with pytest.raises(UnsupportedModeError, match=r"a: no beams; b: no CUDA"):
        pick_engine(None, None, [Picky("a", "no beams"), Picky("b", "no CUDA")])


def test_the_last_one_is_stock_and_can_do_everything() -> None:
    assert ENGINES[-1].name == "stock"
    assert ENGINES[-1].refusal(None, None) is None
