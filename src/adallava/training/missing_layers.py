"""Ways of leaving LLM layers out while a base learns to answer without them."""

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor

from adallava.families.contract import Family


def draw_missing_layers(num_layers: int, prefix_layers: int) -> frozenset[int]:
    """Draw how many layers behind the prefix are left out, and which: for a base that is to bear it."""
    behind = num_layers - prefix_layers
    count = 1 + int(torch.randint(behind, ()))
    return frozenset((prefix_layers + torch.randperm(behind)[:count]).tolist())


def without_layers(family: Family, missing: Collection[int]) -> Any:
    """Return a view of the family's model that passes over some layers."""

    def around(index: int, layer: Callable[..., Tensor], hidden: Tensor, kwargs: dict[str, Any]) -> Tensor:
        return hidden if index in missing else layer(hidden, **kwargs)

    return family.decoder().view(around)
