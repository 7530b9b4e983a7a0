"""`pyramiddrop`: three drops, at a quarter, a half and three quarters of the layers, each by the same factor."""

from typing import ClassVar

from adallava.errors import UnsupportedModeError
from adallava.selection.last_token import RankedByLastToken
from adallava.selection.layer_contract import Drop

_DROPS = 3


class PyramidDropSelector(RankedByLastToken):
    """PyramidDrop (Xing et al. 2024, section 3.2, arXiv 2410.17247).

    Four stages of equal depth. Between two stages the vision tokens are ranked by the attention that the last token
    of the question would pay them in the next stage's first layer, averaged over heads. The paper keeps a ratio of
    each stage's tokens, 0.5 by default; a budget states the last stage's K, so that the ratio is (K / N)^(1/3):
    K = N / 8 is the paper's 0.5.

    Against the authors' code (Cooperx521/PyramidDrop, commit 6444f30, modeling_llama_pdrop.py): the same choice. What
    differs: the authors count positions again after each drop, which is `positions="compact"` here, while "original"
    keeps them; they cut counts with int(), we round; batches may be padded on the left; several images keep a share
    each, where their code drops from the first; in training they average over the tokens before every answer of a
    conversation, we rank by the one before the first.
    """

    name: ClassVar[str] = "pyramiddrop"

    def schedule(self, num_layers: int, num_vision_tokens: int, keep_count: int) -> tuple[Drop, ...]:
        """Return the three drops, counts falling geometrically from N to K.

        Raises:
            UnsupportedModeError: for an LLM of fewer than 4 layers.
        """
        if num_layers <= _DROPS:
            raise UnsupportedModeError(
                f"pyramiddrop has 4 stages, and this LLM has {num_layers} layers: choose another method"
            )
        ratio = keep_count / num_vision_tokens
        drops = []
        for stage in range(1, _DROPS + 1):
            layer = stage * num_layers // (_DROPS + 1)
            count = round(num_vision_tokens * ratio ** (stage / _DROPS))
            drops.append(Drop(layer, layer, keep_count if stage == _DROPS else max(keep_count, count)))
        return tuple(drops)
