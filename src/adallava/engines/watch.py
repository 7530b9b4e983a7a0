"""Tells whether a model is still the one that graphs were captured from: they read its weights by address."""

from collections.abc import Sequence

from torch import nn

Seen = tuple[object, ...]


class ModelWatch:
    """Looks at some modules: at their weights' places, their children, and their hooks.

    Weights that change in place, as in training or when a LoRA is merged, are read by every graph as they are. What is
    put in another place, another type, or under another module is seen here.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        """Remember where everything is now. `modules` holds all of them, children too."""
        self._weights = [(module._parameters, name) for module in modules for name in module._parameters]
        self._buffers = [(module._buffers, name) for module in modules for name in module._buffers]
        self._children = [(module._modules, name) for module in modules for name in module._modules]
        self._hooks = [hooks for module in modules for hooks in (module._forward_hooks, module._forward_pre_hooks)]
        self._modules = modules
        self._seen = self._look()

    def unchanged(self) -> bool:
        """Return whether everything is where it was."""
        return self._look() == self._seen

    def _look(self) -> Seen:
        places = [
            None if (tensor := table.get(name)) is None else tensor.data_ptr()
            for table, name in (*self._weights, *self._buffers)
        ]
        children = [id(table.get(name)) for table, name in self._children]
        return tuple(places), tuple(children), any(self._hooks)
