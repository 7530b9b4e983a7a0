"""`adallava-heads`: heads and MLP slices, as AdaLLaVA-H's published weights choose them (arXiv 2503.10905).

A layer's MLP is cut into as many slices as it has heads, and every head and every slice after the prefix has a logit
of its own. One unit is `rank` heads and `rank` slices of one layer. The authors take one unit after the other: from the
layer with the highest logit that is left, its best heads and its best slices. Within a layer the best that is left only
falls, so that those n units are the n with the highest best: no loop.

    logits of a layer, rank 2     heads 5 1 4 0   slices 2 3 9 1
    its first unit                heads 0, 2      slices 2, 1       ranked by 9
    its second                    heads 1, 3      slices 0, 3       ranked by 2
"""

from typing import ClassVar

from torch import Tensor

from adallava.errors import UnsupportedModeError
from adallava.scheduling.adallava_token import AdallavaTokenScheduler
from adallava.scheduling.scheduler_contract import (
    DecoderShape,
    LayerParts,
    Schedule,
    ScheduleInput,
    Units,
    prefix_of,
    top_units,
)


class AdallavaHeadsScheduler(AdallavaTokenScheduler):
    """Runs n units of heads and slices after the prefix. `adallava convert` fills it.

    Args:
        shape: of the LLM.
        rank: heads, and slices, of a unit.
        prefix_layers: P; None = half of the layers, as in the paper.
    """

    name: ClassVar[str] = "adallava-heads"

    def __init__(self, shape: DecoderShape, *, rank: int = 8, prefix_layers: int | None = None) -> None:
        """Make fresh weights for an LLM of `shape`.

        Raises:
            UnsupportedModeError: if its heads or its MLP cannot be split so.
        """
        self._heads, self._rank = shape.query_heads, rank
        _check_split(shape, rank)
        units = Units(shape.num_layers, prefix_of(shape, prefix_layers), shape.query_heads // rank)
        layers = units.num_layers - units.prefix_layers
        super().__init__(units, shape.width, 2 * layers * shape.query_heads)
        self.config = {"rank": rank, "prefix_layers": units.prefix_layers}

    def units(self, shape: DecoderShape) -> Units:
        """Return heads / rank units a layer after the prefix.

        Raises:
            UnsupportedModeError: if the LLM's heads or its MLP cannot be split so.
        """
        _check_split(shape, self._rank)
        return super().units(shape)

    def choose(self, logits: Tensor, inputs: ScheduleInput) -> Schedule:
        """Choose the units with the highest best logit, and of each layer as many of its best heads and slices."""
        # [B, layers, heads or slices, H]
        scores = logits.detach().view(len(logits), -1, 2, self._heads)
        best = scores.sort(dim=-1, descending=True).values[..., :: self._rank].amax(dim=2)
        active = top_units(best.flatten(1), inputs.unit_counts)
        taken = self._rank * active.view(best.shape).sum(dim=-1)
        ranks = scores.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
        heads, slices = (ranks < taken[:, :, None, None]).unbind(dim=2)
        return Schedule(active, logits=logits, parts=LayerParts(heads, slices))


def _check_split(shape: DecoderShape, rank: int) -> None:
    if shape.kv_heads != shape.query_heads:
        raise UnsupportedModeError(
            f"adallava-heads needs a key-value head for each query head; this LLM has "
            f"{shape.kv_heads} for {shape.query_heads}: use 'heads'"
        )
    if rank < 1 or shape.query_heads % rank or shape.mlp_width % shape.query_heads:
        raise UnsupportedModeError(
            f"{shape.query_heads} heads and {shape.mlp_width} neurons cannot be split into units of {rank} heads and "
            "as many slices: give a rank that divides the heads, which divide the neurons"
        )
