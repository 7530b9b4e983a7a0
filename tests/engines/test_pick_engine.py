"""Which engine runs a call: the first that can, and why not those before it."""

import copy
import pickle
from dataclasses import dataclass
from typing import Any

import pytest
from models import tiny_base

from adallava import AdaLlava
from adallava.engines import Engines, pick_engine
from adallava.engines.warming import TIMES
from adallava.errors import InputError, UnsupportedModeError


@dataclass
class Picky:
    name: str
    reason: str | None

    def refusal(self, run: Any, plan: Any) -> str | None:
        return self.reason


def test_the_first_that_can() -> None:
    first, second, third = Picky("a", "no beams"), Picky("b", None), Picky("c", None)
    assert pick_engine(None, None, [first, second, third]) == (second, "a: no beams")


def test_none_can() -> None:
    with pytest.raises(UnsupportedModeError, match="a: no beams; b: no CUDA"):
        pick_engine(None, None, [Picky("a", "no beams"), Picky("b", "no CUDA")])


def test_names(full: AdaLlava) -> None:
    assert AdaLlava(full.base, full.processor).engine == "stock", "on a CPU"
    with pytest.raises(InputError, match="'fast' is not one of auto, stock"):
        full.with_engine("fast")
    for name in ("graphs", "compiled"):
        with pytest.raises(InputError, match="CUDA"):
            full.with_engine(name)


def test_who_shares_a_base_shares_its_engines(full: AdaLlava) -> None:
    other = full.with_method("uniform")
    assert other.engine == "stock"
    assert other._engines is full._engines


def test_a_copy_drives_its_own_model(full: AdaLlava) -> None:
    model = full.with_engine("eager")
    copied = copy.deepcopy(model)
    assert (copied.engine, copied._engines._model is copied.base) == ("eager", True)
    assert copied.base is not model.base
    # A model that transformers has hooked, as after `generate`, cannot be pickled.
    assert pickle.loads(pickle.dumps(Engines(tiny_base(), "eager"))).preferred == "eager"


def test_warming_up_meets_every_size(full: AdaLlava) -> None:
    cost = full.with_engine("eager").warm_up(batch_sizes=[1, 2], text_tokens=[5, 9, 30], max_new_tokens=2)
    assert cost.calls == 2 * 3 * TIMES
    assert cost.device_bytes == 0
    with pytest.raises(InputError, match=r"batch_sizes \[0\]"):
        full.warm_up(batch_sizes=[0])
    with pytest.raises(UnsupportedModeError, match="nothing to compile"):
        full.warm_up(compiled=True)
