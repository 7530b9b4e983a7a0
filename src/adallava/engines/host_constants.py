"""Numbers that a stage brings from the host: kept on the device, since a captured stage cannot fetch them.

A method builds small tensors of what it knows on the host (its K, the cells of a grid) and moves them to its device:
the same ones whenever the same stage runs. One pass collects them; the captured one is given them.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_MOVES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)


class _Moves(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Calls `moved` with each tensor that goes from the host to a device, and goes on with what it returns."""

    def __init__(self, moved: Callable[[Tensor, torch.device], Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._moved = moved

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is _MOVES[0] and args[0].device.type == "cpu":
            device = kwargs.get("device")
            if device is not None and torch.device(device).type != "cpu":
                args = (self._moved(args[0], torch.device(device)), *args[1:])
        elif func is _MOVES[1] and args[0].device.type != "cpu" and args[1].device.type == "cpu":
            args = (args[0], self._moved(args[1], args[0].device), *args[2:])
        return func(*args, **kwargs)


def collect(work: Callable[[], object]) -> list[Tensor]:
    """Run work, and return what it brought from the host, in order, on the device."""
    constants: list[Tensor] = []

    def moved(tensor: Tensor, device: torch.device) -> Tensor:
        """Move the tensor, and keep what came of it."""
        constants.append(tensor.to(device))
        return constants[-1]

    with _Moves(moved):
        work()
    return constants


def supply(work: Callable[[], object], constants: list[Tensor]) -> None:
    """Run work with those in the place of what it would bring."""
    left: Iterator[Tensor] = iter(constants)

    def moved(tensor: Tensor, device: torch.device) -> Tensor:
        """Return what came of it the first time, in the same order."""
        constant = next(left, None)
        if constant is None:
            raise RuntimeError("the work brings more from the host than it did before")
        return constant

    with _Moves(moved):
        work()
