"""`fastv`: after the second layer, the K tokens that the end of the prompt looked at most."""

from typing import ClassVar

from adallava.selection.last_token import RankedByLastToken
from adallava.selection.layer_contract import Drop
from adallava.selection.one_drop import check_layer, one_drop


class FastVSelector(RankedByLastToken):
    """FastV (Chen et al. 2024, "An Image is Worth 1/2 Tokens After Layer 2", section 4.1, arXiv 2403.06764).

    Ranks vision tokens by the attention that the prompt's last token pays them in layer `layer` (counted from 1),
    averaged over heads, and keeps the K highest in all later layers. The paper's default: layer 2.

    Against the authors' code (pkunlp-icler/FastV, commit d165972, modeling_llama.py, "Token Drop"): the same choice
    and, with the positions "original", the same position ids, which the authors keep too. What differs: one row of
    attention is computed next to SDPA instead of the whole matrix in eager mode; the softmax and the mean over heads
    are in float32, not in the model's format; with a cache, later layers hold the kept tokens alone, where the
    authors' code drops without a cache, or cuts one layer's cache and hands it to all later ones; several images
    keep a share each; and with labels the last token of the question ranks, not that of the answer.

    Args:
        layer: layers that read all tokens.
    """

    name: ClassVar[str] = "fastv"

    def __init__(self, *, layer: int = 2) -> None:
        """Take the layer.

        Raises:
            AdallavaError: for a layer below 1: before it there is no attention to rank by.
        """
        check_layer(self.name, layer)
        self._layer = layer

    def schedule(self, num_layers: int, num_vision_tokens: int, keep_count: int) -> tuple[Drop, ...]:
        """Return the one drop.

        Raises:
            UnsupportedModeError: if no layer would be left after it.
        """
        return one_drop(self.name, self._layer, num_layers, keep_count)
