"""One small base, driven by stock `generate` and by the passes of the graphs without graphs."""

from pathlib import Path
from typing import Any

import pytest
from models import six_layers, tiny_inputs

from adallava import AdaLlava

QUESTIONS = ["what is it?", "is the colour red or blue?", "why?"]


@pytest.fixture(scope="session")
def full(tiny_folder: Path) -> AdaLlava:
    """The full-token Llava on stock `generate`."""
    return AdaLlava.from_pretrained(str(tiny_folder), method="full", device="cpu", engine="stock")


@pytest.fixture(scope="session")
def eager(full: AdaLlava) -> AdaLlava:
    """The same base on our passes."""
    return full.with_engine("eager")


@pytest.fixture(scope="session")
def six(full: AdaLlava) -> AdaLlava:
    """A base with six layers, for schedulers."""
    return six_layers(full)


@pytest.fixture(scope="session")
def inputs(full: AdaLlava) -> dict[str, Any]:
    """Three prompts of different lengths, one picture each."""
    return tiny_inputs(full.processor, QUESTIONS)
