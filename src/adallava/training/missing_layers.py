"""Ways of leaving LLM layers out while a base learns to answer without them."""

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

from adallava.families.capabilities.of_llms import decoder_of
from adallava.families.family_contract import Family, RunLayer
from adallava.families.layer_inputs import LayerInputs
from adallava.scheduling.scheduler_contract import Units


def draw_missing_layers(units: Units, lowest_latency: float = 0.0) -> frozenset[int]:
    """Draw how many layers after the prefix are left out, and which: for a base that is to bear it.

    Args:
        units: whole layers; which of them are the prefix.
        lowest_latency: share of the LLM that is left at the least.
    """
    most = max(1, sum(units.share(left) >= lowest_latency for left in range(units.count)))
    count = 1 + int(torch.randint(most, ()))
    return frozenset((units.prefix_layers + torch.randperm(units.count)[:count]).tolist())


def without_layers(family: Family, missing: Collection[int]) -> Any:
    """Return a view of the family's model that passes over some layers."""

    def around(index: int, layer: RunLayer, hidden: Tensor, inputs: LayerInputs) -> Tensor:
        """Run a layer, unless it is missing."""
        return hidden if index in missing else layer(hidden, inputs)

    return decoder_of(family).view(around)
