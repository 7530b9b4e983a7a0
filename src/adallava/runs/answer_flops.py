"""The FLOPs of one answer: the model's, the method's, and what the model made for the method."""

from collections.abc import Sequence

from adallava.costs.flops import answer_flops, kv_bytes
from adallava.costs.parts import ModelCosts
from adallava.costs.towers_run import towers_run
from adallava.errors import AdallavaError
from adallava.model import AdaLlava
from adallava.records import WhatRan
from adallava.runs.inside_cost import inside_selector_flops
from adallava.scheduling.scheduler_contract import TokenScheduler
from adallava.selection.layer_contract import LayerSelector
from adallava.selection.selector_contract import (
    AskedAttention,
    AttentionMethod,
    Need,
    ResizingMethod,
    Selector,
    TowerShape,
)

MAX_CHOICE_FLOPS = 10**18
"""For one image: more than any model takes for a whole answer."""


def count_flops(
    model: AdaLlava,
    costs: ModelCosts | None,
    ran: WhatRan,
    question: str,
    answer_length: int,
    num_beams: int = 1,
) -> dict[str, int]:
    """Return the FLOPs of an answer by part; nothing for a model whose parts are not counted.

    Args:
        model: with the method that ran.
        costs: of the parts of the model without it.
        ran: what was kept.
        question: for a method that reads its words.
        answer_length: new tokens; of a search, those that it wrote.
        num_beams: rows of the LLM: transformers runs the prefill for each of them, too.
    """
    if costs is None:
        return {}
    needs = frozenset() if model.selector is None else model.selector.needs
    # A method that keeps no token never runs the tower: the model answers as if there were no image.
    images = [model.shape.of_grid(grid) for grid in ran.grids] if ran.tokens_kept else []
    sizes = [image.num_vision_tokens for image in images]
    entering = sizes if isinstance(model.selector, LayerSelector) else [len(kept) for kept in ran.kept_indices]
    # An image that keeps every patch passes through the stock tower, without a budget token.
    keeps_all = ran.tokens_kept == ran.num_vision_tokens
    running = costs.with_budget_token() if Need.BUDGET_TOKEN in needs and not keeps_all else costs
    flops = answer_flops(
        running,
        num_images=len(images),
        num_vision_tokens=sum(sizes),
        tokens_kept_per_image=entering[: len(images)],
        prompt_length=ran.prompt_length,
        answer_length=answer_length,
        selector_flops=_selector_flops(model, costs, ran, question, images),
        tokens_kept_by_layer=ran.tokens_kept_by_layer,
        tokens_per_image=sizes,
        towers=towers_run(running.vision, ran, model.selector, model.shape.num_vision_tokens),
        tower_layers_read=len(needs & {Need.FEATURE_LAYER, Need.LAST_LAYER}),
        attentions_read=[one.of_class_token for one in _asked_attention(model.selector)],
        projects_all=Need.PROJECTED in needs,
        layer_shares=ran.layer_shares,
        scheduler_flops=_scheduler_flops(model, ran),
    )
    return flops | {part: num_beams * flops[part] for part in ("prefill", "decode")}


def _asked_attention(selector: object) -> tuple[AskedAttention, ...]:
    return selector.asked_attention if isinstance(selector, AttentionMethod) else ()


def count_kv_bytes(
    model: AdaLlava, costs: ModelCosts | None, ran: WhatRan, answer_length: int, num_beams: int = 1
) -> int | None:
    """Return the bytes of an answer's keys and values at its end. Arguments as for `count_flops`."""
    if costs is None:
        return None
    by_layer = ran.tokens_kept_by_layer or (ran.tokens_kept,) * len(costs.llm.layers)
    return num_beams * kv_bytes(
        costs.llm,
        [ran.prompt_length - ran.tokens_kept + count for count in by_layer],
        answer_length,
        bytes_per_value=model.dtype.itemsize,
        layer_shares=ran.layer_shares,
    )


def _scheduler_flops(model: AdaLlava, ran: WhatRan) -> int:
    if not ran.latency_tokens or not isinstance(model.scheduler, TokenScheduler):
        return 0
    return model.scheduler.flops()


def _selector_flops(
    model: AdaLlava, costs: ModelCosts, ran: WhatRan, question: str, images: Sequence[TowerShape]
) -> int:
    """Return the FLOPs of choosing over the images that the tower saw, and of merging."""
    selector = model.selector
    if selector is None or not images:
        return 0
    if isinstance(selector, LayerSelector):
        return inside_selector_flops(selector, images, costs.llm, ran)
    num_question_tokens = ran.prompt_length - ran.tokens_kept - ran.latency_tokens
    if Need.WORDS in selector.needs:
        num_question_tokens = model.num_words(question)
    pairs = list(zip(images, ran.kept_indices, strict=True))
    own = sum(said_flops(selector, image, num_question_tokens, len(kept)) for image, kept in pairs)
    if selector.merges and not isinstance(selector, ResizingMethod):
        # What is added after layers is merged alike, from features of the same width.
        of_levels = (2 * image.num_vision_tokens * len(kept) * image.vision_width for image, kept in pairs if kept)
        own += costs.added_layers * sum(of_levels) * (ran.tokens_kept < ran.num_vision_tokens)
    return own + len(images) * model.text_tower_flops(question)


def said_flops(selector: Selector, image: TowerShape, num_question_tokens: int, keep_count: int) -> int:
    """Return what a method says that choosing costs; see `Selector.flops`.

    Raises:
        AdallavaError: if it is not a number of FLOPs that anything takes.
    """
    said: object = selector.flops(image, num_question_tokens, keep_count)
    if not isinstance(said, int) or isinstance(said, bool) or not 0 <= said <= MAX_CHOICE_FLOPS:
        raise AdallavaError(
            f"method {selector.name!r} says that choosing {keep_count} of {image.num_vision_tokens} tokens costs "
            f"{f'{said!r}'[:80]} FLOPs: its `flops` must return a whole number from 0 to 10^18"
        )
    return said
