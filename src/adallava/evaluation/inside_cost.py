"""What a method inside the LLM costs beside the layers: the rows of attention it asks for, and its own products."""

from itertools import pairwise

from adallava.costs.flops import asked_attention_flops
from adallava.costs.shapes import LLMShape
from adallava.generation.output import RunRecord
from adallava.selection.contract import TowerShape
from adallava.selection.layer_contract import LayerSelector


def inside_selector_flops(
    selector: LayerSelector, shape: TowerShape, llm: LLMShape, ran: RunRecord, num_text_tokens: int
) -> int:
    """Return the FLOPs of choosing for one sample, over all its images.

    Text in front of a picture is counted as if it stood behind it: a chat template's few tokens, of raters only.

    Args:
        selector: the method.
        shape: of the tower.
        llm: of the LLM.
        ran: what was kept.
        num_text_tokens: of the prompt.
    """
    total = 0
    by_layer = ran.tokens_kept_by_layer or (ran.tokens_kept,) * llm.layers
    for kept in ran.kept_indices:
        drops = selector.schedule(llm.layers, shape.num_vision_tokens, len(kept))
        total += selector.flops(shape, num_text_tokens, drops)
        counts = [shape.num_vision_tokens, *(drop.keep_count for drop in drops)]
        for drop, (before, after) in zip(drops, pairwise(counts), strict=True):
            if after < before:
                length = num_text_tokens + by_layer[drop.layer - 1]
                total += asked_attention_flops(llm, length, selector.num_raters(num_text_tokens))
    return total
