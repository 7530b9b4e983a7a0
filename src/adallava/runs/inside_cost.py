"""What a method inside the LLM costs besides the layers: the rows of attention it asks for, and its own products."""

from collections.abc import Sequence

from adallava.costs.flops import asked_attention_flops, keys_flops
from adallava.costs.parts import LLMCosts
from adallava.records import WhatRan
from adallava.selection.layer_contract import LayerSelector, reads_states
from adallava.selection.selector_contract import TowerShape


def inside_selector_flops(selector: LayerSelector, images: Sequence[TowerShape], llm: LLMCosts, ran: WhatRan) -> int:
    """Return the FLOPs of choosing for one sample, over all its images.

    Args:
        selector: the method.
        images: the shape of each.
        llm: of the LLM.
        ran: what was kept.
    """
    by_layer = ran.tokens_kept_by_layer or (ran.tokens_kept,) * len(llm.layers)
    num_text_tokens = ran.prompt_length - ran.tokens_kept
    texts = ran.text_behind_images or ()
    schedules = [
        selector.schedule(len(llm.layers), image.num_vision_tokens, len(kept))
        for image, kept in zip(images, ran.kept_indices, strict=True)
    ]
    own = sum(selector.flops(*each) for each in zip(images, texts, schedules, strict=True))
    # Images of one sample are judged in one sequence: its keys are computed once, each image's queries on their own.
    asked = sum(selector.num_raters(text) for text in texts)
    drops = schedules[0] if schedules else ()
    lengths = [
        num_text_tokens + by_layer[drop.layer - 1] for drop in drops if by_layer[drop.layer] < by_layer[drop.layer - 1]
    ]
    norms = sum(keys_flops(llm, length) for length in lengths) if reads_states(selector) else 0
    return own + norms + sum(asked_attention_flops(llm, length, asked) for length in lengths)
