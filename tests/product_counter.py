"""PyTorch's FLOP counter for tests that count hundreds of answers: its formulas, asked of few operations.

`FlopCounterMode` asks of every operation, each time anew, whether it is made of others, which takes longer than the
answer. Here that is asked once of each kind. `tests/runs/test_answer_flops.py` holds it to `FlopCounterMode`.
"""

from contextlib import ExitStack
from typing import Any, Self

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from torch.utils.module_tracker import ModuleTracker

_ROTARY = ("rotary_emb", "patch_positional_embedding")


class ProductCounter:
    """Counts what is run within it, but for rotary positions: some versions make them by a matrix product."""

    def __init__(self) -> None:
        self.flops = 0
        self._modules = ModuleTracker()
        self._entered = ExitStack()

    def __enter__(self) -> Self:
        self._entered.enter_context(self._modules)
        self._entered.enter_context(_Operations(self))
        return self

    def __exit__(self, *raised: object) -> None:
        self._entered.close()

    def count(self, flops: int) -> None:
        if not any(name.endswith(_ROTARY) for name in self._modules.parents):
            self.flops += flops


def _grouped(rows: Any, weights: Any, *_: Any, **__: Any) -> int:
    """Return the FLOPs of rows, [T, in], of which each meets the weights, [experts, in, out], of one expert alone."""
    return 2 * int(rows.shape[0] * weights.shape[-2] * weights.shape[-1])


_NOT_IN_PYTORCH = {torch.ops.aten._grouped_mm: _grouped}
"""Formulas of products that PyTorch's counter leaves out: with transformers' default, the experts of a mixture."""

_undivided: set[Any] = set()
"""Operations that are made of no others. PyTorch does not change its mind within a process."""


class _Operations(TorchDispatchMode):
    def __init__(self, counter: ProductCounter) -> None:
        super().__init__()
        self._counter = counter

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        formula = flop_registry.get(func.overloadpacket) or _NOT_IN_PYTORCH.get(func.overloadpacket)
        if formula is None and func not in _undivided:
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
            _undivided.add(func)
        result = func(*args, **kwargs)
        if formula is not None:
            self._counter.count(int(formula(*args, **kwargs, out_val=result)))
        return result
