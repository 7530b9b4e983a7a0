"""`layers`: whole layers, chosen by the latency token: AdaLLaVA-L (arXiv 2503.10905, section 3.2)."""

from typing import ClassVar

from adallava.scheduling.latency_token_scheduler import LatencyTokenScheduler
from adallava.scheduling.scheduler_contract import DecoderShape, Units, prefix_of


class LayersScheduler(LatencyTokenScheduler):
    """Runs the n layers after the prefix with the highest logits.

    Args:
        shape: of the LLM.
        prefix_layers: P; None = half of the layers, as in the paper.
        num_frequencies, codebook, codebook_plans: see `LatencyTokenScheduler`.
    """

    name: ClassVar[str] = "layers"

    def __init__(
        self,
        shape: DecoderShape,
        *,
        prefix_layers: int | None = None,
        num_frequencies: int = 128,
        codebook: int | None = None,
        codebook_plans: list[str] | None = None,
    ) -> None:
        """Make fresh weights for an LLM of `shape`."""
        units = Units(shape.num_layers, prefix_of(shape, prefix_layers))
        super().__init__(units, shape.width, num_frequencies, codebook, codebook_plans or ())
        held = {} if codebook_plans is None else {"codebook_plans": codebook_plans}
        self.config = {"prefix_layers": units.prefix_layers, "num_frequencies": num_frequencies, **held}
