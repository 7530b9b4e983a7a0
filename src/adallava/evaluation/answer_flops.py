"""The closed-form FLOPs of one answer: the model's, the method's, and what the model made for the method."""

from adallava.costs.flops import answer_flops, kv_bytes
from adallava.costs.shapes import ModelShape, VisionTowerShape, with_patch_side
from adallava.generation.output import RunRecord
from adallava.model import AdaLlava
from adallava.scheduling.contract import TokenScheduler
from adallava.selection.contract import Need, ResizingMethod
from adallava.selection.layer_contract import LayerSelector

from .inside_cost import inside_selector_flops


def count_flops(
    model: AdaLlava, base_shape: ModelShape, ran: RunRecord, question: str, answer_length: int
) -> dict[str, int]:
    """Return the FLOPs of an answer by part.

    Args:
        model: with the method that ran.
        base_shape: of the model without it.
        ran: what was kept.
        question: for a method that reads its words.
        answer_length: new tokens.
    """
    selector, shape = model.selector, model.shape
    needs = frozenset() if selector is None else selector.needs
    kept = _entering(model, ran)
    # An image that keeps every patch passes through the stock tower, without a budget token.
    keeps_all = ran.tokens_kept == ran.num_vision_tokens
    has_budget_token = Need.BUDGET_TOKEN in needs and not keeps_all
    return answer_flops(
        base_shape.with_budget_token() if has_budget_token else base_shape,
        num_images=len(kept),
        num_vision_tokens=len(kept) * shape.num_vision_tokens,
        tokens_kept_per_image=kept,
        prompt_length=ran.llm_sequence_length,
        answer_length=answer_length,
        selector_flops=_selector_flops(model, base_shape, ran, question, kept),
        tokens_kept_by_layer=ran.tokens_kept_by_layer,
        towers=_resized_towers(model, base_shape, kept),
        tower_layers_read=len(needs & {Need.FEATURE_LAYER, Need.LAST_LAYER}),
        projects_all=Need.PROJECTED in needs,
        layer_shares=None if ran.layers is None else ran.layers.layer_shares,
        scheduler_flops=_scheduler_flops(model, ran),
    )


def count_kv_bytes(model: AdaLlava, base_shape: ModelShape, ran: RunRecord, answer_length: int) -> int:
    """Return the bytes of an answer's keys and values at its end. Arguments as for `count_flops`."""
    by_layer = ran.tokens_kept_by_layer or (ran.tokens_kept,) * base_shape.llm.layers
    return kv_bytes(
        base_shape.llm,
        [ran.llm_sequence_length - ran.tokens_kept + count for count in by_layer],
        answer_length,
        bytes_per_value=model.dtype.itemsize,
        layer_shares=None if ran.layers is None else ran.layers.layer_shares,
    )


def _scheduler_flops(model: AdaLlava, ran: RunRecord) -> int:
    if ran.layers is None or not ran.layers.latency_tokens or not isinstance(model.scheduler, TokenScheduler):
        return 0
    return model.scheduler.flops()


def _entering(model: AdaLlava, ran: RunRecord) -> list[int]:
    """Return the vision tokens of each image that enter the LLM."""
    if not ran.tokens_kept:
        # A method that keeps no token never runs the tower: the model answers as if there were no image.
        return []
    if isinstance(model.selector, LayerSelector):
        return [model.shape.num_vision_tokens] * len(ran.kept_indices)
    return [len(indices) for indices in ran.kept_indices]


def _selector_flops(model: AdaLlava, base_shape: ModelShape, ran: RunRecord, question: str, kept: list[int]) -> int:
    selector, shape = model.selector, model.shape
    if selector is None:
        return 0
    if isinstance(selector, LayerSelector):
        return inside_selector_flops(selector, shape, base_shape.llm, ran)
    latency_tokens = 0 if ran.layers is None else ran.layers.latency_tokens
    num_question_tokens = ran.llm_sequence_length - ran.tokens_kept - latency_tokens
    if Need.WORDS in selector.needs:
        num_question_tokens = model.num_words(question)
    own = sum(selector.flops(shape, num_question_tokens, count) for count in kept)
    return own + len(kept) * model.text_tower_flops(question)


def _resized_towers(model: AdaLlava, base_shape: ModelShape, kept: list[int]) -> list[VisionTowerShape] | None:
    """Return the tower as it ran for each image, for a method that sends smaller pictures through it."""
    if not isinstance(model.selector, ResizingMethod):
        return None
    sides = [model.selector.tower_grid(count, model.shape.grid)[0] for count in kept if count]
    return [with_patch_side(base_shape.vision, side) for side in sides]
