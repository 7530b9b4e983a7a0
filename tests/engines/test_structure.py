"""Arguments of a captured stage come apart into tensors and a key, and go together again."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from adallava.engines.host_constants import collect, supply
from adallava.engines.structure import UnknownPartError, shape_of, tensors_in, with_tensors


@dataclass(frozen=True)
class Pair:
    one: Tensor
    other: tuple[Tensor, int] | None
    name: str = "a"


def test_apart_and_together_again() -> None:
    value = (Pair(torch.zeros(2), (torch.ones(3), 5)), {"x": torch.tensor(7)}, None)
    assert [tensor.numel() for tensor in tensors_in(value)] == [2, 3, 1]
    doubled = with_tensors(value, iter([tensor + 1 for tensor in tensors_in(value)]))
    assert doubled[0].other[1] == 5
    assert doubled[1]["x"] == 8
    assert doubled[0].one.tolist() == [1.0, 1.0]
    assert shape_of(value) != shape_of(doubled), "on the host"


def test_what_lies_on_the_host_decides() -> None:
    """Sizes of pictures are a tensor too, and say how tiles lie."""
    assert shape_of(torch.tensor([300, 400])) != shape_of(torch.tensor([350, 300]))
    assert shape_of(torch.empty(2, device="meta")) == shape_of(torch.empty(2, device="meta"))


def test_what_is_no_tensor_is_in_the_key() -> None:
    keys = {
        shape_of((torch.zeros(2), 1)),
        shape_of((torch.zeros(2), 2)),
        shape_of((torch.zeros(3), 1)),
        shape_of((torch.zeros(2, dtype=torch.float64), 1)),
        shape_of((Pair(torch.zeros(2), None), 1)),
        shape_of((Pair(torch.zeros(2), None, "b"), 1)),
    }
    assert len(keys) == 6
    with pytest.raises(UnknownPartError, match="set"):
        shape_of(({1, 2},))


def test_host_constants_are_given_in_order() -> None:
    """On a meta device, where nothing can come from the host later."""
    moved: list[Tensor] = []

    def work() -> None:
        moved.extend(torch.tensor([number]).to("meta") for number in (1, 2))

    constants = collect(work)
    assert [constant.device.type for constant in constants] == ["meta", "meta"]
    moved.clear()
    supply(work, [torch.empty(3, dtype=torch.int64, device="meta"), torch.empty(5, dtype=torch.int64, device="meta")])
    assert [len(tensor) for tensor in moved] == [3, 5], "what is given, and not what the work would bring"
    with pytest.raises(RuntimeError, match="brings more"):
        supply(work, constants[:1])
