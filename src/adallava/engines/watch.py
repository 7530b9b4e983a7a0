"""Tells whether a model is still the one that graphs were captured from: they read its weights by address."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from adallava.families.quantization import part_names


class ModelWatch:
    """Looks at some modules: at their weights' places, their children, and their hooks.

    Weights that change in place, as in training or when a LoRA is merged, are read by every graph as they are. What is
    put in another place, another type, or under another module is seen here.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        """Remember where everything is now. `modules` holds all of them, children too."""
        self._tables = [table for module in modules for table in (module._parameters, module._buffers) if table]
        self._families = [module._modules for module in modules if module._modules]
        self._hooks = [hooks for module in modules for hooks in (module._forward_hooks, module._forward_pre_hooks)]
        named = [(number, part_names(tensor)) for number, tensor in enumerate(self._held())]
        self._quantized = [(number, names) for number, names in named if names]
        tensors = self._tensors()
        self._places = [tensor.data_ptr() for tensor in tensors]
        self._children = self._modules()
        self._seen_hooks = self._hook_ids()
        self._states = [vars(module) for module in modules]
        self._numbers = list(range(len(tensors)))

    def unchanged(self) -> bool:
        """Return whether everything is where it was."""
        tensors = self._tensors()
        return (
            len(tensors) == len(self._places)
            and _lie_at(tensors, self._places, self._numbers)
            and self._modules() == self._children
            and self._hook_ids() == self._seen_hooks
            and not any("forward" in state for state in self._states)
        )

    def _hook_ids(self) -> list[tuple[int, ...]]:
        return [tuple(hooks) for hooks in self._hooks if hooks]

    def _tensors(self) -> list[Tensor]:
        """Return the tensors that lie somewhere: a quantized weight is made of several, and lies nowhere itself."""
        tensors = self._held()
        for number, (first, *others) in self._quantized:
            if number < len(tensors):
                weight = tensors[number]
                tensors[number] = getattr(weight, first, weight)
                tensors += [getattr(weight, name, weight) for name in others]
        return tensors

    def _held(self) -> list[Tensor]:
        return [tensor for table in self._tables for tensor in table.values() if tensor is not None]

    def _modules(self) -> list[nn.Module | None]:
        return [module for family in self._families for module in family.values()]


def _lie_at(tensors: list[Tensor], places: list[int], numbers: list[int]) -> bool:
    """Return whether tensors lie at places: hundreds of them before every answer, so by one call where there is one."""
    at_once: Any = getattr(torch._C, "_tensors_data_ptrs_at_indices_equal", None)
    if at_once is not None:
        return bool(at_once(tensors, places, numbers))
    return all(tensor.data_ptr() == place for tensor, place in zip(tensors, places, strict=True))
