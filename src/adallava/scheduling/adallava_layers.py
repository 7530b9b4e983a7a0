"""`adallava-layers`: whole layers, as AdaLLaVA-L's published weights choose them (arXiv 2503.10905)."""

from typing import ClassVar

from adallava.scheduling.adallava_token import AdallavaTokenScheduler
from adallava.scheduling.scheduler_contract import DecoderShape, Units, prefix_of


class AdallavaLayersScheduler(AdallavaTokenScheduler):
    """Runs the n layers after the prefix with the highest logits. `adallava convert` fills it.

    Args:
        shape: of the LLM.
        prefix_layers: P; None = half of the layers, as in the paper.
    """

    name: ClassVar[str] = "adallava-layers"

    def __init__(self, shape: DecoderShape, *, prefix_layers: int | None = None) -> None:
        """Make fresh weights for an LLM of `shape`."""
        units = Units(shape.num_layers, prefix_of(shape, prefix_layers))
        super().__init__(units, shape.width, units.count)
        self.config = {"prefix_layers": units.prefix_layers}
