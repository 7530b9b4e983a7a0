"""What a method inside the LLM costs beside the layers: the rows of attention it asks for, and its own products."""

from itertools import pairwise

from adallava.costs.flops import asked_attention_flops
from adallava.costs.shapes import LLMShape
from adallava.generation.output import RunRecord
from adallava.selection.contract import TowerShape
from adallava.selection.layer_contract import LayerSelector


def inside_selector_flops(selector: LayerSelector, shape: TowerShape, llm: LLMShape, ran: RunRecord) -> int:
    """Return the FLOPs of choosing for one sample, over all its images.

    Keys for the rows of attention are counted for each image; of several in one prompt, they are computed once.

    Args:
        selector: the method.
        shape: of the tower.
        llm: of the LLM.
        ran: what was kept.
    """
    total = 0
    by_layer = ran.tokens_kept_by_layer or (ran.tokens_kept,) * llm.layers
    num_text_tokens = ran.llm_sequence_length - ran.tokens_kept
    for kept, text_behind in zip(ran.kept_indices, ran.text_behind_images or (), strict=True):
        drops = selector.schedule(llm.layers, shape.num_vision_tokens, len(kept))
        total += selector.flops(shape, text_behind, drops)
        counts = [shape.num_vision_tokens, *(drop.keep_count for drop in drops)]
        for drop, (before, after) in zip(drops, pairwise(counts), strict=True):
            if after < before:
                length = num_text_tokens + by_layer[drop.layer - 1]
                total += asked_attention_flops(llm, length, selector.num_raters(text_behind))
    return total
