"""`cls-attention`: the K tokens that the tower's class token looks at most."""

from typing import ClassVar

from adallava.selection.base import Method
from adallava.selection.selector_contract import Need, Selection, SelectionInput, TowerShape, keep_highest


class ClsAttentionSelector(Method):
    """Keeps the K tokens with the largest attention of CLS, averaged over heads.

    FasterVLM (Zhang et al., "[CLS] Attention is All You Need for Training-Free Visual Token Pruning", arXiv 2412.01818,
    renamed VisPruner since; code Theia-4869/FasterVLM, `llava_arch.py`, `encode_images`), which reads `attentions[-2]`
    of LLaVA-1.5's tower: the layer that puts out the features, as here. Ours returns ascending indices.
    """

    name: ClassVar[str] = "cls-attention"
    reads_question: ClassVar[bool] = False
    needs: ClassVar[frozenset[Need]] = frozenset({Need.CLS_TOKEN, Need.FEATURE_LAYER})

    def select(self, inputs: SelectionInput) -> Selection:
        """Choose exactly `inputs.keep_counts[i]` tokens of image i."""
        assert inputs.feature_layer is not None
        scores = inputs.feature_layer.cls_attention().mean(dim=1)
        return keep_highest(scores, inputs.keep_counts)

    def flops(self, shape: TowerShape, num_question_tokens: int, keep_count: int) -> int:
        """Return the products of the class token's query with N + 1 keys."""
        return 2 * (shape.num_vision_tokens + 1) * shape.layer_width
