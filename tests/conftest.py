"""Fixtures that many tests share: one tiny random checkpoint a session, and prompts for it."""

import gc
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

# A busy machine is no failure. Each run draws other examples: what few of them miss, the next finds.
settings.register_profile("adallava", deadline=None, max_examples=25)
settings.load_profile("adallava")

# No test may ask a hub, not even for a model that does not exist.
os.environ["HF_HUB_OFFLINE"] = "1"
# Kernels run on the CPU, too: Triton looks when it is imported.
os.environ["TRITON_INTERPRET"] = "1"

# Packages and tests are a million objects that stay: looking at them again and again takes a twentieth of the run.
gc.disable()

if TYPE_CHECKING:
    from adallava import AdaLlava


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.set_threshold(10_000)
    gc.enable()


@pytest.fixture
def logged() -> Iterator[list[logging.LogRecord]]:
    """What any library logs from WARNING on, as it comes."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = records.append  # type: ignore[method-assign]
    root, theirs = logging.getLogger(), logging.getLogger("transformers")
    loggers = [root] if theirs.propagate else [root, theirs]
    for logger in loggers:
        logger.addHandler(handler)
    yield records
    for logger in loggers:
        logger.removeHandler(handler)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llava with processor and random adapters, saved in stock format. Do not write to it."""
    from models import tiny_llava

    return tiny_llava(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def full(tiny_folder: Path) -> "AdaLlava":
    """The full-token model of `tiny_folder`; `full.with_method(…)` gives the others."""
    from adallava import AdaLlava

    return AdaLlava.from_pretrained(str(tiny_folder), method="full", device="cpu")


@pytest.fixture(scope="session")
def inputs(full: "AdaLlava") -> dict[str, Any]:
    """Three prompts of different lengths, one image each, padded on the left."""
    from models import tiny_inputs

    return tiny_inputs(full.processor, ["what is it?", "is the colour red or blue?", "why?"])
