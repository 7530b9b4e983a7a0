"""Tells whether a model is still the one that graphs were captured from: they read its weights by address."""

from collections.abc import Sequence

from torch import nn


class ModelWatch:
    """Looks at some modules: at their weights' places, their children, and their hooks.

    Weights that change in place, as in training or when a LoRA is merged, are read by every graph as they are. What is
    put in another place, another type, or under another module is seen here.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        """Remember where everything is now. `modules` holds all of them, children too."""
        tables = [table for module in modules for table in (module._parameters, module._buffers)]
        self._tensors = [(table, name) for table in tables for name, tensor in table.items() if tensor is not None]
        self._children = [(module._modules, name) for module in modules for name in module._modules]
        self._hooks = [hooks for module in modules for hooks in (module._forward_hooks, module._forward_pre_hooks)]
        self._seen = self._look()

    def unchanged(self) -> bool:
        """Return whether everything is where it was."""
        return self._look() == self._seen

    def _look(self) -> object:
        try:
            return (
                [table[name].data_ptr() for table, name in self._tensors],  # type: ignore[union-attr]
                [id(table[name]) for table, name in self._children],
                sum(map(len, self._hooks)),
            )
        except (KeyError, AttributeError):  # A weight or a child that is no longer there.
            return None
