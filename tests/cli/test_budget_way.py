"""The way of a budget and of a latency from the command line to K and to the layers: who takes it and hands it on.

Counted are functions that are given the value, a list with it, or an object of which it is a field. Who only carries a
whole request or sweep, with the value somewhere inside it, is not: in a sweep these are five modules more.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from models import tiny_image
from sweep_inputs import sweep

import adallava
from adallava.budget import Latency, TokenBudget
from adallava.cli.main import main
from adallava.records.cells import CellPlan

SRC = Path(adallava.__file__).parent

BUDGET, LATENCY = "0.37", "0.61"
ASKED = ("--token-budget", BUDGET, "--latency", LATENCY, "--scheduler", "first")

BEFORE_AND_BESIDE = {"cli/main.py", "budget.py"}
"""Who has the words of the command line before they are read, and who reads a budget for all."""


def carries(thing: Any, value: str, *, opened: bool = False) -> bool:
    """Return whether a thing is the value, or several with it, or has it in a field of its own (not in one's field)."""
    if isinstance(thing, str | float | TokenBudget | Latency):
        return str(thing) == value
    if isinstance(thing, list | tuple | Mapping):
        each = thing.values() if isinstance(thing, Mapping) else thing
        return any(carries(one, value, opened=opened) for one in each)
    is_ours = isinstance(thing, argparse.Namespace) or type(thing).__module__.startswith("adallava.")
    fields = vars(thing).values() if is_ours and hasattr(thing, "__dict__") else ()
    return not opened and any(carries(field, value, opened=True) for field in fields)


def modules_with(frame: FrameType | None, value: str) -> Iterator[str]:
    """Yield the modules of the functions on a stack that were given the value, as an argument that carries it."""
    while frame is not None:
        path, code = Path(frame.f_code.co_filename), frame.f_code
        if path.is_relative_to(SRC):
            packed = bool(code.co_flags & 0x04) + bool(code.co_flags & 0x08)  # *args, **kwargs
            taken = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount + packed]
            if any(carries(frame.f_locals.get(name), value) for name in taken):
                yield path.relative_to(SRC).as_posix()
        frame = frame.f_back


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    """Modules by value, filled as it is read from text, asked of the model, and resolved."""
    found: dict[str, set[str]] = {BUDGET: set(), LATENCY: set()}

    def watch(kind: Any, name: str, values: tuple[str, ...], own: set[str]) -> None:
        plain = getattr(kind, name)

        def watched(*given: Any) -> Any:
            for value in values:
                on_way = {*modules_with(sys._getframe(1), value)} - BEFORE_AND_BESIDE
                found[value] |= on_way | (own if on_way else set())
            return plain(*given)

        monkeypatch.setattr(kind, name, staticmethod(watched) if hasattr(plain, "__self__") else watched)

    for kind, value in ((TokenBudget, BUDGET), (Latency, LATENCY)):
        watch(kind, "parse", (value,), set())
        watch(kind, "resolve", (value,), set())
    watch(CellPlan, "call", (BUDGET, LATENCY), {"records/cells.py"})
    return found


OF_GENERATE = {"model_calls.py", "pipeline/call.py", "pipeline/program.py", "pipeline/allocate.py"}
"""Who has both in `AdaLlava.generate`; a token budget, which layers need not know, also has a plan of the prompt."""

OF_TOKENS = {"pipeline/prepare.py", "pipeline/layout.py"}


@pytest.mark.parametrize("command", ["sweep", "generate"])
def test_a_budget_reaches_the_gather_by_ten_modules_and_six_of_generate(
    command: str, model: str, ways: dict[str, set[str]], tmp_path: Path
) -> None:
    if command == "sweep":
        answerer = "runs/answering.py"
        assert sweep(model, tmp_path / "run", "--limit", "1", "--method", "uniform", *ASKED, "--no-report") in (0, 1)
    else:
        answerer = "runs/one_question.py"
        tiny_image().save(tmp_path / "a.png")
        asked = ["--model", model, "--method", "uniform", "--image", str(tmp_path / "a.png"), "--question", "what?"]
        assert main(["generate", *asked, *ASKED, "--no-image", "--max-new-tokens", "2"]) in (0, 1)
    before = {f"cli/{command}.py", "records/config.py", "records/cells.py", answerer}
    assert ways == {BUDGET: before | OF_GENERATE | OF_TOKENS, LATENCY: before | OF_GENERATE}
