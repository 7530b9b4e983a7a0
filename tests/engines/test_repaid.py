"""A long sweep compiles where the engine may choose; nothing does where no graphs run."""

from typing import Any

import pytest

from adallava import AdaLlava
from adallava.engines.pick import REPAYING_PASSES, Engines


@pytest.mark.parametrize(
    ("name", "passes", "compiles"),
    [("auto", REPAYING_PASSES, True), ("auto", REPAYING_PASSES - 1, False), ("eager", REPAYING_PASSES, False)],
)
def test_who_compiles(full: AdaLlava, monkeypatch: pytest.MonkeyPatch, name: str, passes: int, compiles: bool) -> None:
    engines = Engines(full.base, name)
    asked: list[Any] = []
    monkeypatch.setattr(engines, "_order", lambda: (engines._captured, engines._stock))
    monkeypatch.setattr(engines, "compile", lambda: asked.append(1))
    assert engines.compile_if_repaid(passes) is compiles
    assert bool(asked) is compiles


def test_nothing_is_compiled_without_cuda(full: AdaLlava) -> None:
    assert AdaLlava(full.base, full.processor).prepare_for(10 * REPAYING_PASSES) is False
