"""`heads`: groups of attention heads, each with its slice of the MLP: AdaLLaVA-H (arXiv 2503.10905, section 3.2).

A group is made of whole key-value heads with all query heads that read them, so that grouped-query attention needs no
exception: 32 heads in 4 groups are the paper's groups of 8.
"""

import math
from typing import ClassVar

from adallava.errors import UnsupportedModeError
from adallava.scheduling.latency_token_scheduler import LatencyTokenScheduler
from adallava.scheduling.scheduler_contract import DecoderShape, Units, prefix_of


class HeadsScheduler(LatencyTokenScheduler):
    """Runs the n groups after the prefix with the highest logits, of whichever layers.

    Args:
        shape: of the LLM.
        groups: parts of a layer; None = 4, or as many of them as divide the key-value heads.
        prefix_layers: P; None = half of the layers, as in the paper.
        num_frequencies, codebook, codebook_plans: see `LatencyTokenScheduler`.
    """

    name: ClassVar[str] = "heads"

    def __init__(
        self,
        shape: DecoderShape,
        *,
        groups: int | None = None,
        prefix_layers: int | None = None,
        num_frequencies: int = 128,
        codebook: int | None = None,
        codebook_plans: list[str] | None = None,
    ) -> None:
        """Make fresh weights for an LLM of `shape`.

        Raises:
            UnsupportedModeError: if its key-value heads or its MLP cannot be split evenly.
        """
        groups = math.gcd(4, shape.kv_heads) if groups is None else groups
        units = Units(shape.num_layers, prefix_of(shape, prefix_layers), groups)
        super().__init__(units, shape.width, num_frequencies, codebook, codebook_plans or ())
        held = {} if codebook_plans is None else {"codebook_plans": codebook_plans}
        self.config = {
            "groups": groups,
            "prefix_layers": units.prefix_layers,
            "num_frequencies": num_frequencies,
            **held,
        }

    def units(self, shape: DecoderShape) -> Units:
        """Return `groups` units a layer after the prefix.

        Raises:
            UnsupportedModeError: if the LLM's key-value heads or its MLP cannot be split evenly.
        """
        groups = self._units.groups
        if groups < 1 or shape.kv_heads % groups or shape.mlp_width % groups:
            raise UnsupportedModeError(
                f"{shape.kv_heads} key-value heads and {shape.mlp_width} neurons cannot be split into {groups} groups: "
                "give a number of groups that divides both"
            )
        return super().units(shape)
