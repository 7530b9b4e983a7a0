"""Stages before the LLM, replayed: the store of graphs is one that runs its work again."""

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from adallava.engines.captured_stages import CapturedStages
from adallava.errors import AdallavaError
from adallava.families.tower_kernels import TowerKernels


@dataclass
class Store:
    """In the place of `GraphStore`, which needs CUDA."""

    works: dict[Hashable, Callable[[], None]] = field(default_factory=dict)
    captured: int = 0

    def capture(self, key: Hashable, work: Callable[[], None]) -> None:
        self.captured += 1
        work()
        self.works[key] = work

    def replay(self, key: Hashable) -> None:
        assert key in self.works

    def holds(self, key: Hashable) -> bool:
        return key in self.works

    def drop(self, key: Hashable) -> None:
        self.works.pop(key, None)


class Refusing(Store):
    def capture(self, key: Hashable, work: Callable[[], None]) -> None:
        raise AdallavaError("it waits for the device")


class Owner:
    def __init__(self) -> None:
        self.factor = 2.0
        self.told: dict[str, int] = {}


def stages(store: Any) -> CapturedStages:
    return CapturedStages(store, nn.Linear(1, 1), threading.RLock(), TowerKernels())


def doubled(tensor: Tensor, times: int = 1) -> Tensor:
    return tensor * 2 * times


def test_the_second_time_it_is_captured_and_one_that_was_thrown_away_again() -> None:
    store, owner = Store(), Owner()
    made = stages(store)
    for _ in range(3):
        made.run(owner, "double", doubled, torch.ones(2))
    assert store.captured == 1
    store.works.clear()
    assert made.run(owner, "double", doubled, torch.ones(2)).tolist() == [2.0, 2.0]
    assert store.captured == 2


def test_options_and_host_values_are_in_the_key() -> None:
    store, owner = Store(), Owner()
    made = stages(store)

    def run(value: float, times: int) -> None:
        for _ in range(2):
            made.run(owner, "double", doubled, torch.full((2,), value), times)

    run(1.0, 1)
    run(1.0, 2)
    run(3.0, 1)
    owner.factor = 3.0
    run(1.0, 1)
    owner.told["a"] = 1
    run(1.0, 1)
    assert store.captured == 5


def test_what_cannot_be_captured_runs_as_it_is() -> None:
    made, owner = stages(Refusing()), Owner()
    assert all(made.run(owner, "double", doubled, torch.ones(1)).item() == 2.0 for _ in range(4))


def test_an_owner_that_cannot_be_compared_is_never_captured() -> None:
    class Slotted:
        __slots__ = ()

    store = Store()
    made = stages(store)
    slotted = Slotted()
    for _ in range(3):
        made.run(slotted, "double", doubled, torch.ones(1))
    assert store.captured == 0
