"""One decoder layer, where each row runs some heads and some of the MLP's neurons: the others add nothing.

    heads    0 1 2 3      row 0 runs 0 and 2: what 1 and 3 read is zero before it is projected
    neurons  0 0 1 1 …    cut into as many equal runs

The whole layer is computed, so that rows may differ; see `head_groups` for layers whose parts are left out.
"""

import copy
from typing import Any, NamedTuple

from torch import Tensor, nn


class Parts(NamedTuple):
    """Which of G equal runs of a layer's heads, and of its MLP's neurons, each row runs.

    Attributes:
        heads: [B, G] bool.
        neurons: [B, G] bool.
    """

    heads: Tensor
    neurons: Tensor


def only_parts(read: Tensor, active: Tensor) -> Tensor:
    """Return features [B, S, W], which lie in G equal runs, with zeros for runs that are not active, [B, G]."""
    runs = active.unsqueeze(-1).expand(-1, -1, read.shape[-1] // active.shape[1])
    return read * runs.reshape(len(active), 1, -1)


def layer_of_parts(layer: nn.Module, parts: Parts) -> nn.Module:
    """Return a layer that runs as the stock one, but for the parts that are not active.

    Args:
        layer: that `head_groups.check_splittable` let pass. It is not changed, and its modules are shared.
        parts: of each row of what it will be called with.
    """
    twin: Any = shallow_copy(layer)
    for name, output, active in (("self_attn", "o_proj", parts.heads), ("mlp", "down_proj", parts.neurons)):
        part = twin._modules[name] = shallow_copy(twin._modules[name])
        part._modules[output] = _OfParts(part._modules[output], active)
    return twin  # type: ignore[no-any-return]


class _OfParts(nn.Module):
    def __init__(self, projection: Any, active: Tensor) -> None:
        super().__init__()
        self._projection, self._active = projection, active

    def forward(self, read: Tensor) -> Tensor:
        """Project the active parts alone."""
        projected: Tensor = self._projection(only_parts(read, self._active))
        return projected


def shallow_copy(module: nn.Module) -> nn.Module:
    """Return a module with the same attributes, parameters and children, whose children can be exchanged."""
    twin = copy.copy(module)
    twin._modules = dict(module._modules)
    return twin
